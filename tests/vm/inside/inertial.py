"""A real industrial-I/O device: the kernel's HID accelerometer driver on a sensor that we play.

The sensor is a HID sensor hub (HID usage tables, sensor page) that this program plays through
/dev/uhid; driver, buffer, timestamps and sysfs are the kernel's own.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path
from typing import Any

from syncline.errors import SynclineError
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.iio import IioImu
from syncline.sensors.adapters.iio_sysfs import IioDevice
from syncline.sensors.adapters.imu import ImuReading
from syncline.timebase import NS_PER_S, OsClock
from tests.vm.guest import load_module

NAME = "accel_3d"
SAMPLES = 40
STEP_S = 0.05
_EVENT_BYTES = 4380
_DESTROY, _GET, _GET_REPLY, _CREATE, _INPUT, _SET, _SET_REPLY = 1, 9, 10, 11, 12, 13, 14

# One accelerometer: reporting state, power state, interval and sensitivity as features; state,
# event and three signed 16-bit axes as input.
DESCRIPTOR = bytes.fromhex(
    "05200973a1008501"
    "05200a1603150025057508950 1a1020a40080a41080a42080a43080a44080a4508b100c0"
    "0a1903150025057508950 1a1020a50080a51080a52080a53080a54080a5508b100c0"
    "0a0e03150027ffffff7f75209501 5500b102"
    "0a5214150026ff7f751095 01550eb102"
    "05200a0102150025067508950 1a1020a00080a01080a02080a03080a04080a05080a06088100c0"
    "0a0202150025057508950 1a1020a10080a11080a12080a13080a14080a15088100c0"
    "0a530416018026ff7f75109501550e8102"
    "0a540416018026ff7f75109501550e8102"
    "0a550416018026ff7f75109501550e8102"
    "c0".replace(" ", "")
)


class Sensor:
    """The HID side: answers the driver's requests, gives samples."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/uhid", os.O_RDWR | os.O_CLOEXEC)
        self.feature = bytearray(struct.pack("<BBBIH", 1, 1, 1, 100, 0))
        self._stop = False
        head = struct.pack(
            "<I128s64s64sHHIIII", _CREATE, b"lab sensor", b"", b"", len(DESCRIPTOR), 3,
            0x1209, 1, 1, 0,
        )  # fmt: skip
        os.write(self._fd, head + DESCRIPTOR)
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while not self._stop:
            event = os.read(self._fd, _EVENT_BYTES)
            (kind,) = struct.unpack_from("<I", event)
            if kind == _GET:
                (number,) = struct.unpack_from("<I", event, 4)
                data = bytes(self.feature)
                os.write(self._fd, struct.pack("<IIHH", _GET_REPLY, number, 0, len(data)) + data)
            elif kind == _SET:
                number, _, _, size = struct.unpack_from("<IBBH", event, 4)
                self.feature[:size] = event[12 : 12 + size]
                os.write(self._fd, struct.pack("<IIH", _SET_REPLY, number, 0))

    def give(self, x: int, y: int, z: int) -> tuple[int, int]:
        """Send a sample; RAW before and after."""
        data = struct.pack("<BBBhhh", 1, 2, 2, x, y, z)
        clock = OsClock()
        before_ns = clock.raw_ns()
        os.write(self._fd, struct.pack("<IH", _INPUT, len(data)) + data)
        return before_ns, clock.raw_ns()

    def unplug(self) -> None:
        self._stop = True
        os.write(self._fd, struct.pack("<I", _DESTROY))
        self._thread.join(2.0)
        os.close(self._fd)


def until(test: Any, patience_s: float = 20.0) -> bool:
    end = OsClock().raw_ns() + round(patience_s * NS_PER_S)
    while not test():
        if OsClock().raw_ns() > end:
            return False
        time.sleep(0.02)
    return True


def device() -> IioDevice | None:
    found = [d for d in IioDevice.all() if d.text("name") == NAME]
    return found[0] if found and found[0].node.exists() else None


