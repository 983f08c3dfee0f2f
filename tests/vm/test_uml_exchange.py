"""Kernel-stamped NTP exchanges while the clock of the stamps is set in their middle."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vm.conftest import Run

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def rows(in_uml: Run) -> list[dict[str, Any]]:
    found = in_uml("exchange").figures
    assert found["stamped"]
    return list(found["rows"])


@pytest.mark.parametrize(
    "place", ["before the reply", "after the reply", "there and back", "around the reply"]
)
def test_sync_20_an_exchange_in_which_the_clock_was_set_is_not_used(
    rows: list[dict[str, Any]], place: str
) -> None:
    """sync-20: steps of 0.2 ms to 1 h, also such as were undone before the exchange was over."""
    here = [row for row in rows if row["place"] == place]
    assert len(here) == 30
    assert sum(row["measured"] for row in here) == 0


def test_sync_20_exchanges_between_two_steps_are_true(rows: list[dict[str, Any]]) -> None:
    """sync-20: the others give a measurement within half their delay."""
    here = [row for row in rows if row["place"] == "nothing"]
    assert sum(row["measured"] for row in here) >= 25
    for row in here:
        if row["measured"]:
            assert abs(row["error_ns"]) <= row["delay_ns"] / 2 + 4 * row["uncertainty_ns"]
