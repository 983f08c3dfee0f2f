"""Cameras that fail on command, for tests of the daemon's parts."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from syncline.errors import MediaError
from syncline.sensors.adapter import Health, HealthState
from syncline.sensors.frame import FrameEvent, RawFrame, Stamp
from syncline.timebase import Clock


def raw_frame(sequence: int, t_ns: int) -> RawFrame:
    return RawFrame(
        camera="c",
        sequence=sequence,
        device_ticks=None,
        driver=Stamp(t_ns, Clock.MONOTONIC_RAW, FrameEvent.EOF),
        arrival=Stamp(t_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL),
        exposures=(),
        payload=np.zeros((4, 4, 3), np.uint8),
    )


class FakeRecording:
    """An adapter that notes which threads read and close it."""

    def __init__(self, count: int = 1_000_000, period_ns: int = 1_000_000) -> None:
        self.count, self.period_ns = count, period_ns
        self.read_by: set[int] = set()
        self.closed_by: list[int] = []
        self.decoding = threading.Lock()
        self.closed_while_decoding = False

    def open(self) -> None:
        return

    def frames(self) -> Iterator[RawFrame]:
        for at in range(self.count):
            with self.decoding:
                self.read_by.add(threading.get_ident())
                frame = raw_frame(at, at * self.period_ns)
            yield frame

    def health(self) -> Health:
        return Health(HealthState.OK)

    def close(self) -> None:
        self.closed_while_decoding |= self.decoding.locked()
        self.closed_by.append(threading.get_ident())


class BrokenRecording(FakeRecording):
    """Fails to open while `broken`."""

    broken = True

    def open(self) -> None:
        if self.broken:
            raise MediaError("gone.mp4 cannot be read", remedy="Bring it back")
