"""The estimator's numerics, segments, memory and determinism."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import MeasurementError
from syncline.sync.delays import (
    SCALES_S,
    match,
    mills,
    prior_counts,
    round_trip_counts,
    scales_of,
    tilt,
)
from syncline.sync.estimator import TimeEstimator
from syncline.sync.events import StateChange
from syncline.sync.measurement import Measurement, SourceKind, exchange
from syncline.sync.oscillator import LearnedOscillator
from syncline.sync.sim.run import run_scenario
from syncline.sync.sim.scenario import Scenario, load
from syncline.sync.sim.world import play
from syncline.sync.wander import NS, Walk
from syncline.timebase import MappingSegment, Timebase, TimeState

S = 1_000_000_000


def test_mills_ratio_against_numerical_integration():
    t = np.array([-8.0, -2.0, 0.0, 1.0, 4.0, 12.0])
    rho, log_q = mills(t)
    for value, r, lq in zip(t, rho, log_q, strict=True):
        x = np.linspace(value, value + 30.0, 400_001)
        tail = np.trapezoid(np.exp(-0.5 * x * x - (-0.5 * value * value if value > 0 else 0.0)), x)
        scale = -0.5 * value * value if value > 0 else 0.0
        expected = np.log(tail) + scale - 0.5 * np.log(2 * np.pi)
        assert lq == pytest.approx(expected, abs=2e-6)
        phi = np.exp(-0.5 * value * value) / np.sqrt(2 * np.pi)
        assert r == pytest.approx(phi / np.exp(expected), rel=2e-6)


@given(
    r=st.floats(-3e-3, 3e-2),
    sd=st.floats(1e-5, 3e-3),
    scale=st.integers(3, 8),
)
def test_tilt_derivatives_match_differences(r, sd, scale):
    """Slope and curvature of the log evidence by the cavity mean."""
    active = np.array([scale, scale + 2])
    lw = np.log(np.array([[0.7, 0.3]]))
    step = 1e-3 * sd
    z = [
        float(tilt(np.array([r - d]), np.array([sd * sd]), lw, active).log_z[0])
        for d in (-step, 0.0, step)
    ]
    out = tilt(np.array([r]), np.array([sd * sd]), lw, active)
    slope = (z[2] - z[0]) / (2 * step)
    assert float(out.slope[0]) == pytest.approx(slope, rel=2e-2, abs=2e-2 / sd)
    assert float(out.curve[0]) * sd * sd > -1.001  # a variance never turns negative
    assert out.share.sum() == pytest.approx(1.0)


def test_prior_of_delay_scales_follows_the_round_trip():
    counts = prior_counts(0.04, 4.0)
    assert counts.sum() == pytest.approx(4.0)
    assert 1e-4 < SCALES_S[int(np.argmax(counts))] < 0.04


def test_knots_reproduce_the_integrated_random_walk():
    """Covariance of offset and rate after dt (docs/time-estimator.md, section 1)."""
    q, t = 3e-9, 50.0
    walk = Walk(np.array([0.0, 10.0, t]), q, 0.0)
    shares = walk.last()
    cov = shares @ shares.T
    assert cov[0, 0] == pytest.approx(q * q * t**3 / 3)
    assert cov[1, 1] == pytest.approx(q * q * t * NS * NS)
    assert cov[0, 1] == pytest.approx(q * q * t * t / 2 * NS)
    between, ahead = np.empty((4, 4)), np.empty((4, 1))
    bridge = walk.offset(np.array([0.0, 10.0, 30.0, t]), between)
    assert bridge[2] == pytest.approx(q * q * 40.0**3 / 3 / 64)
    var = (between**2).sum(axis=0) + bridge
    assert var == pytest.approx(q * q * np.array([0.0, 10.0, 30.0, t]) ** 3 / 3)
    assert between[:, 3] == pytest.approx(shares[0])
    walk.offset(np.array([t + 20.0]), ahead, beyond=True)
    assert ahead[:, 0] == pytest.approx(shares[0] + shares[1] * 20.0 / NS)


def test_exchange_refuses_contradictions():
    """sync-34: a negative delay beyond resolution and rate error"""
    with pytest.raises(MeasurementError, match="negative"):
        exchange("a", 0, 10_000, 2_000_000, 1_000_000)
    with pytest.raises(MeasurementError, match="backwards"):
        exchange("a", 1000, 0, 0, 0)
    with pytest.raises(MeasurementError, match="limit"):
        exchange("a", 0, 0, 0, 61 * S)
    assert exchange("a", 0, 500_000, 1_000_100, 500_000).delay_ns == 1


def follow(world, est, until=None):
    base = Timebase("b")
    segments: list[MappingSegment] = []
    for m in world.measurements[:until]:
        est.update(m)
        segment = est.segment(m.known_raw_ns)
        if segment is not None and (not segments or segments[-1].id != segment.id):
            segments.append(segment)
            base.add(segment)
    return segments, base


def rate_at(est, raw):
    segment = est.segment(raw)
    assert segment is not None
    return segment.rate


def test_first_segment_after_one_exchange_and_utc_monotone_inside_segments():
    """sync-22, sync-37"""
    world = play(Scenario(duration_s=3600.0), 7)
    est = TimeEstimator("b")
    segments, base = follow(world, est)
    assert segments[0].raw0_ns == world.measurements[0].known_raw_ns
    assert segments[0].state is TimeState.SYNCED
    assert [s.id for s in segments] == sorted({s.id for s in segments})
    assert all(abs(s.rate) < 1e-3 for s in segments)  # UTC rises strictly inside a segment
    for t in (100.0, 1800.0, 3500.0):
        raw = world.raw_ns(t)
        got = base.utc(raw)
        true = 1_767_225_600 * S + round(t * S)
        assert abs(got.utc_ns - true) <= got.bound_ns


def test_replay_gives_bit_identical_segments():
    """sync-47"""
    world = play(Scenario(duration_s=2400.0), 9)
    assert follow(world, TimeEstimator("b"))[0] == follow(world, TimeEstimator("b"))[0]


def test_silence_becomes_holdover_with_a_growing_bound_and_expires():
    """sync-36"""
    world = play(Scenario(duration_s=5400.0), 2)
    est = TimeEstimator("b")
    follow(world, est)
    end = world.measurements[-1].known_raw_ns
    seen, last = [], 0.0
    for hours in np.linspace(0.2, 24.0, 60):
        raw = end + round(hours * 3600 * S)
        seen += [e for e in est.advance(raw) if isinstance(e, StateChange)]
        out = est.estimate(raw)
        assert out is not None
        assert out[2] >= last
        assert out[1] <= out[2]
        last = out[2]
    assert [e.new for e in seen][:1] == [TimeState.HOLDOVER]
    last_change = [e for e in est.advance(end + 60 * 86400 * S) if isinstance(e, StateChange)]
    assert [(e.old, e.new) for e in last_change] == [(TimeState.HOLDOVER, TimeState.COLD)]


def test_a_day_of_holdover_stays_inside_its_bound():
    """sync-36: coverage 1.0 over 24 h"""
    spec = Scenario(duration_s=93_600.0, outages=((7200.0, 93_600.0),), window_s=1800.0)
    r = run_scenario(spec, 3, grid_s=60.0)
    m = r.counted()
    assert np.all(np.abs(r.error[m]) <= r.hard[m])


def test_source_back_within_two_exchanges():
    """sync-37"""
    spec = Scenario(duration_s=9000.0, outages=((3600.0, 7200.0),), poll="tuned")
    world = play(spec, 6)
    est = TimeEstimator("b")
    after = [m for m in world.measurements if m.raw_ns > world.raw_ns(7200.0)][:2]
    for m in world.measurements:
        if m.raw_ns > after[-1].raw_ns:
            break
        est.update(m)
    raw = after[-1].known_raw_ns
    out = est.estimate(raw)
    assert out is not None
    t = np.interp(raw, world.raw_many(np.arange(7100.0, 7400.0)), np.arange(7100.0, 7400.0))
    assert abs(out[0] - 1_767_225_600 * S - t * S) < 1e6


def test_learned_oscillator_survives_a_boot():
    """sync-10, sync-23: only the rate crosses a boot, never raw time"""
    world = play(Scenario(duration_s=7200.0), 8)
    est = TimeEstimator("b")
    assert est.snapshot() is None
    follow(world, est)
    learned = est.snapshot()
    assert learned is not None
    assert learned.rate_sigma >= 1e-7
    again = TimeEstimator("boot-2")
    again.restore(learned)
    again.update(world.measurements[0])
    segment = again.segment(world.measurements[0].known_raw_ns)
    assert segment is not None
    assert segment.boot_id == "boot-2"
    assert segment.rate == pytest.approx(learned.rate, abs=1e-9)


def test_widen_grows_the_bound_and_keeps_the_rate():
    """sync-31"""
    world = play(Scenario(duration_s=3600.0), 8)
    est = TimeEstimator("b")
    follow(world, est)
    raw = world.measurements[-1].known_raw_ns
    before = est.estimate(raw)
    rate = rate_at(est, raw)
    est.widen(raw, S)
    after = est.estimate(raw)
    assert before is not None
    assert after is not None
    assert after[2] >= before[2] + 0.999
    assert rate_at(est, raw) == pytest.approx(rate, abs=1e-12)
    est.update(reply := world.measurements[-1])
    assert est.estimate(reply.known_raw_ns) is not None


def test_one_gnss_fix_is_enough_for_a_first_segment():
    """sync-22"""
    est = TimeEstimator("b")
    est.update(Measurement("gnss", SourceKind.GNSS, 5 * S, 10**18))
    segment = est.segment(5 * S)
    assert segment is not None
    assert abs(segment.utc_ns(5 * S) - 10**18) < 1000


def test_loss_and_reordering_cost_little():
    """sync-35"""
    clean = load("scenarios/b1_wan.toml")
    world = play(clean, 4)
    rng = np.random.default_rng(0)
    kept = [m for m in world.measurements if rng.random() > 0.3]
    for i in range(0, len(kept) - 1, 3):
        kept[i], kept[i + 1] = kept[i + 1], kept[i]

    def rms(measurements):
        est, errors, i = TimeEstimator("b"), [], 0
        for t in np.arange(600.0, clean.duration_s, 60.0):
            raw = world.raw_ns(t)
            while i < len(measurements) and measurements[i].known_raw_ns <= raw:
                est.update(measurements[i])
                i += 1
            if t >= 1800:
                out = est.estimate(raw)
                assert out is not None
                errors.append((out[0] - 1_767_225_600 * S) * 1e-9 - t)
        return float(np.sqrt(np.mean(np.square(errors))))

    assert rms(kept) <= max(1.3 * rms(world.measurements), 0.25e-3)


def test_memory_is_constant():
    """sync-46: state does not grow with time"""
    est = TimeEstimator("b")
    sizes = []
    for i in range(700):
        est.update(
            exchange("a", i * 64 * S, i * 64 * S + 10**18, i * 64 * S + 10**18, i * 64 * S + 10**6)
        )
        if i in (350, 699):
            core = est.core
            window = core.window
            assert len(window.rows) + len(window.pending) <= 260
            sizes.append((len(core.drags.history), len(window.paths.lines)))
    assert sizes[0] == sizes[1]
    assert est.core.window.kept is None


def test_restore_after_the_first_measurement_is_ignored():
    est = TimeEstimator("b")
    est.update(exchange("a", 0, 10**18, 10**18, 10**6))
    est.restore(LearnedOscillator(1e-3, 1e-9, 1e-9))
    assert est.estimate(S) is not None
    assert abs(rate_at(est, S)) < 1e-4


def test_paths_of_sources_that_left_are_forgotten():
    """sync-46: a pool that changes its members for ever costs no memory"""
    est, rng = TimeEstimator("b"), np.random.default_rng(5)
    for i in range(720):
        delay = 20_000_000 + int(rng.exponential(200_000))
        t, utc = i * 16 * S, i * 16 * S + 10**18 + delay // 2
        est.update(exchange(f"pool{i // 16}", t, utc, utc, t + delay))
    paths = est.core.window.paths
    assert len(paths.lines) <= 26
    assert len(est.core.window.prior.mean) == 2 + 2 * len(paths.lines)
    out = est.estimate(720 * 16 * S)
    assert out is not None
    assert abs(out[0] - 10**18 - 720 * 16 * S) < 300_000


def test_single_row_moments_match_the_arrays():
    """The plain-float step between joint solves and the joint solve see the same likelihood."""
    weights = np.log(prior_counts(0.04, 1.0))
    active = np.flatnonzero(np.exp(weights) > 2e-3)
    rng = np.random.default_rng(2)
    for _ in range(300):
        sd, u = 10.0 ** rng.uniform(-5, -2.5), rng.uniform(-8, 12)
        both = tilt(np.array([u * sd]), np.array([sd * sd]), weights[None, active], active)
        slope, curve = match(u * sd, sd * sd, scales_of(weights))
        assert slope * sd == pytest.approx(float(both.slope[0]) * sd, abs=1e-3)
        assert curve * sd * sd == pytest.approx(float(both.curve[0]) * sd * sd, abs=1e-3)


def test_round_trips_tell_the_scale_of_the_queues():
    """sync-21: equal exponential queues of 4 ms, whatever the line"""
    rng = np.random.default_rng(4)
    excess = rng.exponential(4e-3, 40) + rng.exponential(4e-3, 40)
    counts = round_trip_counts(excess, prior_counts(0.04, 4.0))
    assert counts.sum() == pytest.approx(80.0)
    mean = float((counts * SCALES_S).sum() / counts.sum())
    assert 2.5e-3 < mean < 6e-3
