"""Lets a source's driver run on a clock that is moved by hand."""

from __future__ import annotations

import time

from syncline.sync.measurement import Measurement
from syncline.sync.sources.source import Source
from syncline.timebase import ManualClock
from tests.sync_os.ntp_fakes import S

MS = 1_000_000


def drive(source: Source, clock: ManualClock, seconds: int) -> list[Measurement]:
    """Let a driver run on a clock that is moved by hand."""
    got: list[Measurement] = []
    end = clock.raw_ns() + seconds * S
    while clock.raw_ns() < end:
        got += source.poll(clock.raw_ns())
        time.sleep(0)
        clock.advance(50 * MS)
    return got
