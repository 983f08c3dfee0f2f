"""What a list of frame times says about its source: period, jitter, drops, order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError

F64 = NDArray[np.float64]

DROP_AT = 1.5
"""An interval longer than this many periods hides lost frames."""


@dataclass(frozen=True, slots=True)
class TimingReport:
    """Statistics of the intervals of a stream; durations in nanoseconds.

    Attributes:
        count: Stamps.
        span_ns: Last minus first.
        period_ns: Slope of a line through stamps and frame numbers. Long intervals count as lost
            frames where that makes the line straighter; else they are jitter.
        jitter_ns: Standard deviation of intervals that are not drops, about the period.
        jitter_p99_ns: 99th percentile of their distance from the period.
        shortest_ns: Least interval.
        longest_ns: Greatest interval.
        wander_ns: Standard deviation of the stamps about the line.
        drops: Frames missing by the intervals.
        gaps: Intervals with missing frames.
        duplicates: Stamps equal to the one before.
        backward: Stamps before the one before.
    """

    count: int
    span_ns: int
    period_ns: float
    jitter_ns: float
    jitter_p99_ns: float
    shortest_ns: int
    longest_ns: int
    wander_ns: float
    drops: int
    gaps: int
    duplicates: int
    backward: int

    @property
    def rate_hz(self) -> float:
        """Frames per second."""
        return 1e9 / self.period_ns

    def lines(self) -> list[str]:
        """For people, one line per finding."""
        out = [
            f"{self.count} stamps over {self.span_ns / 1e9:.3f} s",
            f"period {self.period_ns / 1e6:.4f} ms ({self.rate_hz:.4f} Hz)",
            f"jitter {self.jitter_ns / 1e6:.4f} ms, p99 {self.jitter_p99_ns / 1e6:.4f} ms",
            f"intervals {self.shortest_ns / 1e6:.3f} to {self.longest_ns / 1e6:.3f} ms",
            f"{self.drops} frames missing in {self.gaps} gaps",
        ]
        if self.duplicates or self.backward:
            out.append(f"{self.duplicates} stamps repeated, {self.backward} out of order")
        return out


def timing_report(stamps_ns: ArrayLike) -> TimingReport:
    """Describe a stream by its stamps.

    Args:
        stamps_ns: int64 nanoseconds (N,), in order of arrival, N >= 3.

    Returns:
        The report.

    Raises:
        SensorDataError: There are fewer than three stamps, or they do not advance.
    """
    stamps = np.asarray(stamps_ns)
    if stamps.ndim != 1 or len(stamps) < 3 or not np.issubdtype(stamps.dtype, np.integer):
        raise SensorDataError(
            f"timing_report: stamps have shape {stamps.shape} and type {stamps.dtype}",
            remedy="Give at least three integer nanoseconds",
        )
    stamps = stamps.astype(np.int64)
    steps = np.diff(stamps)
    forward = steps[steps > 0]
    if len(forward) == 0:
        raise SensorDataError("timing_report: the stamps never advance")
    rough = float(np.median(forward))
    counts = np.maximum(np.rint(steps / rough), 0.0)
    counts = np.where(steps > DROP_AT * rough, counts, np.where(steps > 0, 1.0, 0.0))
    times = (stamps - stamps[0]).astype(np.float64)
    period, wander = _line(np.concatenate([[0.0], np.cumsum(counts)]), times)
    every = np.where(steps > 0, 1.0, 0.0)
    plain_period, plain_wander = _line(np.concatenate([[0.0], np.cumsum(every)]), times)
    if plain_wander <= wander:
        counts, period, wander = every, plain_period, plain_wander
    ordinary = forward[forward <= DROP_AT * rough] if counts is not every else forward
    off = ordinary - period
    late = counts > 1
    return TimingReport(
        count=len(stamps),
        span_ns=int(stamps[-1] - stamps[0]),
        period_ns=period,
        jitter_ns=float(np.sqrt(np.mean(off**2))),
        jitter_p99_ns=float(np.percentile(np.abs(off), 99)),
        shortest_ns=int(forward.min()),
        longest_ns=int(steps.max()),
        wander_ns=wander,
        drops=int(np.sum(counts[late] - 1)),
        gaps=int(np.sum(late)),
        duplicates=int(np.sum(steps == 0)),
        backward=int(np.sum(steps < 0)),
    )


def _line(numbers: F64, times: F64) -> tuple[float, float]:
    """Slope of times over frame numbers, and the standard deviation about that line."""
    centred = numbers - numbers.mean()
    slope = float(centred @ (times - times.mean())) / max(float(centred @ centred), 1e-12)
    return slope, float(np.std(times - slope * numbers))
