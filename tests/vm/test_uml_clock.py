"""CLOCK_REALTIME set and slewed on a real kernel, under the jump watch and the time service.

A read of a clock costs 15 us in User-Mode Linux, so sizes are sure to some 50 us only; the steps
of known size show that the error is far smaller. Native reads are in tests/sync_os/test_jumps.py.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import Any

import pytest

from tests.vm.conftest import Run

MS = 1_000_000
US = 1_000
S = 1_000_000_000


def test_sync_20_sync_40_each_step_is_one_event_of_the_right_size(in_uml: Run) -> None:
    """sync-20, sync-40: +-1 h, +-1 s, +-0.5 s, +-1 ms: one Step each, its size, within 10 ms."""
    steps = in_uml("clock", "steps", "slews").figures["steps"]
    late_ns, errors_ns = [], []
    for made in steps["exact"]:
        (found,) = made["found"]
        assert found["kind"] == "Step"
        errors_ns.append(abs(found["size_ns"] - made["size_ns"]))
        assert errors_ns[-1] <= found["uncertainty_ns"] < 50 * MS  # a read may be preempted
        late_ns.append(found["raw_ns"] - made["before_raw_ns"])
    assert len(errors_ns) == 8
    # Every error lies within what its event states. How far below shows where no read was preempted
    # by the processor that all share: the least disturbed three of eight.
    assert sorted(errors_ns)[2] < 20 * US
    assert sorted(late_ns)[2] < 10 * MS


def test_sync_20_a_clock_that_is_set_as_date_does_it(in_uml: Run) -> None:
    """sync-20: clock_settime an hour ahead and back, sized to the length of the call."""
    for made in in_uml("clock", "steps", "slews").figures["steps"]["set"]:
        (found,) = made["found"]
        assert found["kind"] == "Step"
        room_ns = made["after_raw_ns"] - made["before_raw_ns"] + found["uncertainty_ns"]
        assert abs(found["size_ns"] - made["size_ns"]) <= room_ns


def test_sync_40_a_slew_of_1000_ppm_is_no_step(in_uml: Run) -> None:
    """sync-40: the kernel runs the clock 1000 ppm fast, then slow: no event at all."""
    slews = in_uml("clock", "steps", "slews").figures["slews"]
    assert slews["lacks"] == ""
    assert slews["found"] == []
    fast, slow = slews["ppm"]
    assert fast == pytest.approx(1000, abs=150)  # it really was slewed
    assert slow == pytest.approx(-1000, abs=150)


@pytest.mark.soak
def test_deploy_23_clocks_run_over_the_ends_of_32_bits(in_uml: Run) -> None:
    """deploy-23, sync-29: 2036, 2038 and 2106 pass while the watch runs: the setting is one step,
    the passing is none, and REALTIME goes on against RAW."""
    found = in_uml("clock", "crossings", "leaps").figures["crossings"]
    assert [row["name"] for row in found] == ["2038-01-19", "2036-02-07", "2106-02-07"]
    for row in found:
        assert row["steps"] == 1
        assert row["later"] == []
        assert row["before_s"] < 0 < row["after_s"]
        assert abs(row["apart_ns"]) < MS


@pytest.mark.soak
def test_sync_28_a_leap_second_of_the_kernel_is_one_step(in_uml: Run) -> None:
    """sync-28: the kernel repeats 23:59:59, or leaves it out: one Step of a second, at midnight."""
    for row in in_uml("clock", "crossings", "leaps").figures["leaps"]:
        (found,) = row["found"]
        assert found["kind"] == "Step"
        assert abs(found["size_ns"] + row["way"] * S) <= found["uncertainty_ns"]
        assert abs(row["moved_ns"] + row["way"] * S) < MS
        due_s = 0.0 if row["way"] > 0 else -1.0
        assert due_s <= row["at_s"][0] < due_s + 1.0


@pytest.fixture(scope="module")
def service(in_uml: Run) -> dict[str, Any]:
    found: dict[str, Any] = in_uml("clock", "service").figures["service"]
    return found


@pytest.mark.soak
def test_sync_20_sync_30_records_keep_their_times_under_the_service(
    service: dict[str, Any],
) -> None:
    """sync-20, sync-30: +-1 h, +1 s, -0.5 s move the time of a record by at most 50 us."""
    assert service["trouble"] == []
    rows = service["rows"]
    assert rows[-1]["steps"] == 4
    for before, now in pairwise(rows):
        assert abs(now["error_ns"]) <= now["bound_ns"]
        if now["steps"] > before["steps"] and now["measurements"] == before["measurements"]:
            assert abs(now["first_error_ns"] - before["first_error_ns"]) <= 50 * US
    settled = [abs(row["error_ns"]) for row in rows if row["measurements"] >= 6]
    assert max(settled) < 2 * MS  # the path's own delays; a step would show as a second
    measured = [row["raw_ns"] for row in rows]
    assert max(b - a for a, b in pairwise(measured)) < 5_000 * MS


@pytest.mark.soak
def test_sync_20_the_service_tells_each_step_once(service: dict[str, Any]) -> None:
    """sync-20: four steps, four notices of their sizes; the slew after them is none."""
    assert service["unknown"] == 0
    assert len(service["found"]) == len(service["made"]) == 4
    assert median(sigma_ns for _, _, sigma_ns in service["found"]) < MS
    for (raw_ns, size_ns, sigma_ns), made in zip(service["found"], service["made"], strict=True):
        assert abs(size_ns - made["size_ns"]) <= sigma_ns
        assert raw_ns > made["before_raw_ns"]


@pytest.mark.soak
def test_sync_20_the_service_itself_sets_and_slews_the_real_clock(in_uml: Run) -> None:
    """sync-20: in mode step, a clock off by 54 days and one that somebody set by 5 s are put back,
    as near as the service knows UTC then; 100 ms are slewed at 200 ppm; its own time stands."""
    found = in_uml("clock", "policy").figures["policy"]
    months, stepped, put_back, slewing = found["errors_ns"]
    assert months == pytest.approx(-54 * 86_400 * S, abs=S)
    assert abs(stepped) < 100 * MS  # nothing is done while its bound is wider
    assert abs(put_back) < 100 * MS
    assert 90 * MS < slewing - put_back < 101 * MS
    assert found["slewed_ppm"] == pytest.approx(-200, abs=40)
    assert found["own_steps"] == 2
    assert found["trouble"] == []
    for row in found["rows"]:
        assert abs(row["error_ns"]) <= row["bound_ns"]
    # Steps between two looks are told as one, so only their sum is sure.
    moved_ns = -months + 5 * S - 5 * S + 100 * MS
    assert sum(size for size, _ in found["found"]) == pytest.approx(moved_ns, abs=200 * MS)
