"""Does a source pull time slowly? The oscillator's own record is the witness.

States of the joint window are remembered for half an hour. Two tests compare the present with them:

* rate step: the oscillator's rate left a long, steady record by more than a crystal can change. All
  sources in use must be pulling (a sole dragging server).
* conflict: sources depart from the remembered prediction by different amounts. Those that stay with
  the remembered clock are right, those that leave it are dragging (one of four, two of four).
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from dataclasses import dataclass

from syncline.sync.gate import Path, departure
from syncline.sync.hard import HardInterval
from syncline.sync.line import Edges, Line
from syncline.sync.settings import EstimatorSettings
from syncline.sync.window import Window

_SPACING_S = 60.0
_MEMORY = 48
_RECENT = 8
_MOST_NAMES = 64
_LAGS_S = tuple(3.5 * _SPACING_S * 1.5**i for i in range(7))
"""How far back the remembered clock is compared: 3.5 to 40 minutes, in equal ratios."""


Paths = dict[str, Path]


@dataclass(frozen=True, slots=True)
class Memory:
    """A window as it was, with the paths it predicted."""

    line: Line
    window: Window
    paths: Paths


class DragWatch:
    """History of the window and the newest exchanges of each source (bounded)."""

    def __init__(self, settings: EstimatorSettings) -> None:
        self.settings = settings
        self.history: deque[Memory] = deque(maxlen=_MEMORY)
        self.recent: dict[str, deque[Edges]] = {}

    def remember(self, window: Window) -> bool:
        """Keep the window's state about once a minute; True when one was kept."""
        line = window.line
        if line is None or (self.history and line.t - self.history[-1].line.t < _SPACING_S):
            return False
        self.history.append(Memory(line, window.snapshot(), window.all_paths()))
        return True

    def note(self, name: str, edges: Edges) -> None:
        """Keep an exchange for the conflict test."""
        self.recent.setdefault(name, deque(maxlen=_RECENT)).append(edges)
        if len(self.recent) > _MOST_NAMES:
            del self.recent[min(self.recent, key=lambda n: self.recent[n][-1].t)]

    def clear(self) -> None:
        """Forget everything (a new timescale began)."""
        self.history.clear()
        self.recent.clear()

    def _record(self, memory: Memory, *, whole: bool) -> bool:
        """True when the rate before `memory` was steady for long enough to be a record.

        Args:
            memory: The remembered clock.
            whole: All that is remembered must be steady, not only the last stretch: asked for
                where a source is accused with no allowance for the oscillator.
        """
        s = self.settings
        past = [m.line for m in self.history if m.line.t <= memory.line.t]
        if len(past) < 6 or past[-1].t - past[0].t < s.record_s:
            return False
        # the last stretch of that length: what was learnt before it, while young, is no evidence
        since = min(past[-1].t - s.record_s, past[-6].t)
        begin = 0 if whole else max(i for i, line in enumerate(past) if line.t <= since)
        rates = [line.y for line in past[begin:]]
        # a rate that is not known is no record either
        if 5.0 * math.sqrt(past[-1].yy) > 0.5 * s.rate_step_limit:
            return False
        return max(rates) - min(rates) < 0.5 * s.rate_step_limit

    def suspects(self, now: float, names: list[str]) -> list[Memory]:
        """Remembered clocks whose predictions are no longer near the newest ones, oldest first.

        What was accepted moved the prediction, so a source that left by `room` moved its edges
        by about as much; half of that is the sign to look at every exchange.

        Args:
            now: Seconds since the epoch.
            names: Lines of the sources in use.
        """
        newest = self.history[-1].paths if self.history else {}
        return [m for m in self._memories(now) if self._moved(m, now, names, newest)]

    def _moved(self, memory: Memory, now: float, names: list[str], newest: Paths) -> bool:
        line = memory.line
        dt = now - line.t
        move = line.y * dt
        grown = dt * (2.0 * line.xy + dt * line.yy) + line.wander * line.wander * dt**3 / 3.0
        floor = self.settings.gate_floor_s
        for name in names:
            old, new = memory.paths.get(name), newest.get(name)
            if old is None or new is None:
                continue
            var = min(old[3], old[1])
            room = 0.5 * (floor + 0.005 * (old[0] - old[2]) + 5.0 * math.sqrt(var + grown))
            if abs(new[0] - old[0] - move) > room or abs(new[2] - old[2] - move) > room:
                return True
        return False

    def _memories(self, now: float) -> list[Memory]:
        """The remembered clocks nearest to the lags of the tests, the oldest first."""
        found: list[Memory] = []
        times = [m.line.t for m in self.history]
        i = -1
        for lag in reversed(_LAGS_S):
            j = bisect.bisect_left(times, now - lag - _SPACING_S)
            if j > i and j < len(times) and now - times[j] >= _LAGS_S[0]:
                found.append(self.history[j])
                i = j
        return found

    def rate_step(
        self, now: float, names: list[str], memories: list[Memory]
    ) -> tuple[list[str], Memory | None]:
        """All sources in use left the remembered clock faster than an oscillator can.

        Args:
            now: Seconds since the epoch.
            names: Lines of the sources in use.
            memories: Remembered clocks to compare with.
        """
        s = self.settings
        for memory in memories:
            if now - memory.line.t > s.rate_step_horizon_s:
                continue
            left, stayed = self._split(memory, now, names, s.rate_step_limit)
            if left and not stayed and self._record(memory, whole=False):
                return left, memory
        return [], None

    def conflict(
        self, now: float, names: list[str], memories: list[Memory]
    ) -> tuple[list[str], Memory | None]:
        """Sources that left the remembered clock while others stayed with it.

        Args:
            now: Seconds since the epoch.
            names: Lines of the sources in use.
            memories: Remembered clocks to compare with.
        """
        if len(names) < 2:
            return [], None
        for memory in memories:
            left, stayed = self._split(memory, now, names, 0.0)
            if left and stayed and self._record(memory, whole=True):
                return left, memory
        return [], None

    def _split(
        self, memory: Memory, now: float, names: list[str], rate: float
    ) -> tuple[list[str], list[str]]:
        """Sources that left the remembered clock by more than noise plus `rate`, and those not."""
        left, stayed = [], []
        for name in names:
            edges = [e for e in self.recent.get(name, ()) if e.t > memory.line.t + 60.0]
            path = memory.paths.get(name)
            if len(edges) < 2 or path is None or now - edges[-1].t > 0.5 * (now - memory.line.t):
                continue
            limit = self.settings.gate_floor_s + 0.005 * (path[0] - path[2])
            ahead = behind = 0
            for e in edges:
                off, sigma = departure(memory.line, path, e, memory.line.wander)
                room = limit + 5.0 * sigma + rate * (e.t - memory.line.t)
                ahead += off > room
                behind += -off > room
            # one-sided minima: a dragging source violates one edge with its quick replies
            if max(ahead, behind) >= 2 and min(ahead, behind) == 0:
                left.append(name)
            elif max(ahead, behind) == 0:
                stayed.append(name)
        return left, stayed


