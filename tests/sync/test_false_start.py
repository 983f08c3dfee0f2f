"""False stamps among the first replies of a young clock, and what the exact posterior can know."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from syncline.sync.delays import SCALES_S, tilt
from syncline.sync.estimator import TimeEstimator
from syncline.sync.hard import Proof, intersect
from syncline.sync.measurement import exchange
from syncline.sync.sim.oscillator import OscillatorSpec, Ramp
from syncline.sync.sim.path import PathSpec
from syncline.sync.sim.run import run_scenario
from syncline.sync.sim.scenario import Scenario, ServerSpec
from syncline.timebase import TimeState

S = 1_000_000_000
UTC0_NS = 10**18


@dataclasses.dataclass(frozen=True)
class Start:
    """Errors and hard bounds after every reply (N,), s, and the estimator."""

    error: np.ndarray
    hard: np.ndarray
    estimator: TimeEstimator


def follow(one_way_s: float, queue_s: float, false_s: float, at: int, replies: int = 120) -> Start:
    """A symmetric path whose reply number `at` is stamped wrongly by `false_s`."""
    rng = np.random.default_rng(5)
    est, errors, bounds = TimeEstimator("boot"), [], []
    for i in range(replies):
        sent_s = 2.0 * i if i < 4 else 16.0 * i
        up, down = one_way_s + rng.exponential(queue_s, 2)
        raw = round(sent_s * S)
        back = raw + round((up + down) * S)
        server = UTC0_NS + round((sent_s + up + (false_s if i == at else 0.0)) * S)
        est.update(exchange("a", raw, server, server, back))
        out = est.estimate(back)
        assert out is not None
        errors.append((out[0] - back - UTC0_NS) / S)
        bounds.append(out[2])
    return Start(np.array(errors), np.array(bounds), est)


@pytest.mark.parametrize("at", [0, 2, 10])
@pytest.mark.parametrize(
    ("one_way_s", "queue_s", "share"),
    [
        pytest.param(0.04, 1e-3, -0.75, id="within the path"),
        pytest.param(0.04, 1e-3, 1.55, id="proof without the truth"),
        pytest.param(0.3, 3e-3, -1.7, id="long path"),
        pytest.param(2e-4, 1e-5, -1.2, id="LAN"),
    ],
)
def test_one_false_stamp_among_the_first_replies_is_outlived(one_way_s, queue_s, share, at):
    """sync-21: it overlaps the honest ones, so no proof refutes it; the replies after it do"""
    r = follow(one_way_s, queue_s, share * one_way_s, at)
    late = np.arange(len(r.error)) > max(at, 1) + 8
    assert np.abs(r.error[late]).max() <= 3.0 * queue_s
    assert np.all(np.abs(r.error[late]) <= r.hard[late])
    assert r.hard[-1] <= 1.2 * one_way_s  # the false proof is gone, the true ones are not
    watch = r.estimator.core.watches["a"]
    assert (watch.accepted, watch.rejected) == (120, 0)
    assert r.estimator.state is TimeState.SYNCED


def test_honest_replies_over_an_asymmetric_path_prove_as_before():
    """sync-6: what many replies agree on is no false stamp, however lopsided the path"""
    path = PathSpec(34.0, 6.0, 1.0)
    r = run_scenario(Scenario(duration_s=3600.0, servers=(ServerSpec(path),)), 3)
    m = np.isfinite(r.error)
    assert np.all(np.abs(r.error[m]) <= r.hard[m])
    assert r.hard[-1] < 30e-3


@pytest.mark.parametrize("poll", ["fast", "std"])
def test_a_crystal_that_warms_up_is_no_false_stamp(poll):
    """sync-7, sync-18: 5 ppm in the first ten minutes over a LAN"""
    osc = OscillatorSpec(ramps=(Ramp(0.0, 600.0, 5.0),))
    lan = ServerSpec(PathSpec(0.1, 0.1, 0.01))
    scenario = Scenario(duration_s=7200.0, poll=poll, servers=(lan,), oscillator=osc)
    r = run_scenario(scenario, 1)
    late = r.t > 300.0
    assert np.all(np.abs(r.error[late]) <= r.hard[late])
    assert np.sqrt(np.mean(r.error[late] ** 2)) <= 30e-6


def test_a_stray_density_takes_over_where_no_queue_reaches():
    active = np.array([3, 5])
    log_weights = np.log(np.array([[0.7, 0.3]]))
    var, stray = np.array([1e-12]), np.array([1e-3])
    queued = tilt(np.array([1e-4]), var, log_weights, active, stray)
    false = tilt(np.array([-1e-2]), var, log_weights, active, stray)
    plain = tilt(np.array([1e-4]), var, log_weights, active)
    assert queued.slope[0] == pytest.approx(plain.slope[0], rel=1e-5)
    assert queued.share.sum() == pytest.approx(1.0, abs=1e-5)
    assert false.share.sum() == pytest.approx(0.0, abs=1e-9)
    assert false.slope[0] == pytest.approx(0.0, abs=1e-6)
    assert false.log_z[0] == pytest.approx(np.log(stray[0]), abs=1e-6)
    assert SCALES_S[active[0]] > 1e-5


def test_proofs_are_intersected_along_the_rate():
    proofs = [Proof(0.0, -1.0, 1.0), Proof(10.0, -0.9, 1.5)]
    out = intersect(proofs, rate=0.01, drift=0.001)
    assert (out.t, out.known) == (10.0, True)
    assert out.low == pytest.approx(-0.9)
    assert out.high == pytest.approx(1.0 + 0.1 + 0.01)
