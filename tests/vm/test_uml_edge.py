"""The edge runner while the kernel's clock is set under it."""

from __future__ import annotations

import pytest

from tests.edge import tiny
from tests.vm.conftest import Run


@pytest.mark.soak
def test_edge_28_setting_the_real_clock_misses_no_deadline(in_uml: Run) -> None:
    """edge-28: +-1 h and +-30 s by the kernel's own clock, once for each of 59 frames that wait or
    run, with a deadline of 5 s: every result arrives. A frame that really is late is dropped."""
    found = in_uml("deadlines", "bundle", prepare=lambda at: tiny.bundle(at / "bundle")).figures
    assert found["steps"] == 59
    assert found["results"] == list(range(60))
    assert found["valid"]
    assert found["drops"] == [[60, "late"]]
    assert found["latency_ns"][-1] < 5_000_000_000
