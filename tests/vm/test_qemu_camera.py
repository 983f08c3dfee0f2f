"""The V4L2 adapter and linuxpy on the kernel's virtual camera.

vivid stamps the end of a frame up to a frame before it is over, or the start of exposure; it drops,
damages, wraps, refuses and disappears on demand. The processor is emulated and slow, so that the
figures of time are wide; what is asserted is order, counts and which stamps are believed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.vm.conftest import Run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
PERIOD_NS = 100_000_000
MS = 1_000_000


@pytest.fixture(scope="module")
def camera(in_qemu: Run) -> dict[str, Any]:
    return dict(in_qemu("camera", timeout_s=600.0).figures)


def sequences(part: dict[str, Any]) -> list[int]:
    return [frame["sequence"] for frame in part["frames"]]


def test_deploy_24_frames_arrive_with_pictures_numbers_and_controls(camera: dict[str, Any]) -> None:
    """deploy-24: pictures of the wanted size, in order, at the wanted rate; controls are read."""
    part = camera["start_of_exposure"]
    assert len(part["frames"]) == 12
    assert sequences(part) == sorted(set(sequences(part)))
    assert all(frame["shape"] == [180, 320, 3] for frame in part["frames"])
    assert all(told[-1] == 1 for told in part["captured"])  # its only known control is the gain
    spent = part["frames"][-1]["arrival_ns"] - part["frames"][0]["arrival_ns"]
    periods = sequences(part)[-1] - sequences(part)[0]
    assert spent / periods == pytest.approx(PERIOD_NS, rel=0.2)


def test_start_of_exposure_is_told_and_lies_in_the_past(camera: dict[str, Any]) -> None:
    part = camera["start_of_exposure"]
    for frame in part["frames"]:
        assert frame["event"] == "SOE"
        assert 0 < frame["age_ns"] < 5_000 * MS
        assert 0 < frame["sigma_ns"] < MS
        assert frame["bias_ns"] == [0, 1000]
    assert part["health"]["errors"] == 0


def test_deploy_24_stamps_from_the_future_are_flagged_and_not_believed(
    camera: dict[str, Any],
) -> None:
    """deploy-24: end-of-frame stamps that lie ahead; once one was seen, none is believed."""
    part = camera["plain"]
    events = [frame["event"] for frame in part["frames"]]
    first = events.index("ARRIVAL")
    assert set(events[first:]) == {"ARRIVAL"}
    assert "stamps future" in part["health"]["detail"]
    assert part["health"]["errors"] == len(events) - first
    for frame in part["frames"][first:]:
        low, high = frame["bias_ns"]
        assert low < 0 == high


def test_deploy_24_wrapped_stamps_are_flagged(camera: dict[str, Any]) -> None:
    """deploy-24: stamps near 2^63 ns: no overflow, none believed."""
    part = camera["wrapped_stamps"]
    assert all(seconds > 2**33 - 2**12 for _, _, seconds, *_ in part["captured"])
    assert all(frame["event"] == "ARRIVAL" for frame in part["frames"])
    assert part["health"]["errors"] == len(part["frames"]) == 8


def test_deploy_24_a_wrapping_counter_loses_no_frame(camera: dict[str, Any]) -> None:
    """deploy-24: the driver's counter passes 2^32; frame numbers go on by what it counts."""
    part = camera["wrapped_sequence"]
    raw = [told[0] for told in part["captured"]]
    assert raw[0] > 2**31 > raw[-1]
    gaps = [(two - one) % 2**32 for one, two in pairwise(raw)]
    assert [two - one for one, two in pairwise(sequences(part))] == gaps
    assert part["health"]["dropped"] == sum(gaps) - len(gaps)
    assert "restarted" not in part["health"]["detail"]


def test_deploy_24_dropped_buffers_are_counted(camera: dict[str, Any]) -> None:
    """deploy-24: the driver drops 30 %: every gap of its counter is a drop, and nothing else."""
    part = camera["dropped"]
    raw = [told[0] for told in part["captured"]]
    assert part["health"]["dropped"] == raw[-1] - raw[0] + 1 - len(raw) > 3
    assert part["health"]["frames"] == len(raw) == 40


def test_a_damaged_buffer_and_a_dead_stream(camera: dict[str, Any]) -> None:
    """One damaged picture is one error; a stream that fails is opened again, numbers go on."""
    part = camera["faults"]
    damaged = [told for told in part["captured"] if told[1] & 0x40]
    assert len(damaged) == 1
    assert part["health"]["reconnects"] == 1
    assert len(part["frames"]) == 16
    assert sequences(part) == sorted(set(sequences(part)))
    assert "counter restarted 1 times" in part["health"]["detail"]


def test_a_driver_that_refuses_to_start_can_be_tried_again(camera: dict[str, Any]) -> None:
    """STREAMON and REQBUFS fail: a typed error, and the next try is not refused as busy."""
    refused = "/dev/video0: Invalid argument"
    assert camera["refused"] == [refused, "then 2 frames"] * 2
    assert camera["busy"] == "/dev/video0: Device or resource busy"


def test_sensors_37_a_camera_that_is_unplugged_comes_back(camera: dict[str, Any]) -> None:
    """sensors-37: the driver is unbound for 3 s: the same node, and numbers that count the time."""
    part = camera["unplugged"]
    assert part["health"]["reconnects"] == 1
    assert len(part["frames"]) == 16
    gap = max(pairwise(part["frames"]), key=lambda two: two[1]["arrival_ns"] - two[0]["arrival_ns"])
    away = (gap[1]["arrival_ns"] - gap[0]["arrival_ns"]) / PERIOD_NS
    assert away > 29
    assert gap[1]["sequence"] - gap[0]["sequence"] == pytest.approx(away, abs=0.2 * away)


def test_a_crop_is_told_and_planes_are_refused(camera: dict[str, Any]) -> None:
    found = camera["hdmi"]
    assert found["crop"][2:] == found["size"]
    assert found["bytes"] == found["stride"] * found["size"][1]
    assert "/dev/video2" in camera["planes"]


def test_the_doctor_names_the_nodes_and_what_their_stamps_mean(camera: dict[str, Any]) -> None:
    found = camera["doctor"]
    assert sorted(found) == ["/dev/video0", "/dev/video1", "/dev/video2"]
    for node, told in found.items():
        assert told.startswith("ok: vivid-00"), node
        assert "(vivid); stamp: end of readout on CLOCK_MONOTONIC" in told
