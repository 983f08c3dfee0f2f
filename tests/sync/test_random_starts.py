"""Random starts: a false first stamp, a 10 s spike, long round trips, queues, loss; one server.

What no estimator can know is told apart by the exact posterior: with equal exponential queues of
unknown mean `s` (prior 1/s) and a flat prior of the path `c`, both integrate out in closed form and
leave a function of the offset and the rate that is summed on a grid.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.sync.measurement import Measurement
from syncline.sync.sim.path import PathSpec
from syncline.sync.sim.run import run_scenario
from syncline.sync.sim.scenario import Scenario, ServerSpec
from syncline.sync.sim.world import RAW0_NS, UTC0_NS, play

Floats = NDArray[np.float64]

ASKED_S = 300.0
FAR_S = 10e-3
RATE_SIGMA = 50e-6


class Exact(NamedTuple):
    """Posterior of the offset: mean, sigma (s), and the share of it further than `FAR_S` off."""

    mean: float
    sigma: float
    far: float


def scenario(seed: int) -> Scenario:
    rng = np.random.default_rng(seed)
    bad = float(rng.choice([0.0, rng.normal(0.0, 5.0), rng.uniform(-2e3, 2e3)]))
    spike = 10.0 if rng.random() < 0.3 else 0.0
    spec = PathSpec(
        float(rng.uniform(0.1, 40)), float(rng.uniform(0.1, 40)), float(rng.uniform(0.01, 10))
    )
    spec = dataclasses.replace(spec, up_ms=spec.down_ms, loss=float(rng.uniform(0, 0.2)))
    return Scenario(
        duration_s=310.0, servers=(ServerSpec(spec),), bad_first_s=bad, spike_first_s=spike
    )


def start(seed: int) -> float:
    """Error (s) after 300 s of a random start."""
    return abs(float(run_scenario(scenario(seed), seed, grid_s=ASKED_S).error[1]))


def exact(t: Floats, upper: Floats, lower: Floats) -> Exact:
    """Exact posterior of the offset at time 0 by honest edges at times `t` (N,), all s.

    The likelihood of the queues is `s^-2n exp(-(T - 2 n c) / s)` while no queue is negative, T the
    sum of the round trips. Over s that leaves `(T - 2 n c)^-2n`, over `0 < c < most` the difference
    of `(T - 2 n c)^(1 - 2n)` at the ends; `most` is the tightest edge, by offset and rate.
    """
    n, total = len(t), float((upper - lower).sum())
    reach = 4.0 * RATE_SIGMA * float(np.abs(t).max())
    x_range = (lower.max() - reach, upper.min() + reach)
    y_range = (-4.0 * RATE_SIGMA, 4.0 * RATE_SIGMA)
    for _ in range(3):  # the grid closes in on what has any weight
        x, y = np.linspace(*x_range, 401), np.linspace(*y_range, 201)
        at = x[:, None, None] + y[None, :, None] * t
        most = np.maximum(np.minimum((upper - at).min(axis=2), (at - lower).min(axis=2)), 0.0)
        power = (2 * n - 1) * np.log(total / np.maximum(total - 2 * n * most, 1e-12))
        with np.errstate(divide="ignore"):
            log_p = power + np.log(-np.expm1(-power)) - 0.5 * (y / RATE_SIGMA) ** 2
        p = np.exp(log_p - log_p.max())
        x_range, y_range = _support(x, p.sum(axis=1)), _support(y, p.sum(axis=0))
    share = p.sum(axis=1) / p.sum()
    mean = float(share @ x)
    sigma = float(np.sqrt(share @ (x - mean) ** 2))
    return Exact(mean, sigma, float(share[np.abs(x - mean) > FAR_S].sum()))


def _support(at: Floats, weight: Floats) -> tuple[float, float]:
    some = np.flatnonzero(weight > 1e-9 * weight.max())
    return float(at[max(some[0] - 1, 0)]), float(at[min(some[-1] + 1, len(at) - 1)])


def knowable(seed: int) -> Exact:
    """What the honest replies of a start can tell: its exact posterior, mean as an error.

    It is told which reply is false and knows the path to be symmetric, so no estimator has more.
    """
    spec = scenario(seed)
    world = play(spec, seed)
    end = world.raw_ns(ASKED_S)
    honest = [m for m in world.measurements if m.known_raw_ns <= end and not _false(spec, m)]
    t = np.array([(m.raw_ns - end) * 1e-9 for m in honest])
    half = np.array([0.5e-9 * m.delay_ns for m in honest])
    true = UTC0_NS + round(ASKED_S * 1e9) - end
    offset = np.array([(m.utc_ns - m.raw_ns - true) * 1e-9 for m in honest])
    return exact(t, offset + half, offset - half)


def _false(spec: Scenario, m: Measurement) -> bool:
    sent_s = (m.raw_ns - RAW0_NS) * 1e-9 - 0.5e-9 * m.delay_ns
    return bool(spec.bad_first_s or spec.spike_first_s) and sent_s < 6.0


def test_no_lockout_after_random_starts():
    """sync-21 (60 of the 10 000; the rest under soak)"""
    errors = [start(seed) for seed in range(60)]
    assert max(errors) < FAR_S


@pytest.mark.parametrize("seed", [7504, 9317, 9534, 9796, 10482, 11973])
def test_a_first_stamp_that_overlaps_honest_ones_is_outlived(seed):
    """sync-21: starts that were 10 to 37 ms off while the false stamp was believed"""
    assert start(seed) < 0.2 * FAR_S


def test_the_exact_posterior_is_calibrated():
    """Its errors are as large as it says, over starts with queues from 10 us to 10 ms."""
    found = [knowable(seed) for seed in range(20)]
    z = np.array([e.mean / e.sigma for e in found])
    assert 0.6 <= np.sqrt(np.mean(z**2)) <= 1.6


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.timeout(7200)
def test_no_lockout_after_ten_thousand_random_starts():
    """sync-21: below 10 ms, but where the replies themselves leave it open"""
    errors = np.array([start(seed) for seed in range(10_000)])
    off = np.flatnonzero(errors >= FAR_S).tolist()
    assert all(knowable(seed).far >= 1e-3 for seed in off)
    assert len(off) <= 10
    assert errors.max() < 2.0 * FAR_S
