"""A CAN bus of the vehicle: its frames into the recording, its speed to the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from syncline import topics
from syncline.edge.config import CanSection
from syncline.edge.records import Output
from syncline.edge.sensor_thread import SensorThread
from syncline.errors import ConfigError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapters.can import CanFrame, SocketCan
from syncline.sensors.adapters.can_logs import CanDecoder
from syncline.timebase import NS_PER_S, RawClock

SPEED_AGE_NS = NS_PER_S
"""A speed older than this is no speed."""
READ_S = 0.2
"""Longest wait for a frame: a stop is noticed within it."""
_MPS = {"m/s": 1.0, "km/h": 1.0 / 3.6, "mph": 0.44704}


class FrameSource(Protocol):
    """What is needed of `SocketCan`."""

    def open(self) -> None:
        """Open it; a `SynclineError` where it is absent or may not be used."""

    def read(self, timeout_s: float) -> CanFrame | None:
        """The next frame, None when none came in time; a `SynclineError` when it went away."""

    def close(self) -> None:
        """Release it; twice is fine."""


class CanBus:
    """One `[[can]]` section at work.

    Args:
        section: The section.
        clock: Raw clock.
        emit: Takes what is recorded; called on the bus's thread.
        source: The bus (tests pass their own).

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
        source: FrameSource | None = None,
    ) -> None:
        self.name = section.name
        self.errors = 0
        self._section, self._clock, self._emit = section, clock, emit
        self._speed: tuple[int, float] | None = None
        self._message, _, self._signal = section.speed.partition(".")
        self._decoder = CanDecoder(Path(section.database)) if section.speed else None
        if self._decoder is not None and not self._decoder.has(self._message, self._signal):
            raise ConfigError(
                f"can {section.name!r}: {section.database} holds no signal {section.speed!r}",
                remedy="Write speed as MESSAGE.SIGNAL, as in the database",
            )
        self._source = source or SocketCan(section.interface)
        self.thread = SensorThread(
            f"can {section.name}", self._source.open, self._frames, self._take
        )

    def speed_mps(self) -> float | None:
        """The vehicle's speed, m/s; None while the bus does not tell it."""
        newest = self._speed
        if newest is None or self._clock.raw_ns() - newest[0] > SPEED_AGE_NS:
            return None
        return newest[1]

    def add_to(self, message: pb.Health) -> None:
        """Add counters to a health message."""
        message.counters[f"can.{self.name}.frames"] = self.thread.samples
        message.counters[f"can.{self.name}.errors"] = self.errors
        if isinstance(self._source, SocketCan):
            message.counters[f"can.{self.name}.dropped"] = self._source.dropped

    def _frames(self) -> Iterator[CanFrame | None]:
        try:
            while True:
                yield self._source.read(READ_S)
        finally:
            self._source.close()

    def _take(self, frame: CanFrame) -> None:
        if frame.error or frame.remote:
            self.errors += frame.error
            return
        if self._section.record:
            message = pb.CanFrame(
                bus=self.name,
                boot_id=self._clock.boot_id,
                raw_ns=frame.t_ns,
                can_id=frame.id,
                data=frame.data,
                extended=frame.extended,
            )
            self._emit([Output(topics.CAN.of(self.name), message, frame.t_ns)])
        if self._decoder is not None:
            self._follow_speed(self._decoder, frame)

    def _follow_speed(self, decoder: CanDecoder, frame: CanFrame) -> None:
        found = decoder.decode(frame)
        if found is None or found[0] != self._message:
            return
        value = found[1].get(self._signal)
        if isinstance(value, int | float):
            self._speed = frame.t_ns, abs(float(value)) * _MPS[self._section.speed_unit]
