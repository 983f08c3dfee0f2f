"""Acceptance cases sensors-18 to sensors-24: frame numbers, triggers, latency, anchor."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import SensorDataError
from syncline.sensors.align import align_start
from syncline.sensors.anchor import identify_anchor
from syncline.sensors.assign import assign_slots
from syncline.sensors.frame import Anchor, FrameEvent, Quality, Stamp
from syncline.sensors.index import infer_indices
from syncline.sensors.simulate import SCENARIOS, simulate, simulate_triggers
from syncline.sensors.trigger import MatchKind, TriggerMatcher, match_arrays
from syncline.timebase import Clock

from .helpers import PERIOD_NS, arrived, load_trace

ANCHORS = (Anchor.TRIGGER, Anchor.READOUT)


def wrong_and_slip(got: np.ndarray, truth: np.ndarray) -> tuple[float, int]:
    off = got - truth
    return float(np.mean(off != np.median(off))), int(off[-1] - np.median(off[:2000]))


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("scenario", list("ABC"))
def test_numbers_from_arrival_alone(shared_data: Path, scenario: str, anchor: Anchor) -> None:
    """sensors-18: final slip 0, at most 0.3 % wrong."""
    trace = load_trace(shared_data, scenario, anchor)
    exposure = trace.exposure_ns if anchor is Anchor.TRIGGER else 0
    got, quality = infer_indices(np.maximum.accumulate(trace.arrival_ns - exposure), PERIOD_NS)
    wrong, slip = wrong_and_slip(got, trace.sequence)
    assert slip == 0
    assert wrong <= 0.003
    assert Quality.INFERRED_INDEX in quality
    assert (np.diff(got) > 0).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("skew_ppm", [50.0, -200.0])
def test_numbers_under_ten_percent_drops(seed: int, skew_ppm: float) -> None:
    """sensors-19: 10 % drops and two stalls a minute: no slip."""
    spec = replace(SCENARIOS["C"], seconds=600.0, drop=0.10, stalls_per_min=2.0, skew_ppm=skew_ppm)
    trace = simulate(spec, Anchor.READOUT, seed)
    got, _ = infer_indices(trace.arrival_ns, PERIOD_NS)
    wrong, slip = wrong_and_slip(got, trace.sequence)
    assert slip == 0
    assert wrong <= 0.006


def test_a_grid_that_moves_is_begun_anew() -> None:
    """sensors-37: a camera that comes back with another phase is numbered on, and flagged."""
    first = np.arange(600) * round(PERIOD_NS)
    again = first[-1] + 30_000_000_000 + round(0.45 * PERIOD_NS) + np.arange(600) * round(PERIOD_NS)
    got, quality = infer_indices(np.concatenate([first, again]), PERIOD_NS)
    assert (np.diff(got) > 0).all()
    assert Quality.AMBIGUOUS in quality
    assert (np.diff(got[-500:]) == 1).all()
    assert abs(int(got[600] - got[599]) - 900) <= 1


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True),
    st.integers(0, 2**31),
)
def test_assignment_is_strictly_increasing(slots: list[int], seed: int) -> None:
    """sensors-20: no slot is given twice, whatever the times are."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 33e6 * 31, len(slots))).tolist()
    got = assign_slots(times, [33e6 * s for s in range(31)], 3e5, 33e6)
    assert all(a < b for a, b in pairwise(got))


def test_queue_is_filled_from_the_right() -> None:
    """sensors-18: a stall's queue without loss ends at the latest slot."""
    end = 10.2 * 33e6
    got = assign_slots([end + k for k in range(4)], [33e6 * s for s in range(7, 11)], 3e5, 33e6)
    assert got == [0, 1, 2, 3]
    assert assign_slots([1.0, 2.0], [0.0], 3e5, 33e6) == [-1, -1]


@pytest.mark.parametrize("seed", range(3))
def test_orphans_are_reported(seed: int) -> None:
    """sensors-21, sensors-22: edges without frames, frames without edges, bounces."""
    trace = simulate_triggers(600, seed)
    matcher = TriggerMatcher(trace.period_ns, trace.base_delay_ns)
    _, matches = match_arrays(trace.trigger_ns, trace.arrival_ns, matcher)
    truth = trace.truth()
    used = set(truth[truth >= 0].tolist())
    real = np.flatnonzero(trace.truth_trigger_id >= 0)
    last = int(truth.max())
    lonely = {int(i) for i in real if int(i) not in used and int(i) < last}
    reported = {m.trigger for m in matches if m.kind is MatchKind.NO_FRAME}
    assert len(lonely & reported) >= 0.99 * len(lonely)
    orphans = set(np.flatnonzero(truth < 0).tolist())
    said = {m.frame for m in matches if m.kind is MatchKind.NO_TRIGGER}
    assert len(orphans & said) >= 0.99 * len(orphans)
    assert matcher.bounces == int((trace.truth_trigger_id < 0).sum())
    assert [m.frame for m in matches if m.frame is not None] == list(range(len(trace.arrival_ns)))


