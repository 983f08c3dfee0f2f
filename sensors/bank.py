"""A bank of small Kalman filters on block minima: offset and skew of one clock against another.

Each filter is the textbook one for `h = offset + (1 + skew) x` with the skew a random walk; they
differ in how fast they let it walk. Their weights are their recent likelihoods, so a quiet
oscillator is averaged long and a warming one is followed. Measurement noise is learned from how far
a block lies off the line through its neighbours, which no slow drift can disturb.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import exp, log

from syncline.sensors.blocks import Block

WALKS_PER_SQRT_S = (1e-8, 4e-8, 1.6e-7, 6.4e-7, 1e-5)
"""Random walk of the skew of each filter, per square root of a second."""
FORGET_PER_BLOCK = 0.98
SHARPNESS = 3.0
"""Power of the likelihoods in the weights: closer to choosing than to averaging, which makes sigma
agree with the error it claims (coverage on simulated traces)."""
LATE_GATE2 = 9.0
"""Squared sigmas beyond which a late block counts for less: late is what delay does."""
MAX_G2 = 16.0
"""Most that one block's squared innovation counts in the likelihoods."""
FLOOR_NS = 1_000.0
"""Least measurement noise, one standard deviation."""
USUAL_BETA = 0.3
"""How much of a block's spread its bad luck may be, before any was seen: none for exponential
delay, 0.2 to 0.5 for gamma. One standard deviation of a prior about zero."""
TRIPLE_GAIN = 1.5
"""Variance of the middle of three even blocks about the line through its neighbours, over one's."""


@dataclass(slots=True)
class Filter:
    """Offset (ns), skew (ns/s) and their covariance; `walk` is the skew's variance per second."""

    walk: float
    offset: float = 0.0
    skew: float = 0.0
    p00: float = 1e12
    p01: float = 0.0
    p11: float = 1e10
    score: float = 0.0

    def step(self, dt_s: float, y_ns: float, r_ns2: float) -> float:
        """Predict by `dt_s`, take measurement `y_ns`; returns the squared normalised innovation.

        The five filters' steps are most of what a frame costs: hence the local names.
        """
        p01, p11, grown = self.p01, self.p11, self.walk * dt_s
        predicted = self.offset + self.skew * dt_s
        late = y_ns - predicted
        p00 = self.p00 + dt_s * (2.0 * p01 + dt_s * (p11 + grown / 3.0))
        p01 += dt_s * (p11 + 0.5 * grown)
        spread = p00 + r_ns2
        g2 = late * late / spread
        self.score = FORGET_PER_BLOCK * self.score - 0.5 * (min(g2, MAX_G2) + log(spread))
        if late > 0.0 and g2 > LATE_GATE2:
            spread = p00 + r_ns2 * g2 / LATE_GATE2
        k0, k1 = p00 / spread, p01 / spread
        self.offset = predicted + k0 * late
        self.skew += k1 * late
        self.p11 = p11 + grown - k1 * p01
        self.p01 = p01 * (1.0 - k0)
        self.p00 = p00 * (1.0 - k0)
        return g2


