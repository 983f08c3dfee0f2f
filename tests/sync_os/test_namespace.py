"""A real chronyd in a network namespace, reached over a veth pair, taken away and back."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncline.sync.config import NtpServer, TimeConfig
from syncline.sync.page import PageReader
from syncline.sync.services import build_service
from syncline.timebase import Clock, OsClock, TimeState, paired_read
from tests.sync_os.conftest import find, stop

S = 1_000_000_000
CLOCK = OsClock()


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def far_server(tmp_path: Path) -> Iterator[str]:
    """Address of a chronyd behind a veth pair; its link's name follows from the process id."""
    find("ip")
    daemon = find("chronyd")
    number = os.getpid() % 10_000
    space, near, far = f"slns{number}", f"slv{number}a", f"slv{number}b"
    net = f"10.213.{number % 200}"
    ip("netns", "add", space)
    process = None
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far)
        ip("link", "set", far, "netns", space)
        ip("addr", "add", f"{net}.1/30", "dev", near)
        ip("link", "set", near, "up")
        ip("netns", "exec", space, "ip", "addr", "add", f"{net}.2/30", "dev", far)
        ip("netns", "exec", space, "ip", "link", "set", far, "up")
        config = tmp_path / "chrony.conf"
        config.write_text(
            f"local stratum 1\nallow {net}.0/30\ncmdport 0\npidfile {tmp_path}/pid\n"
            f"bindaddress {net}.2\n"
        )
        command = [
            "ip",
            "netns",
            "exec",
            space,
            daemon,
            "-x",
            "-d",
            "-u",
            "root",
            "-f",
            str(config),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield f"{net}.2 {near}"
    finally:
        if process is not None:
            stop(process)
        for words in (["link", "del", near], ["netns", "del", space]):
            subprocess.run(["ip", *words], capture_output=True, check=False)


@pytest.mark.root
def test_a_server_that_goes_away_and_comes_back(far_server: str, tmp_path: Path) -> None:
    """sync-37 (with real packets): synchronised over the link, holdover while it is down, the bound
    grows; back within a few exchanges; the mapping is right all the time."""
    address, link = far_server.split()
    service = build_service(
        TimeConfig(
            page=str(tmp_path / "page"), status="",
            ntp=(NtpServer(host=address, min_poll=0, max_poll=0, interleaved=True),),
        ),
        CLOCK,
    )  # fmt: skip
    bounds = []

    def run(seconds: float) -> None:
        end = CLOCK.raw_ns() + round(seconds * S)
        while CLOCK.raw_ns() < end:
            service.step()
            service.wait()
            pair = paired_read(Clock.REALTIME)
            known = service.conductor.utc(pair.raw_ns)
            if known is not None:
                assert abs(known.utc_ns - pair.other_ns) <= known.bound_ns
                bounds.append(known.bound_ns)

    run(6)
    assert service.conductor.state is TimeState.SYNCED
    synced = bounds[-1]
    subprocess.run(["ip", "link", "set", link, "down"], check=True)
    run(4)
    assert bounds[-1] > synced
    assert service.sources[0].health().message
    subprocess.run(["ip", "link", "set", link, "up"], check=True)
    end = time.monotonic() + 15
    while time.monotonic() < end and bounds[-1] > 2 * synced:
        run(0.5)
    assert bounds[-1] <= 2 * synced
    reader = PageReader(tmp_path / "page")
    assert reader.segment().state is TimeState.SYNCED
    reader.close()
    service.close()
