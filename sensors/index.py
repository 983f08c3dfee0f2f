"""Frame numbers for a camera that gives none: from arrival alone.

The frame grid `phase + n * period` is tracked by the clock mapper (its device time is n * period),
and frames are put on it by lateness and order (`assign`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError
from syncline.sensors.assign import MAX_LATE_SLOTS, assign_slots
from syncline.sensors.clock import BlockMinKalman
from syncline.sensors.frame import Ns, Quality

I64 = NDArray[np.int64]

MAX_PENDING = 64
COLD_FRAMES = 30
EARLY_NS = 1_000_000.0
LONG_GAP_PERIODS = 30
"""After so long a silence nothing is thought to be queued from before it."""
RELOCK_FRAMES = 12
"""So many frames off the grid in a row, each by itself, and the grid is begun anew."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """A frame's number on the grid.

    Attributes:
        frame: Number of the frame as it was added, from 0.
        index: Its place on the grid.
    """

    frame: int
    index: int


class IndexTracker:
    """Numbers frames as they come; answers two frames late, in order.

    Bounded memory: `MAX_PENDING` frames and one block.

    Args:
        period_ns: Frame period, right to a few hundred ppm.
    """

    def __init__(self, period_ns: float) -> None:
        if not period_ns > 0:
            raise SensorDataError(f"index: period_ns={period_ns} must be above 0")
        self.period_ns = float(period_ns)
        self.relocks = 0
        self._mapper = BlockMinKalman()
        self._frames = 0
        self._next = 0
        self._placed = 0
        self._lost_grid = 0
        self._pending: list[tuple[int, Ns, bool]] = []
        self._before_ns: Ns | None = None
        self._scale_ns = 300_000.0

    def add(self, arrival_ns: Ns) -> list[Indexed]:
        """Take an arrival, in order; returns what is now decided."""
        number, self._frames = self._frames, self._frames + 1
        gap_ns = arrival_ns - self._pending[-1][1] if self._pending else self.period_ns
        apart = gap_ns > 0.5 * self.period_ns
        out: list[Indexed] = []
        if self._placed:
            out = self._settle() if apart else []
        elif self._pending and 0.7 < gap_ns / self.period_ns < 1.3:
            out = self._begin()
        if len(self._pending) >= MAX_PENDING:
            out = self._resolve(None)
        if self._placed and gap_ns > LONG_GAP_PERIODS * self.period_ns:
            out = out + self._pass(arrival_ns)
        self._pending.append((number, arrival_ns, apart))
        return out

    def _pass(self, arrival_ns: Ns) -> list[Indexed]:
        """After a long silence: decide what came before, and go on at the slot of now."""
        out = self._resolve(None) if self._pending else []
        passed = (arrival_ns + EARLY_NS - self._due(self._next)) // self.period_ns
        self._next += max(int(passed), 0)
        return out

    def _settle(self) -> list[Indexed]:
        """Decide what came before the last frame, if that stands alone and is in time."""
        if len(self._pending) < 2 or not self._pending[-1][2]:
            return []
        near = self._near(self._pending[-1][1], len(self._pending) - 1)
        if near is None:
            return []
        anchor = self._pending.pop()
        out = self._resolve(near)
        self._pending.append(anchor)
        return out

    def flush(self) -> list[Indexed]:
        """Decide what is still open."""
        if not self._pending:
            return []
        return self._resolve(None) if self._placed else self._begin()

    def _begin(self) -> list[Indexed]:
        """Number the first frames one by one; the last of them is in time."""
        frames, self._pending = self._pending, []
        out = [Indexed(number, at) for at, (number, _, _) in enumerate(frames)]
        self._next = len(frames)
        self._take(frames[-1][1], self._next - 1)
        return out

    def _due(self, index: int) -> float:
        x_ns = round(index * self.period_ns)
        return float(x_ns + self._mapper.offset_at(x_ns))

    def _near(self, arrival_ns: Ns, waiting: int) -> int | None:
        """Number of a frame that is in time, with `waiting` frames before it; None when late.

        A frame in time whose number is already used shows that frames before it were numbered too
        high; it takes the next number, and the first lost frame sets the count right.
        """
        guess = self._next + round((arrival_ns - self._due(self._next)) / self.period_ns)
        late = arrival_ns - self._due(guess)
        early = 0.25 * self.period_ns if self._placed < COLD_FRAMES else EARLY_NS
        if -early < late < 0.25 * self.period_ns:
            return max(guess, self._next + waiting)
        return None

    def _resolve(self, right: int | None) -> list[Indexed]:
        frames, self._pending = self._pending, []
        if len(frames) == 1:
            number, arrival_ns, _ = frames[0]
            near = self._near(arrival_ns, 0)
            if near is not None and (right is None or near < right):
                self._take(arrival_ns, near)
                self._next = near + 1
                return [Indexed(number, near)]
        return self._queue(frames, right)

    def _queue(self, frames: list[tuple[int, Ns, bool]], right: int | None) -> list[Indexed]:
        due0 = self._due(self._next)
        latest = self._next + int((frames[-1][1] + EARLY_NS - due0) // self.period_ns)
        stop = max(latest + 1, self._next + len(frames))
        if right is not None:
            stop = min(stop, right)
        first = self._next + int((frames[0][1] - due0) // self.period_ns) - MAX_LATE_SLOTS
        start = max(self._next, min(first, stop - len(frames)))
        found = assign_slots(
            [float(a) - due0 for _, a, _ in frames],
            [(n - self._next) * self.period_ns for n in range(start, stop)],
            self._scale_ns,
            self.period_ns,
            before_ns=None if self._before_ns is None else self._before_ns - due0,
            right_free=right is None,
            right_open=right is not None and stop < right,
        )
        out = []
        for (number, arrival_ns, _), at in zip(frames, found, strict=True):
            index = start + at if at >= 0 else self._next
            out.append(Indexed(number, index))
            self._take(arrival_ns, index)
            self._next = index + 1
        return out

    def _take(self, arrival_ns: Ns, index: int) -> None:
        self._before_ns = arrival_ns
        late = arrival_ns - self._due(index) if self._placed else 0.0
        if self._placed < COLD_FRAMES or late > -EARLY_NS:
            self._mapper.update(round(index * self.period_ns), arrival_ns)
        self._placed += 1
        if 0.0 <= late < 0.25 * self.period_ns:
            self._scale_ns += 0.01 * (min(late, 4 * self._scale_ns) - self._scale_ns)
            self._scale_ns = max(self._scale_ns, 20_000.0)
        self._watch(late)

    def _watch(self, late: float) -> None:
        """Notice a grid that moved: every frame lands between its slots."""
        off = late > 0.25 * self.period_ns and late < 0.9 * self.period_ns
        self._lost_grid = self._lost_grid + 1 if off else 0
        if self._lost_grid >= RELOCK_FRAMES:
            self._lost_grid, self._placed = 0, 1
            self.relocks += 1
            self._mapper.reset("the frame grid moved")


def infer_indices(arrival_ns: ArrayLike, period_ns: float) -> tuple[I64, Quality]:
    """Frame numbers of a whole recording from arrival alone.

    Args:
        arrival_ns: Arrivals (N,), in order. Of a triggered camera, less the exposure.
        period_ns: Frame period.

    Returns:
        (numbers from 0, int64 (N,), strictly increasing; quality INFERRED_INDEX, with AMBIGUOUS
        when the grid had to be begun anew).

    Raises:
        SensorDataError: The period is not positive.
    """
    tracker = IndexTracker(period_ns)
    arrivals = np.asarray(arrival_ns, dtype=np.int64)
    out = np.zeros(len(arrivals), dtype=np.int64)
    for arrival in arrivals.tolist():
        for one in tracker.add(arrival):
            out[one.frame] = one.index
    for one in tracker.flush():
        out[one.frame] = one.index
    quality = Quality.INFERRED_INDEX
    return out, quality | Quality.AMBIGUOUS if tracker.relocks else quality
