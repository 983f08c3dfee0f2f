"""An inertial sensor in the daemon: recorded on the raw clock, absent without harm."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncline.edge.config import load_edge_config
from syncline.edge.imu import ImuThread
from syncline.edge.records import Output
from syncline.errors import ConfigError, DeviceError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapter import Health, HealthState
from syncline.sensors.adapters.iio import IioImu
from syncline.sensors.adapters.imu import ImuReading
from syncline.sensors.frame import FrameEvent, RawFrame, Stamp
from syncline.timebase import Clock


class FakeImu:
    """Absent at its first `open`, then gives its samples and waits."""

    def __init__(self, *frames: RawFrame, absent: int = 0) -> None:
        self._given, self._absent = frames, absent
        self.done, self._closed = threading.Event(), threading.Event()

    def open(self) -> None:
        if self._absent:
            self._absent -= 1
            raise DeviceError("IIO device 'x' is not there", remedy="Load its driver")

    def frames(self) -> Iterator[RawFrame]:
        yield from self._given
        self.done.set()
        self._closed.wait(5.0)

    def health(self) -> Health:
        return Health(HealthState.OK, frames=len(self._given), dropped=3)

    def close(self) -> None:
        self._closed.set()


def sample(stamp: Stamp | None, reading: ImuReading) -> RawFrame:
    arrival = Stamp(5000, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, 0.0, (-1200, 0))
    return RawFrame("imu0", None, None, stamp, arrival, (), reading)


def test_samples_are_recorded_with_their_uncertainty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncline.edge.sensor_thread.REOPEN_S", 0.01)
    stamp = Stamp(4000, Clock.MONOTONIC_RAW, FrameEvent.TRIGGER, 30.0)
    both = ImuReading((0.1, 0.2, 0.3), (1.0, 2.0, 9.8))
    imu = FakeImu(sample(stamp, both), sample(None, ImuReading(None, (1.0, 2.0, 9.8))), absent=1)
    out: list[Output] = []
    thread = ImuThread("imu0", imu, "boot", out.extend)
    thread.start()
    assert imu.done.wait(5.0)
    thread.close()
    assert [(o.topic, o.raw_ns) for o in out] == [("/imu/imu0", 4000), ("/imu/imu0", 4400)]
    first, second = (o.message for o in out)
    assert isinstance(first, pb.ImuSample)
    assert isinstance(second, pb.ImuSample)
    assert (first.sigma_ns, first.gyro_z_radps, first.accel_z_mps2) == (30.0, 0.3, 9.8)
    assert second.sigma_ns == pytest.approx(1200 / math.sqrt(12))
    assert math.isnan(second.gyro_x_radps)
    message = pb.Health()
    thread.add_to(message)
    assert message.counters["imu.imu0.samples"] == 2
    assert message.counters["imu.imu0.lost"] == 3
    assert thread.trouble == ""


def test_a_sensor_that_is_not_there_is_a_line(tmp_path: Path) -> None:
    thread = ImuThread("imu0", IioImu("icm42605", root=tmp_path), "boot", lambda _: None)
    thread.start()
    waited = threading.Event()
    for _ in range(500):
        if thread.trouble:
            break
        waited.wait(0.01)
    thread.close()
    assert "icm42605" in thread.trouble


def test_two_sensors_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    imu = '[[imu]]\nname = "a"\ndevice = "icm42605"\n'
    camera = '[[camera]]\nname = "front"\nkind = "synthetic"\n'
    file.write_text(f'[device]\nname = "car"\ndata = "x"\n{camera}{imu * 2}')
    with pytest.raises(ConfigError, match="share a name"):
        load_edge_config(file)
