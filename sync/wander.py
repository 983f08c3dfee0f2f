"""The oscillator: random-walk frequency modulation as an integrated Wiener process.

State at a knot: offset x (s) and frequency y in units of 1/NS so that both have similar size.
Between knots dt apart: F = [[1, dt/NS], [0, 1]],
Q = q^2 [[dt^3/3, NS dt^2/2], [., NS^2 dt]] + diag(white_fm^2 dt, 0)
(Van Dierendonck, McGraw & Brown 1984; Zucca & Tavella 2005). Between two known knots the mean is
the cubic Hermite spline and the variance q^2 dt^3/3 (s (1-s))^3 (Wahba 1978).

The offset is written as a linear map of the first state and of unit-variance increments, so that a
quiet crystal beside a diffuse start costs no precision.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NS = 1000.0
"""Seconds over which the frequency state is expressed as an offset."""


def increments(step_s: Floats, wander: float, white_fm: float) -> tuple[Floats, Floats, Floats]:
    """Cholesky factor (l_xx, l_yx, l_yy) of the process noise of each step (K-1,)."""
    q2 = wander * wander
    s2 = step_s * step_s
    l_xx = np.sqrt(step_s * (q2 / 3.0 * s2 + white_fm * white_fm))
    l_yx = (0.5 * NS * q2) * s2 / l_xx
    c = (q2 * NS * NS) * step_s
    return l_xx, l_yx, np.sqrt(np.maximum(c - l_yx * l_yx, 1e-3 * c))


class Walk:
    """What unit-variance increments between knots do to the offset.

    Args:
        knots_s: Times (K,), ascending.
        wander: Random-walk FM, 1/sqrt(s).
        white_fm: White FM, sqrt(s).
    """

    def __init__(self, knots_s: Floats, wander: float, white_fm: float) -> None:
        self.knots, self.wander = knots_s, wander
        self.step = knots_s[1:] - knots_s[:-1]
        self.xx, self.yx, self.yy = increments(self.step, wander, white_fm)

    def offset(self, t_s: Floats, out: Floats, *, beyond: bool = False) -> Floats:
        """Shares of the increments (two a step) in the offset at `t_s` (N,).

        Args:
            t_s: Times.
            out: Takes the shares (2K - 2, N).
            beyond: Some may lie behind the last knot; the last rate is carried on there.

        Returns:
            Variance of the bridge between the knots (N,).
        """
        k, knots = len(self.knots), self.knots
        if k < 2:
            return np.zeros(len(t_s))
        i = knots[1:-1].searchsorted(t_s, side="right")
        past = np.arange(1, k)[:, None] <= i
        lag = (t_s - knots[1:, None]) * (past * (1.0 / NS))
        out[0::2] = past * self.xx[:, None] + lag * self.yx[:, None]
        out[1::2] = lag * self.yy[:, None]
        dt = self.step[i]
        s = np.minimum(np.maximum((t_s - knots[i]) / dt, 0.0), 1.0)
        s2 = s * s
        left = s2 - s2 * s
        turn = left * dt * (-1.0 / NS)
        if beyond:
            turn += np.maximum(t_s - knots[-1], 0.0) / NS
        here, row = 2 * i, np.arange(len(t_s))
        out[here, row] = (s2 + 2.0 * left) * self.xx[i] + turn * self.yx[i]
        out[here + 1, row] = turn * self.yy[i]
        bridge = dt * (s - s2)
        out_var: Floats = (self.wander * self.wander / 3.0) * (bridge * bridge * bridge)
        return out_var

    def last(self) -> Floats:
        """Shares of the increments in offset and frequency at the last knot (2, 2K - 2)."""
        out = np.empty((2, 2 * len(self.step)))
        lag = (self.knots[-1] - self.knots[1:]) * (1.0 / NS)
        out[0, 0::2] = self.xx + lag * self.yx
        out[0, 1::2] = lag * self.yy
        out[1, 0::2], out[1, 1::2] = self.yx, self.yy
        return out


def choose_knots(rows_s: Floats, begin_s: float, most: int) -> Floats:
    """Times of the knots: dense near the newest row, thinner towards the past."""
    apart = np.empty(len(rows_s), dtype=bool)
    np.greater(rows_s[1:] - rows_s[:-1], 1e-3, out=apart[:-1])
    apart[-1] = True
    t: Floats = rows_s[apart]
    n = len(t)
    if n > most:
        at = {round((n - 1) * share) for share in _thinning(most)}
        t = t[sorted(at)]
    if begin_s < t[0] - 1e-3:
        return np.concatenate(([begin_s], t))
    t[0] = begin_s
    return t


@cache
def _thinning(most: int) -> tuple[float, ...]:
    """Places of the knots among the rows' times, as shares."""
    return tuple(1.0 - (i / (most - 1)) ** 1.7 for i in range(most))