class Run:
    """An adapter that reads in a thread."""

    def __init__(self, imu: IioImu) -> None:
        self.imu = imu
        self.frames: list[Sample[ImuReading]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        self.frames.extend(self.imu.frames())

    def close(self) -> bool:
        self.imu.close()
        self._thread.join(10.0)
        return not self._thread.is_alive()


def described(frame: Sample[ImuReading]) -> dict[str, Any]:
    driver = frame.driver
    return {
        "t_ns": None if driver is None else driver.t_ns,
        "sigma_ns": None if driver is None else driver.sigma_ns,
        "bias_ns": None if driver is None else driver.bias_ns,
        "arrival_ns": frame.arrival.t_ns,
        "accel": frame.payload.accel,
        "gyro": frame.payload.gyro,
    }


def drive(sensor: Sensor, clock: str) -> dict[str, Any]:
    """Samples with their true times; the device stamps on `clock`."""
    found = device()
    assert found is not None
    imu = IioImu(NAME)
    if clock != "monotonic_raw":
        imu = IioImu(NAME, root=_refusing(found, clock))
    run = Run(imu)
    open_ = until(lambda: imu.health().state.value in ("ok", "stale"))
    scale = found.text("in_accel_scale")
    truth = []
    for k in range(SAMPLES):
        truth.append(sensor.give(k - 20, 200, -300))
        time.sleep(STEP_S)
    until(lambda: len(run.frames) >= SAMPLES, 5.0)
    enabled = found.text("buffer/enable")
    closed = run.close()
    return {
        "open": open_, "clock": found.text("current_timestamp_clock"), "scale": scale,
        "truth": truth, "frames": [described(f) for f in run.frames], "closed": closed,
        "enabled": enabled, "after": found.text("buffer/enable"),
        "health": imu.health().detail, "errors": imu.health().errors,
        "type": found.text("scan_elements/in_accel_x_type"),
    }  # fmt: skip


def _refusing(found: IioDevice, clock: str) -> Path:
    """Leaves the clock as it is set here: what a driver does that refuses another."""
    found._set("buffer/enable", "0")
    found._set("current_timestamp_clock", clock)
    real = IioDevice._set

    def refuse(self: IioDevice, name: str, value: str) -> None:
        if name != "current_timestamp_clock":
            real(self, name, value)

    IioDevice._set = refuse  # type: ignore[method-assign]
    return Path("/")


def unplugged(sensor: Sensor) -> tuple[dict[str, Any], Sensor]:
    """Gone in the midst of reading, back as a new device; also returns the new sensor."""
    imu = IioImu(NAME)
    run = Run(imu)
    until(lambda: imu.health().state.value in ("ok", "stale"))
    sensor.give(1, 2, 3)
    got = until(lambda: len(run.frames) == 1)
    sensor.unplug()
    gone = until(lambda: imu.health().state.value == "gone")
    detail = imu.health().detail
    sensor = Sensor()
    back = until(lambda: imu.health().reconnects >= 1)
    sensor.give(4, 5, 6)
    again = until(lambda: len(run.frames) == 2)
    closed = run.close()
    told = {
        "got": got, "gone": gone, "detail": detail, "back": back, "again": again,
        "closed": closed, "frames": [described(f) for f in run.frames],
    }  # fmt: skip
    return told, sensor


def main(arguments: list[str]) -> dict[str, Any]:
    """Everything, one after the other."""
    for name in ("uhid", "hid-generic", "hid-sensor-hub", "hid-sensor-accel-3d"):
        load_module(name)
    until(lambda: Path("/dev/uhid").exists())
    sensor = Sensor()
    if not until(lambda: device() is not None):
        return {"there": False, "names": [d.text("name") for d in IioDevice.all()]}
    answer: dict[str, Any] = {"there": True}
    try:
        other = IioImu(NAME)
        other.open()
        try:
            IioImu(NAME).open()
        except SynclineError as error:
            answer["busy"] = str(error)
        other.close()
        answer["raw"] = drive(sensor, "monotonic_raw")
        answer["unplugged"], sensor = unplugged(sensor)
        answer["realtime"] = drive(sensor, "realtime")
    except SynclineError as error:
        answer["fault"] = str(error)
    return answer
