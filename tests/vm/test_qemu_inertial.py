"""The industrial-I/O adapter on the kernel's own driver, buffer, timestamps and sysfs.

The sensor is a HID accelerometer that the machine's program plays through /dev/uhid. The processor
is emulated and slow; that a stamp lies between the moments before and after the sample was given
is asserted all the same.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.vm import qemu
from tests.vm.conftest import Run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
SAMPLES = 40


@pytest.fixture(scope="module")
def inertial(in_qemu: Run) -> dict[str, Any]:
    if not list((qemu.lab_folder() / "modules").glob("*/kernel/drivers/iio")):
        pytest.skip(f"an older kernel in {qemu.lab_folder()}: remove it, run scripts/vm-packages")
    found = dict(in_qemu("inertial", timeout_s=600.0).figures)
    assert found["there"], found
    assert "fault" not in found, found["fault"]
    return found


@pytest.mark.parametrize("clock", ["raw", "realtime"])
def test_every_stamp_is_the_kernels_and_true(inertial: dict[str, Any], clock: str) -> None:
    """A stamp on RAW as it is, one on REALTIME moved by a paired read: both hold the truth."""
    part = inertial[clock]
    assert part["clock"] == {"raw": "monotonic_raw", "realtime": "realtime"}[clock]
    assert len(part["frames"]) == SAMPLES
    assert part["errors"] == 0
    for (before_ns, after_ns), frame in zip(part["truth"], part["frames"], strict=True):
        room_ns = 4 * frame["sigma_ns"]
        assert before_ns - room_ns <= frame["t_ns"] <= after_ns + room_ns
        assert frame["arrival_ns"] > frame["t_ns"]
    if clock == "raw":
        assert all(frame["sigma_ns"] == 0.0 for frame in part["frames"])


def test_samples_are_in_si_units(inertial: dict[str, Any]) -> None:
    part = inertial["raw"]
    assert part["type"] == "le:s16/32>>0"
    scale = float(part["scale"])
    for k, frame in enumerate(part["frames"]):
        wanted = [(k - 20) * scale, 200 * scale, -300 * scale]
        assert frame["accel"] == pytest.approx(wanted)
        assert frame["gyro"] is None


def test_the_device_is_given_back_and_is_nobody_elses_meanwhile(inertial: dict[str, Any]) -> None:
    assert (inertial["raw"]["enabled"], inertial["raw"]["after"]) == ("1", "0")
    assert inertial["raw"]["closed"]
    assert "busy" in inertial["busy"]


def test_a_sensor_that_is_pulled_out_is_gone_and_comes_back(inertial: dict[str, Any]) -> None:
    """sensors-37: the kernel's poll says nothing of a device that is gone; reading does."""
    part = inertial["unplugged"]
    assert part["got"]
    assert part["gone"]
    assert part["detail"].startswith("accel_3d: No such device")
    assert part["back"]
    assert part["again"]
    assert part["closed"]
