"""Values: an exchange as two edges, the oscillator's line with its covariance."""

from __future__ import annotations

from typing import NamedTuple


class Edges(NamedTuple):
    """An exchange as two bounds of the offset at local midpoint `t`, seconds."""

    t: float
    upper: float
    lower: float
    sigma: float


class Line(NamedTuple):
    """The oscillator's line: x(t) = x + y (t - t0), with covariance.

    Attributes:
        t: Seconds since the window's epoch.
        x: UTC minus raw, s.
        y: Rate.
        xx: Variance of x.
        xy: Covariance.
        yy: Variance of y.
        wander: Random-walk FM in force.
        fine: Variance of x but for what is constant and unseen (asymmetry): how far it may move.
    """

    t: float
    x: float
    y: float
    xx: float
    xy: float
    yy: float
    wander: float
    fine: float

    def at(self, t: float) -> float:
        """Offset at `t`, s."""
        return self.x + self.y * (t - self.t)

    def var(self, t: float) -> float:
        """Variance of the offset at `t`, s^2."""
        dt = t - self.t
        out = self.xx + dt * (2.0 * self.xy + dt * self.yy)
        out += self.wander * self.wander * abs(dt) ** 3 / 3.0
        return max(0.0, out)
