"""What every source of sensor data offers, live or recorded."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from syncline.sensors.frame import FrameEvent, Ns, RawFrame
from syncline.timebase import Clock


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
        frames: Frames delivered since `open`.
        dropped: Frames lost before they reached us, from gaps in the sequence.
        duplicates: Frames thrown away as repeats.
        errors: Frames thrown away as unusable.
        reconnects: Times the device came back.
        last_ns: Arrival of the last frame on MONOTONIC_RAW; None before the first.
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
class SensorAdapter(Protocol):
    """A camera, a file or a log that yields frames in order of arrival.

    `frames` blocks until the next frame, survives an unplugged device (it waits and opens it
    again, counted in `health`), and ends when a recording does or after `close`. Bounded memory:
    an adapter holds at most the driver's own buffers and one frame.
    """

    def open(self) -> None:
        """Open the device or file.

        Raises:
            DeviceError: The device is missing.
            PermissionDeniedError: The device may not be used.
            MediaError: The file cannot be read.
        """

    def frames(self) -> Iterator[RawFrame]:
        """Frames in order of arrival."""

    def health(self) -> Health:
        """State and counters."""

    def close(self) -> None:
        """Release the device; `frames` ends. Closing twice is fine."""
