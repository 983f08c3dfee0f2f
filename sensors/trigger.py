"""Which trigger edge exposed which frame.

Edges make a grid of slots; an edge that was missed leaves a slot of its own, so that a frame can be
told from its neighbours even then. Frames are matched by lateness and order (`assign`).
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError
from syncline.sensors.assign import MAX_LATE_SLOTS, assign_slots
from syncline.sensors.frame import Ns, RawFrame, Stamp

KEPT_SLOTS = 128
MAX_PENDING = 64
EARLY_NS = 500_000.0
"""A frame further before its slot than this belongs to an earlier one."""


class MatchKind(enum.Enum):
    """What became of a frame or of an edge."""

    MATCHED = "matched"
    NO_TRIGGER = "no_trigger"
    """The frame's edge was never seen."""
    NO_FRAME = "no_frame"
    """The edge brought no frame."""
    AMBIGUOUS = "ambiguous"
    """The latency may be a whole number of periods longer; nothing tells."""


@dataclass(frozen=True, slots=True)
class Match:
    """One frame, one edge, or both.

    Attributes:
        kind: See `MatchKind`.
        frame: Number of the frame, counted from 0 as they were added; None for NO_FRAME.
        trigger: Number of the edge, counted from 0, bounces included; None for NO_TRIGGER.
        edge_ns: Time of the edge, or where it must have been.
    """

    kind: MatchKind
    frame: int | None
    trigger: int | None
    edge_ns: Ns


@dataclass(slots=True)
class _Slot:
    time_ns: int
    trigger: int


