"""What a time source is to the service: a small driver that hands in measurements.

A driver owns its socket, device or file. `poll` never blocks and never raises: whatever goes wrong
becomes a `SourceHealth` with a message that says what to do. Everything that decides lives
elsewhere (`policy`, the estimator), so that a driver stays as small as chrony's refclock drivers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol

from syncline.sync.measurement import Measurement, SourceKind


class Health(enum.Enum):
    """State of a driver, not of its time."""

    STARTING = "starting"
    OK = "ok"
    SILENT = "silent"
    DEGRADED = "degraded"
    MISSING = "missing"
    DENIED = "denied"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """How a driver fares.

    Attributes:
        health: State of the driver.
        message: One line: what is wrong and the remedy; empty when nothing is.
        polls: Requests sent or epochs seen.
        refused: Packets or epochs that were not used, by reason.
        reach: Last eight polls, newest in bit 0 (as chronyc shows it).
        poll_log2: Current interval as a power of two seconds.
    """

    health: Health
    message: str = ""
    polls: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    reach: int = 0
    poll_log2: int = 0


@dataclass(frozen=True, slots=True)
class GnssSignals:
    """What a receiver says about the sky, beside its time; None where it does not say.

    Attributes:
        raw_ns: When, CLOCK_MONOTONIC_RAW.
        fix_mode: 0 or 1 none, 2 two-dimensional, 3 three-dimensional.
        satellites: Satellites used in the fix.
        cn0_dbhz: Mean carrier-to-noise density of the four strongest satellites.
        cn0_spread_dbhz: Standard deviation over all satellites: a spoofer makes them equal.
        jamming: 0..1, UBX-MON-HW jamInd / 255 or gpsd's `jam`.
        jamming_state: UBX: 0 unknown, 1 ok, 2 warning, 3 critical.
        spoofing_state: UBX-NAV-STATUS spoofDetState: 0 unknown, 1 none, 2 indicated, 3 multiple.
        latitude_deg: Position.
        longitude_deg: Position.
        speed_mps: Speed over ground.
        time_accuracy_ns: Receiver's own claim.
    """

    raw_ns: int
    fix_mode: int | None = None
    satellites: int | None = None
    cn0_dbhz: float | None = None
    cn0_spread_dbhz: float | None = None
    jamming: float | None = None
    jamming_state: int | None = None
    spoofing_state: int | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    speed_mps: float | None = None
    time_accuracy_ns: int | None = None


class Source(Protocol):
    """A driver of one time source."""

    @property
    def name(self) -> str:
        """Stable name, as measurements carry it."""

    @property
    def kind(self) -> SourceKind:
        """Noise model."""

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        """Send what is due, read what is there. Never blocks, never raises."""

    def due_raw_ns(self) -> int:
        """Raw time of the next thing to do when no input arrives before."""

    def fileno(self) -> int:
        """Descriptor to wait on, or -1."""

    def health(self) -> SourceHealth:
        """How the driver fares."""

    def signals(self) -> GnssSignals | None:
        """The sky as last reported; None for what has no receiver."""

    def set_poll(self, poll_log2: int) -> None:
        """The policy's wish for the interval; a driver without requests ignores it."""

    def leap(self) -> int | None:
        """Leap second announced for the end of this UTC month: +1, -1, 0; None unknown."""

    def close(self) -> None:
        """Give the socket, device or file back."""


NEVER_RAW_NS = 2**62
"""`due_raw_ns` of a driver that only waits for input."""


class Tally:
    """Counts refusals by reason; bounded by the number of reasons."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, reason: str) -> None:
        """Count one."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