def impossible(line: Line, old: Line, hard: HardInterval) -> bool:
    """True when a line left the proofs, or turned its rate since `old` as no oscillator does."""
    turn = abs(line.y - old.y)
    if turn > 5e-6 and turn > 5e-6 + _turn(old, abs(line.t - old.t)):
        return True
    x, slack = line.at(hard.t), 0.25 * (hard.high - hard.low) + 2e-5
    if hard.low - slack <= x <= hard.high + slack:
        return False
    # The line is straight where the oscillator bent: at the proofs' time it may miss by that.
    dt = abs(line.t - hard.t)
    slack += dt * min(turn, _turn(old, dt))
    return not hard.low - slack <= x <= hard.high + slack


def _turn(old: Line, lag_s: float) -> float:
    """Six sigmas of what the rate may have changed by since `old`."""
    return 6.0 * (old.wander * math.sqrt(lag_s) + math.sqrt(old.yy))


def hidden(middle_s: float, gap_s: float, age_s: float, ramp_rate: float) -> float:
    """Drift that an exchange after a long gap may hide: it may be read as queue or as drift.

    Args:
        middle_s: Distance of its midpoint from the line: the drift reading.
        gap_s: Time since the exchange before: how far a ramp could have gone.
        age_s: Time since.
        ramp_rate: Steepest ramp, 1/s.
    """
    drift = min(middle_s, 0.5 * ramp_rate * gap_s * gap_s)
    return drift * (1.0 + 2.0 * age_s / max(gap_s, 16.0))