def test_live_matching_takes_stamps_and_frames() -> None:
    """sensors-20: the streaming interface, two frames behind."""
    matcher = TriggerMatcher(PERIOD_NS, 25_000_000)
    out = []
    for n in range(20):
        edge = round(n * PERIOD_NS)
        matcher.add_trigger(Stamp(edge, Clock.MONOTONIC_RAW, FrameEvent.TRIGGER))
        if n != 7:
            out += matcher.add_frame(arrived(edge + 25_200_000))
    out += matcher.flush()
    assert [m.trigger for m in out if m.kind is MatchKind.NO_FRAME] == [7]
    assert [m.trigger for m in out if m.kind is MatchKind.MATCHED] == [
        n for n in range(20) if n != 7
    ]


def test_unknown_latency_is_ambiguous() -> None:
    """sensors-23: without a latency no frame is matched by guess."""
    matcher = TriggerMatcher(PERIOD_NS, None)
    matcher.add_edge(0)
    (match,) = matcher.add_arrival(70_000_000)
    assert match.kind is MatchKind.AMBIGUOUS
    assert match.trigger is None


@pytest.mark.parametrize("seed", range(10))
def test_start_gap_tells_the_latency(seed: int) -> None:
    """sensors-23: 70 ms latency: three edges left out align everything; without: AMBIGUOUS."""
    with_gap = simulate_triggers(120, seed, base_delay_ns=70_000_000, start_gap=3, reconnect=False)
    got = align_start(with_gap.trigger_ns, with_gap.arrival_ns, with_gap.period_ns)
    gap_whole = np.isin([28, 29, 33, 34], with_gap.truth_frame_id).all()
    if not gap_whole:
        assert got.periods in (2, None)
        return
    assert got.periods == 2
    assert got.base_delay_ns is not None
    assert abs(got.base_delay_ns - 70_000_000) < 300_000
    matcher = TriggerMatcher(with_gap.period_ns, got.base_delay_ns)
    index, _ = match_arrays(with_gap.trigger_ns, with_gap.arrival_ns, matcher)
    assert np.mean(index == with_gap.truth()) >= 0.999
    without = simulate_triggers(120, seed, base_delay_ns=70_000_000, reconnect=False)
    blind = align_start(without.trigger_ns, without.arrival_ns, without.period_ns)
    assert blind.quality is Quality.AMBIGUOUS
    assert blind.base_delay_ns is None


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("scenario", list("ABC"))
def test_anchor_is_identified(shared_data: Path, scenario: str, anchor: Anchor) -> None:
    """sensors-24: five stretches of two minutes of each trace, with and without sequence."""
    trace = load_trace(shared_data, scenario, anchor)
    right = wrong = 0
    for part in range(5):
        begin = np.searchsorted(trace.device_ns, part * 240_000_000_000)
        end = np.searchsorted(trace.device_ns, part * 240_000_000_000 + 120_000_000_000)
        span = slice(int(begin), int(end))
        for index in (None, trace.sequence[span]):
            got, ratio = identify_anchor(
                trace.arrival_ns[span], trace.exposure_ns[span], PERIOD_NS, index
            )
            right += got is anchor
            wrong += got not in (anchor, Anchor.UNKNOWN)
            assert got is Anchor.UNKNOWN or ratio >= 2.0
    assert wrong == 0
    assert right >= 9


def test_constant_exposure_tells_no_anchor() -> None:
    """sensors-24: constant exposure: UNKNOWN."""
    spec = replace(SCENARIOS["A"], seconds=120.0, exposure_ns=(5_000_000, 5_000_001))
    trace = simulate(spec, Anchor.READOUT, 1)
    got, _ = identify_anchor(trace.arrival_ns, trace.exposure_ns, PERIOD_NS, trace.sequence)
    assert got is Anchor.UNKNOWN
    assert identify_anchor([1, 2], [3, 4], PERIOD_NS)[0] is Anchor.UNKNOWN


def test_bad_input_is_refused() -> None:
    with pytest.raises(SensorDataError, match="period_ns"):
        TriggerMatcher(0.0, 1)
    with pytest.raises(SensorDataError, match="base_delay_ns"):
        TriggerMatcher(1.0, -1)
    with pytest.raises(SensorDataError, match="period_ns"):
        infer_indices([1, 2], -1.0)
    with pytest.raises(SensorDataError, match="differ"):
        identify_anchor([1, 2], [3], PERIOD_NS)
    with pytest.raises(SensorDataError, match="too few"):
        align_start([1], [2], PERIOD_NS)
