"""Nonsense in, no crash out: cases sensors-27 to sensors-38 ask for flags or typed errors."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncline.errors import SynclineError
from syncline.sensors.clock import BlockMinKalman
from syncline.sensors.counter import CounterUnwrapper
from syncline.sensors.frame import Anchor, Exposure, FrameTime
from syncline.sensors.hull import SlidingHull
from syncline.sensors.index import infer_indices
from syncline.sensors.smooth import smooth_clock
from syncline.sensors.timer import FrameTimer
from syncline.sensors.traces import match_triggers, mid_exposure

from .helpers import PERIOD_NS, arrived, rolling_mode

HUGE = st.integers(-(2**61), 2**61)
NEAR = st.integers(-(10**9), 10**10)
TIMES = st.lists(st.tuples(st.one_of(HUGE, NEAR), st.one_of(HUGE, NEAR)), max_size=60)


LEAPS = [
    (132769638, -274), (-179, 9_999_999_999), (350843851, 4_764_656_581_834_664),
    (-520, -1_211_674_683_708_829_696), (2_819_990_534, -370177),
    (-214_279_455_454_649_728, 16), (350843851, 4_764_656_581_834_664),
    (-214_279_455_454_649_728, 4958945), (67630, -24069465), (0, 0),
]  # fmt: skip
TOO_FAR = [
    (0, 1128092), (-131642066, -1_211_674_683_708_828_999), (184, -291), (350843851, 0),
    (-300_340_964_821_404, 98_275_392_513_080), (3323, 88000014),
]  # fmt: skip


@given(TIMES)
@example(LEAPS)
@example(TOO_FAR)
@settings(max_examples=150)
def test_mappers_take_any_times(rows: list[tuple[int, int]]) -> None:
    """sensors-44: even then a batch and a stream agree."""
    rows = [(x, h) for x, h in rows if abs(h - x) < 2**61]
    live, hull = BlockMinKalman(), SlidingHull()
    states = [live.update(x, h) for x, h in rows]
    for x, h in rows:
        hull.update(x, h)
    device = np.array([x for x, _ in rows], dtype=np.int64)
    host = np.array([h for _, h in rows], dtype=np.int64)
    batch = BlockMinKalman().map_batch(device, host)
    assert batch.offset_ns.tolist() == [s.offset_ns for s in states]
    assert all(np.isfinite(s.sigma_ns) and s.sigma_ns >= 0 for s in states)
    if rows:
        assert np.isfinite(smooth_clock(device, host).sigma_ns).all()


@given(st.lists(NEAR, max_size=80), st.lists(NEAR, max_size=80))
def test_matching_takes_any_times(edges: list[int], arrivals: list[int]) -> None:
    """sensors-20: no edge twice, whatever comes."""
    got = match_triggers(sorted(edges), sorted(arrivals), 33e6, 25_000_000)
    used = got[got >= 0]
    assert len(got) == len(arrivals)
    assert len(np.unique(used)) == len(used)


@given(st.lists(NEAR, min_size=1, max_size=120))
def test_numbering_takes_any_times(arrivals: list[int]) -> None:
    """sensors-18: numbers always increase."""
    got, _ = infer_indices(sorted(arrivals), 33e6)
    assert (np.diff(got) > 0).all()


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(0, 100)),
            st.one_of(st.none(), st.integers(0, 2**32 - 1)),
            st.integers(0, 10**11),
            st.one_of(st.none(), st.integers(0, 40_000_000)),
        ),
        max_size=60,
    ),
    st.sampled_from(list(Anchor)),
)
def test_timer_takes_any_frames(
    rows: list[tuple[int | None, int | None, int, int | None]], anchor: Anchor
) -> None:
    """Every frame is stamped, flagged or refused by a typed error."""
    timer = FrameTimer(
        rolling_mode(), anchor, period_ns=PERIOD_NS, counter=CounterUnwrapper(32, 48e6)
    )
    for sequence, ticks, arrival, exposure in rows:
        exposures = () if exposure is None else (Exposure(exposure),)
        try:
            got = timer.stamp(arrived(arrival, sequence, ticks, exposures=exposures))
        except SynclineError:
            continue
        assert isinstance(got, FrameTime)
        assert got.sigma_ns >= 0
        if sequence is not None and exposure is not None and exposure < PERIOD_NS:
            timer.bind(sequence, (Exposure(exposure // 2),))
        timer.revise()


@given(st.lists(st.tuples(NEAR, st.integers(0, 10**8), NEAR), max_size=60))
def test_whole_traces_take_any_times(rows: list[tuple[int, int, int]]) -> None:
    number = np.arange(len(rows))
    device, exposure, arrival = (np.array([r[k] for r in rows], dtype=np.int64) for k in range(3))
    for online in (True, False):
        parts = mid_exposure(
            number, device, exposure, arrival, anchor="trigger", readout_ns=1, dma_ns=1,
            online=online,
        )  # fmt: skip
        assert [len(p) for p in parts] == [len(rows)] * 4
