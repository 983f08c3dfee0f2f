"""The kernel's pulse source `pps-ktimer` through the PPS driver."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.vm.conftest import Run

MS = 1_000_000
S = 1_000_000_000


@pytest.mark.soak
def test_sync_43_a_real_pulse_of_the_wrong_rate_is_refused(in_uml: Run) -> None:
    """sync-43, deploy-25: /dev/pps0 beats every 1.04 s. Its stamps are read as the kernel made
    them, none becomes a measurement although the label is true, and the status names the rate."""
    found = in_uml("pulse", "7").figures
    assert found["name"] == "ktimer"
    pulses = found["pulses"]
    assert len(pulses) >= 5
    for one, two in pairwise(pulses):
        periods = two["sequence"] - one["sequence"]
        assert periods >= 1
        assert (two["real_ns"] - one["real_ns"]) / periods == pytest.approx(1.04 * S, abs=30 * MS)
    assert all(0 < pulse["age_ns"] < 2 * S for pulse in pulses)
    assert found["measured"] == []
    assert found["health"] == "DEGRADED"
    assert "s apart, not a second" in found["message"]
    assert found["said_after"] <= 5