class BlockNoise:
    """Learns the noise of block minima, and corrects it by the block's other order statistics.

    Three neighbouring blocks give the middle one's distance from the line through the outer two.
    Regressing it on the same combination of `near` and `middle` (recursive least squares with
    forgetting) is a control variate: the part of a block's bad luck that its own spread betrays.
    A prior on the coefficients keeps the first, few blocks from being believed too much.
    """

    def __init__(self) -> None:
        self.r_ns2 = 1e5**2
        self._count = 0
        self._usual = 1.0
        self._gram = [1e-3, 0.0, 1e-3]
        self._cross = [0.0, 0.0]
        self._beta = (0.0, 0.0)
        self._mean = [0.0, 0.0]
        self._last: list[tuple[float, float, float, float]] = []

    def restart(self) -> None:
        """Forget the neighbours (after a step), keep what was learned."""
        self._last.clear()

    def take(self, t_s: float, y_ns: float, block: Block) -> tuple[float, float]:
        """Learn from a block; returns its corrected minimum and the variance of that.

        The least of n exponential delays has a spread of 1/n, so a short block counts for less.
        """
        near, middle = min(block.near_ns, 3e6), min(block.middle_ns, 3e6)
        self._last.append((t_s, y_ns, near, middle))
        if len(self._last) > 3:
            del self._last[0]
        if len(self._last) == 3 and self._last[0][0] < t_s:
            self._learn()
        usual, self._usual = (
            self._usual,
            max(
                self._usual + 0.02 * (block.frames - self._usual),
                min(block.frames, 1.5 * self._usual),
            ),
        )
        short = max(usual / block.frames, 1.0) if block.frames < 0.7 * usual else 1.0
        return y_ns - self._correction(near, middle), self.r_ns2 * short * short

    def _correction(self, near: float, middle: float) -> float:
        self._count += 1
        weight = max(1.0 / self._count, 0.005)
        off = near - self._mean[0], middle - self._mean[1]
        self._mean[0] += weight * max(-1e6, min(off[0], 1e6))
        self._mean[1] += weight * max(-1e6, min(off[1], 1e6))
        if self._count < 2:
            return 0.0
        limit = 6.0 * math.sqrt(self.r_ns2)
        near, middle = (max(-limit, min(o, limit)) for o in off)
        return self._beta[0] * near + self._beta[1] * middle

    def _learn(self) -> None:
        (t0, y0, n0, m0), (t1, y1, n1, m1), (t2, y2, n2, m2) = self._last
        a = (t2 - t1) / (t2 - t0)
        b = 1.0 - a
        gain = 1.0 + a * a + b * b
        cap = 4.0 * math.sqrt(self.r_ns2 * gain)
        off = max(-cap, min(y1 - a * y0 - b * y2, cap))
        near = max(-5 * cap, min(n1 - a * n0 - b * n2, 5 * cap))
        middle = max(-5 * cap, min(m1 - a * m0 - b * m2, 5 * cap))
        self._regress(off * 1e-5, near * 1e-5, middle * 1e-5)
        rest = off - self._beta[0] * near - self._beta[1] * middle
        weight = max(1.0 / (self._count + 2), 0.005)
        learned = (1.0 - weight) * self.r_ns2 + weight * min(rest, cap) ** 2 / gain
        self.r_ns2 = max(learned, FLOOR_NS**2)

    def _regress(self, off: float, near: float, middle: float) -> None:
        keep = 0.998
        gram, cross = self._gram, self._cross
        gram[0] = keep * gram[0] + near * near
        gram[1] = keep * gram[1] + near * middle
        gram[2] = keep * gram[2] + middle * middle
        cross[0] = keep * cross[0] + near * off
        cross[1] = keep * cross[1] + middle * off
        ridge = TRIPLE_GAIN * self.r_ns2 * 1e-10 / USUAL_BETA**2
        g0, g2 = gram[0] + ridge, gram[2] + ridge
        det = g0 * g2 - gram[1] * gram[1]
        self._beta = (
            (g2 * cross[0] - gram[1] * cross[1]) / det,
            (g0 * cross[1] - gram[1] * cross[0]) / det,
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """A measurement that the bank took, for smoothing afterwards.

    Attributes:
        t_s: When, device seconds.
        y_ns: The corrected, delay-free least offset of a block.
        r_ns2: Its variance as known then.
        segment: Counts steps of the offset.
        loosened: Skew change admitted just before, ns/s.
        doubt_ns2: Variance of the delay that is held apart.
    """

    t_s: float
    y_ns: float
    r_ns2: float
    segment: int
    loosened: float
    doubt_ns2: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The bank's answer at `t_s`: offset and skew with their covariance, ns and seconds."""

    t_s: float
    offset_ns: float
    skew_ns_s: float
    p00: float
    p01: float
    p11: float
    walk: float

    def at(self, t_s: float) -> float:
        """Offset at `t_s`, nanoseconds."""
        return self.offset_ns + self.skew_ns_s * (t_s - self.t_s)

    def variance_at(self, t_s: float) -> float:
        """Variance of the offset at `t_s`, ns^2."""
        dt = t_s - self.t_s
        grown = self.p00 + dt * (2.0 * self.p01 + dt * (self.p11 + self.walk * abs(dt) / 3.0))
        return max(grown, 0.0)


class OffsetBank:
    """The filters, their weights, and the mixture that they answer with."""

    def __init__(self) -> None:
        self.filters = [Filter((w * 1e9) ** 2) for w in WALKS_PER_SQRT_S]
        self.t_s: float | None = None
        self.record: list[Taken] | None = None
        self.doubt_ns2 = 0.0
        self._segment = 0
        self._loosened = 0.0

    def step(self, t_s: float, y_ns: float, r_ns2: float) -> Estimate:
        """Take a measurement; `t_s` must not go back."""
        if self.record is not None:
            self.record.append(
                Taken(t_s, y_ns, r_ns2, self._segment, self._loosened, self.doubt_ns2)
            )
        self._loosened = 0.0
        dt_s = 0.0 if self.t_s is None else max(t_s - self.t_s, 0.0)
        self.t_s = t_s
        for one in self.filters:
            one.step(dt_s, y_ns, r_ns2)
        return self.estimate()

    def shift(self, by_ns: float, variance_ns2: float) -> None:
        """Move every filter's offset: the clock, or the path, stepped."""
        self._segment += 1
        for one in self.filters:
            one.offset += by_ns
            one.p00 = max(one.p00, 0.0) + variance_ns2

    def restart(self, t_s: float, offset_ns: float, sigma_ns: float) -> None:
        """Set every filter's offset at `t_s`, keeping its skew."""
        self.t_s = t_s
        self._segment += 1
        for one in self.filters:
            one.offset, one.p00, one.p01 = offset_ns, sigma_ns * sigma_ns, 0.0

    def loosen(self, skew_ns_s: float) -> None:
        """Admit a skew change of about this size: the clock is being slewed."""
        self._loosened = skew_ns_s
        for one in self.filters:
            one.p11 += skew_ns_s * skew_ns_s

    def doubt_offset(self, variance_ns2: float) -> Estimate:
        """Admit that every filter's offset may be wrong by this: what comes next is believed."""
        for one in self.filters:
            one.p00 += variance_ns2
        return self.estimate()

    def estimate(self) -> Estimate:
        """The mixture of all filters by their recent likelihood."""
        filters = self.filters
        best = max([one.score for one in filters])
        weights = [exp(SHARPNESS * (one.score - best)) + 1e-6 for one in filters]
        total = offset = skew = 0.0
        for w, f in zip(weights, filters, strict=True):
            total += w
            offset += w * f.offset
            skew += w * f.skew
        offset, skew = offset / total, skew / total
        p00 = p01 = p11 = walk = 0.0
        for w, f in zip(weights, filters, strict=True):
            apart, turn = f.offset - offset, f.skew - skew
            p00 += w * (f.p00 + apart * apart)
            p01 += w * (f.p01 + apart * turn)
            p11 += w * (f.p11 + turn * turn)
            walk += w * f.walk
        at = self.t_s if self.t_s is not None else 0.0
        return Estimate(at, offset, skew, p00 / total, p01 / total, p11 / total, walk / total)
