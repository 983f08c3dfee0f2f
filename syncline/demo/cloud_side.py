"""The demo's cloud: a real collector in a process of its own, asked afterwards what it has."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from syncline.cloud.catalog import Catalog
from syncline.cloud.devices import Devices
from syncline.errors import LinkError
from syncline.link.keys import KeyPair, load_public, new_keypair, save_keypair
from syncline.timebase import NS_PER_S, OsClock

START_S = 20.0


@dataclass(frozen=True, slots=True)
class Stored:
    """What the collector has of the demo's boot.

    Attributes:
        records: Records per stream.
        gaps: Streams with a missing number, or a number twice.
        files: Camera segments, whole and verified.
        file_bytes: Their size.
    """

    records: dict[str, int]
    gaps: list[str]
    files: int
    file_bytes: int


class CollectorProcess:
    """`syncline collect` beside the demo, on a free loopback port, with CURVE.

    Args:
        folder: Data folder of the collector.
        device: Name of the device that is enrolled.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self._folder = folder
        keys = folder / "keys"
        save_keypair(new_keypair("server"), keys)
        self.device_keys: KeyPair = new_keypair(device)
        save_keypair(self.device_keys, keys)
        with Catalog.open(folder) as catalog:
            Devices(catalog).enrol(load_public(keys / f"{device}.pub"))
        self.server_key = load_public(keys / "server.pub").public
        self.endpoint = f"tcp://127.0.0.1:{_free_port()}"
        self._log = (folder / "collector.log").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [
                *_COMMAND,
                "collect",
                f"--data={folder}",
                f"--keys={keys}",
                f"--listen={self.endpoint}",
            ],
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def _wait_ready(self) -> None:
        assert self._process.stdout is not None
        if not first_line(self._process.stdout, START_S).startswith(b"listening"):
            raise LinkError(
                f"the collector did not start within {START_S:g} s; see {self._log.name}",
                remedy="Run: syncline collect --data DIR",
            )

    def close(self) -> None:
        """Stop the collector; it drains."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


_COMMAND = (sys.executable, "-m", "syncline")


def first_line(pipe: IO[bytes], timeout_s: float) -> bytes:
    """The first line of a pipe, or what there is of it when it ends or the time is over."""
    clock = OsClock()
    end_ns = clock.raw_ns() + round(timeout_s * NS_PER_S)
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while b"\n" not in line and (left_ns := end_ns - clock.raw_ns()) > 0:
            if selector.select(left_ns / NS_PER_S):
                data = os.read(pipe.fileno(), 4096)
                if not data:
                    break
                line += data
    return line.partition(b"\n")[0]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def stored(folder: Path, device: str, boot_id: str) -> Stored:
    """Count what the collector has of a boot."""
    with Catalog.open(folder) as catalog:
        records, gaps = {}, []
        for stream in catalog.streams(device, boot_id):
            numbers = [seq for seq, _, _ in catalog.records(device, boot_id, stream)]
            records[stream] = len(numbers)
            if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
                gaps.append(stream)
        uploads = catalog.uploads(device)
    return Stored(records, gaps, len(uploads), sum(u.size for u in uploads))


def wait_for_files(folder: Path, device: str, count: int, timeout_s: float) -> None:
    """Wait until the collector has so many camera segments; bounded."""
    clock = OsClock()
    end_ns = clock.raw_ns() + round(timeout_s * NS_PER_S)
    while clock.raw_ns() < end_ns:
        with Catalog.open(folder) as catalog:
            if len(catalog.uploads(device)) >= count:
                return
        clock.sleep_until(clock.raw_ns() + NS_PER_S // 10)
