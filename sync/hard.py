"""The hard bound: an interval of offsets that holds whatever the path did.

Every exchange with an honest server proves `t3 - t4 <= offset <= t2 - t1` (Marzullo 1984); each
direction also took at least `min_one_way` of the shortest round trip. Between exchanges the
interval follows the estimated rate and widens by the oscillator limit; intervals of all accepted
exchanges are intersected. A proof is no better than its stamps: the ones that a young clock took
are kept, and those that its later replies show to be false are taken out again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Proof(NamedTuple):
    """What one exchange proves: its time and the least and the greatest offset, s."""

    t: float
    low: float
    high: float


@dataclass(slots=True)
class HardInterval:
    """Interval of the offset UTC - raw, seconds.

    Attributes:
        t: Seconds since the epoch at which `low` and `high` hold.
        low: Least possible offset.
        high: Greatest possible offset.
        known: False before the first proof.
        clashes: Proofs that contradicted the interval.
    """

    t: float = 0.0
    low: float = 0.0
    high: float = 0.0
    known: bool = False
    clashes: int = 0

    def move(self, t: float, rate: float, drift: float) -> None:
        """Carry the interval to `t` along `rate`, widening by `drift` per second."""
        dt = t - self.t
        self.t = t
        centre, grow = rate * dt, drift * abs(dt)
        self.low += centre - grow
        self.high += centre + grow

    def prove(self, low: float, high: float) -> bool:
        """Intersect with a proof at the present `t`; a contradiction widens to both.

        Returns:
            False when the proof contradicted the interval.
        """
        if not self.known:
            self.low, self.high, self.known = low, high, True
            return True
        if low > self.high or high < self.low:
            self.low, self.high = min(low, self.low), max(high, self.high)
            self.clashes += 1
            return False
        if low > self.low:
            self.low = low
        if high < self.high:
            self.high = high
        return True

    def widen(self, by: float) -> None:
        """Grow by `by` seconds to both sides."""
        self.low -= by
        self.high += by

    def bound(self, t: float, offset: float, rate: float, drift: float) -> float:
        """Greatest possible error of `offset` at `t`."""
        dt = t - self.t
        above, below = self.high + rate * dt - offset, offset - self.low - rate * dt
        worst = max(below, above)
        return (max(0.0, worst)) + drift * abs(dt)


def intersect(proofs: Iterable[Proof], rate: float, drift: float) -> HardInterval:
    """The interval that these proofs leave, carried along `rate` and widened by `drift`.

    Args:
        proofs: In order of arrival.
        rate: Of the oscillator.
        drift: Error of it that is allowed for, 1/s.
    """
    out = HardInterval()
    for proof in proofs:
        if not out.known:
            out.t = proof.t
        out.move(proof.t, rate, drift)
        out.prove(proof.low, proof.high)
    return out
