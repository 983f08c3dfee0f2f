"""One reply at a time: the posterior of [x, y | c_1, b_1, ...] carried on from a joint solve.

Assumed-density filtering: a Kalman prediction, then each edge is matched once against the moments
of its cavity times the delay likelihood (see delays.py). It revises nothing, so it is only trusted
for the few replies until the window is solved again, and hands its sites to that solve as a start.
Plain floats: the state has four to a dozen numbers; an array call would cost more than the sum.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from syncline.sync.delays import Scales, match
from syncline.sync.line import Line
from syncline.sync.wander import NS

Floats = NDArray[np.float64]

_FAR = 6.0
"""An excess of so many sigmas says nothing of the path: the row is a queue."""


class Sequential:
    """Posterior at one time; frequency is in units of 1/NS as in `Prior`.

    Args:
        t: Seconds since the epoch.
        mean: (n,).
        cov: (n, n).
    """

    __slots__ = ("cov", "mean", "t")

    def __init__(self, t: float, mean: list[float], cov: list[list[float]]) -> None:
        self.t, self.mean, self.cov = t, mean, cov

    def copy(self) -> Sequential:
        """An independent copy."""
        return Sequential(self.t, self.mean[:], [row[:] for row in self.cov])

    def extend(self, mean: Floats, cov: Floats) -> None:
        """Add the unknowns of new lines, taken from a prior that already knows them."""
        old = len(self.mean)
        self.mean += mean[old:].tolist()
        grown = np.array(cov)
        grown[:old, :old] = self.cov
        self.cov = grown.tolist()

    def predict(self, t: float, wander: float, white_fm: float) -> None:
        """Carry the state forward to `t`."""
        dt = t - self.t
        if dt <= 0.0:
            return
        self.t = t
        f, cov, mean = dt / NS, self.cov, self.mean
        mean[0] += f * mean[1]
        rate = cov[1]
        q = wander * wander * dt
        x = [a + f * b for a, b in zip(cov[0], rate, strict=True)]
        x[0] += f * (x[1]) + q * dt * dt / 3.0 + white_fm * white_fm * dt
        x[1] += 0.5 * q * dt * NS
        rate[1] += q * NS * NS
        cov[0] = x
        for row, value in zip(cov, x, strict=True):
            row[0] = value

    def edge(
        self, k: int, sign: float, t: float, obs: float, var: float, scales: Scales
    ) -> tuple[float, float, float]:
        """Take one edge of line `k` at `t`; a late one reaches back along the present rate.

        Returns:
            Site precision and precision times mean (relative to `obs`), and by how many of its
            sigmas the predicted edge was wrong or moved: the surprise.
        """
        c, b = 2 + 2 * k, 3 + 2 * k
        mean, cov = self.mean, self.cov
        f = (t - self.t) / NS
        if f == 0.0:
            gain = [x + sign * y + z for x, y, z in zip(cov[0], cov[c], cov[b], strict=True)]
        else:
            rows = zip(cov[0], cov[1], cov[c], cov[b], strict=True)
            gain = [x + f * r + sign * y + z for x, r, y, z in rows]
        v = gain[0] + f * gain[1] + sign * gain[c] + gain[b]
        if v < 1e-30:
            v = 1e-30
        m = mean[0] + f * mean[1] + sign * mean[c] + mean[b] - obs
        excess, total = -sign * m, v + var
        if excess > _FAR * math.sqrt(total):
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
        surprise = abs(slope) * math.sqrt(v)
        return tau, nu, max(surprise, -excess / math.sqrt(total))

    def normal(self, k: int, t: float, obs: float, var: float) -> float:
        """Take one normal row of line `k` at `t`; returns the surprise in sigmas."""
        b, f = 3 + 2 * k, (t - self.t) / NS
        mean, cov = self.mean, self.cov
        gain = [x + f * r + z for x, r, z in zip(cov[0], cov[1], cov[b], strict=True)]
        v = gain[0] + f * gain[1] + gain[b]
        m = mean[0] + f * mean[1] + mean[b] - obs
        self._update(gain, 1.0 / var, -m / (var + v), v)
        return abs(m) / math.sqrt(var + v)

    def _update(self, gain: list[float], tau: float, step: float, v: float) -> None:
        self.mean = [a + step * g for a, g in zip(self.mean, gain, strict=True)]
        share = tau / (1.0 + tau * v)
        if share > 0.0:
            self.cov = [
                [p - s * h for p, h in zip(row, gain, strict=True)]
                for row, s in zip(self.cov, [share * g for g in gain], strict=True)
            ]

    def line(self, wander: float, k: int) -> Line:
        """The oscillator's line; how fine it is known is told by line `k`."""
        b = 3 + 2 * k
        mean, x, yy = self.mean, self.cov[0], max(self.cov[1][1], 0.0) / (NS * NS)
        xx, fine = max(x[0], 0.0), max(x[0] + 2.0 * x[b] + self.cov[b][b], 0.0)
        return Line(self.t, mean[0], mean[1] / NS, xx, x[1] / NS, yy, wander, fine)

    def path(self, k: int) -> tuple[float, float, float, float]:
        """Predicted upper edge, its variance, lower edge, its variance of line `k` (s, s^2)."""
        c, b = 2 + 2 * k, 3 + 2 * k
        mean, x, pc, pb = self.mean, self.cov[0], self.cov[c], self.cov[b]
        middle, half = mean[0] + mean[b], mean[c]
        both = x[0] + pb[b] + pc[c] + 2.0 * x[b]
        apart = 2.0 * (x[c] + pc[b])
        top, bottom = both + apart, both - apart
        return middle + half, (max(0.0, top)), middle - half, max(bottom, 0.0)
