"""Edges of a trigger line by the marks of a receiver: when the ones came that no mark tells of.

A receiver (UBX TIM-TM2) times at most one edge per navigation epoch and tells it up to an epoch
later, long after the frame; but it counts all of them. A periodic trigger is a line through
(number, time) of the latest marks, and the line tells the edges between and after them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from syncline.sensors.frame import Ns
from syncline.timebase import NS_PER_S

COUNTS = 65536
"""The receiver's counter has 16 bits."""
MIN_MARKS = 8
KEPT_MARKS = 64
MAX_AHEAD_NS = 5 * NS_PER_S
"""Furthest from the last mark that an edge is told."""
OFF_SIGMAS = 6.0
"""A mark further off the line than this many deviations of its prediction begins a new line."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge of the line.

    Attributes:
        number: Counted from the first mark of all, over wraps of the receiver's counter.
        utc_ns: When it came.
        sigma_ns: One standard deviation of `utc_ns`: of the line, of the trigger's own jitter
            and of what the receiver claims.
    """

    number: int
    utc_ns: Ns
    sigma_ns: float


class MarkLine:
    """A line through the latest marks of one pin, least squares; pure, and bounded by `KEPT_MARKS`.

    A trigger that stops, jumps or changes its period leaves the line; so does a receiver that
    counts anew. Then a new line begins, and nothing is told until it has `MIN_MARKS`.

    Attributes:
        marks: Marks taken.
        begun: Lines begun.
    """

    def __init__(self) -> None:
        self.marks = self.begun = 0
        self._kept: deque[tuple[int, Ns]] = deque(maxlen=KEPT_MARKS)
        self._accuracy_ns = 1.0
        self._number, self._count = 0, 0
        self._fitted: _Fit | None = None

    def add(self, count: int, utc_ns: Ns, accuracy_ns: int) -> None:
        """Take a mark of a rising edge, in order of time.

        Args:
            count: The receiver's count of rising edges, this one included.
            utc_ns: When it came.
            accuracy_ns: The receiver's own claim.
        """
        step = (count - self._count) % COUNTS if self._kept else 1
        if step == 0:
            return
        self.marks += 1
        self._count, self._number = count, self._number + step
        self._accuracy_ns = float(max(accuracy_ns, 1))
        if not self._kept or not self._is_on_line(utc_ns):
            self.begun += 1
            self._kept.clear()
        self._kept.append((self._number, utc_ns))
        self._fitted = _Fit.of(self._kept, self._accuracy_ns) if len(self._kept) >= 3 else None

    def _is_on_line(self, utc_ns: Ns) -> bool:
        if utc_ns <= self._kept[-1][1]:
            return False
        if self._fitted is None:
            return True
        there_ns, sigma_ns = self._fitted.at(self._number)
        return abs(utc_ns - there_ns) <= OFF_SIGMAS * sigma_ns

    @property
    def period_ns(self) -> float:
        """Of the trigger, in UTC; 0 while there is no line."""
        return 0.0 if self._fitted is None else self._fitted.slope_ns

    def only_edge(self, low_ns: Ns, high_ns: Ns, slack: float) -> Edge | None:
        """The edge between two times; None when there is none, several, or none can be told.

        Args:
            low_ns: UTC.
            high_ns: UTC, not before `low_ns`.
            slack: How much earlier or later it may be, in periods.
        """
        fit = self._fitted
        if fit is None or len(self._kept) < MIN_MARKS:
            return None
        if high_ns - self._kept[-1][1] > MAX_AHEAD_NS:
            return None
        first = math.ceil(fit.number_at(low_ns) - slack)
        last = math.floor(fit.number_at(high_ns) + slack)
        if first != last or first < self._kept[0][0]:
            return None
        t_ns, sigma_ns = fit.at(first)
        return Edge(first, t_ns, sigma_ns)


@dataclass(frozen=True, slots=True)
class _Fit:
    """t = mean_t + slope * (n - mean_n), relative to the newest mark, so that floats are exact."""

    number: int
    t_ns: Ns
    mean_n: float
    mean_t_ns: float
    slope_ns: float
    spread_n2: float
    count: int
    residual_ns: float

    @classmethod
    def of(cls, marks: deque[tuple[int, Ns]], accuracy_ns: float) -> _Fit:
        number, t_ns = marks[-1]
        table = np.array([(n - number, t - t_ns) for n, t in marks], dtype=np.float64)
        mean_n, mean_t_ns = (float(mean) for mean in table.mean(axis=0))
        apart_n, apart_t = table[:, 0] - mean_n, table[:, 1] - mean_t_ns
        spread_n2 = float(apart_n @ apart_n)
        slope_ns = float(apart_n @ apart_t) / spread_n2
        rest = apart_t - slope_ns * apart_n
        residual_ns = math.sqrt(float(rest @ rest) / (len(table) - 2))
        return cls(
            number, t_ns, mean_n, mean_t_ns, slope_ns, spread_n2, len(table),
            math.hypot(residual_ns, accuracy_ns),
        )  # fmt: skip

    def at(self, number: int) -> tuple[Ns, float]:
        """Time of an edge and the deviation of that prediction (its own jitter included)."""
        away = number - self.number - self.mean_n
        t_ns = self.t_ns + round(self.mean_t_ns + self.slope_ns * away)
        share = 1.0 + 1.0 / self.count + away * away / self.spread_n2
        return t_ns, self.residual_ns * math.sqrt(share)

    def number_at(self, t_ns: Ns) -> float:
        """Number, with its fraction, of the edge at a time."""
        return self.number + self.mean_n + (t_ns - self.t_ns - self.mean_t_ns) / self.slope_ns
