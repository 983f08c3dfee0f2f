"""Cost of reading the mapping: ratios to bare work in the same run (make bench)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from syncline.sync.page import PageReader, PageWriter
from syncline.timebase import MappingSegment, Timebase, TimeState

S = 1_000_000_000
RAW = 10**12 + S
SEGMENT = MappingSegment(
    1, 0, "b", 10**12, 18 * 10**17, 1.5e-6, (1.0, 2.0, 3.0), 4.0, 1000, 1000.0,
    TimeState.SYNCED, ("ntp:a",),
)  # fmt: skip
pytestmark = pytest.mark.bench


def cpu_ns(work: Callable[[], object], count: int) -> float:
    """CPU nanoseconds a call, best of seven."""
    best = float("inf")
    for _ in range(7):
        began = time.process_time_ns()
        for _ in range(count):
            work()
        best = min(best, (time.process_time_ns() - began) / count)
    return best


def test_sync_38_scalar_conversion_through_the_page(tmp_path: Path) -> None:
    """sync-38: UTC of one record through the page; limit 2 us on an idle core, and a ratio to the
    bare line in Python that holds on any machine."""
    writer = PageWriter(tmp_path / "page")
    writer.write(SEGMENT, 0)
    reader = PageReader(tmp_path / "page")
    raw0, utc0, rate = SEGMENT.raw0_ns, SEGMENT.utc0_ns, SEGMENT.rate

    def bare() -> int:
        dt = RAW - raw0
        return utc0 + dt + round(dt * rate)

    base = cpu_ns(bare, 20_000)
    utc = cpu_ns(lambda: reader.segment().utc_ns(RAW), 20_000)
    full = cpu_ns(lambda: reader.utc(RAW), 20_000)
    print(f"bare {base:.0f} ns, UTC {utc:.0f} ns, with sigma, bound and state {full:.0f} ns")
    assert utc <= 6 * base
    assert full <= 14 * base
    reader.close()
    writer.close()


def test_sync_38_array_conversion() -> None:
    """sync-38: a million records over 100 segments; ratio to one affine map over the array."""
    base = Timebase("b")
    for i in range(100):
        at = i * 160 * S
        base.add(MappingSegment(
            i + 1, 0, "b", 10**12 + at, 18 * 10**17 + at, 1.5e-6, (1.0, 2.0, 3.0), 4.0, 1000,
            1000.0, TimeState.SYNCED, ("ntp:a",),
        ))  # fmt: skip
    rng = np.random.default_rng(1)
    raw = np.sort(rng.integers(10**12, 10**12 + 16_000 * S, 1_000_000))

    def affine() -> object:
        dt = raw - SEGMENT.raw0_ns
        return dt + np.rint(dt * SEGMENT.rate).astype(np.int64) + SEGMENT.utc0_ns

    one = cpu_ns(affine, 3) / raw.size
    full = cpu_ns(lambda: base.utc(raw), 3) / raw.size
    print(f"UTC alone {one:.1f} ns a record, with sigma, bound and state {full:.1f} ns")
    assert full <= 14 * one
