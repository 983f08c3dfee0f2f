"""Does the oscillator's rate change faster than an oscillator can? Then a source is dragging it.

States of the joint window are remembered for half an hour; the newest is compared with older ones. A
rate step beyond `limit` that is also many sigmas is not the oscillator: temperature moves a crystal by
about 1 ppm in 20 minutes, a dragging server by tens of ppm at once.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from syncline.sync.window import Line, Window

_SPACING_S = 60.0
_MEMORY = 32


@dataclass(frozen=True, slots=True)
class Memory:
    """A window as it was."""

    line: Line
    window: Window


class RateWatch:
    """History of the window for the rate test and for going back (bounded: 32 states)."""

    def __init__(self) -> None:
        self.history: deque[Memory] = deque(maxlen=_MEMORY)

    def remember(self, window: Window) -> None:
        """Keep the window's state about once a minute."""
        line = window.line
        if line is None or (self.history and line.t - self.history[-1].line.t < _SPACING_S):
            return
        self.history.append(Memory(line, window.snapshot()))

    def step(self, line: Line, limit: float, horizon_s: float) -> tuple[float, Memory | None]:
        """Rate step against a state of the last `horizon_s` and the state to go back to.

        Args:
            line: Newest state.
            limit: Rate step that is still believed.
            horizon_s: How far back states are compared.
        """
        for memory in self.history:
            old = memory.line
            lag = line.t - old.t
            if lag > horizon_s or old.yy > (0.3 * limit) ** 2:
                continue
            if lag < 60.0:
                break
            sigma = math.sqrt(line.yy + old.yy + old.wander * old.wander * lag)
            dy = line.y - old.y
            dx = line.x - old.at(line.t)
            if abs(dy) > limit + 6.0 * sigma and abs(dx) > 6.0 * math.sqrt(
                line.xx + old.var(line.t)
            ):
                return dy, memory
        return 0.0, None

    def clear(self) -> None:
        """Forget everything (a new timescale began)."""
        self.history.clear()
