"""Fast two-state filter of a one-way source (GNSS, PPS): offset and rate, microseconds a sample.

It also watches for a drag: a source that pulls time away changes its rate at once, an oscillator
cannot. The newest samples are compared with what states of 8 to 40 s ago predict; a difference that
is both many sigmas and a rate step beyond the oscillator's limit is a drag. Samples reach the joint
window in blocks, and only after they are older than the drag test's reach.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

BLOCK_S = 16.0
QUARANTINE_S = 40.0
_MARK_S = 4.0
_MIN_LAG_S = 7.9


class Mark(NamedTuple):
    """A state of the filter kept for the drag test: time, offset, rate and covariance."""

    t: float
    x: float
    y: float
    xx: float
    xy: float
    yy: float

    def predict(self, t: float, wander: float) -> tuple[float, float]:
        """Offset and its variance at `t`."""
        dt = t - self.t
        var = self.xx + dt * (2.0 * self.xy + dt * self.yy) + wander * wander * dt**3 / 3.0
        return self.x + self.y * dt, var


class Block(NamedTuple):
    """Mean of consecutive samples: time, offset, sigma."""

    t: float
    offset: float
    sigma: float


class Track:
    """Kalman filter of one one-way source.

    Args:
        t: First sample, seconds since the epoch.
        offset: UTC minus raw, s.
        sigma: Of one sample, s.
        rate: Prior rate.
        rate_var: Its variance.
    """

    def __init__(self, t: float, offset: float, sigma: float, rate: float, rate_var: float) -> None:
        self.t, self.x, self.y = t, offset, rate
        self.xx, self.xy, self.yy = sigma * sigma, 0.0, rate_var
        self.count = 1
        self.marks: deque[Mark] = deque(maxlen=12)
        self.recent: deque[tuple[float, float]] = deque(maxlen=4)
        self.blocks: deque[Block] = deque(maxlen=16)
        self._open: list[tuple[float, float]] = []
        self._sigma = sigma

    def state(self) -> Mark:
        """The state at the newest sample."""
        return Mark(self.t, self.x, self.y, self.xx, self.xy, self.yy)

    def update(self, t: float, offset: float, sigma: float, wander: float, white_fm: float) -> None:
        """Take one sample."""
        dt = t - self.t
        q = wander * wander * dt
        x = self.x + self.y * dt
        xx = self.xx + dt * (2.0 * self.xy + dt * self.yy) + q * dt * dt / 3.0
        xx += white_fm * white_fm * dt
        xy, yy = self.xy + dt * self.yy + 0.5 * q * dt, self.yy + q
        s = 1.0 / (xx + sigma * sigma)
        k, g, r = xx * s, xy * s, offset - x
        self.t, self.x, self.y = t, x + k * r, self.y + g * r
        self.xx, self.xy, self.yy = xx * (1.0 - k), xy * (1.0 - k), max(yy - g * xy, 0.0)
        self.count += 1
        self.recent.append((t, offset))
        if not self.marks or t - self.marks[-1].t >= _MARK_S:
            self.marks.append(self.state())
        if self._open and t - self._open[0][0] >= BLOCK_S:
            self._close(sigma)
        self._open.append((t, offset))

    def _close(self, sigma: float) -> None:
        n = len(self._open)
        t = sum(a for a, _ in self._open) / n
        offset = self._open[0][1] + sum(o - self._open[0][1] for _, o in self._open) / n
        self.blocks.append(Block(t, offset, math.sqrt(sigma * sigma / n + 4e-16)))
        self._open = []

    def ripe(self, now: float) -> list[Block]:
        """Blocks that have passed quarantine."""
        if not self.blocks or now - self.blocks[0].t <= QUARANTINE_S:
            return []
        out = []
        while self.blocks and now - self.blocks[0].t > QUARANTINE_S:
            out.append(self.blocks.popleft())
        return out

    def flush(self) -> list[Block]:
        """All blocks, the open one too: the source went dark without a word against it."""
        if self._open:
            self._close(self._sigma)
        out = list(self.blocks)
        self.blocks.clear()
        return out

    def drag(self, sigma: float, wander: float, limit: float) -> float:
        """Rate step that the newest samples imply beyond what the oscillator can do; 0 if none.

        Args:
            sigma: Of one sample, s.
            wander: Random-walk FM, 1/sqrt(s).
            limit: Rate step that is still believed.
        """
        if len(self.recent) < 4:
            return 0.0
        (ta, a), (tb, b), (tc, c), (td, d) = self.recent
        t = ta + 0.25 * ((tb - ta) + (tc - ta) + (td - ta))
        offset = a + 0.25 * ((b - a) + (c - a) + (d - a))
        for then, x, y, xx, xy, yy in self.marks:
            lag = t - then
            if lag < _MIN_LAG_S:
                break
            dev, most = offset - x - y * lag, limit * lag
            if not -most <= dev <= most:
                var = Mark(then, x, y, xx, xy, yy).predict(t, wander)[1]
                allowed = limit + 6.0 * wander * math.sqrt(lag)
                if abs(dev) > allowed * lag and dev * dev > 64.0 * (var + 0.25 * sigma * sigma):
                    return dev / lag
        return 0.0

    def before_drag(self) -> Mark | None:
        """The oldest state kept, from before a drag that was just found."""
        return self.marks[0] if self.marks else None
