"""Industrial I/O: stamps on every clock, unplugging, losses, bad settings."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from syncline.errors import DeviceError
from syncline.sensors.adapter import HealthState, Sample, SensorAdapter
from syncline.sensors.adapters import reopening
from syncline.sensors.adapters.iio import COARSE_NS, IioImu
from syncline.sensors.adapters.iio_sysfs import IioDevice
from syncline.sensors.adapters.imu import ImuReading
from syncline.sensors.frame import FrameEvent
from syncline.timebase import Clock, OsClock, PairedRead, paired_read
from tests.adapters.iio_fakes import ACCEL_SCALE, GYRO_SCALE, FakeDevice, sample

PERIOD_NS = 5_000_000


def later(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def feed(node: Path, chunks: list[bytes], pause_s: float = 0.01) -> None:
    """Write into the node as the kernel would, once somebody reads; then hang up."""
    with node.open("wb", buffering=0) as pipe:
        for chunk in chunks:
            pipe.write(chunk)
            time.sleep(pause_s)


def run(
    imu: IioImu, device: FakeDevice, chunks: list[bytes], count: int
) -> list[Sample[ImuReading]]:
    imu.open()
    thread = later(lambda: feed(device.node, chunks))
    found: list[Sample[ImuReading]] = []
    try:
        for frame in imu.frames():
            found.append(frame)
            if len(found) == count:
                imu.close()
    finally:
        thread.join(5.0)
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopening, "RETRY_NS", 20_000_000)


@pytest.mark.parametrize(
    ("name", "clock"),
    [("realtime", Clock.REALTIME), ("boottime", Clock.BOOTTIME), ("monotonic", Clock.MONOTONIC)],
)
def test_samples_come_in_si_units_on_the_raw_clock(tmp_path: Path, name: str, clock: Clock) -> None:
    """A stamp on any of the kernel's clocks is moved to RAW to the nanosecond of the pairing."""
    # The clock cannot be set: the file is read-only for the driver's own reason.
    device = FakeDevice(tmp_path, clock=name)
    ahead_ns = 77_000_000_000_123
    raw = OsClock()

    def pair(which: Clock) -> PairedRead:
        assert which is clock
        now_ns = raw.raw_ns()
        return PairedRead(now_ns, now_ns + ahead_ns, 240)

    real_set = IioDevice._set

    def set_but_not_the_clock(self: IioDevice, key: str, value: str) -> None:
        if key == "current_timestamp_clock":
            raise DeviceError("busy")
        real_set(self, key, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IioDevice, "_set", set_but_not_the_clock)
        imu = IioImu("icm42605", root=tmp_path, pair=pair)
        assert isinstance(imu, SensorAdapter)
        start_ns = raw.raw_ns() - 50_000_000
        truth = [start_ns + k * PERIOD_NS for k in range(8)]
        chunks = [sample(k, t + ahead_ns) for k, t in enumerate(truth)]
        frames = run(imu, device, chunks, 8)
    for k, frame in enumerate(frames):
        assert frame.driver is not None
        assert (frame.driver.clock, frame.driver.event) == (
            Clock.MONOTONIC_RAW,
            FrameEvent.TRIGGER,
        )
        assert frame.driver.t_ns == truth[k]
        assert frame.driver.sigma_ns == pytest.approx(240 / 12**0.5)
        reading = frame.payload
        assert isinstance(reading, ImuReading)
        assert reading.accel == pytest.approx(
            ((100 + k) * ACCEL_SCALE, 200 * ACCEL_SCALE, 16400 * ACCEL_SCALE)
        )
        assert reading.gyro == pytest.approx(tuple(v * GYRO_SCALE for v in (-300, 400, 500)))
    assert f"stamp: the trigger, by the kernel, {clock.name}" in imu.health().detail


def test_the_device_is_set_up_and_given_back(tmp_path: Path) -> None:
    device = FakeDevice(tmp_path, changes={"trigger/current_trigger": ""})
    imu = IioImu("iio:device0", root=tmp_path, rate_hz=400.0, trigger="icm-dev0")
    imu.open()
    assert device.setting("current_timestamp_clock") == "monotonic_raw"
    assert device.setting("buffer/enable") == "1"
    assert device.setting("buffer/length") == "256"
    assert device.setting("sampling_frequency") == "400"
    assert device.setting("trigger/current_trigger") == "icm-dev0"
    assert device.setting("scan_elements/in_accel_x_en") == "1"
    assert device.setting("scan_elements/in_temp_en") == "0"
    imu.close()
    assert device.setting("buffer/enable") == "0"
    assert imu.health().state is HealthState.CLOSED


def test_cut_scans_repeats_losses_and_absurd_stamps_are_counted(tmp_path: Path) -> None:
    device = FakeDevice(tmp_path, clock="monotonic_raw")
    now_ns = OsClock().raw_ns() - 100_000_000
    at = [now_ns + k * PERIOD_NS for k in range(12)]
    good = [sample(k, t) for k, t in enumerate(at)]
    chunks = [
        good[0] + good[1][:9],  # cut in the middle, the rest comes later
        good[1][9:] + good[2],
        good[2],  # a repeat
        good[6],  # three are lost
        sample(7, at[6] - 1),  # out of order
        sample(8, now_ns + 10**15),  # a stamp of the far future
        good[11][:-3],  # cut off by the end
    ]
    imu = IioImu("icm42605", root=tmp_path)
    imu.open()
    thread = later(lambda: feed(device.node, chunks))
    frames = imu.frames()
    found = [next(frames) for _ in range(5)]
    thread.join(5.0)
    later(lambda: (time.sleep(0.1), imu.close())[0])  # type: ignore[func-returns-value]
    assert list(frames) == []
    assert [f.driver.t_ns if f.driver else None for f in found] == [
        at[0],
        at[1],
        at[2],
        at[6],
        None,
    ]
    low, high = found[4].arrival.bias_ns
    assert (low, high) == (-PERIOD_NS, 0)
    health = imu.health()
    assert (health.frames, health.dropped, health.duplicates) == (5, 3, 2)
    assert health.errors == 2  # the absurd stamp, the cut scan
    assert "1 stamps of the future" in health.detail


