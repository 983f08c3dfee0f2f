"""What the service tells besides the mapping: one flat record for log, link and screen."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from syncline.timebase import TimeState


class NoticeKind(enum.IntEnum):
    """Kind of a notice; values are those of `ClockEventKind` on the wire."""

    ADJUST = 1
    STEP = 2
    UNKNOWN_STEP = 3
    SOURCE_VERDICT = 4
    STATE = 5
    POLICY = 6
    SUSPEND = 7


@dataclass(frozen=True, slots=True)
class Notice:
    """One event of the time service.

    Attributes:
        raw_ns: When, CLOCK_MONOTONIC_RAW.
        kind: What.
        source: Source, clock or scene it is about.
        size_ns: Of a step, an adjustment, a suspend or a source's offset.
        sigma_ns: Half width of the size.
        detail: In words.
        state: State of the service then.
    """

    raw_ns: int
    kind: NoticeKind
    source: str
    size_ns: int = 0
    sigma_ns: float = 0.0
    detail: str = ""
    state: TimeState = TimeState.COLD
