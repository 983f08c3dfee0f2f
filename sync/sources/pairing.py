"""Stamps of CLOCK_REALTIME, which is what the kernel gives, put on the raw clock."""

from __future__ import annotations

from dataclasses import dataclass

from syncline.errors import ClockError
from syncline.timebase import PairedRead

SLEW_LIMIT_PPM = 1100
"""The kernel slews by at most 500 ppm beside a frequency of at most 500 ppm (adjtimex(2))."""
RESOLUTION_NS = 1_000
MAX_AGE_NS = 20_000_000_000


@dataclass(frozen=True, slots=True)
class RawStamp:
    """A stamp on the raw clock.

    Attributes:
        raw_ns: CLOCK_MONOTONIC_RAW.
        uncertainty_ns: Half width of the conversion.
    """

    raw_ns: int
    uncertainty_ns: int


def moved_ns(before: PairedRead, after: PairedRead) -> int:
    """How far the other clock moved against raw between two paired reads."""
    return (after.other_ns - after.raw_ns) - (before.other_ns - before.raw_ns)


def real_to_raw(real_ns: int, before: PairedRead, after: PairedRead) -> RawStamp:
    """Put a REALTIME stamp, taken between two paired reads, on the raw clock.

    A clock that is being slewed is followed linearly. One that was set in between is refused: the
    stamp may lie on either side of the step. One that was set and put back shows nothing between
    the two reads, but a stamp from the time between lies outside them, and is refused as well.

    Raises:
        ClockError: The system clock was set between the two reads, or the stamp is not from there.
    """
    elapsed_ns = max(after.raw_ns - before.raw_ns, 0)
    moved = moved_ns(before, after)
    brackets_ns = (before.bracket_ns + after.bracket_ns) // 2
    limit_ns = elapsed_ns * SLEW_LIMIT_PPM // 1_000_000 + brackets_ns + RESOLUTION_NS
    if abs(moved) > limit_ns:
        raise ClockError(
            f"the system clock moved by {moved} ns within {elapsed_ns} ns, limit {limit_ns} ns",
            remedy="Find what sets the clock; the measurement was dropped",
        )
    slack_ns = brackets_ns + RESOLUTION_NS
    if not before.other_ns - slack_ns <= real_ns <= after.other_ns + slack_ns:
        raise ClockError(
            f"the stamp lies {real_ns - before.other_ns} ns after the first of two reads "
            f"{after.other_ns - before.other_ns} ns apart",
            remedy="Find what sets the clock; the measurement was dropped",
        )
    share = 0.0
    if elapsed_ns > 0:
        share = min(max((real_ns - before.other_ns) / elapsed_ns, 0.0), 1.0)
    offset_ns = before.other_ns - before.raw_ns + round(moved * share)
    return RawStamp(real_ns - offset_ns, brackets_ns // 2 + 1)
