"""An offset from how fast the motion swings: every band and axis has its say, and its doubt.

Pictures sample the motion. What swings at f looks the same as what swings at the frame rate less f,
and a shift in time moves the two in opposite ways. That the slower of them is the stronger is only
likely: under a jerk that is white noise the angle's power falls with the sixth power of frequency,
so the faster one has the share (f / (rate - f))^6. A band that is not what is likely, a wheel that
hops, errs by about a quarter of the frame interval times that share. Each band so counts with what
its noise and this leave of it: those near half the frame rate hardly, slow ones wholly. How much
the bands disagree beyond that widens the answer's sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

BANDS, TAPERS = 8, 4
"""Bands up to half the frame rate; sine tapers (Riedel and Sidorenko 1995) against leakage."""
POWER_FALL = 6
LEAST_SHARE = 1e-3
"""Cells that tell less than this share of all say nothing."""


@dataclass(frozen=True, slots=True)
class Cells:
    """What each band and axis tells of an offset, n cells.

    Attributes:
        slope: Of half the squared residuals by the offset, 1/s.
        curvature: Second derivative, 1/s^2.
        doubt_s: What aliasing may add to the cell's error, one sigma.
    """

    slope: F64
    curvature: F64
    doubt_s: F64

    def spread(self, left: F64, moves: F64) -> float:
        """Sigma of the answer if all of `left` moved with the offset, or against it, cell by cell.

        Args:
            left: What is not understood of each pair's turn (K, 3).
            moves: How each turn moves with the offset (K, 3).

        Returns:
            Seconds. Half of what is left is in step, half a quarter turn off; signs of cells are
            independent, so it falls with their number, not with time.
        """
        told = self.curvature > LEAST_SHARE * self.curvature.sum()
        weight = 1.0 / (1.0 / self.curvature[told] + self.doubt_s[told] ** 2)
        step = 0.5 * _power(left)[told] / np.maximum(_power(moves)[told], 1e-300)
        return math.sqrt(float(np.sum(weight**2 * step))) / float(weight.sum())

    def combined(self) -> tuple[float, float]:
        """(step of the offset, its sigma), seconds; sigma is infinite where nothing is told."""
        told = self.curvature > LEAST_SHARE * self.curvature.sum()
        if not told.any():
            return 0.0, math.inf
        step = -self.slope[told] / self.curvature[told]
        weight = 1.0 / (1.0 / self.curvature[told] + self.doubt_s[told] ** 2)
        mean = float(np.sum(weight * step) / weight.sum())
        apart = float(np.sum(weight * (step - mean) ** 2)) / max(len(step) - 1, 1)
        return mean, math.sqrt(max(apart, 1.0) / float(weight.sum()))


def cells_of(moves: F64, slope: F64, curvature: F64, variance: float, period_s: float) -> Cells:
    """Split what neighbouring pairs tell into bands and axes.

    Args:
        moves: How each pair's motion moves with the offset (K, 5, 3).
        slope: Weighted residuals of the same numbers.
        curvature: How these grow with the offset.
        variance: Of the offset, by all cells together, s^2.
        period_s: Frame interval.
    """
    count = len(moves)
    frequency = np.fft.rfftfreq(count)
    twice = np.where((frequency == 0.0) | (frequency == 0.5), 1.0, 2.0)
    parts = np.zeros((2, len(frequency), 3))
    for order in range(1, TAPERS + 1):
        taper = np.sin(np.pi * order * np.arange(1, count + 1) / (count + 1))[:, None, None]
        swing = np.fft.rfft(taper * moves, axis=0).conj()
        for row, values in enumerate((slope, curvature)):
            share = (swing * np.fft.rfft(taper * values, axis=0)).real.sum(axis=1)
            parts[row] += twice[:, None] * share
    parts /= variance * parts[1].sum()
    edges = np.linspace(0, len(frequency), BANDS + 1).astype(int)[:-1]
    alias = ((frequency / (1.0 - frequency)) ** POWER_FALL)[:, None]
    low, told = np.add.reduceat(parts, edges, axis=1)
    aliased = np.add.reduceat(np.maximum(parts[1], 0.0) * alias, edges, axis=0)
    doubt = aliased / np.maximum(np.add.reduceat(np.maximum(parts[1], 0.0), edges, axis=0), 1e-300)
    return Cells(low.ravel(), told.ravel(), (0.25 * period_s * doubt).ravel())


def _power(values: F64) -> F64:
    """Power by band and axis (BANDS * 3) of a series (K, 3)."""
    count = len(values)
    frequency = np.fft.rfftfreq(count)
    power = np.zeros((len(frequency), 3))
    for order in range(1, TAPERS + 1):
        taper = np.sin(np.pi * order * np.arange(1, count + 1) / (count + 1))[:, None]
        power += np.abs(np.fft.rfft(taper * values, axis=0)) ** 2
    edges = np.linspace(0, len(frequency), BANDS + 1).astype(int)[:-1]
    return np.asarray(np.add.reduceat(power, edges, axis=0).ravel())
