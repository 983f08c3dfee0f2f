"""An inertial sensor of the vehicle: its samples into the recording."""

from __future__ import annotations

import math
from collections.abc import Callable

from syncline import topics
from syncline.edge.records import Output, imu_message
from syncline.edge.sensor_thread import SensorThread
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapter import Sample, SensorAdapter
from syncline.sensors.adapters.imu import ImuReading

_UNKNOWN = (math.nan, math.nan, math.nan)


class Imu:
    """One `[[imu]]` section at work. Memory: what the adapter holds.

    Args:
        name: Name in topics.
        adapter: The sensor, not open yet.
        boot_id: Boot of its times.
        emit: Takes what is recorded; called on the sensor's thread.
    """

    def __init__(
        self,
        name: str,
        adapter: SensorAdapter[Sample[ImuReading]],
        boot_id: str,
        emit: Callable[[list[Output]], None],
    ) -> None:
        self.name = name
        self._boot_id, self._emit = boot_id, emit
        self.thread = SensorThread(f"imu {name}", adapter, self._take)

    def add_to(self, message: pb.Health) -> None:
        """Add counters to a health message."""
        health = self.thread.health()
        message.counters[f"imu.{self.name}.samples"] = health.frames
        message.counters[f"imu.{self.name}.lost"] = health.dropped
        message.counters[f"imu.{self.name}.reconnects"] = health.reconnects

    def _take(self, sample: Sample[ImuReading]) -> None:
        stamp, reading = sample.stamp, sample.payload
        low_ns, high_ns = stamp.bias_ns
        raw_ns = stamp.t_ns + (low_ns + high_ns) // 2
        # The message has no room for an interval: its middle, and as uncertain as it is wide.
        sigma_ns = math.hypot(stamp.sigma_ns, (high_ns - low_ns) / 12**0.5)
        gyro, accel = reading.gyro or _UNKNOWN, reading.accel or _UNKNOWN
        message = imu_message(self.name, self._boot_id, raw_ns, sigma_ns, gyro, accel)
        self._emit([Output(topics.IMU.of(self.name), message, raw_ns)])
