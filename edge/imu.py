"""An inertial sensor of the vehicle: its samples into the recording."""

from __future__ import annotations

import math
from collections.abc import Callable

from syncline import topics
from syncline.edge.records import Output, imu_message
from syncline.edge.sensor_thread import SensorThread
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapter import HealthState, SensorAdapter
from syncline.sensors.adapters.imu import ImuReading
from syncline.sensors.frame import RawFrame

_UNKNOWN = (math.nan, math.nan, math.nan)


class ImuThread:
    """One `[[imu]]` section at work. Memory: what the adapter holds.

    Args:
        name: Name in topics.
        adapter: The sensor, not open yet.
        boot_id: Boot of its times.
        emit: Takes what is recorded; called on the sensor's thread.
    """

    def __init__(
        self, name: str, adapter: SensorAdapter, boot_id: str, emit: Callable[[list[Output]], None]
    ) -> None:
        self.name = name
        self._adapter, self._boot_id, self._emit = adapter, boot_id, emit
        self._thread = SensorThread(f"imu {name}", adapter.open, adapter.frames, self._take)

    def start(self) -> None:
        """Begin to read; a sensor that is absent is looked for again and again."""
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why no samples come, in words; empty while they do."""
        health = self._adapter.health()
        if health.state in (HealthState.GONE, HealthState.STALE, HealthState.ABSENT):
            return ": ".join(filter(None, [health.state.value, health.detail]))
        return self._thread.trouble

    def add_to(self, message: pb.Health) -> None:
        """Add counters to a health message."""
        health = self._adapter.health()
        message.counters[f"imu.{self.name}.samples"] = health.frames
        message.counters[f"imu.{self.name}.lost"] = health.dropped

    def _take(self, frame: RawFrame) -> None:
        assert isinstance(frame.payload, ImuReading)
        stamp = frame.driver or frame.arrival
        low_ns, high_ns = stamp.bias_ns
        raw_ns = stamp.t_ns + (low_ns + high_ns) // 2
        # The message has no room for an interval: its middle, and as uncertain as it is wide.
        sigma_ns = math.hypot(stamp.sigma_ns, (high_ns - low_ns) / 12**0.5)
        gyro, accel = frame.payload.gyro or _UNKNOWN, frame.payload.accel or _UNKNOWN
        message = imu_message(self.name, self._boot_id, raw_ns, sigma_ns, gyro, accel)
        self._emit([Output(topics.IMU.of(self.name), message, raw_ns)])

    def close(self) -> None:
        """End the thread and release the sensor."""
        self._thread.stop()
        self._adapter.close()
        self._thread.close()
