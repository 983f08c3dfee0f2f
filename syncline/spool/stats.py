"""What a spool tells of itself: counters of each class and of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from syncline.topics import LinkClass


@dataclass(frozen=True, slots=True)
class ClassStats:
    """Counters of one class.

    Attributes:
        put: Records put since the spool was opened.
        backlog: Records not acknowledged.
        bytes: Bytes on disk and waiting.
        dropped: Records given up at quota.
        refused: New records refused because nothing could give way.
        damaged: Records lost to damage, where their number is known.
        damaged_bytes: Bytes lost to damage.
    """

    put: int
    backlog: int
    bytes: int
    dropped: int
    refused: int
    damaged: int
    damaged_bytes: int


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """What the spool holds and has lost."""

    total_bytes: int
    quota_bytes: int
    backlog: int
    failing: str
    classes: Mapping[LinkClass, ClassStats] = field(default_factory=dict)
