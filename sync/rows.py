"""The rows of a window: scalar observations of lines, each with its expectation-propagation site.

A two-way exchange is two rows: the upper edge `t2 - t1` (sign +1) and the lower edge `t3 - t4`
(sign -1). A one-way source (GNSS, PPS) is one normal row (sign 0).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Row = tuple[float, float, float, int, float, float, float, float, float]
"""t, obs, var, line, sign, tau, nu, root, stray: the columns of `Rows`."""


def _f() -> Floats:
    return np.zeros(0)


def _i() -> Ints:
    return np.zeros(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows that left a window, with the sites they had: a persistent list, newest first."""

    rows: Rows
    names: tuple[str, ...]
    older: Kept | None


@dataclass
class Rows:
    """Columns of all rows, in order of time.

    Attributes:
        t: Seconds since the window's epoch (R,).
        obs: UTC minus raw, s (R,).
        var: Variance of the stamps, s^2 (R,).
        line: Line index (R,).
        sign: +1 upper edge, -1 lower edge, 0 normal (R,).
        tau: Site precision (R,).
        nu: Site precision times mean, relative to `obs` (R,).
        root: Error that the source admits itself, s (R,).
        stray: Density of a false stamp, 1/s; 0 for a row that passed the gate (R,).
    """

    t: Floats = field(default_factory=_f)
    obs: Floats = field(default_factory=_f)
    var: Floats = field(default_factory=_f)
    line: Ints = field(default_factory=_i)
    sign: Floats = field(default_factory=_f)
    tau: Floats = field(default_factory=_f)
    nu: Floats = field(default_factory=_f)
    root: Floats = field(default_factory=_f)
    stray: Floats = field(default_factory=_f)

    def __len__(self) -> int:
        return len(self.t)

    def extend(self, new: list[Row]) -> Ints | None:
        """Add rows, keeping the order of time.

        Returns:
            Where each row came from, the old ones by their index, the new ones after them; None
            when all came in order.
        """
        n, columns = len(self.t), np.array(new, dtype=np.float64).T
        late = columns[0, 1:] < columns[0, :-1]
        order = None
        if late.any() or (n and columns[0, 0] < self.t[-1]):
            order = np.concatenate((self.t, columns[0])).argsort(kind="stable")
        for name, extra in zip(self.__dataclass_fields__, columns, strict=True):
            old = getattr(self, name)
            both = np.concatenate((old, extra), dtype=old.dtype, casting="unsafe")
            setattr(self, name, both if order is None else both[order])
        return order

    def drop_first(self, count: int) -> None:
        """Forget the oldest `count` rows."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name)[count:])

    def head(self, count: int) -> Rows:
        """The oldest `count` rows."""
        return Rows(*(getattr(self, name)[:count] for name in self.__dataclass_fields__))

    def select(self, keep: NDArray[np.bool_]) -> None:
        """Keep the rows where `keep` is true."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name)[keep])

    def reset_sites(self) -> None:
        """Forget what the edges said, keep the normal rows."""
        self.tau = np.where(self.sign == 0.0, 1.0 / self.var, 0.0)
        self.nu = np.zeros(len(self.t))

    def copy(self) -> Rows:
        """Arrays are never written in place, so a shallow copy is a snapshot."""
        return Rows(*(getattr(self, name) for name in self.__dataclass_fields__))
