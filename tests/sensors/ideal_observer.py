"""What can be known at most: the exact posterior of which edge exposed which frame.

This observer knows how the simulator works: the time of every edge, missed ones too, when the
camera was unplugged, the density of the delay, the share of losses, how often and how long the
consumer stalls. What it is not told are the draws: which frames were lost, how late each was, when
stalls began. It sums over all of them (a hidden Markov model over edges, forward and backward), so
no matcher that sees the arrivals can expect fewer wrong frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.sensors.simulate import TriggerTrace

STEP_NS = 2_000.0
LONGEST_NS = 60e6
LEAST_SHARE = 1e-20
PER_NS = 1e4
"""Scale of densities; every way to explain an instant has just one of them."""
STALLS_PER_NS = 1.0 / 60e9
STALL_NS = (50_000_000, 400_000_000)
BEGIN_STEP_NS = 2_000_000
"""Begins of stalls are summed over in steps of this."""
OVERLAP = STALLS_PER_NS * (STALL_NS[0] + STALL_NS[1]) / 2
"""Share of stalls in which another begins: together they are longer than one can be."""
FREE, HELD = -1, -2
State = tuple[int, int]
"""(frames that arrived so far, what holds the next: FREE, HELD by a lost frame that was handed over
at the next arrival's instant, or the begin of a stall that ends at that instant)."""
Step = tuple[State, State, float, bool]
"""(from, to, likelihood, a frame arrived)."""


class Delay:
    """Distribution of the simulator's delay: exponential, plus a Pareto tail for some frames."""

    def __init__(self, core_ns: float = 300e3, tail_share: float = 0.05) -> None:
        grid = np.arange(0.0, LONGEST_NS, STEP_NS)
        tail = np.where(grid >= 1e6, 1.0 - (np.maximum(grid, 1e6) / 1e6) ** -1.2, 0.0)
        tail = np.where(grid >= 50e6, 1.0, tail)
        fade, late = math.exp(-STEP_NS / core_ns), 0.0
        self._cdf, self._density = [], []
        for at, begun, more in zip(grid, tail, np.diff(tail, prepend=0.0), strict=True):
            late = late * fade + more
            core = math.exp(-at / core_ns)
            self._cdf.append((1.0 - tail_share) * (1.0 - core) + tail_share * (begun - late))
            density = (1.0 - tail_share) * core + tail_share * late
            self._density.append(density / core_ns)

    def cdf(self, late_ns: float) -> float:
        """Share of delays up to `late_ns`."""
        if late_ns <= 0.0:
            return 0.0
        at = int(late_ns / STEP_NS)
        if at >= len(self._cdf) - 1:
            return 1.0
        part = late_ns / STEP_NS - at
        return float(self._cdf[at] + part * (self._cdf[at + 1] - self._cdf[at]))

    def density(self, late_ns: float) -> float:
        """Share per nanosecond at `late_ns`."""
        at = int(late_ns / STEP_NS)
        return float(self._density[at]) if late_ns >= 0.0 and at < len(self._density) else 0.0


@dataclass(frozen=True)
class _Slot:
    """One edge: when its frame can come at the earliest, and whether it can come at all."""

    due_ns: float
    loss: float


def frame_shares(trace: TriggerTrace, loss: float) -> list[dict[int, float]]:
    """For each frame, how likely each edge (its number) is to have exposed it."""
    delay, arrivals = Delay(), trace.arrival_ns.tolist()
    now: dict[State, float] = {(0, FREE): 1.0}
    befores, steps = [], []
    for slot in _slots(trace, loss):
        befores.append(now)
        step = _steps(slot, now, arrivals, delay)
        now = _forward(now, step)
        steps.append(step)
    return _backward(trace.edge_id, befores, steps, now, len(arrivals))


def least_wrong(trace: TriggerTrace, loss: float) -> tuple[float, NDArray[np.int64]]:
    """(frames that the best matcher expects to get wrong, its answer: the likeliest edge)."""
    shares = frame_shares(trace, loss)
    best = [max(share, key=share.__getitem__) for share in shares]
    expected = sum(1.0 - share[at] for share, at in zip(shares, best, strict=True))
    return expected, np.array(best, dtype=np.int64)


def _slots(trace: TriggerTrace, loss: float) -> list[_Slot]:
    first, past = trace.unplugged
    return [
        _Slot(float(edge + trace.base_delay_ns), 1.0 if first <= at < past else loss)
        for at, edge in enumerate(trace.edge_ns.tolist())
    ]


def _steps(slot: _Slot, now: dict[State, float], arrivals: list[int], delay: Delay) -> list[Step]:
    """What one edge may have led to, from every state."""
    out: list[Step] = []
    for state in now:
        count, holds = state
        if count == len(arrivals):
            out.append((state, state, slot.loss, False))
            continue
        late = arrivals[count] - slot.due_ns
        before = delay.cdf(late)
        if holds == HELD or (count > 0 and arrivals[count - 1] == arrivals[count]):
            out += _arrives(state, arrivals, (1.0 - slot.loss) * before)
            out.append((state, state, slot.loss * before, False))
            continue
        if holds == FREE:
            exact, counted = PER_NS * delay.density(late), 0.0
        else:
            exact = counted = before - delay.cdf(holds - slot.due_ns)
        out += _arrives(state, arrivals, (1.0 - slot.loss) * exact)
        out.append((state, state, slot.loss * (before - counted), False))
        out.append((state, (count, HELD), slot.loss * exact, False))
    return [step for step in out if step[2] > 0.0]


def _arrives(state: State, arrivals: list[int], likelihood: float) -> list[Step]:
    """The frame came; what comes next may end a stall that begins after this arrival."""
    count = state[0] + 1
    out: list[Step] = [(state, (count, FREE), likelihood, True)]
    if likelihood <= 0.0 or count == len(arrivals):
        return out
    last, following = arrivals[count - 1], arrivals[count]
    if following - last <= STALL_NS[0]:
        return out
    begins = range(max(last, following - 2 * STALL_NS[1]), following - STALL_NS[0], BEGIN_STEP_NS)
    share = likelihood * STALLS_PER_NS * BEGIN_STEP_NS * PER_NS / (STALL_NS[1] - STALL_NS[0])
    for begin in begins:
        one = following - begin <= STALL_NS[1]
        out.append((state, (count, begin), share if one else share * OVERLAP, True))
    return out


def _forward(now: dict[State, float], steps: list[Step]) -> dict[State, float]:
    after: dict[State, float] = {}
    for begin, end, likelihood, _ in steps:
        after[end] = after.get(end, 0.0) + now[begin] * likelihood
    most = max(after.values())
    return {state: v / most for state, v in after.items() if v > LEAST_SHARE * most}


def _backward(
    names: NDArray[np.int64],
    befores: list[dict[State, float]],
    steps: list[list[Step]],
    last: dict[State, float],
    frames: int,
) -> list[dict[int, float]]:
    shares: list[dict[int, float]] = [{} for _ in range(frames)]
    after = {state: float(state[0] == frames) for state in last}
    for at in range(len(steps) - 1, -1, -1):
        before: dict[State, float] = {}
        arrived: list[tuple[int, float]] = []
        for begin, end, likelihood, frame in steps[at]:
            onward = likelihood * after.get(end, 0.0)
            before[begin] = before.get(begin, 0.0) + onward
            if frame:
                arrived.append((begin[0], befores[at][begin] * onward))
        total = sum(befores[at][state] * onward for state, onward in before.items())
        for frame_number, share in arrived:
            if share > 0.0:
                share_of = shares[frame_number]
                name = int(names[at])
                share_of[name] = share_of.get(name, 0.0) + share / total
        most = max(before.values())
        after = {state: onward / most for state, onward in before.items()}
    return shares
