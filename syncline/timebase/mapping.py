"""The mapping from raw time to UTC: segments as the time service publishes them."""

from __future__ import annotations

import bisect
import enum
import math
from dataclasses import dataclass, field
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from syncline.errors import ClockError, UnknownSegmentError
from syncline.timebase.clocks import NS_PER_S

NO_BOUND_NS = 2**62
"""Bound of a time that nothing vouches for (about 146 years)."""


class TimeState(enum.IntEnum):
    """What the time service knows at an instant."""

    COLD = 0
    SYNCED = 1
    HOLDOVER = 2
    SUSPECT = 3
    INTERFERENCE = 4


class UtcTime(NamedTuple):
    """UTC of one raw instant with what is known of its error.

    A tuple, not a frozen dataclass: making one costs a third, and every record makes one.
    """

    utc_ns: int
    sigma_ns: float
    bound_ns: int
    state: TimeState


@dataclass(frozen=True, slots=True)
class MappingSegment:
    """UTC as a line over raw time, valid from `raw0_ns` until the next segment begins.

    `utc(raw) = utc0_ns + (raw - raw0_ns) * (1 + rate)`. The variance of that value is
    `cov[0] + 2*cov[1]*dt + cov[2]*dt**2` with dt in seconds (offset ns^2, ns^2/s, ns^2/s^2) plus
    `wander_ns2_per_s * |dt|` random walk. The hard bound grows by `drift_limit_ppb` away from raw0.

    Attributes:
        id: Counts up within a boot; a record names it.
        revision: 0 as published live; a smoother issues n+1.
        boot_id: Boot whose raw time this maps.
        raw0_ns: Start, CLOCK_MONOTONIC_RAW.
        utc0_ns: UTC at raw0_ns, nanoseconds since 1970-01-01T00:00:00Z (leap seconds not counted).
        rate: dUTC/draw - 1.
        cov: Variance of offset, covariance, variance of rate, see above.
        wander_ns2_per_s: Random-walk variance that each second away from raw0 adds.
        hard_bound_ns: Bound on |UTC error| at raw0_ns that holds whatever the path did.
        drift_limit_ppb: Growth of the hard bound, nanoseconds per second.
        state: What the service knew.
        sources: Names of the sources that were used.
    """

    id: int
    revision: int
    boot_id: str
    raw0_ns: int
    utc0_ns: int
    rate: float = 0.0
    cov: tuple[float, float, float] = (0.0, 0.0, 0.0)
    wander_ns2_per_s: float = 0.0
    hard_bound_ns: int = NO_BOUND_NS
    drift_limit_ppb: float = 1000.0
    state: TimeState = TimeState.COLD
    sources: tuple[str, ...] = ()

    def utc_ns(self, raw_ns: int) -> int:
        """UTC of `raw_ns`, exact in int64 (the rate term is small enough for a float)."""
        dt_ns = raw_ns - self.raw0_ns
        return self.utc0_ns + dt_ns + round(dt_ns * self.rate)

    def sigma_ns(self, raw_ns: int) -> float:
        """One standard deviation of the UTC error at `raw_ns`."""
        dt_s = (raw_ns - self.raw0_ns) / NS_PER_S
        var = self.cov[0] + 2.0 * self.cov[1] * dt_s + self.cov[2] * dt_s * dt_s
        return float(max(var + self.wander_ns2_per_s * abs(dt_s), 0.0) ** 0.5)

    def bound_ns(self, raw_ns: int) -> int:
        """Hard bound on |UTC error| at `raw_ns`."""
        if self.hard_bound_ns >= NO_BOUND_NS:
            return NO_BOUND_NS
        grown = abs(raw_ns - self.raw0_ns) * self.drift_limit_ppb * 1e-9
        return min(self.hard_bound_ns + math.ceil(grown), NO_BOUND_NS)

    def convert(self, raw_ns: int) -> UtcTime:
        """UTC, sigma, bound and state of one instant: the three methods above in one call."""
        dt_ns = raw_ns - self.raw0_ns
        dt_s = dt_ns * 1e-9
        away_s = dt_s if dt_s >= 0.0 else -dt_s
        var, cov, var_rate = self.cov
        var += (2.0 * cov + var_rate * dt_s) * dt_s + self.wander_ns2_per_s * away_s
        bound_ns = self.hard_bound_ns
        if bound_ns < NO_BOUND_NS:
            bound_ns += math.ceil(away_s * self.drift_limit_ppb)
        return UtcTime(
            self.utc0_ns + dt_ns + round(dt_ns * self.rate),
            var**0.5 if var > 0.0 else 0.0,
            bound_ns,
            self.state,
        )


@dataclass(frozen=True, slots=True)
class UtcTimes:
    """UTC of many raw instants: arrays of shape (N,)."""

    utc_ns: NDArray[np.int64]
    sigma_ns: NDArray[np.float64]
    bound_ns: NDArray[np.int64]
    state: NDArray[np.int8]


