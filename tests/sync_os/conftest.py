"""Real servers for the system tests: a chronyd on loopback that leaves every clock alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Chronyd:
    """A running chronyd of a test."""

    folder: Path
    ntp_port: int
    command_port: int
    sock: Path


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find(program: str) -> str:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{program} is not installed: scripts/system-packages")
    return path


def start_chronyd(folder: Path, extra: str = "") -> tuple[Chronyd, subprocess.Popen[bytes]]:
    """Start `chronyd -x` (it never touches the system clock) with a configuration of its own."""
    daemon = find("chronyd")
    folder.chmod(0o750)
    made = Chronyd(folder, free_udp_port(), free_udp_port(), folder / "refclock.sock")
    config = folder / "chrony.conf"
    config.write_text(
        f"port {made.ntp_port}\ncmdport {made.command_port}\nbindaddress 127.0.0.1\n"
        f"bindcmdaddress 127.0.0.1\nallow 127.0.0.1\nlocal stratum 2\npidfile {folder}/pid\n"
        f"bindcmdaddress {folder}/command.sock\n{extra.replace('SOCKET', str(made.sock))}\n"
    )
    user = ["-u", "root"] if os.geteuid() == 0 else ["-U"]
    command = [daemon, "-x", "-d", *user, "-f", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(0.3)
    if process.poll() is not None:
        text = process.stderr.read().decode() if process.stderr else ""
        pytest.skip(f"chronyd does not start here: {text.strip()[-300:]}")
    return made, process


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.fixture(scope="session")
def chronyd() -> Iterator[Chronyd]:
    """One NTP server for the whole session."""
    with tempfile.TemporaryDirectory(prefix="syncline-chronyd-") as folder:
        made, process = start_chronyd(Path(folder))
        yield made
        stop(process)


@pytest.fixture
def chronyd_with_socket() -> Iterator[Chronyd]:
    """A chronyd whose only source is the refclock socket that we feed."""
    with tempfile.TemporaryDirectory(prefix="syncline-chronyd-") as folder:
        extra = "refclock SOCK SOCKET refid SYNC poll 1 precision 1e-6 filter 4"
        made, process = start_chronyd(Path(folder), extra)
        yield made
        stop(process)
