"""Does a source pull time slowly? The oscillator's own record is the witness.

States of the joint window are remembered for half an hour. Two tests compare the present with them:

* rate step: the oscillator's rate left a long, steady record by more than a crystal can change. All
  sources in use must be pulling (a sole dragging server).
* conflict: sources depart from the remembered prediction by different amounts. Those that stay with
  the remembered clock are right, those that leave it are dragging (one of four, two of four).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from syncline.sync.gate import Edges, departure
from syncline.sync.settings import EstimatorSettings
from syncline.sync.window import Line, Window

_SPACING_S = 60.0
_MEMORY = 40
_RECENT = 4


@dataclass(frozen=True, slots=True)
class Memory:
    """A window as it was."""

    line: Line
    window: Window


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
        self.history.append(Memory(line, window.snapshot()))
        return True

    def note(self, name: str, edges: Edges) -> None:
        """Keep an exchange for the conflict test."""
        self.recent.setdefault(name, deque(maxlen=_RECENT)).append(edges)

    def clear(self) -> None:
        """Forget everything (a new timescale began)."""
        self.history.clear()
        self.recent.clear()

    def _record(self, memory: Memory) -> bool:
        """True when the rate before `memory` was steady for long enough to be a record."""
        s = self.settings
        past = [m.line for m in self.history if m.line.t <= memory.line.t]
        if len(past) < 6 or past[-1].t - past[0].t < s.record_s:
            return False
        rates = [p.y for p in past]
        return max(rates) - min(rates) < 0.5 * s.rate_step_limit

    def rate_step(self, line: Line) -> tuple[float, Memory | None]:
        """Rate step against a steady record, and the state to go back to."""
        s = self.settings
        for memory in self.history:
            old = memory.line
            lag = line.t - old.t
            if lag > s.rate_step_horizon_s or old.yy > (0.3 * s.rate_step_limit) ** 2:
                continue
            if lag < _SPACING_S:
                break
            dy, dx = line.y - old.y, line.x - old.at(line.t)
            sigma = math.sqrt(line.yy + old.yy + old.wander * old.wander * lag)
            if abs(dy) < s.rate_step_limit + 6.0 * sigma:
                continue
            if abs(dx) > 6.0 * math.sqrt(line.xx + old.var(line.t)) and self._record(memory):
                return dy, memory
        return 0.0, None

    def conflict(self, now: float, names: list[str]) -> tuple[list[str], Memory | None]:
        """Sources that left the remembered clock while others stayed with it.

        Args:
            now: Seconds since the epoch.
            names: Lines of the sources in use.
        """
        if len(names) < 2:
            return [], None
        for memory in self.history:
            lag = now - memory.line.t
            if lag > self.settings.rate_step_horizon_s:
                continue
            if lag < 4.0 * _SPACING_S:
                break
            left, stayed = self._split(memory, now, names)
            if left and stayed and self._record(memory):
                return left, memory
        return [], None

    def _split(self, memory: Memory, now: float, names: list[str]) -> tuple[list[str], list[str]]:
        left, stayed = [], []
        for name in names:
            edges = [e for e in self.recent.get(name, ()) if e.t > memory.line.t]
            if len(edges) < _RECENT or now - edges[0].t > 0.9 * (now - memory.line.t):
                continue
            found = [departure(memory.window, name, e, memory.line.wander) for e in edges]
            values = [f for f in found if f is not None]
            if len(values) < _RECENT:
                continue
            path = memory.window.path(name)
            trip = path[0] - path[2] if path else 0.0
            limit = self.settings.gate_floor_s + 0.01 * trip
            sign = 1.0 if sum(d for d, _ in values) > 0.0 else -1.0
            # one-sided minima: a dragging source violates with nearly every quick reply
            hits = [d * sign > limit + 6.0 * s for d, s in values]
            if sum(hits) >= 2 and all(d * sign >= 0.0 for d, _ in values):
                left.append(name)
            elif not any(hits):
                stayed.append(name)
        return left, stayed
