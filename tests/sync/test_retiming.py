"""Revisions of mapping segments: continuous, monotone, closer to the truth, inside their bounds."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from syncline.errors import ClockError, LogError
from syncline.log.revisions import read_revisions, revisions_path, write_revisions
from syncline.sync.estimator import TimeEstimator
from syncline.sync.measurement import Measurement, SourceKind, exchange
from syncline.sync.publish import measurement_message, measurement_of
from syncline.sync.retiming import revise
from syncline.timebase import NS_PER_S, MappingSegment, Timebase

RAW0 = 5_000 * NS_PER_S
UTC0 = 1_800_000_000 * NS_PER_S
PPM = 12e-6


def truth(raw_ns: int) -> int:
    return UTC0 + round((raw_ns - RAW0) * (1 + PPM))


def drive(seed: int, hole: tuple[int, int]) -> tuple[list[Measurement], list[MappingSegment], int]:
    """An NTP drive of 1200 s with a hole, and the segments published live each 30 s."""
    rng = np.random.default_rng(seed)
    live = TimeEstimator("boot")
    measurements: list[Measurement] = []
    segments: list[MappingSegment] = []
    for second in range(0, 1200, 8):
        if hole[0] <= second < hole[1]:
            continue
        t1 = RAW0 + second * NS_PER_S
        there, back = (500_000 + int(rng.exponential(80_000)) for _ in range(2))
        m = exchange(
            "ntp", t1, truth(t1 + there), truth(t1 + there) + 20_000, t1 + there + 20_000 + back
        )
        live.update(m)
        measurements.append(m)
        if second % 32 == 0:
            found = live.segment(m.known_raw_ns)
            if found is not None and (not segments or found.id != segments[-1].id):
                segments.append(found)
    return measurements, segments, RAW0 + 1200 * NS_PER_S


@pytest.mark.parametrize("seed", range(3))
def test_sync_12_revisions_are_continuous_monotone_and_no_worse(seed: int) -> None:
    measurements, segments, end_ns = drive(seed, (400, 800))
    revised = revise(segments, measurements, end_ns)
    assert [s.id for s in revised] == [s.id for s in segments]
    assert all(n.revision == o.revision + 1 for n, o in zip(revised, segments, strict=True))
    live, after = Timebase("boot"), Timebase("boot")
    for old, new in zip(segments, revised, strict=True):
        live.add(old)
        after.add(new)
    for a, b in itertools.pairwise(revised):
        assert abs(a.utc_ns(b.raw0_ns) - b.utc0_ns) <= 2
    raw = np.linspace(segments[0].raw0_ns, end_ns, 4000).astype(np.int64)
    true = np.array([truth(int(r)) for r in raw])
    before, now = live.utc(raw), after.utc(raw)
    assert (np.diff(now.utc_ns) > 0).all()
    error_before, error_now = np.abs(before.utc_ns - true), np.abs(now.utc_ns - true)
    assert np.median(error_now) <= np.median(error_before) * 1.02 + 200
    assert (error_now <= now.bound_ns).all()
    inside_hole = (raw > RAW0 + 420 * NS_PER_S) & (raw < RAW0 + 780 * NS_PER_S)
    assert error_now[inside_hole].max() <= max(error_before[inside_hole].max(), 5_000)


def test_a_timebase_takes_the_revision_and_a_record_keeps_its_segment() -> None:
    measurements, segments, end_ns = drive(1, (0, 0))
    timebase = Timebase("boot")
    for segment in segments:
        timebase.add(segment)
    for segment in revise(segments, measurements, end_ns):
        assert timebase.add(segment)
        assert not timebase.add(segments[0])
    assert timebase.segment(segments[0].id).revision == 1


def test_nothing_to_revise_is_a_clear_error() -> None:
    with pytest.raises(ClockError, match="no mapping segment"):
        revise([], [], RAW0)
    _, segments, end_ns = drive(2, (0, 0))
    with pytest.raises(ClockError, match="no usable measurement"):
        revise(segments, [], end_ns)


def test_measurements_survive_the_log() -> None:
    m = Measurement("gnss0", SourceKind.PPS, 7, 9, 1, 2, 3, 11, inflation=2.5, stratum=4)
    assert measurement_of(measurement_message(m, "boot")) == m


def test_revisions_lie_beside_the_recording_and_damage_is_named(tmp_path: Path) -> None:
    _, segments, _ = drive(3, (0, 0))
    assert read_revisions(tmp_path) == []
    path = write_revisions(tmp_path, segments)
    assert path == revisions_path(tmp_path)
    assert read_revisions(tmp_path) == segments
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, max(len(whole) // 40, 1)):
        path.write_bytes(whole[:cut])
        with pytest.raises(LogError, match=r"retimed\.json"):
            read_revisions(tmp_path)
