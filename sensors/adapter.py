"""What every source of sensor data offers, live or recorded: cameras, inertial, GNSS, CAN."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from syncline.sensors.frame import FrameEvent, Ns, Stamp
from syncline.timebase import Clock

T_co = TypeVar("T_co", covariant=True)


class Stamped(Protocol):
    """What samples of all kinds have in common; `RawFrame` of a camera is one, `Sample` another."""

    @property
    def sequence(self) -> int | None:
        """The sensor's own number of it, where it has one; gaps are losses."""

    @property
    def driver(self) -> Stamp | None:
        """The sensor's or driver's stamp, where there is one."""

    @property
    def arrival(self) -> Stamp:
        """When the host had it."""


S_co = TypeVar("S_co", bound=Stamped, covariant=True)


@dataclass(frozen=True, slots=True)
class Sample(Generic[T_co]):
    """What a sensor that is no camera hands over.

    Attributes:
        sensor: Name of the sensor; of a CAN frame its bus.
        sequence: The sensor's own number of it, where it has one; gaps are losses.
        driver: Stamp of the event itself, where the sensor or its driver tells it.
        arrival: When the host had it. A recording that does not tell has the stamp of the event
            here too, with what it may be late by as bias.
        payload: `ImuReading`, `GnssReading`, `TriggerMark` or `CanFrame`.
    """

    sensor: str
    sequence: int | None
    driver: Stamp | None
    arrival: Stamp
    payload: T_co

    @property
    def stamp(self) -> Stamp:
        """The best there is: the event's stamp, else the arrival's."""
        return self.arrival if self.driver is None else self.driver


class HealthState(enum.Enum):
    """Whether a source delivers."""

    CLOSED = "closed"
    ABSENT = "absent"
    """It was never there since the start; whoever runs it looks for it again and again."""
    OK = "ok"
    STALE = "stale"
    """Open, but silent for longer than three periods."""
    GONE = "gone"
    """Unplugged or refused; the adapter is trying again."""
    ENDED = "ended"
    """A recording that was read to its end."""


@dataclass(frozen=True, slots=True)
class Health:
    """State and counters of a source, cheap to read at any time.

    Attributes:
        state: See `HealthState`.
        frames: Frames or samples delivered since `open`.
        dropped: Those lost before they reached us, from gaps in the sequence.
        duplicates: Those thrown away as repeats.
        errors: Those thrown away as unusable.
        reconnects: Times the device came back.
        last_ns: Arrival of the last one on MONOTONIC_RAW; None before the first.
        stamp_clock: Clock of the driver's stamps.
        stamp_event: What the driver's stamps mark.
        detail: One line for people.
    """

    state: HealthState
    frames: int = 0
    dropped: int = 0
    duplicates: int = 0
    errors: int = 0
    reconnects: int = 0
    last_ns: Ns | None = None
    stamp_clock: Clock = Clock.UNKNOWN
    stamp_event: FrameEvent = FrameEvent.ARRIVAL
    detail: str = ""


@runtime_checkable
class SensorAdapter(Protocol[S_co]):
    """A device, a file or a log that yields samples in order of arrival.

    `SensorAdapter[RawFrame]` is a camera; others yield a `Sample` of what they measure. `frames`
    blocks until the next one and ends when a recording does or after `close`; of a device that is
    absent or unplugged it waits and opens it again (told and counted in `health`). After `close`
    nothing comes until `open` is called again. Bounded memory: see each adapter.
    """

    def open(self) -> None:
        """Open the device or file; counters of a recording begin anew.

        Raises:
            DeviceError: The device is missing.
            PermissionDeniedError: The device may not be used.
            MediaError: The pictures cannot be read.
            LogError: The recording cannot be read.
            UsageError: An optional library is not installed.
        """

    def frames(self) -> Iterator[S_co]:
        """Frames or samples in order of arrival; opens what is not open."""

    def health(self) -> Health:
        """State and counters; any thread."""

    def close(self) -> None:
        """Release the device or file; `frames` ends. Any thread; closing twice is fine."""
