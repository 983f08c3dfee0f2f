"""Clocks of a machine with Debian's full kernel: a PTP clock that stands still, 1970, suspend."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.vm import qemu
from tests.vm.conftest import Run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
MS, S = 1_000_000, 1_000_000_000
DAY_S = 86_400
E1000E = ("-device", "e1000e,romfile=")


@pytest.fixture(scope="module")
def clocks(in_qemu: Run) -> dict[str, Any]:
    options = {"devices": E1000E, "rtc": "base=1970-01-02", "timeout_s": 400.0}
    return dict(in_qemu("devices", "frozen_ptp", "cold_start", **options).figures)


def test_sync_42_deploy_25_a_ptp_clock_that_stands_still_is_refused(clocks: dict[str, Any]) -> None:
    """sync-42, deploy-25: e1000e's /dev/ptp0 answers and never advances: not one measurement, and
    the second of five readings says why."""
    found = clocks["frozen_ptp"]
    assert found["reads"][0] == found["reads"][1]
    assert found["measured"] == 0
    assert found["health"] == "DEGRADED"
    assert all("the clock stands still" in told for told in found["told"][1:])


def test_sync_22_deploy_23_a_machine_that_wakes_in_1970(clocks: dict[str, Any]) -> None:
    """sync-22, deploy-23: the real-time clock says 1970-01-02; UTC after one exchange, within its
    bound, stamps in order; the machine's own clock is not touched and not asked."""
    found = clocks["cold_start"]
    assert DAY_S <= found["real_s"] < DAY_S + 3600
    assert DAY_S <= found["rtc_s"] < DAY_S + 3600
    assert found["measurements"] <= 3
    for before, now in pairwise(found["rows"]):
        assert now["raw_ns"] > before["raw_ns"]
        assert abs(now["error_ns"]) <= now["bound_ns"]
    assert found["real_moved_ns"] < 600 * S
    assert found["unknown"] == 0
    assert found["trouble"] == []


def test_sync_20_sync_40_steps_and_slews_on_the_full_kernel(in_qemu: Run) -> None:
    """sync-20, sync-40: as in test_uml_clock.py, where a read of a clock is ten times quicker:
    sizes within 10 us, and no event for a slew of 1000 ppm."""
    found = in_qemu("clock", "steps", "slews").figures
    for made in found["steps"]["exact"]:
        (step,) = made["found"]
        assert step["kind"] == "Step"
        assert abs(step["size_ns"] - made["size_ns"]) <= min(step["uncertainty_ns"], 10_000)
    assert len(found["steps"]["exact"]) == 8
    assert found["slews"]["found"] == []
    assert [round(ppm, -2) for ppm in found["slews"]["ppm"]] == [1000, -1000]


def test_sync_31_a_real_suspend_is_one_event_and_no_step(in_qemu: Run, tmp_path: Path) -> None:
    """sync-31: suspend to memory for some 8 s: RAW and MONOTONIC stand, BOOTTIME and REALTIME go
    on; the watch tells the sleep and its size, and no step of the clock."""
    with qemu.Machine(tmp_path, "tests.vm.inside.devices", ("suspended",), E1000E) as machine:
        found = json.loads(machine.line("LAB ", 400.0))
    moved = found["moved_ns"]
    slept_ns = moved["BOOTTIME"] - moved["MONOTONIC"]
    assert 2 * S < slept_ns < 12 * S
    assert abs(moved["REALTIME"] - moved["BOOTTIME"]) < 200 * MS  # the reads are not paired
    assert moved["MONOTONIC_RAW"] < 2 * S
    assert [jump["kind"] for jump in found["jumps"]] == ["Suspended"]
    ((size_ns, uncertainty_ns),) = found["slept"]
    assert abs(size_ns - slept_ns) < 200 * MS
    assert uncertainty_ns == 2 * S
