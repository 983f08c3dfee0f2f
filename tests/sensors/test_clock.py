"""Acceptance cases sensors-27 to sensors-32: counters that wrap, clocks that step or are slewed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import SensorDataError
from syncline.sensors.blocks import BlockBuilder, block_starts, make_blocks
from syncline.sensors.clock import BlockMinKalman
from syncline.sensors.counter import CounterUnwrapper
from syncline.sensors.frame import Anchor, FrameEvent, Quality
from syncline.sensors.hull import SlidingHull
from syncline.sensors.simulate import SCENARIOS, simulate
from syncline.sensors.smooth import smooth_clock
from syncline.timebase import Clock

from .helpers import mids, pairs, score

HOUR_NS = 3_600_000_000_000


@pytest.mark.parametrize("hz", [1e9, 48e6, 1e6])
@pytest.mark.parametrize("gap_s", [10, 3 * 3600])
def test_unwrap_over_an_unplugged_camera(hz: float, gap_s: int) -> None:
    """sensors-27: 32 bits, an unplug of 10 s and of 3 h: no error."""
    rng = np.random.default_rng(int(hz) % 97 + gap_s)
    times = np.concatenate([np.arange(0, 60, 1 / 30), 60 + gap_s + np.arange(0, 60, 1 / 30)])
    ticks = np.rint(times * hz).astype(np.int64) + 4_000_000_000
    host = np.rint(times * 1e9 * (1 + 50e-6) + rng.exponential(300e3, len(times)))
    unwrapper = CounterUnwrapper(32, hz)
    got = [
        unwrapper.update(int(t) % 2**32, int(h)) for t, h in zip(ticks, host.tolist(), strict=True)
    ]
    truth = [(int(t) - int(ticks[0])) * 10**12 // round(hz * 1000) for t in ticks]
    assert got == truth
    assert unwrapper.epoch == 0


def test_stamp_out_of_order_makes_no_wrap() -> None:
    """sensors-28: flagged, its own time given, no extra wrap."""
    unwrapper = CounterUnwrapper(32, 1e9)
    step = 33_333_333
    for n in range(300):
        unwrapper.update(n * step % 2**32, n * step)
    wraps = unwrapper.wraps
    assert unwrapper.update(298 * step % 2**32, 300 * step) == 298 * step
    assert Quality.WRAPPED in unwrapper.quality
    assert unwrapper.update(301 * step % 2**32, 301 * step) == 301 * step
    assert unwrapper.quality is Quality.OK
    assert unwrapper.wraps - wraps <= 1


@pytest.mark.parametrize(("bits", "hz"), [(32, 48e6), (48, 1e9), (64, 1e9)])
def test_device_reboot_begins_an_epoch(bits: int, hz: float) -> None:
    """sensors-29: the counter restarts at 0: a new epoch, and time still advances."""
    unwrapper = CounterUnwrapper(bits, hz)
    ticks = round(hz / 30)
    for n in range(600):
        last = unwrapper.update(n * ticks, round(n * 1e9 / 30))
    times = [unwrapper.update(n * ticks, round((700 + n) * 1e9 / 30)) for n in range(5)]
    assert unwrapper.epoch == 1
    steps = np.diff([last, *times])
    assert (steps > 0).all()
    assert abs(steps[0] - 101 * 1e9 / 30) < 1e6


@pytest.mark.parametrize(("bits", "hz"), [(32, 1e9), (32, 48e6), (48, 1e9)])
def test_stalls_are_no_restart(bits: int, hz: float) -> None:
    """sensors-29: frames that a stalled host takes up to 0.4 s late leave the epoch alone."""
    spec = replace(SCENARIOS["C"], seconds=240.0, stalls_per_min=6.0)
    trace = simulate(spec, Anchor.READOUT, 3)
    unwrapper = CounterUnwrapper(bits, hz)
    for device, arrival in zip(trace.device_ns.tolist(), trace.arrival_ns.tolist(), strict=True):
        got = unwrapper.update(round(device * hz / 1e9) % 2**bits, arrival)
        assert abs(got - device) <= 1e9 / hz + 1
    assert unwrapper.epoch == 0


def test_fast_counter_that_restarts_near_its_old_count() -> None:
    """sensors-29: 32 bits at 1 GHz: numbers that begin anew betray all but one in a hundred."""
    rng = np.random.default_rng(2)
    step, seen = 33_333_333, 0
    for _ in range(300):
        unwrapper = CounterUnwrapper(32, 1e9)
        start = int(rng.integers(2**32))
        for n in range(40):
            unwrapper.update((start + n * step) % 2**32, n * step + int(rng.exponential(3e5)))
        back_ns = 39 * step + int(rng.uniform(2e9, 60e9))
        times = [
            unwrapper.update(n * step, back_ns + n * step, renumbered=n == 0) for n in range(3)
        ]
        assert (np.diff(times) == step).all()
        seen += unwrapper.epoch == 1
    assert seen >= 0.97 * 300


def test_numbers_that_begin_anew_alone_are_no_restart() -> None:
    """sensors-29: a stream that is stopped and started keeps its counter: no epoch."""
    unwrapper = CounterUnwrapper(32, 1e9)
    for n in range(100):
        got = unwrapper.update(n * 33_333_333 % 2**32, n * 33_333_333, renumbered=n == 50)
        assert got == n * 33_333_333
    assert unwrapper.epoch == 0


def test_counter_refuses_what_does_not_fit() -> None:
    with pytest.raises(SensorDataError, match="raw"):
        CounterUnwrapper(8, 1e6).update(256, 0)
    with pytest.raises(SensorDataError, match="bits"):
        CounterUnwrapper(65, 1e6)
    with pytest.raises(SensorDataError, match="hz"):
        CounterUnwrapper(32, 0)


@pytest.mark.parametrize("step_ns", [5_000_000, 100_000_000, 1_000_000_000, HOUR_NS])
@pytest.mark.parametrize("scenario", ["A", "C"])
def test_host_step_backward(scenario: str, step_ns: int) -> None:
    """sensors-30: at most three frames unflagged; afterwards as good as before."""
    spec = replace(SCENARIOS[scenario], seconds=300.0, host_step_ns=-step_ns, host_step_at_s=150.0)
    trace = simulate(spec, Anchor.READOUT, 4)
    device, host = pairs(trace)
    mapper = BlockMinKalman()
    got = mapper.map_batch(device, host)
    error = mids(trace, got.offset_ns) - trace.truth_mid_ns
    wrong = np.abs(error) > 1e6
    flagged = (got.quality & Quality.STEPPED.value) != 0
    assert (wrong & ~flagged).sum() <= 3
    assert mapper.steps == 1
    assert np.abs(error[device > 160e9]).max() < 0.5e6


@pytest.mark.parametrize("step_ns", [5_000_000, 100_000_000, 1_000_000_000, HOUR_NS])
@pytest.mark.parametrize("scenario", ["A", "C"])
def test_host_step_forward(scenario: str, step_ns: int) -> None:
    """sensors-31: found within 1.5 s, and where it began is told."""
    spec = replace(SCENARIOS[scenario], seconds=300.0, host_step_ns=step_ns, host_step_at_s=150.2)
    trace = simulate(spec, Anchor.READOUT, 4)
    device, host = pairs(trace)
    mapper = BlockMinKalman()
    got = mapper.map_batch(device, host)
    error = mids(trace, got.offset_ns) - trace.truth_mid_ns
    wrong = np.flatnonzero(np.abs(error) > 1e6)
    assert device[wrong[-1]] - device[wrong[0]] <= 1_500_000_000
    assert mapper.steps == 1
    since = mapper.take_suspect()
    assert since is not None
    assert since <= device[wrong[0]]
    assert mapper.take_suspect() is None
    offline = smooth_clock(device, host)
    assert np.abs(mids(trace, offline.offset_ns) - trace.truth_mid_ns).max() < 1e6


@pytest.mark.slow
def test_no_false_steps_in_four_hours_of_stalls() -> None:
    """sensors-31: four hours with two stalls a minute."""
    spec = replace(SCENARIOS["C"], seconds=4 * 3600.0, stalls_per_min=2.0)
    device, host = pairs(simulate(spec, Anchor.READOUT, 6))
    mapper = BlockMinKalman()
    got = mapper.map_batch(device, host)
    assert mapper.steps == 0
    assert not (got.quality & Quality.STEPPED.value).any()


@pytest.mark.parametrize("slew_ppm", [500.0, -500.0, 100.0, -100.0])
@pytest.mark.parametrize("seed", [8, 9, 10])
def test_host_slew(slew_ppm: float, seed: int) -> None:
    """sensors-32: a slewed host clock is followed within 1 ms throughout."""
    spec = replace(SCENARIOS["A"], seconds=400.0, host_slew_ppm=slew_ppm, host_step_at_s=200.0)
    trace = simulate(spec, Anchor.READOUT, seed)
    device, host = pairs(trace)
    got = BlockMinKalman(clock=Clock.MONOTONIC).map_batch(device, host)
    error = mids(trace, got.offset_ns) - trace.truth_mid_ns
    assert np.abs(error[device > 5e9]).max() <= 1e6


@given(
    st.lists(st.integers(1, 80_000_000), min_size=1, max_size=200),
    st.integers(0, 2**40),
    st.randoms(use_true_random=False),
)
def test_blocks_of_a_batch_are_those_of_a_stream(
    steps: list[int], start: int, random: object
) -> None:
    """sensors-44: integer block statistics, cut and filled alike."""
    device = start + np.cumsum(np.array(steps, dtype=np.int64))
    z = np.array([random.randrange(10**9) for _ in steps], dtype=np.int64)  # type: ignore[attr-defined]
    starts = block_starts(device, 500_000_000)
    batch = make_blocks(device, z, starts)
    builder, stream = BlockBuilder(500_000_000), []
    for x, offset in zip(device.tolist(), z.tolist(), strict=True):
        if builder.due(x):
            stream.append(builder.take())
        builder.add(x, offset)
    stream.append(builder.take())
    assert batch == stream


def test_sliding_hull_is_good_where_delays_have_an_edge() -> None:
    """The second online mapper: exact for exponential delay, worse than ours for gamma."""
    trace = simulate(SCENARIOS["B"], Anchor.READOUT, 5)
    device, host = pairs(trace)
    hull = SlidingHull()
    offset = [
        hull.update(x, h).offset_ns for x, h in zip(device.tolist(), host.tolist(), strict=True)
    ]
    got = score(trace, mids(trace, np.array(offset)))
    assert got.rms_ms <= 0.010
    assert got.p99_ms <= 0.030
    stamp = hull.to_host(int(device[-1]), FrameEvent.SOF)
    assert stamp.t_ns == device[-1] + offset[-1]


def test_mapper_reset_and_refusals() -> None:
    mapper = BlockMinKalman()
    with pytest.raises(SensorDataError, match="no frame"):
        mapper.to_host(0)
    mapper.update(0, 1_000)
    assert mapper.to_host(0).t_ns == 1_000
    with pytest.raises(SensorDataError, match="reason"):
        mapper.reset("")
    mapper.reset("unplugged")
    assert not mapper.started
    with pytest.raises(SensorDataError, match="block_ns"):
        BlockMinKalman(block_ns=0)
    with pytest.raises(SensorDataError, match="as many"):
        smooth_clock(np.zeros(2, np.int64), np.zeros(1, np.int64))


def test_memory_is_bounded() -> None:
    """sensors-43: a 10 kHz source closes its blocks early."""
    mapper = BlockMinKalman()
    for n in range(20_000):
        mapper.update(n * 100_000, n * 100_000 + 5_000)
    assert len(mapper._builder._x) <= 512
