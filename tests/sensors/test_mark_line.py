"""The edges of a trigger line by the marks of a receiver, against the truth of a made-up one."""

from __future__ import annotations

import numpy as np
import pytest

from syncline.sensors.mark_line import KEPT_MARKS, MAX_AHEAD_NS, MIN_MARKS, MarkLine

T0_NS = 1_790_000_000_000_000_000


def edges(count: int, period_ns: float, jitter_ns: float, seed: int) -> list[int]:
    """A crystal 3 ppm off that drifts by 0.1 ppb a second, with white jitter."""
    rng = np.random.default_rng(seed)
    n = np.arange(count)
    drift_ns = 0.5 * 1e-10 * (n * period_ns / 1e9) ** 2 * 1e9
    since_ns = n * period_ns * (1 + 3e-6) + drift_ns + rng.normal(0, jitter_ns, count)
    return [T0_NS + round(since) for since in since_ns.tolist()]


@pytest.mark.parametrize(("hz", "every"), [(20, 4), (30, 6), (60, 3)])
def test_edges_that_no_mark_tells_of_are_told_with_their_error(hz: int, every: int) -> None:
    """One mark in `every`, told a second late; the counter passes its 16 bits."""
    off: list[float] = []
    for seed in range(5):
        off += errors_in_sigmas(hz, every, seed)
    assert np.mean(np.abs(off) < 2.0) > 0.90
    assert np.mean(np.abs(off) < 3.0) > 0.98


def errors_in_sigmas(hz: int, every: int, seed: int) -> list[float]:
    period_ns, first = 1e9 / hz, 65_400 if seed % 2 else 0
    true_ns = edges(30 * hz, period_ns, 40.0, seed)
    line, off = MarkLine(), []
    for k, t_ns in enumerate(true_ns):
        late = k - hz
        if late >= 0 and late % every == 0:
            line.add((first + late) % 65_536, true_ns[late], 25)
        edge = line.only_edge(t_ns - 2_000_000, t_ns + 2_000_000, 0.25)
        if edge is not None:
            off.append((edge.utc_ns - t_ns) / edge.sigma_ns)
            assert abs(edge.utc_ns - t_ns) < 1000
    assert line.begun <= 3  # a line of three marks knows little of its own jitter
    assert len(off) > 0.85 * (len(true_ns) - hz - MIN_MARKS * every)
    return off


def test_numbers_are_those_of_the_receiver_over_lost_marks_and_wraps() -> None:
    period_ns = 50_000_000
    line = MarkLine()
    for k in [*range(0, 40, 4), *range(60, 120, 6)]:
        line.add((65_500 + k) % 65_536, T0_NS + k * period_ns, 25)
    assert line.begun == 1
    at = T0_NS + 117 * period_ns
    edge = line.only_edge(at - 1_000, at + 1_000, 0.1)
    assert edge is not None
    assert (edge.number, edge.utc_ns) == (118, at)  # the first mark of all is number 1


def test_what_cannot_be_told_is_not() -> None:
    period_ns = 50_000_000
    line = MarkLine()
    marks = [(k, T0_NS + k * period_ns) for k in range(0, 200, 4)]
    for k, t_ns in marks[: MIN_MARKS - 1]:
        line.add(k, t_ns, 25)
    now = marks[MIN_MARKS - 2][1]
    assert line.only_edge(now - 1_000, now + 1_000, 0.25) is None, "too few marks"
    for k, t_ns in marks[MIN_MARKS - 1 :]:
        line.add(k, t_ns, 25)
        line.add(k, t_ns, 25)  # told twice
    assert line.marks == len(marks)
    now = marks[-1][1]
    assert line.only_edge(now - 1_000, now + 1_000, 0.25) is not None
    assert line.only_edge(now - 40_000_000, now + 40_000_000, 0.25) is None, "two may be meant"
    assert line.only_edge(now + 24_000_000, now + 26_000_000, 0.25) is None, "between two"
    later = now + MAX_AHEAD_NS + 10 * period_ns
    assert line.only_edge(later - 1_000, later + 1_000, 0.25) is None, "too far ahead"
    before = marks[-1][1] - (4 * KEPT_MARKS + 8) * period_ns
    assert line.only_edge(before - 1_000, before + 1_000, 0.25) is None, "before the line"


@pytest.mark.parametrize("what", ["phase", "period", "counter", "back"])
def test_a_trigger_that_is_begun_anew_is_not_extrapolated(what: str) -> None:
    period_ns = 50_000_000
    line = MarkLine()
    for k in range(0, 80, 4):
        line.add(k, T0_NS + k * period_ns, 25)
    last_ns = T0_NS + 76 * period_ns
    new_ns, step_ns, count = {
        "phase": (last_ns + 4 * period_ns + 20_000, period_ns, 80),
        "period": (last_ns + 4 * 40_000_000, 40_000_000, 80),
        "counter": (last_ns + 4 * period_ns, period_ns, 4),
        "back": (last_ns - 1, period_ns, 77),
    }[what]
    line.add(count, new_ns, 25)
    assert line.begun == 2
    assert line.only_edge(new_ns - 1_000, new_ns + 1_000, 0.25) is None
    for k in range(1, MIN_MARKS):
        line.add(count + 4 * k, new_ns + 4 * k * step_ns, 25)
    now = new_ns + 4 * (MIN_MARKS - 1) * step_ns
    edge = line.only_edge(now + step_ns - 1_000, now + step_ns + 1_000, 0.25)
    assert edge is not None
    assert edge.utc_ns == now + step_ns
