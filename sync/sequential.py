"""One reply at a time: the posterior of [x, y | c_1, b_1, ...] carried on from a joint solve.

Assumed-density filtering: a Kalman prediction, then each edge is matched once against the moments
of its cavity times the delay likelihood (see delays.py). It revises nothing, so it is only trusted
for the few replies until the window is solved again, and hands its sites to that solve as a start.
Plain floats: the state has four to a dozen numbers; an array call would cost more than the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from syncline.sync.delays import Scales, match
from syncline.sync.line import Line
from syncline.sync.wander import NS

Floats = NDArray[np.float64]

_FAR = 6.0
"""An excess of so many sigmas says nothing of the path: the row is a queue."""
_RATE = 1.0 / NS

Getter = Callable[[list[float]], tuple[float, ...]]


@cache
def _layout(n: int) -> tuple[tuple[Getter, ...], NDArray[np.intp]]:
    """How the upper triangle of a symmetric (n, n) matrix lies in a flat list.

    Returns:
        For each row what picks it from the list, and the list's places in the full matrix.
    """
    upper, place = np.triu_indices(n), np.zeros((n, n), dtype=np.intp)
    place[upper] = np.arange(len(upper[0]))
    place = np.maximum(place, place.T)
    return tuple(itemgetter(*row) for row in place.tolist()), upper[0] * n + upper[1]


class Sequential:
    """Posterior at one time; frequency is in units of 1/NS as in `Prior`.

    Args:
        t: Seconds since the epoch.
        mean: (n,).
        cov: (n, n).

    Attributes:
        mean: n numbers.
        cov: Upper triangle, row after row.
    """

    __slots__ = ("cov", "mean", "t")

    def __init__(self, t: float, mean: Floats, cov: Floats) -> None:
        self.t: float = t
        self.mean: list[float] = mean.tolist()
        self.cov: list[float] = cov.ravel()[_layout(len(mean))[1]].tolist()

    def copy(self) -> Sequential:
        """An independent copy."""
        twin = object.__new__(Sequential)
        twin.t, twin.mean, twin.cov = self.t, self.mean[:], self.cov[:]
        return twin

    def extend(self, mean: Floats, cov: Floats) -> None:
        """Add the unknowns of new lines, taken from a prior that already knows them."""
        old = len(self.mean)
        self.mean += mean[old:].tolist()
        grown = np.array(cov)
        grown[:old, :old] = [row(self.cov) for row in _layout(old)[0]]
        self.cov = grown.ravel()[_layout(len(mean))[1]].tolist()

    def predict(self, t: float, wander: float, white_fm: float) -> None:
        """Carry the state forward to `t`."""
        dt = t - self.t
        if dt <= 0.0:
            return
        self.t = t
        f, cov, mean = dt * _RATE, self.cov, self.mean
        n = len(mean)
        mean[0] += f * mean[1]
        q = wander * wander * dt
        x = [a + f * b for a, b in zip(cov, _layout(n)[0][1](cov), strict=False)]
        x[0] += f * x[1] + q * dt * dt / 3.0 + white_fm * white_fm * dt
        x[1] += 0.5 * q * dt * NS
        cov[n] += q * NS * NS
        cov[:n] = x

    def edge(
        self, k: int, sign: float, t: float, obs: float, var: float, scales: Scales
    ) -> tuple[float, float, float]:
        """Take one edge of line `k` at `t`; a late one reaches back along the present rate.

        Returns:
            Site precision and precision times mean (relative to `obs`), and by how many of its
            sigmas the predicted edge was wrong or moved: the surprise.
        """
        mean, cov, f = self.mean, self.cov, (t - self.t) * _RATE
        c, b, row = 2 + 2 * k, 3 + 2 * k, _layout(len(mean))[0]
        pc, pb = row[c](cov), row[b](cov)
        if f == 0.0:
            gain = [p + sign * y + z for y, z, p in zip(pc, pb, cov, strict=False)]
            v = gain[0] + sign * gain[c] + gain[b]
            m = mean[0] + sign * mean[c] + mean[b] - obs
        else:
            rows = zip(pc, pb, row[1](cov), cov, strict=False)
            gain = [p + f * r + sign * y + z for y, z, r, p in rows]
            v = gain[0] + f * gain[1] + sign * gain[c] + gain[b]
            m = mean[0] + f * mean[1] + sign * mean[c] + mean[b] - obs
        if v < 1e-30:
            v = 1e-30
        excess, total = -sign * m, v + var
        sd = math.sqrt(total)
        if excess > _FAR * sd:
            return 0.0, 0.0, 0.0
        slope, curve = match(excess, total, scales)
        slope *= sign
        den = max(1.0 + v * curve, 1e-6)
        if curve < 0.0:
            tau, nu = -curve / den, (slope - curve * m) / den
        else:
            tau, nu = 0.0, slope / den
        if tau * var > 1.0:
            nu, tau = nu / (tau * var), 1.0 / var
        self._update(gain, tau, (nu - tau * m) / (1.0 + tau * v), v)
        return tau, nu, max(abs(slope) * math.sqrt(v), -excess / sd)

    def normal(self, k: int, t: float, obs: float, var: float) -> float:
        """Take one normal row of line `k` at `t`; returns the surprise in sigmas."""
        mean, cov, f = self.mean, self.cov, (t - self.t) * _RATE
        b, row = 3 + 2 * k, _layout(len(mean))[0]
        gain = [x + f * r + z for r, z, x in zip(row[1](cov), row[b](cov), cov, strict=False)]
        v = gain[0] + f * gain[1] + gain[b]
        m = mean[0] + f * mean[1] + mean[b] - obs
        self._update(gain, 1.0 / var, -m / (var + v), v)
        return abs(m) / math.sqrt(var + v)

    def _update(self, gain: list[float], tau: float, step: float, v: float) -> None:
        self.mean = [a + step * g for a, g in zip(self.mean, gain, strict=True)]
        share = tau / (1.0 + tau * v)
        if share > 0.0:
            known = [s * h for i, s in enumerate([share * g for g in gain]) for h in gain[i:]]
            self.cov = [p - q for p, q in zip(self.cov, known, strict=True)]

    def rate(self) -> tuple[float, float]:
        """Frequency and its variance, in units of 1/NS."""
        return self.mean[1], self.cov[len(self.mean)]

    def line(self, wander: float, k: int) -> Line:
        """The oscillator's line; how fine it is known is told by line `k`."""
        mean, cov, b = self.mean, self.cov, 3 + 2 * k
        n = len(mean)
        xx, yy = max(cov[0], 0.0), max(cov[n], 0.0) * (_RATE * _RATE)
        fine = max(cov[0] + 2.0 * cov[b] + _layout(n)[0][b](cov)[b], 0.0)
        return Line(self.t, mean[0], mean[1] * _RATE, xx, cov[1] * _RATE, yy, wander, fine)

    def path(self, k: int) -> tuple[float, float, float, float]:
        """Predicted upper edge, its variance, lower edge, its variance of line `k` (s, s^2)."""
        mean, cov, c, b = self.mean, self.cov, 2 + 2 * k, 3 + 2 * k
        row = _layout(len(mean))[0]
        pc, pb = row[c](cov), row[b](cov)
        middle, half = mean[0] + mean[b], mean[c]
        both, apart = cov[0] + pb[b] + pc[c] + 2.0 * pb[0], 2.0 * (pc[0] + pc[b])
        return middle + half, max(both + apart, 0.0), middle - half, max(both - apart, 0.0)