@dataclass
class Timebase:
    """The mapping segments of one boot, in order of raw0_ns; the newest revision of each wins.

    Attributes:
        boot_id: Boot whose raw time is mapped; segments of other boots are refused.
        limit: Segments kept; the oldest go first (bounded memory).
    """

    boot_id: str
    limit: int = 100_000
    _segments: list[MappingSegment] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _by_id: dict[int, MappingSegment] = field(default_factory=dict)

    def add(self, segment: MappingSegment) -> bool:
        """Take a segment or a newer revision of one; returns False for an old revision.

        Raises:
            ClockError: The segment belongs to another boot.
        """
        if segment.boot_id != self.boot_id:
            raise ClockError(
                f"segment {segment.id} is of boot {segment.boot_id!r}, not {self.boot_id!r}",
                remedy="Raw times of two boots cannot be joined; keep one Timebase per boot",
            )
        known = self._by_id.get(segment.id)
        if known is not None:
            if segment.revision <= known.revision:
                return False
            self._remove(known)
        at = bisect.bisect_right(self._starts, segment.raw0_ns)
        self._segments.insert(at, segment)
        self._starts.insert(at, segment.raw0_ns)
        self._by_id[segment.id] = segment
        if len(self._segments) > self.limit:
            self._remove(self._segments[0])
        return True

    def _remove(self, segment: MappingSegment) -> None:
        at = self._segments.index(segment)
        del self._segments[at], self._starts[at], self._by_id[segment.id]

    @property
    def segments(self) -> tuple[MappingSegment, ...]:
        """All segments in order of raw0_ns."""
        return tuple(self._segments)

    def segment(self, segment_id: int) -> MappingSegment:
        """The newest revision of a segment.

        Raises:
            UnknownSegmentError: No such segment was added, or it was dropped by the limit.
        """
        try:
            return self._by_id[segment_id]
        except KeyError:
            raise UnknownSegmentError(
                f"mapping segment {segment_id} of boot {self.boot_id!r} is not known",
                remedy="Read the log's /time/mapping topic before its records",
            ) from None

    def at(self, raw_ns: int) -> MappingSegment | None:
        """The segment in force at `raw_ns`; the first one also answers for what came before it."""
        if not self._segments:
            return None
        return self._segments[max(bisect.bisect_right(self._starts, raw_ns) - 1, 0)]

    @overload
    def utc(self, raw_ns: int) -> UtcTime: ...
    @overload
    def utc(self, raw_ns: NDArray[np.int64]) -> UtcTimes: ...
    def utc(self, raw_ns: int | NDArray[np.int64]) -> UtcTime | UtcTimes:
        """UTC of raw instants, with sigma, hard bound and state.

        Args:
            raw_ns: CLOCK_MONOTONIC_RAW nanoseconds of this boot, a scalar or an array (N,).

        Raises:
            ClockError: No segment was ever added.
        """
        if isinstance(raw_ns, np.ndarray):
            return self._utc_many(raw_ns)
        segment = self.at(raw_ns)
        if segment is None:
            raise _no_segments(self.boot_id)
        return segment.convert(raw_ns)

    def _utc_many(self, raw_ns: NDArray[np.int64]) -> UtcTimes:
        if not self._segments:
            raise _no_segments(self.boot_id)
        raw = np.asarray(raw_ns, dtype=np.int64)
        flat, order = raw.ravel(), None
        if flat.size > 1 and not bool((flat[1:] >= flat[:-1]).all()):
            order = np.argsort(flat, kind="stable")
            flat = flat[order]
        found = _convert_sorted(flat, self._segments, self._starts)
        if order is not None:
            back = np.empty_like(order)
            back[order] = np.arange(order.size)
            found = UtcTimes(
                found.utc_ns[back], found.sigma_ns[back], found.bound_ns[back], found.state[back]
            )
        shape = raw.shape
        return UtcTimes(
            found.utc_ns.reshape(shape),
            found.sigma_ns.reshape(shape),
            found.bound_ns.reshape(shape),
            found.state.reshape(shape),
        )


def _convert_sorted(
    raw: NDArray[np.int64], segments: list[MappingSegment], starts: list[int]
) -> UtcTimes:
    """UTC of ascending raw instants, one segment's stretch at a time with scalar factors."""
    n = raw.size
    found = UtcTimes(
        np.empty(n, np.int64), np.empty(n, np.float64), np.empty(n, np.int64), np.empty(n, np.int8)
    )
    edges = np.searchsorted(raw, np.asarray(starts, dtype=np.int64), side="left")
    edges[0] = 0
    edges = np.append(edges, n)
    for k in np.flatnonzero(np.diff(edges)):
        part = slice(int(edges[k]), int(edges[k + 1]))
        s = segments[int(k)]
        dt_ns = raw[part] - s.raw0_ns
        found.utc_ns[part] = dt_ns + s.utc0_ns
        found.utc_ns[part] += np.rint(dt_ns * s.rate).astype(np.int64)
        dt_s = dt_ns * 1e-9
        away_s = np.abs(dt_s)
        var = (s.cov[2] * dt_s + 2.0 * s.cov[1]) * dt_s
        var += s.cov[0]
        var += s.wander_ns2_per_s * away_s
        np.sqrt(np.maximum(var, 0.0, out=var), out=found.sigma_ns[part])
        away_s *= s.drift_limit_ppb  # nanoseconds per second
        free = s.hard_bound_ns >= NO_BOUND_NS
        found.bound_ns[part] = NO_BOUND_NS if free else np.ceil(away_s, out=away_s)
        found.bound_ns[part] += 0 if free else s.hard_bound_ns
        found.state[part] = s.state
    return found


def _no_segments(boot_id: str) -> ClockError:
    return ClockError(
        f"no mapping segment is known for boot {boot_id!r}",
        remedy="Wait for the time service's first segment, or keep the raw time",
    )
