"""A CAN bus of the vehicle: its frames into the recording, its speed to the clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from syncline import topics
from syncline.edge.config import CanSection
from syncline.edge.records import Output
from syncline.edge.sensor_thread import SensorThread
from syncline.errors import ConfigError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapter import Sample, SensorAdapter
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.can_decoder import CanDecoder
from syncline.sensors.adapters.python_can import PythonCan
from syncline.sensors.adapters.socket_can import SocketCan
from syncline.timebase import NS_PER_S, RawClock

SPEED_AGE_NS = NS_PER_S
"""A speed older than this is no speed."""
_MPS = {"m/s": 1.0, "km/h": 1.0 / 3.6, "mph": 0.44704}


class CanBus:
    """One `[[can]]` section at work.

    Args:
        section: The section.
        clock: Raw clock.
        emit: Takes what is recorded; called on the bus's thread.
        adapter: The bus (tests pass their own).

    Raises:
        ConfigError: The database does not hold the signal of the speed.
        LogError: The database cannot be read.
        UsageError: cantools is not installed.
    """

    def __init__(
        self,
        section: CanSection,
        clock: RawClock,
        emit: Callable[[list[Output]], None],
        adapter: SensorAdapter[Sample[CanFrame]] | None = None,
    ) -> None:
        self.name = section.name
        self._section, self._clock, self._emit = section, clock, emit
        self._errors = 0
        self._speed: tuple[int, float] | None = None
        self._message, _, self._signal = section.speed.partition(".")
        self._decoder = CanDecoder(Path(section.database)) if section.speed else None
        if self._decoder is not None and not self._decoder.has(self._message, self._signal):
            raise ConfigError(
                f"can {section.name!r}: {section.database} holds no signal {section.speed!r}",
                remedy="Write speed as MESSAGE.SIGNAL, as in the database",
            )
        adapter = adapter or can_adapter(section, clock)
        self.thread = SensorThread(f"can {section.name}", adapter, self._take)

    def speed_mps(self) -> float | None:
        """The vehicle's speed, m/s; None while the bus does not tell it."""
        newest = self._speed
        if newest is None or self._clock.raw_ns() - newest[0] > SPEED_AGE_NS:
            return None
        return newest[1]

    def add_to(self, message: pb.Health) -> None:
        """Add counters to a health message."""
        health = self.thread.health()
        message.counters[f"can.{self.name}.frames"] = health.frames
        message.counters[f"can.{self.name}.errors"] = self._errors + health.errors
        message.counters[f"can.{self.name}.dropped"] = health.dropped
        message.counters[f"can.{self.name}.reconnects"] = health.reconnects

    def _take(self, sample: Sample[CanFrame]) -> None:
        frame, raw_ns = sample.payload, sample.arrival.t_ns
        if frame.error or frame.remote:
            self._errors += frame.error
            return
        if self._section.record:
            message = pb.CanFrame(
                bus=self.name,
                boot_id=self._clock.boot_id,
                raw_ns=raw_ns,
                can_id=frame.id,
                data=frame.data,
                extended=frame.extended,
            )
            self._emit([Output(topics.CAN.of(self.name), message, raw_ns)])
        if self._decoder is not None:
            self._follow_speed(self._decoder, frame, raw_ns)

    def _follow_speed(self, decoder: CanDecoder, frame: CanFrame, raw_ns: int) -> None:
        found = decoder.decode(frame)
        if found is None or found[0] != self._message:
            return
        value = found[1].get(self._signal)
        if isinstance(value, int | float):
            self._speed = raw_ns, abs(float(value)) * _MPS[self._section.speed_unit]


def can_adapter(section: CanSection, clock: RawClock) -> SensorAdapter[Sample[CanFrame]]:
    """The adapter of a configured bus, not open yet."""
    if not section.driver:
        return SocketCan(section.interface, section.name, clock=clock)
    return PythonCan(
        section.driver, section.interface, section.name, bitrate=section.bitrate, clock=clock
    )
