"""An inertial sensor in the daemon: recorded on the raw clock, absent without harm."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncline.edge.config import load_edge_config
from syncline.edge.imu import Imu
from syncline.edge.records import Output
from syncline.errors import ConfigError, DeviceError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters import reopening
from syncline.sensors.adapters.iio import IioImu
from syncline.sensors.adapters.imu import ImuReading
from syncline.sensors.adapters.reopening import Reopening
from syncline.sensors.frame import FrameEvent, Stamp
from syncline.timebase import Clock


class FakeImu(Reopening[Sample[ImuReading]]):
    """Absent at first as often as is said, then gives its samples and waits."""

    def __init__(self, *samples: Sample[ImuReading], absent: int = 0) -> None:
        super().__init__(None)
        self._given, self._absent, self._held = list(samples), absent, False
        self._dropped = 3
        self.done = threading.Event()

    def _open(self) -> None:
        if self._absent:
            self._absent -= 1
            raise DeviceError("IIO device 'x' is not there", remedy="Load its driver")
        self._held = True

    @property
    def _is_open(self) -> bool:
        return self._held

    def _some(self) -> Iterator[Sample[ImuReading]]:
        yield from self._given
        self._given = []
        self.done.set()
        self._closed.wait(0.001)

    def _release(self) -> None:
        self._held = False


def sample(stamp: Stamp | None, reading: ImuReading) -> Sample[ImuReading]:
    arrival = Stamp(5000, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, 0.0, (-1200, 0))
    return Sample("imu0", None, stamp, arrival, reading)


def test_samples_are_recorded_with_their_uncertainty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopening, "RETRY_NS", 10_000_000)
    stamp = Stamp(4000, Clock.MONOTONIC_RAW, FrameEvent.TRIGGER, 30.0)
    both = ImuReading((0.1, 0.2, 0.3), (1.0, 2.0, 9.8))
    imu = FakeImu(sample(stamp, both), sample(None, ImuReading(None, (1.0, 2.0, 9.8))), absent=1)
    out: list[Output] = []
    part = Imu("imu0", imu, "boot", out.extend)
    part.thread.start()
    assert imu.done.wait(5.0)
    assert part.thread.trouble == ""
    part.thread.close()
    assert [(o.topic, o.raw_ns) for o in out] == [("/imu/imu0", 4000), ("/imu/imu0", 4400)]
    first, second = (o.message for o in out)
    assert isinstance(first, pb.ImuSample)
    assert isinstance(second, pb.ImuSample)
    assert (first.sigma_ns, first.gyro_z_radps, first.accel_z_mps2) == (30.0, 0.3, 9.8)
    assert second.sigma_ns == pytest.approx(1200 / math.sqrt(12))
    assert math.isnan(second.gyro_x_radps)
    message = pb.Health()
    part.add_to(message)
    assert message.counters["imu.imu0.samples"] == 2
    assert message.counters["imu.imu0.lost"] == 3
    assert message.counters["imu.imu0.reconnects"] == 0  # it had never been there


def test_a_sensor_that_is_not_there_is_a_line(tmp_path: Path) -> None:
    part = Imu("imu0", IioImu("icm42605", root=tmp_path), "boot", lambda _: None)
    part.thread.start()
    waited = threading.Event()
    for _ in range(500):
        if part.thread.trouble:
            break
        waited.wait(0.01)
    trouble = part.thread.trouble
    part.thread.close()
    assert trouble.startswith("absent: IIO device 'icm42605' is not there")


def test_two_sensors_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    imu = '[[imu]]\nname = "a"\ndevice = "icm42605"\n'
    camera = '[[camera]]\nname = "front"\nkind = "synthetic"\n'
    file.write_text(f'[device]\nname = "car"\ndata = "x"\n{camera}{imu * 2}')
    with pytest.raises(ConfigError, match="share a name"):
        load_edge_config(file)
