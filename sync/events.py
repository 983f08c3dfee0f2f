"""What the time service tells its readers besides the mapping itself.

`Adjust` and `Step` speak of a clock that somebody moved: the system clock (found by the jump
detector) or our own UTC mapping (a new segment). Records never move: they carry raw time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from syncline.timebase import Clock, TimeState


class Verdict(enum.IntEnum):
    """What selection thinks of a source."""

    CANDIDATE = 0
    SELECTED = 1
    OUTLIER = 2
    FALSETICKER = 3
    DRAGGING = 4
    UNUSABLE = 5


@dataclass(frozen=True, slots=True)
class Adjust:
    """The mapping moved within its bound: a new segment continues the old one.

    Attributes:
        raw_ns: From when.
        segment_id: The new segment.
        offset_ns: New UTC minus old UTC at `raw_ns`.
        rate_change: New rate minus old rate.
    """

    raw_ns: int
    segment_id: int
    offset_ns: int
    rate_change: float


@dataclass(frozen=True, slots=True)
class Step:
    """A clock jumped by a known size.

    Attributes:
        raw_ns: When it was noticed.
        clock: Which clock; `Clock.UTC` is our own mapping (accepted by policy, new segment).
        size_ns: New minus old.
        uncertainty_ns: Half width of the size.
        segment_id: New segment when the mapping itself stepped, else -1.
        reason: In words.
    """

    raw_ns: int
    clock: Clock
    size_ns: int
    uncertainty_ns: int = 0
    segment_id: int = -1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UnknownStep:
    """A clock was set, or time was lost, and the size is not known."""

    raw_ns: int
    clock: Clock
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SourceVerdict:
    """Selection changed its mind about a source.

    Attributes:
        raw_ns: When.
        source: Name of the source.
        verdict: The new verdict.
        reason: In words, with the figures that decided.
        offset_ns: Source minus our estimate.
    """

    raw_ns: int
    source: str
    verdict: Verdict
    reason: str = ""
    offset_ns: int = 0


@dataclass(frozen=True, slots=True)
class StateChange:
    """The service's state changed."""

    raw_ns: int
    old: TimeState
    new: TimeState
    reason: str = ""


Event = Adjust | Step | UnknownStep | SourceVerdict | StateChange