class TriggerMatcher:
    """Matches edges and frames as they come; answers two frames late, in order.

    Bounded memory: the last `KEPT_SLOTS` slots and `MAX_PENDING` frames.

    Args:
        period_ns: Period of the trigger.
        base_delay_ns: Least time from edge to arrival: trigger path, exposure where it does not
            vary, readout and transfer. None = not known; see `align_start`.

    Attributes:
        bounces: Edges ignored because they followed another within a quarter period.
        missed: Slots whose edge was never seen.
    """

    def __init__(self, period_ns: float, base_delay_ns: Ns | None) -> None:
        if not period_ns > 0:
            raise SensorDataError(f"trigger matcher: period_ns={period_ns} must be above 0")
        if base_delay_ns is not None and base_delay_ns < 0:
            raise SensorDataError(f"trigger matcher: base_delay_ns={base_delay_ns} is below 0")
        self.period_ns = float(period_ns)
        self.base_delay_ns = base_delay_ns
        self.bounces = 0
        self.missed = 0
        self._slots: list[_Slot] = []
        self._edges = 0
        self._frames = 0
        self._begun = False
        self._before_ns = 0.0
        self._last_edge: int | None = None
        self._pending: list[tuple[int, int, bool]] = []
        self._early: deque[int] = deque(maxlen=64)
        self._offset_ns = 0.0
        self._scale_ns = 300_000.0

    def add_trigger(self, edge: Stamp) -> None:
        """Take an edge, in order of time."""
        self.add_edge(edge.t_ns)

    def add_edge(self, edge_ns: Ns) -> None:
        """Take an edge by its time alone; see `add_trigger`."""
        number, self._edges = self._edges, self._edges + 1
        quarter = 0.25 * self.period_ns
        if self._last_edge is not None and edge_ns - self._last_edge < quarter:
            self.bounces += 1
            return
        self._last_edge = edge_ns
        if self._slots:
            last = self._slots[-1]
            if last.trigger < 0 and edge_ns - last.time_ns < quarter:
                last.time_ns, last.trigger = edge_ns, number
                self.missed -= 1
                return
            self._fill(edge_ns)
        self._slots.append(_Slot(edge_ns, number))

    def add_frame(self, frame: RawFrame) -> list[Match]:
        """Take a frame, in order of arrival, after every edge that came before it.

        Returns:
            What is now decided, in order: frames, and edges that brought none.
        """
        return self.add_arrival(frame.arrival.t_ns)

    def add_arrival(self, arrival_ns: Ns) -> list[Match]:
        """Take a frame by its arrival alone; see `add_frame`."""
        number, self._frames = self._frames, self._frames + 1
        if self.base_delay_ns is None:
            return [Match(MatchKind.AMBIGUOUS, number, None, arrival_ns)]
        time_ns = arrival_ns - self.base_delay_ns
        self._extend(time_ns)
        apart = not self._pending or time_ns - self._pending[-1][1] > 0.5 * self.period_ns
        out = self._settle() if apart else []
        if len(self._pending) >= MAX_PENDING:
            out = self._resolve(None)
        self._pending.append((number, time_ns, apart))
        return out

    def _settle(self) -> list[Match]:
        """Decide what came before the last frame, if that stands alone and is in time."""
        if len(self._pending) < 2 or not self._pending[-1][2]:
            return []
        near = self._near(self._pending[-1][1], len(self._slots))
        if near is None:
            return []
        anchor = self._pending.pop()
        out = self._resolve(near)
        self._pending.append(anchor)
        return out

    def flush(self) -> list[Match]:
        """Decide what is still open: no more frames will come."""
        return self._resolve(None) if self._pending else []

    def _fill(self, until_ns: float) -> None:
        """Put empty slots where edges must have been missed, up to before `until_ns`."""
        last_ns = self._slots[-1].time_ns
        gap = round((until_ns - last_ns) / self.period_ns)
        step = (until_ns - last_ns) / gap if gap > 0 else self.period_ns
        first = max(1, gap - KEPT_SLOTS)
        for k in range(first, gap):
            self._slots.append(_Slot(round(last_ns + k * step), -1))
            self.missed += 1

    def _extend(self, time_ns: int) -> None:
        """Make sure there is a slot for a frame whose own edge was missed."""
        if not self._slots:
            return
        last_ns = self._slots[-1].time_ns
        ahead = int((time_ns - last_ns) / self.period_ns + 0.25)
        for k in range(max(1, ahead - KEPT_SLOTS), ahead + 1):
            self._slots.append(_Slot(round(last_ns + k * self.period_ns), -1))
            self.missed += 1

    def _near(self, time_ns: int, stop: int) -> int | None:
        """Position below `stop` of the slot that a frame in time belongs to; None when late."""
        due_ns, quarter = time_ns - self._offset_ns, 0.25 * self.period_ns
        for at in range(stop - 1, -1, -1):
            late_ns = due_ns - self._slots[at].time_ns
            if late_ns > -EARLY_NS:
                return at if late_ns < quarter else None
        return None

    def _resolve(self, right: int | None) -> list[Match]:
        """Decide all pending frames; the next one belongs to slot `right`, where given."""
        stop = len(self._slots) if right is None else right
        near = self._near(self._pending[0][1], stop) if len(self._pending) == 1 else None
        if near is not None:
            return self._report(near, [0])
        times = [t - self._offset_ns for _, t, _ in self._pending]
        limit = times[0] - MAX_LATE_SLOTS * self.period_ns
        start = 0
        while start < stop and self._slots[start].time_ns < limit:
            start += 1
        latest = times[-1] + EARLY_NS
        while stop > start and self._slots[stop - 1].time_ns > latest:
            stop -= 1
        slots = [float(s.time_ns) for s in self._slots[start:stop]]
        found = assign_slots(
            times,
            slots,
            self._scale_ns,
            self.period_ns,
            before_ns=self._before_ns if self._begun else None,
            left_free=not self._begun,
            right_free=right is None,
            right_open=right is not None and stop < right,
        )
        return self._report(start, found)

    def _report(self, start: int, found: list[int]) -> list[Match]:
        out: list[Match] = []
        used = 0
        for (number, time_ns, _), at in zip(self._pending, found, strict=True):
            if at < 0:
                out.append(Match(MatchKind.NO_TRIGGER, number, None, time_ns))
                continue
            if self._begun:
                out += self._skipped(used, start + at)
            self._begun = True
            used = start + at + 1
            slot = self._slots[start + at]
            out.append(self._match(number, slot))
            self._learn(time_ns - slot.time_ns)
        self._before_ns = self._pending[-1][1] - self._offset_ns
        self._pending.clear()
        del self._slots[: max(used, len(self._slots) - KEPT_SLOTS)]
        return out

    def _skipped(self, first: int, last: int) -> list[Match]:
        return [
            Match(MatchKind.NO_FRAME, None, s.trigger, s.time_ns)
            for s in self._slots[first:last]
            if s.trigger >= 0
        ]

    def _match(self, number: int, slot: _Slot) -> Match:
        if slot.trigger < 0:
            return Match(MatchKind.NO_TRIGGER, number, None, slot.time_ns)
        return Match(MatchKind.MATCHED, number, slot.trigger, slot.time_ns)

    def _learn(self, late_ns: int) -> None:
        if abs(late_ns) < 0.25 * self.period_ns:
            self._early.append(late_ns)
            if len(self._early) >= 16:
                self._offset_ns = float(min(self._early))
            late = max(late_ns - self._offset_ns, 0.0)
            self._scale_ns += 0.01 * (min(late, 4 * self._scale_ns) - self._scale_ns)
            self._scale_ns = max(self._scale_ns, 20_000.0)


def match_arrays(
    trigger_ns: ArrayLike, arrival_ns: ArrayLike, matcher: TriggerMatcher
) -> tuple[NDArray[np.int64], list[Match]]:
    """Run a matcher over a whole recording.

    Args:
        trigger_ns: Edges (M,), increasing.
        arrival_ns: Frame arrivals (N,), increasing.
        matcher: A fresh matcher.

    Returns:
        (index into `trigger_ns` of each frame, -1 = none; every match in order).
    """
    edges = np.asarray(trigger_ns, dtype=np.int64).tolist()
    arrivals = np.asarray(arrival_ns, dtype=np.int64).tolist()
    matches: list[Match] = []
    at = 0
    for arrival in arrivals:
        while at < len(edges) and edges[at] <= arrival:
            matcher.add_edge(edges[at])
            at += 1
        matches += matcher.add_arrival(arrival)
    matches += matcher.flush()
    out = np.full(len(arrivals), -1, dtype=np.int64)
    for match in matches:
        if match.frame is not None and match.trigger is not None:
            out[match.frame] = match.trigger
    return out, matches
