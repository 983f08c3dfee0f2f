"""What a link is set to, and what it tells of itself: caps, times, state and counters."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from syncline.timebase import NS_PER_S
from syncline.topics import LinkClass


class LinkState(enum.Enum):
    """Where the device stands with its collector."""

    DOWN = "down"
    HELLO = "hello"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class LinkCaps:
    """Bytes per second; None is no cap."""

    link: int | None = None
    classes: Mapping[LinkClass, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of the link, nanoseconds."""

    ack_timeout_ns: int = 5 * NS_PER_S
    welcome_timeout_ns: int = 3 * NS_PER_S
    busy_ns: int = 1 * NS_PER_S
    backoff_least_ns: int = NS_PER_S // 5
    backoff_most_ns: int = 5 * NS_PER_S


@dataclass(slots=True)
class LinkStats:
    """Counters since the start."""

    state: LinkState = LinkState.DOWN
    sent_records: int = 0
    sent_bytes: int = 0
    acked_records: int = 0
    skipped_records: int = 0
    sessions: int = 0
    resets: int = 0
    malformed: int = 0
    in_flight_bytes: int = 0
    window_bytes: int = 0
    problem: str = ""
