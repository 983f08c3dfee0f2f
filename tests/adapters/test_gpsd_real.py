"""The adapter against a real gpsd, whose receiver is a recording that is played on a line."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from syncline.sensors.adapter import HealthState
from syncline.sensors.adapters.gnss_log import GnssLog
from syncline.sensors.adapters.gpsd_receiver import GpsdReceiver
from tests.adapters.live_made import until

pytestmark = pytest.mark.soak
GPSD = shutil.which("gpsd") or "/usr/sbin/gpsd"


def test_epochs_come_through_gpsd_and_it_may_be_started_again(shared_data: Path) -> None:
    if not Path(GPSD).exists():
        pytest.skip("gpsd is not installed: scripts/system-packages")
    path = shared_data / "gnss" / "gpsd" / "ublox-8.log"
    places = {
        sample.payload.utc_ns: getattr(sample.payload, "latitude_deg", None)
        for sample in GnssLog(path).frames()
    }
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    receiver = GpsdReceiver(("127.0.0.1", port))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: [found.append(s) for s in receiver.frames()])  # type: ignore[func-returns-value]
    with played(path) as line:
        thread.start()
        try:
            for round_ in range(2):
                with served(line, port):
                    wanted = len(found) + 8
                    until(lambda n=wanted: len(found) >= n, 30.0)  # type: ignore[misc]
                    assert receiver.health().reconnects == round_
                until(lambda: receiver.health().state is HealthState.GONE)
        finally:
            receiver.close()
            thread.join(5.0)
    located = [sample.payload for sample in found if sample.payload.fix_mode >= 2]
    assert len(located) > 8
    for reading in located:
        assert reading.latitude_deg == pytest.approx(places[reading.utc_ns], abs=1e-6)
    assert all(b.arrival.t_ns >= a.arrival.t_ns for a, b in pairwise(found))
    assert (receiver.health().errors, receiver.health().state) == (0, HealthState.CLOSED)


@contextmanager
def played(path: Path) -> Iterator[str]:
    """A line on which a recording is played over and over, five epochs a second."""
    ends = pty.openpty()
    for end in ends:
        tty.setraw(end)
    stop = threading.Event()

    def play() -> None:
        while not stop.is_set():
            for line in path.read_bytes().splitlines(keepends=True):
                os.write(ends[0], line)
                if stop.wait(0.2 if b"RMC" in line else 0.0):
                    return

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    yield os.ttyname(ends[1])
    stop.set()
    thread.join(5.0)
    for end in ends:
        os.close(end)


@contextmanager
def served(line: str, port: int) -> Iterator[None]:
    command = [GPSD, "-N", "-n", "-S", str(port), line]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one:
        try:
            yield
        finally:
            one.terminate()
            one.wait(5.0)
