"""The border between the world's time scales and the estimator's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from syncline.sync.leap import LeapTable
from syncline.sync.measurement import Measurement
from syncline.timebase import NO_BOUND_NS, NS_PER_S, MappingSegment


@dataclass(slots=True)
class Timeline:
    """Translates measurements inward and segments outward.

    Attributes:
        leaps: TAI - UTC.
        slept_ns: Time that RAW missed in suspends, all together.
    """

    leaps: LeapTable
    slept_ns: int = 0

    def inner_raw(self, raw_ns: int) -> int:
        """Raw time that counted on through suspends."""
        return raw_ns + self.slept_ns

    def inward(self, m: Measurement) -> Measurement:
        """A measurement in TAI over uninterrupted raw time."""
        return replace(
            m,
            raw_ns=self.inner_raw(m.raw_ns),
            utc_ns=self.leaps.to_tai_ns(m.utc_ns),
            arrival_raw_ns=self.inner_raw(m.known_raw_ns),
        )

    def leap_offset_ns(self, segment: MappingSegment, raw_ns: int) -> int:
        """TAI - UTC in force at `raw_ns` by an inner segment."""
        tai_ns = segment.utc_ns(self.inner_raw(raw_ns))
        return tai_ns - self.leaps.to_utc_ns(tai_ns)

    def outward(self, segment: MappingSegment, raw_ns: int, offset_ns: int) -> MappingSegment:
        """An inner segment as a line of UTC over RAW that starts at `raw_ns`.

        Args:
            segment: TAI over inner raw time.
            raw_ns: Start of the outer segment.
            offset_ns: TAI - UTC, constant over the outer segment.
        """
        there = moved(segment, self.inner_raw(raw_ns))
        return replace(there, raw0_ns=raw_ns, utc0_ns=there.utc0_ns - offset_ns)

    def leap_raw_ns(self, segment: MappingSegment, after_tai_ns: int, until_tai_ns: int) -> int:
        """RAW of the first change of TAI - UTC between two TAI instants (there must be one)."""
        low, high = after_tai_ns, until_tai_ns
        before = low - self.leaps.to_utc_ns(low)
        while high - low > 1:
            middle = (low + high) // 2
            if middle - self.leaps.to_utc_ns(middle) == before:
                low = middle
            else:
                high = middle
        dt_ns = high - segment.utc0_ns
        return segment.raw0_ns + round(dt_ns - dt_ns * segment.rate) - self.slept_ns


def moved(segment: MappingSegment, raw_ns: int) -> MappingSegment:
    """The same line with its start, covariance and bound carried to `raw_ns`."""
    dt_s = (raw_ns - segment.raw0_ns) / NS_PER_S
    var, cov, var_rate = segment.cov
    return replace(
        segment,
        raw0_ns=raw_ns,
        utc0_ns=segment.utc_ns(raw_ns),
        cov=(
            var + 2.0 * cov * dt_s + var_rate * dt_s**2 + segment.wander_ns2_per_s * abs(dt_s),
            cov + var_rate * dt_s,
            var_rate,
        ),
        hard_bound_ns=min(segment.bound_ns(raw_ns), NO_BOUND_NS),
    )
