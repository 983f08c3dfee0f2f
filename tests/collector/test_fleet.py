"""Many devices on one collector (link-40, link-41, link-42); full counts in the soak."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from syncline.cloud.collector import Collector, CollectorOptions
from syncline.link.sockets import dealer
from syncline.link.wire import Data, Hello, pack, pack_body

from ..link.rig import Rig  # noqa: TID252
from .fleet import PAYLOAD, enrol
from .fleet_run import run_fleet


class Slow:
    """The system's files, with a write that waits: a stalled sink."""

    def __init__(self) -> None:
        from syncline.spool import OsDisk

        self._disk = OsDisk()
        self.stalled = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def fdatasync(self, fd: int) -> None:
        while self.stalled:
            time.sleep(0.05)


def test_link_41_a_hundred_devices(tmp_path: Path) -> None:
    """link-41 with 100 devices x 5 records/s: all on <= 10 s, RSS <= 256 MB, every one acked."""
    figures = run_fleet(tmp_path, 100, 2)
    assert figures.welcomed == 100
    assert figures.on_s <= 10
    assert figures.acked == figures.sent == 1000
    assert figures.rss_mb <= 256


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_link_41_a_thousand_devices(tmp_path: Path) -> None:
    """link-41 at full count: all on, every record acked, RSS <= 256 MB; its times are a bench.

    The collector, which also stores, takes at most three times the CPU of the fleet.
    """
    figures = run_fleet(tmp_path, 1000, 20)
    assert figures.welcomed == 1000
    assert figures.acked == figures.sent == 100_000
    assert figures.rss_mb <= 256
    assert figures.collector_cpu_s <= 3 * figures.own_cpu_s


def _storm(rig: Rig, n: int) -> tuple[float, float]:
    """The collector restarts under `n` connected devices; returns (seconds to all, spread)."""
    keys = enrol(rig.folder / "data", n)
    rig.start()
    members = []
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 20_000)
    back: dict[int, float] = {}
    poller = zmq.Poller()
    for i, key in enumerate(keys):
        sock = dealer(context, rig.server.public, key)
        monitor = sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        poller.register(monitor, zmq.POLLIN)
        members.append((i, sock, monitor))
        sock.connect(rig.listen)
    numbers = {monitor: i for i, _, monitor in members}

    def gather(seconds: float) -> None:
        began = time.monotonic()
        while len(back) < n and time.monotonic() - began < seconds:
            for monitor, _ in poller.poll(100):
                monitor.recv_multipart()
                back.setdefault(numbers[monitor], time.monotonic())

    gather(60)
    assert len(back) == n
    assert rig.collector is not None
    rig.collector.close()
    back.clear()
    time.sleep(2)
    began = time.monotonic()
    rig.start()
    gather(60)
    times = sorted(t - began for t in back.values())
    for _, sock, monitor in members:
        sock.disable_monitor()
        monitor.close(linger=0)
        sock.close(linger=0)
    context.term()
    assert len(times) == n
    return times[-1], times[len(times) * 9 // 10] - times[len(times) // 10]


def test_link_42_fifty_devices_come_back(rig: Rig) -> None:
    """link-42 with 50 devices: all back <= 30 s; the soak's 1,000 also show the spread."""
    last, _ = _storm(rig, 50)
    assert last <= 30


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_link_42_a_thousand(rig: Rig) -> None:
    """link-42 at full count."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    last, spread = _storm(rig, 1000)
    print(f"all back after {last:.1f} s, middle 80 % within {spread:.1f} s")
    assert last <= 30
    assert spread > 0.2


def _flood(rig: Rig, flooders: int, each: int) -> float:
    """Devices that ignore every window on a stalled sink; returns the growth of memory in MB."""
    disk = Slow()
    keys = enrol(rig.folder / "data", flooders)
    collector = Collector(
        rig.folder / "data", rig.listen, rig.server, disk=disk,
        options=CollectorOptions(budget_bytes=64 << 20),
    )  # fmt: skip
    collector.start()
    rig.collector, rig.listen = collector, collector.endpoint
    me = psutil.Process()
    disk.stalled = True
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    body = pack_body([(0, PAYLOAD + b"\x0a\x80\x8d\x06" + b"x" * 100_000)])
    before = me.memory_info().rss
    most = 0
    socks = []
    for key in keys:
        sock = dealer(context, rig.server.public, key)
        sock.set(zmq.SNDHWM, 2)
        sock.connect(rig.listen)
        sock.send(pack(Hello(1, key.name, "boot", [])))
        socks.append(sock)
    sent = [0] * flooders
    end = time.monotonic() + 4
    while time.monotonic() < end:
        for i, sock in enumerate(socks):
            if sent[i] >= each:
                continue
            try:
                frame = pack(Data(1, sent[i], 1, 1, sent[i], "boot", "/health", body))
                sock.send(frame, zmq.NOBLOCK)
                sent[i] += 1
            except zmq.Again:
                continue
        most = max(most, me.memory_info().rss - before)
    assert collector.health().waiting_bytes <= (64 << 20) + (1 << 20)
    disk.stalled = False
    for sock in socks:
        sock.close(linger=0)
    context.term()
    return most / 2**20


def test_link_40_flooders_on_a_stalled_sink(rig: Rig) -> None:
    """link-40: 20 devices x 1,000 x 100 kB that ignore the window: memory stays bounded."""
    grown_mb = _flood(rig, 20, 1000)
    print(f"memory grew by {grown_mb:.0f} MB (flooders included)")
    assert grown_mb <= 512
