"""Instants, clocks and the mapping from raw time to UTC.

A record carries an `Instant` (boot id and CLOCK_MONOTONIC_RAW nanoseconds); UTC is what a
`MappingSegment` says about it, now or after a later revision of that segment. See docs/time.md.
"""

from syncline.timebase.clocks import (
    NS_PER_S,
    Clock,
    Instant,
    ManualClock,
    OsClock,
    PairedRead,
    RawClock,
    os_boot_id,
    paired_read,
)
from syncline.timebase.mapping import (
    NO_BOUND_NS,
    MappingSegment,
    Timebase,
    TimeState,
    UtcTime,
    UtcTimes,
)

__all__ = [
    "NO_BOUND_NS",
    "NS_PER_S",
    "Clock",
    "Instant",
    "ManualClock",
    "MappingSegment",
    "OsClock",
    "PairedRead",
    "RawClock",
    "TimeState",
    "Timebase",
    "UtcTime",
    "UtcTimes",
    "os_boot_id",
    "paired_read",
]
