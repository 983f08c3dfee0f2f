"""Acceptance case sensors-20 against what can be known at most."""

from __future__ import annotations

import numpy as np
import pytest

from syncline.sensors.assign import assign_slots
from syncline.sensors.simulate import TriggerTrace, simulate_triggers
from syncline.sensors.traces import match_triggers

from .ideal_observer import frame_shares, least_wrong

LOST = 0.012
"""Share of frames that `simulate_triggers` loses or whose trigger it ignores."""


def wrong(trace: TriggerTrace) -> int:
    got = match_triggers(trace.trigger_ns, trace.arrival_ns, trace.period_ns, trace.base_delay_ns)
    return int((got != trace.truth()).sum())


def test_ideal_observer_is_calibrated() -> None:
    """sensors-20: the yardstick itself: shares add up to one and are right as often as they say."""
    trace = simulate_triggers(400, 61)
    shares = frame_shares(trace, LOST)
    assert all(abs(sum(share.values()) - 1.0) < 1e-6 for share in shares)
    expected, best = least_wrong(trace, LOST)
    missed = int((best != trace.truth_frame_id).sum())
    assert abs(missed - expected) <= 4.0 * np.sqrt(expected + 1.0)


def test_loss_at_the_head_of_a_queue_is_likelier() -> None:
    """sensors-20: a stall that began before an earlier slot had less time to begin in."""
    period = 33e6
    slots = [k * period for k in range(1, 5)]
    end = 4.5 * period
    assert assign_slots([end] * 3, slots, 3e5, period) == [0, 1, 3]
    assert assign_slots([end] * 3, slots, 3e5, period, before_ns=0.0) == [0, 2, 3]


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_observer_expects_much_less() -> None:
    """sensors-20: 40 half hours; the exact posterior, which knows the simulator, is the floor."""
    ours, ideal, frames = 0, 0.0, 0
    for seed in range(9000, 9040):
        trace = simulate_triggers(1800, seed)
        ours += wrong(trace)
        ideal += least_wrong(trace, LOST)[0]
        frames += len(trace.arrival_ns)
    print(
        f"matcher {100 * ours / frames:.4f} %, ideal observer expects {100 * ideal / frames:.4f} %"
    )
    assert ours / frames <= 0.0002
    assert ours <= 1.25 * ideal
