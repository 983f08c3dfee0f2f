"""What goes into one step of the time service, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from syncline.sync.jumps import Jump
from syncline.sync.measurement import Measurement
from syncline.sync.notices import Notice
from syncline.sync.policy import Decision, Limits
from syncline.sync.sources.source import GnssSignals
from syncline.timebase import NS_PER_S, MappingSegment


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """What the operator may choose.

    Attributes:
        expiry_bound_ns: Hard bound beyond which no time is offered.
        accept_after_ns: A refused but steady source is accepted after this long, 0 for never.
        limits: Thresholds of the scenes.
    """

    expiry_bound_ns: int = 10 * NS_PER_S
    accept_after_ns: int = 6 * 3600 * NS_PER_S
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class StepInput:
    """All that one step knows.

    Attributes:
        raw_ns: Now.
        measurements: In order of arrival.
        jumps: Of the system clock, and suspends.
        signals: The sky.
        has_gnss: A receiver is configured.
        wheel_speed_mps: From the vehicle.
        leap_votes: What servers announce for the end of the month.
    """

    raw_ns: int
    measurements: tuple[Measurement, ...] = ()
    jumps: tuple[Jump, ...] = ()
    signals: GnssSignals | None = None
    has_gnss: bool = False
    wheel_speed_mps: float | None = None
    leap_votes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What one step tells the world.

    Attributes:
        segments: New mapping segments, oldest first.
        notices: Events.
        decision: The scene in force.
    """

    segments: tuple[MappingSegment, ...]
    notices: tuple[Notice, ...]
    decision: Decision
