"""How many whole periods lie between a trigger edge and its frame's arrival?

Phase tells the latency modulo the period only. Leaving out a few edges at start-up writes a mark
into both streams; the shift that lays mark upon mark is the latency. Without a mark the answer is
that it cannot be known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError
from syncline.sensors.frame import Ns, Quality
from syncline.sensors.index import infer_indices

I64 = NDArray[np.int64]

MARK_SLOTS = 3
"""Edges that must be missing in a row to count as a mark."""
AROUND_SLOTS = 5
"""How much beside a mark is compared."""
MARGIN = 1
"""By how many contradictions the best shift must be better than any other."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Latency from edge to arrival.

    Attributes:
        base_delay_ns: Least latency, None when it is AMBIGUOUS.
        periods: Whole periods in it.
        quality: OK or AMBIGUOUS.
    """

    base_delay_ns: Ns | None
    periods: int | None
    quality: Quality


def align_start(
    trigger_ns: ArrayLike, arrival_ns: ArrayLike, period_ns: float, max_periods: int = 10
) -> Alignment:
    """Find the latency of a triggered camera from a mark in its trigger edges.

    Args:
        trigger_ns: Edges (M,) without bounces, with at least `MARK_SLOTS` left out in a row.
        arrival_ns: Frame arrivals (N,).
        period_ns: Period of the trigger.
        max_periods: Longest latency tried, in periods.

    Returns:
        The latency, or AMBIGUOUS when there is no mark or no shift is clearly best.

    Raises:
        SensorDataError: There are fewer than 10 edges or frames.
    """
    edges = np.asarray(trigger_ns, dtype=np.int64)
    arrivals = np.asarray(arrival_ns, dtype=np.int64)
    if len(edges) < 10 or len(arrivals) < 10:
        raise SensorDataError(
            f"align_start: {len(edges)} edges and {len(arrivals)} frames are too few, 10 needed"
        )
    edges = edges[np.diff(edges, prepend=edges[0] - round(period_ns)) > 0.25 * period_ns]
    slots = np.rint(np.cumsum(np.rint(np.diff(edges, prepend=edges[0]) / period_ns)))
    slots = slots.astype(np.int64)
    unknown = Alignment(None, None, Quality.AMBIGUOUS)
    marks = np.flatnonzero(np.diff(slots) > MARK_SLOTS)
    if len(marks) == 0:
        return unknown
    windows = [(slots[m] - AROUND_SLOTS, slots[m + 1] + AROUND_SLOTS) for m in marks.tolist()]
    frames = infer_indices(arrivals, period_ns)[0]
    grid = np.interp(frames, slots, edges.astype(np.float64) - float(edges[0]))
    lead = round(float(np.median(arrivals - edges[0] - grid)) / period_ns - 0.5)
    shifts = range(lead - max_periods, lead + max_periods + 1)
    contradictions = [
        sum(_contradictions(slots, frames + shift, low, high) for low, high in windows)
        for shift in shifts
    ]
    order = np.argsort(contradictions, kind="stable")
    if contradictions[order[1]] - contradictions[order[0]] < MARGIN:
        return unknown
    shift = shifts[int(order[0])]
    return _latency(edges, slots, arrivals, frames + shift, period_ns)


def _contradictions(slots: I64, frames: I64, low: int, high: int) -> int:
    """Frames where no edge was, and edges without a frame, in slots low..high."""
    low, high = max(low, int(slots[0])), min(high, int(slots[-1]))
    edges = slots[(slots >= low) & (slots <= high)]
    taken = frames[(frames >= low) & (frames <= high)]
    both = len(np.intersect1d(edges, taken))
    return len(edges) + len(taken) - 2 * both


def _latency(edges: I64, slots: I64, arrivals: I64, frames: I64, period_ns: float) -> Alignment:
    at = np.searchsorted(slots, frames)
    at = np.minimum(at, len(slots) - 1)
    known = slots[at] == frames
    late = arrivals[known] - edges[at[known]]
    base = int(np.quantile(late, 0.002))
    if base < 0:
        return Alignment(None, None, Quality.AMBIGUOUS)
    return Alignment(base, int(base // period_ns), Quality.OK)
