"""What is kept of an oscillator across boots."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LearnedOscillator:
    """An oscillator as it was last known.

    Attributes:
        rate: dUTC/draw - 1.
        rate_sigma: One sigma of `rate` at the next boot.
        wander: Random-walk FM, 1/sqrt(s).
    """

    rate: float
    rate_sigma: float
    wander: float
