"""An inertial sensor of the vehicle: its samples into the recording."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from syncline import topics
from syncline.edge.records import Output
from syncline.errors import SynclineError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapter import HealthState, SensorAdapter
from syncline.sensors.adapters.imu import ImuReading
from syncline.sensors.frame import RawFrame

_log = logging.getLogger(__name__)

REOPEN_S = 1.0
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
        self._problem = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"imu-{name}", daemon=True)

    def start(self) -> None:
        """Begin to read; a sensor that is absent is looked for again and again."""
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why no samples come, in words; empty while they do."""
        health = self._adapter.health()
        if health.state in (HealthState.GONE, HealthState.STALE, HealthState.ABSENT):
            return ": ".join(filter(None, [health.state.value, health.detail]))
        return self._problem

    def add_to(self, message: pb.Health) -> None:
        """Add counters to a health message."""
        health = self._adapter.health()
        message.counters[f"imu.{self.name}.samples"] = health.frames
        message.counters[f"imu.{self.name}.lost"] = health.dropped

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._adapter.open()
                self._problem = ""
                for frame in self._adapter.frames():
                    if self._stop.is_set():
                        break
                    self._take(frame)
            except SynclineError as error:
                self._tell(error)
                self._stop.wait(REOPEN_S)
            except Exception:  # noqa: BLE001 - a bug of ours must show in health, alone
                self._problem = "internal error in the sensor's thread; see the log"
                _log.exception("imu %s ended by a bug", self.name)
                return

    def _tell(self, error: SynclineError) -> None:
        if str(error) != self._problem:
            _log.error("imu %s: %s", self.name, error)
        self._problem = str(error)

    def _take(self, frame: RawFrame) -> None:
        assert isinstance(frame.payload, ImuReading)
        stamp = frame.driver or frame.arrival
        gx, gy, gz = frame.payload.gyro or _UNKNOWN
        ax, ay, az = frame.payload.accel or _UNKNOWN
        low_ns, high_ns = stamp.bias_ns
        raw_ns = stamp.t_ns + (low_ns + high_ns) // 2
        message = pb.ImuSample(
            sensor=self.name,
            boot_id=self._boot_id,
            raw_ns=raw_ns,
            # The message has no room for an interval: its middle, and as uncertain as it is wide.
            sigma_ns=math.hypot(stamp.sigma_ns, (high_ns - low_ns) / 12**0.5),
            accel_x_mps2=ax,
            accel_y_mps2=ay,
            accel_z_mps2=az,
            gyro_x_radps=gx,
            gyro_y_radps=gy,
            gyro_z_radps=gz,
        )
        self._emit([Output(topics.IMU.of(self.name), message, raw_ns)])

    def close(self, timeout_s: float = 2.0) -> None:
        """End the thread and release the sensor."""
        self._stop.set()
        self._adapter.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