def test_unplugged_and_back_under_another_number(tmp_path: Path) -> None:
    """sensors-37: gone while it is away, found by its name, whatever number it has then."""
    first = FakeDevice(tmp_path, clock="monotonic_raw")
    imu = IioImu("icm42605", root=tmp_path)
    imu.open()
    states: list[HealthState] = []

    def life() -> None:
        feed(first.node, [sample(0, OsClock().raw_ns())])
        first.remove()
        end = time.monotonic() + 10.0
        while "not there" not in imu.health().detail and time.monotonic() < end:
            time.sleep(0.005)
        states.append(imu.health().state)
        second = FakeDevice(tmp_path, 3, clock="monotonic_raw")
        feed(second.node, [sample(1, OsClock().raw_ns())])

    thread = later(life)
    found = []
    for frame in imu.frames():
        found.append(frame)
        if len(found) == 2:
            imu.close()
    thread.join(5.0)
    assert states == [HealthState.GONE]
    assert imu.health().reconnects >= 1


def test_silence_is_stale_and_close_ends_it(tmp_path: Path) -> None:
    device = FakeDevice(tmp_path, clock="monotonic_raw")
    imu = IioImu("icm42605", root=tmp_path)
    imu.open()
    release = threading.Event()

    def hold() -> None:
        with device.node.open("wb", buffering=0) as pipe:
            pipe.write(sample(0, OsClock().raw_ns()))
            release.wait(5.0)

    writer = later(hold)
    states = []

    def watch() -> None:
        end = time.monotonic() + 5.0
        while imu.health().state is not HealthState.STALE and time.monotonic() < end:
            time.sleep(0.002)
        states.append(imu.health().state)
        imu.close()

    watcher = later(watch)
    assert len(list(imu.frames())) == 1
    release.set()
    writer.join(5.0)
    watcher.join(5.0)
    assert states == [HealthState.STALE]


def test_a_device_that_is_gone_without_a_word_is_found_out_by_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's poll is silent for ever once the device is gone; its read says ENODEV."""
    FakeDevice(tmp_path, clock="monotonic_raw")
    imu = IioImu("icm42605", root=tmp_path)
    imu.open()

    def read(fd: int, size: int) -> bytes:
        imu.close()
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr("syncline.sensors.adapters.iio.os.read", read)
    frames = imu.frames()
    assert list(frames) == []
    assert "icm42605: No such device" in imu.health().detail


def test_a_coarse_clock_has_a_one_sided_bias(tmp_path: Path) -> None:
    device = FakeDevice(tmp_path, clock="monotonic_coarse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IioDevice, "_set", lambda *_: None)
        for path in (device.folder / "scan_elements").glob("*_en"):
            path.write_text("1")
        imu = IioImu("icm42605", root=tmp_path)
        stamp_ns = paired_read(Clock.MONOTONIC).other_ns - 1_000_000
        (frame,) = run(imu, device, [sample(0, stamp_ns)], 1)
    assert frame.driver is not None
    assert frame.driver.bias_ns == (0, COARSE_NS)
    assert "coarse" in imu.health().detail


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scan_elements/in_accel_x_type": "le:s16"}, "scan element type"),
        ({"in_accel_scale": "nan"}, "scale nan"),
        ({"in_accel_scale": "much"}, "has no scale"),
        ({"scan_elements/in_accel_x_index": ""}, "has no index"),
        ({"scan_elements/in_accel_x_index": "2"}, "share an index"),
        ({"scan_elements/in_accel_x_type": "le:s64/64X64>>0", "in_timestamp_type": ""}, ""),
    ],
)
def test_settings_that_make_no_sense_are_typed_errors(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    FakeDevice(tmp_path, changes=changes)
    imu = IioImu("icm42605", root=tmp_path)
    if not message:  # large, yet a layout
        imu.open()
        imu.close()
        return
    with pytest.raises(DeviceError, match=message) as caught:
        imu.open()
    assert caught.value.remedy


def test_absent_ambiguous_and_useless_devices_are_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="found: none"):
        IioImu("x", root=tmp_path).open()
    FakeDevice(tmp_path, 0)
    FakeDevice(tmp_path, 1)
    with pytest.raises(DeviceError, match="2 IIO devices are called 'icm42605'"):
        IioImu("icm42605", root=tmp_path).open()
    light = tmp_path / "sys/bus/iio/devices/iio:device2"
    light.mkdir()
    (light / "name").write_text("als\n")
    with pytest.raises(DeviceError, match="no buffered accelerometer"):
        IioImu("als", root=tmp_path).open()
    assert [d.kinds() for d in IioDevice.all(tmp_path)] == [("anglvel", "accel")] * 2 + [()]
