"""Least squares whose unknowns hang together like a chain: blocks that touch their neighbours only.

The normal equations are block tridiagonal; a Cholesky factorisation costs one small block each, so
minutes of motion are solved in a fraction of a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chain:
    """Normal equations, symmetric.

    Attributes:
        diagonal: Blocks on the diagonal (B, m, m).
        beside: Block (i, i + 1) above it (B - 1, m, m).
    """

    diagonal: F64
    beside: F64

    @classmethod
    def of_spans(cls, spans: F64) -> Chain:
        """From what touches two neighbouring blocks at a time: (B - 1, 2m, 2m)."""
        m = spans.shape[1] // 2
        diagonal = np.zeros((len(spans) + 1, m, m))
        diagonal[:-1] += spans[:, :m, :m]
        diagonal[1:] += spans[:, m:, m:]
        return cls(diagonal, spans[:, :m, m:].copy())

    def plus(self, other: Chain) -> Chain:
        """Sum."""
        return Chain(self.diagonal + other.diagonal, self.beside + other.beside)

    def scaled(self, by: F64) -> Chain:
        """With row and column i of every block times the square root of `by` (m,)."""
        root = np.sqrt(by)
        square = root[:, None] * root[None, :]
        return Chain(self.diagonal * square, self.beside * square)

    def times(self, vectors: F64) -> F64:
        """Product with vectors (B, m, k)."""
        out = self.diagonal @ vectors
        out[:-1] += self.beside @ vectors[1:]
        out[1:] += np.swapaxes(self.beside, 1, 2) @ vectors[:-1]
        return np.asarray(out)

    def solve(self, right: F64) -> tuple[F64, float]:
        """(solution (B, m, k) for right sides (B, m, k), logarithm of the determinant).

        Raises:
            numpy.linalg.LinAlgError: It is not positive definite.
        """
        lower, below = self._factor()
        solution = np.empty_like(right)
        for i in range(len(right)):
            rest = right[i] - (below[i - 1] @ solution[i - 1] if i else 0.0)
            solution[i] = lower[i] @ rest
        for i in range(len(right) - 1, -1, -1):
            ahead = below[i].T @ solution[i + 1] if i < len(right) - 1 else 0.0
            solution[i] = lower[i].T @ (solution[i] - ahead)
        steps = np.diagonal(lower, axis1=1, axis2=2)
        return solution, -2.0 * float(np.log(steps).sum())

    def _factor(self) -> tuple[F64, F64]:
        """Inverses of the factor's diagonal blocks, and the blocks below them."""
        inverse = np.empty_like(self.diagonal)
        below = np.empty_like(self.beside)
        rest = self.diagonal[0]
        for i in range(len(self.diagonal)):
            inverse[i] = np.linalg.inv(np.linalg.cholesky(rest))
            if i < len(self.beside):
                below[i] = self.beside[i].T @ inverse[i].T
                rest = self.diagonal[i + 1] - below[i] @ below[i].T
        return inverse, below
