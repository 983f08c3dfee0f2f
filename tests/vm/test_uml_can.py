"""Our SocketCAN reader on the kernel's virtual CAN interface."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vm.conftest import Run

pytestmark = pytest.mark.soak
US = 1_000


@pytest.fixture(scope="module")
def bus(in_uml: Run) -> dict[str, Any]:
    return dict(in_uml("canbus").figures)


def test_frames_carry_the_kernels_stamps_on_the_raw_clock(bus: dict[str, Any]) -> None:
    """Classic, extended, remote, FD and empty frames: content, and a time within their sending,
    whether they are read at once or 50 ms later."""
    for row in (*bus["plain"], *bus["late"]):
        slack_ns = 4 * row["sigma_ns"]
        assert row["before_ns"] - slack_ns <= row["t_ns"] <= row["after_ns"] + slack_ns
        assert row["sigma_ns"] < 200 * US
    ids = [
        (row["id"], row["extended"], row["remote"], len(row["data"]) // 2) for row in bus["plain"]
    ]
    assert ids == [
        (0x123, False, False, 3),
        (0x1ABCDEF0, True, False, 8),
        (0x7FF, False, True, 0),
        (0x100, False, False, 64),
        (0x101, False, False, 0),
    ]
    assert bus["error"] == {"error": True, "id": 4}


def test_sync_30_setting_the_clock_moves_no_frame(bus: dict[str, Any]) -> None:
    """sync-30: +-1 h, +-1 s, +-10 ms while a frame waits to be read: its time stays that of its
    sending, and its stamp is used."""
    for row in bus["stepped"]:
        slack_ns = 4 * row["sigma_ns"]
        assert row["before_ns"] - slack_ns <= row["t_ns"] <= row["after_ns"] + slack_ns
        assert row["unstamped"] == 0


def test_frames_that_the_kernel_threw_away_are_counted(bus: dict[str, Any]) -> None:
    """2 001 frames into a socket that nobody reads: read + lost = sent, in order."""
    burst = bus["burst"]
    assert burst["in_order"]
    assert 0 < burst["read"] < burst["sent"] == 2001
    assert burst["read"] + burst["lost"] == burst["sent"]


def test_python_can_reads_the_same_at_the_same_time(bus: dict[str, Any]) -> None:
    for row in bus["other"]:
        assert row["same"]
        assert abs(row["apart_ns"]) < 200 * US  # its stamps are floats; ours is unsure by a bracket


def test_a_bus_that_goes_away_comes_back(bus: dict[str, Any]) -> None:
    """Down and up, deleted and made again: told each time, opened again, then every frame."""
    assert bus["unplugged"]["told"] == [
        "gone: CAN interface vcan0: Network is down",
        "then 3 of 3",
        "gone: CAN interface vcan0: No such device",
        "then 3 of 3",
    ]
    assert bus["unplugged"]["reconnects"] == 2
    assert bus["absent"] == "CAN interface vcan7: No such device"
