"""How something turned over time, as a uniform cubic B-spline of its accumulated rotation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_BASIS = np.array(
    [[1.0, 4.0, 1.0, 0.0], [-3.0, 0.0, 3.0, 0.0], [3.0, -6.0, 3.0, 0.0], [-1.0, 3.0, -3.0, 1.0]]
) / 6.0  # fmt: skip
"""Weights of four neighbouring knots for 1, u, u^2, u^3 between two of them."""


@dataclass(frozen=True, slots=True)
class Knots:
    """Evenly spaced knots.

    Attributes:
        zero_s: Where the first four knots begin to count.
        step_s: From one knot to the next.
        count: How many there are.
    """

    zero_s: float
    step_s: float
    count: int

    @classmethod
    def over(cls, low_s: float, high_s: float, step_s: float) -> Knots:
        """Knots for everything from `low_s` to `high_s`."""
        return cls(low_s, step_s, int((high_s - low_s) / step_s) + 5)

    def weights(self, t_s: F64) -> tuple[I64, F64]:
        """(first of four knots (N,), their weights (N, 4, 4) for value and three derivatives)."""
        place = (t_s - self.zero_s) / self.step_s
        first = np.clip(np.floor(place).astype(np.int64), 0, self.count - 4)
        u = (place - first)[:, None]
        one, none = np.ones_like(u), np.zeros_like(u)
        powers = [
            np.concatenate([one, u, u**2, u**3], axis=1),
            np.concatenate([none, one, 2 * u, 3 * u**2], axis=1),
            np.concatenate([none, none, 2 * one, 6 * u], axis=1),
            np.concatenate([none, none, none, 6 * one], axis=1),
        ]
        scale = self.step_s ** -np.arange(4.0)
        values = np.stack([p @ _BASIS for p in powers], axis=1) * scale[None, :, None]
        return first, values


@dataclass(frozen=True, slots=True)
class Spline:
    """Accumulated rotation (rad, axes of the first camera) over time.

    Attributes:
        knots: Where.
        values: Coefficients (count, 3).
    """

    knots: Knots
    values: F64

    def at(self, t_s: F64) -> tuple[F64, F64]:
        """Angle and rate (N, 3)."""
        first, weights = self.knots.weights(t_s)
        near = self.values[first[:, None] + np.arange(4)]
        return (
            np.einsum("nk,nka->na", weights[:, 0], near),
            np.einsum("nk,nka->na", weights[:, 1], near),
        )
