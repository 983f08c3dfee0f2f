"""Acceptance cases sensors-25, 26, 33, 37, 44 and the timer as a whole."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from syncline.errors import ClockError, SensorDataError
from syncline.sensors.clock import BlockMinKalman
from syncline.sensors.counter import CounterUnwrapper
from syncline.sensors.exposures import ExposureBook
from syncline.sensors.frame import Anchor, Exposure, FrameEvent, FrameTime, Quality, Stamp
from syncline.sensors.simulate import SCENARIOS, Trace, simulate
from syncline.sensors.timer import FrameTimer
from syncline.timebase import Clock

from .helpers import DMA_NS, PERIOD_NS, arrived, rolling_mode

RANGE_NS = (500_000, 18_000_000)


def timer_for(anchor: Anchor, **more: object) -> FrameTimer:
    return FrameTimer(
        rolling_mode(), anchor, dma_ns=DMA_NS, period_ns=PERIOD_NS, exposure_range_ns=RANGE_NS,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def stamp_all(trace: Trace, timer: FrameTimer, *, exposures: bool = True) -> list[FrameTime]:
    rows = zip(trace.sequence, trace.device_ns, trace.exposure_ns, trace.arrival_ns, strict=True)
    return [
        timer.stamp(
            arrived(int(a), int(n), int(x), exposures=(Exposure(int(e)),) if exposures else ())
        )
        for n, x, e, a in rows
    ]


def short(scenario: str = "A", seconds: float = 120.0, **more: object) -> Trace:
    anchor = more.pop("anchor", Anchor.READOUT)
    seed = more.pop("seed", 3)
    spec = replace(SCENARIOS[scenario], seconds=seconds, **more)  # type: ignore[arg-type]
    return simulate(spec, anchor, seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("anchor", [Anchor.TRIGGER, Anchor.READOUT])
def test_timer_against_truth(anchor: Anchor) -> None:
    """sensors-12: the whole way from frame to middle of exposure."""
    trace = short(anchor=anchor)
    timer = timer_for(anchor)
    times = stamp_all(trace, timer)
    late = trace.device_ns > 30e9
    error = (np.array([t.mid_ns for t in times]) - trace.truth_mid_ns)[late]
    assert np.abs(error).max() < 100_000
    assert [t.index for t in times] == trace.sequence.tolist()
    assert timer.counters.dropped == int(trace.sequence[-1]) + 1 - len(times)
    stale = np.diff(trace.arrival_ns, prepend=trace.arrival_ns[0]) > 3 * PERIOD_NS
    assert timer.counters.stale == int(stale.sum())
    assert all(t.bias_ns[0] <= 0 <= t.bias_ns[1] for t in times)
    assert Quality.HOLDOVER in times[0].quality
    assert times[-1].quality in (Quality.OK, Quality.STALE)


def test_unknown_exposure_is_never_silent() -> None:
    """sensors-25: sigma >= 2.5 ms for [0.5, 18] ms, and flagged."""
    times = stamp_all(short(), timer_for(Anchor.READOUT), exposures=False)
    assert all(Quality.NO_EXPOSURE in t.quality for t in times)
    assert all(t.sigma_ns >= 2_500_000 for t in times)
    assert all(t.exposures == () for t in times)


def test_unknown_anchor_is_never_silent() -> None:
    times = stamp_all(short(seconds=20.0), timer_for(Anchor.UNKNOWN))
    assert all(Quality.AMBIGUOUS in t.quality for t in times)


@pytest.mark.parametrize("anchor", [Anchor.TRIGGER, Anchor.READOUT])
def test_metadata_two_frames_late(anchor: Anchor) -> None:
    """sensors-26: bound by sequence, never by arrival: every frame gets its own exposure."""
    trace = short(anchor=anchor)
    timer = timer_for(anchor)
    waiting: deque[tuple[int, int]] = deque()
    final: dict[int, FrameTime] = {}
    rows = zip(trace.sequence, trace.device_ns, trace.exposure_ns, trace.arrival_ns, strict=True)
    for n, x, e, a in rows:
        first = timer.stamp(arrived(int(a), int(n), int(x)))
        assert Quality.NO_EXPOSURE in first.quality
        final[first.index] = first
        waiting.append((int(n), int(e)))
        if len(waiting) > 2:
            number, exposure = waiting.popleft()
            timer.bind(number, (Exposure(exposure),))
        for better in timer.revise():
            assert better.revision == final[better.index].revision + 1
            final[better.index] = better
    truth = dict(zip(trace.sequence.tolist(), trace.exposure_ns.tolist(), strict=True))
    done = [t for t in final.values() if t.exposures]
    assert len(done) == len(final) - 2
    assert all(t.exposures[0].duration_ns == truth[t.sequence] for t in done)
    assert all(Quality.NO_EXPOSURE not in t.quality for t in done)
    mid = dict(zip(trace.sequence.tolist(), trace.truth_mid_ns.tolist(), strict=True))
    error = [t.mid_ns - mid[t.sequence] for t in done[900:]]
    assert np.abs(error).max() < 150_000
    assert max(t.sigma_ns for t in done[900:]) < 50_000


def test_controls_take_effect_after_their_delay() -> None:
    """sensors-26: a control set during frame 10 is in frame 12."""
    book = ExposureBook(control_delay=2)
    old, new, told = (Exposure(1),), (Exposure(2),), (Exposure(3),)
    book.control(0, old)
    book.control(10, new)
    assert [book.of(n) for n in (1, 2, 11, 12, 13)] == [(), old, old, new, new]
    book.bind(12, told)
    assert book.of(12) == told
    assert book.of(None) == ()
    for n in range(1000):
        book.bind(n, told)
    assert len(book._known) <= 128


def test_duplicates_are_dropped_and_counted() -> None:
    """sensors-33: equal sequence, and equal stamps without one."""
    trace = short(seconds=20.0)
    timer = timer_for(Anchor.READOUT)
    plain = stamp_all(trace, timer)
    doubled = timer_for(Anchor.READOUT)
    kept = []
    rows = zip(trace.sequence, trace.device_ns, trace.exposure_ns, trace.arrival_ns, strict=True)
    for n, x, e, a in rows:
        frame = arrived(int(a), int(n), int(x), exposures=(Exposure(int(e)),))
        kept.append(doubled.stamp(frame))
        assert Quality.REJECTED in doubled.stamp(frame).quality
    assert kept == plain
    assert doubled.counters.duplicates == len(plain)
    nameless = timer_for(Anchor.READOUT)
    nameless.stamp(arrived(0, None, 5, exposures=(Exposure(10),)))
    assert Quality.REJECTED in nameless.stamp(arrived(9, None, 5)).quality


def test_unplugged_for_thirty_seconds() -> None:
    """sensors-37: stale after three periods, then the right index, by sequence or device time."""
    for named in (True, False):
        timer = timer_for(Anchor.READOUT)
        for n in [*range(300), *range(1200, 1500)]:
            at = round(n * PERIOD_NS)
            number = n if named else None
            got = timer.stamp(
                arrived(at + 16_000_000, number, at, exposures=(Exposure(1_000_000),))
            )
            assert got.index == n
            assert (Quality.STALE in got.quality) == (n == 1200)
            assert (Quality.INFERRED_INDEX in got.quality) == (not named and n > 0)
        assert timer.counters.stale == 1


def test_device_reboot_keeps_time_advancing() -> None:
    """sensors-29: the counter restarts: a new epoch, flagged, no time goes back."""
    timer = timer_for(Anchor.READOUT, counter=CounterUnwrapper(32, 48e6))
    tick = 48e6 / 30
    times = []
    for n in [*range(300), *range(400, 700)]:
        ticks = round((n if n < 300 else n - 400) * tick) % 2**32
        at = round(n * PERIOD_NS)
        times.append(timer.stamp(arrived(at + 16_000_000, None, ticks, exposures=(Exposure(9),))))
    assert Quality.WRAPPED in times[300].quality
    assert [t.quality & Quality.WRAPPED for t in times].count(Quality.WRAPPED) == 1
    assert (np.diff([t.mid_ns for t in times]) > 0).all()
    assert times[300].index == 400


def test_forward_step_is_flagged_afterwards() -> None:
    """sensors-31: frames stamped before the step was found are revised and flagged."""
    trace = short(seconds=120.0, host_step_ns=50_000_000, host_step_at_s=60.0)
    timer = timer_for(Anchor.READOUT)
    final: dict[int, FrameTime] = {}
    rows = zip(trace.sequence, trace.device_ns, trace.exposure_ns, trace.arrival_ns, strict=True)
    revised = 0
    for n, x, e, a in rows:
        first = timer.stamp(arrived(int(a), int(n), int(x), exposures=(Exposure(int(e)),)))
        final[first.index] = first
        for better in timer.revise():
            assert Quality.STEPPED in better.quality
            final[better.index] = better
            revised += 1
    error = np.array([t.mid_ns for t in final.values()]) - trace.truth_mid_ns
    flagged = np.array([Quality.STEPPED in t.quality for t in final.values()])
    wrong = np.abs(error) > 1e6
    assert 20 <= revised <= 60
    assert not (wrong & ~flagged).any()
    assert timer.counters.revised == revised


def test_replay_gives_the_same_frame_times() -> None:
    """sensors-44: the timer has no other input than its frames."""
    trace = short(seconds=60.0)
    assert stamp_all(trace, timer_for(Anchor.READOUT)) == stamp_all(
        trace, timer_for(Anchor.READOUT)
    )


def test_clocks_are_never_mixed() -> None:
    """sensors-38: an arrival or a driver stamp on another clock is refused."""
    timer = timer_for(Anchor.READOUT)
    wrong = Stamp(0, Clock.REALTIME, FrameEvent.ARRIVAL)
    with pytest.raises(ClockError, match="REALTIME"):
        timer.stamp(replace(arrived(0, 0, 0), arrival=wrong))
    driver = Stamp(37_000_000_000, Clock.MONOTONIC_RAW, FrameEvent.SOF)
    with pytest.raises(ClockError, match="TAI"):
        timer.stamp(arrived(10_000_000, 0, 0, driver=driver))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SensorDataError, match="exposure_range_ns"):
        FrameTimer(rolling_mode(), Anchor.READOUT, exposure_range_ns=(5, 1))
    with pytest.raises(SensorDataError, match="dma_ns"):
        FrameTimer(rolling_mode(), Anchor.READOUT, dma_ns=-1)
    with pytest.raises(SensorDataError, match="control_delay"):
        ExposureBook(-1)


def test_arrival_alone_is_still_a_time() -> None:
    """No counter, no stamp: the grid n * period is mapped; index inferred from arrival."""
    timer = FrameTimer(rolling_mode(), Anchor.READOUT, None, BlockMinKalman(), period_ns=PERIOD_NS)
    times = [
        timer.stamp(arrived(round(n * PERIOD_NS) + 20_000_000, exposures=(Exposure(2_000_000),)))
        for n in range(100)
    ]
    assert [t.index for t in times] == list(range(100))
    assert all(Quality.INFERRED_INDEX in t.quality for t in times[1:])


@pytest.mark.parametrize("late", [False, True], ids=["exposure-known", "exposure-late"])
@pytest.mark.parametrize("anchor", [Anchor.TRIGGER, Anchor.READOUT])
@pytest.mark.parametrize("by_driver", [True, False], ids=["driver", "arrival"])
def test_an_arrival_keeps_what_it_may_be_late_by(
    anchor: Anchor, late: bool, by_driver: bool
) -> None:
    """The truth lies inside the bias interval of an arrival that stands in for a lost stamp.

    Every frame is at least 30 ms late, which no one-way mapping can see: only the adapter's own
    bias (-100 ms, 0) holds it.
    """
    trace = short(seconds=40.0, anchor=anchor)
    rng = np.random.default_rng(11)
    # Arrivals in order, 30 to 95 ms after the end of readout.
    eof_ns = trace.truth_mid_ns + trace.exposure_ns // 2 + trace.spec.readout_ns
    at_ns = np.maximum.accumulate(eof_ns + rng.integers(30_000_000, 95_000_000, len(eof_ns)))
    timer = FrameTimer(rolling_mode(), anchor, period_ns=PERIOD_NS, exposure_range_ns=RANGE_NS)
    final: dict[int, FrameTime] = {}
    rows = zip(trace.sequence, trace.device_ns, trace.exposure_ns, at_ns, strict=True)
    for n, x, e, a in rows:
        stamp = Stamp(int(a), Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, 0.0, (-100_000_000, 0))
        told = (Exposure(int(e)),)
        frame = arrived(int(a), int(n), int(x), exposures=() if late else told)
        frame = replace(frame, driver=stamp) if by_driver else replace(frame, arrival=stamp)
        time = timer.stamp(frame)
        final[time.index] = time
        if late:
            timer.bind(int(n), told)
        final |= {better.index: better for better in timer.revise()}
    error = trace.truth_mid_ns - np.array([t.mid_ns for t in final.values()])
    low, high = np.array([t.bias_ns for t in final.values()]).T
    room_ns = 2.0 * np.array([t.sigma_ns for t in final.values()])
    assert np.mean((low - room_ns <= error) & (error <= high + room_ns)) > 0.99
    assert error.max() < -20_000_000, "the delay is there, and the mapping does not see it"
    assert (high - low).max() < 140_000_000


def test_the_timer_holds_no_pixels() -> None:
    """Frames are kept for revision; their pictures must go as soon as nobody else wants them."""
    timer = timer_for(Anchor.READOUT)
    trace = short(seconds=2.0)
    pictures = []
    for number, ticks, arrival in zip(
        trace.sequence, trace.device_ns, trace.arrival_ns, strict=True
    ):
        picture = np.zeros((4, 4), np.uint8)
        pictures.append(weakref.ref(picture))
        frame = arrived(int(arrival), int(number), int(ticks))
        timer.stamp(replace(frame, payload=picture))
        del picture
    assert len(pictures) > 30
    assert [ref() for ref in pictures] == [None] * len(pictures)
