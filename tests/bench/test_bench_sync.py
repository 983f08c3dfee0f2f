"""sync-46: cost of a measurement, as ratios in one run; constant over a long run."""

from __future__ import annotations

import time

import numpy as np
import pytest

from syncline.sync.estimator import TimeEstimator
from syncline.sync.sim.scenario import GnssSpec, Scenario
from syncline.sync.sim.world import play

pytestmark = pytest.mark.bench


def cost(measurements) -> float:
    """CPU seconds a measurement."""
    est = TimeEstimator("bench")
    began = time.process_time()
    for m in measurements:
        est.update(m)
    return (time.process_time() - began) / len(measurements)


def solve_cost() -> float:
    """CPU seconds of one 32x32 Cholesky solve with its inverse: the peer."""
    a = np.random.default_rng(1).normal(size=(128, 32))
    lam = a.T @ a + np.eye(32)
    began = time.process_time()
    for _ in range(2000):
        np.linalg.inv(np.linalg.cholesky(lam))
    return (time.process_time() - began) / 2000


def test_exchange(benchmark):
    ms = play(Scenario(duration_s=7200.0, poll="tuned"), 1).measurements
    benchmark.pedantic(cost, args=(ms,), rounds=2)
    assert cost(ms) < 60 * solve_cost()


def test_gnss_sample_is_cheap_and_cost_is_constant(benchmark):
    ms = play(Scenario(duration_s=7200.0, gnss=GnssSpec()), 1).measurements
    benchmark.pedantic(cost, args=(ms,), rounds=2)
    exchange = cost(play(Scenario(duration_s=7200.0, poll="tuned"), 1).measurements)
    assert cost(ms) < 0.5 * exchange
    early, late = cost(ms[:3000]), cost(ms)
    assert late < 2.0 * early
