"""The paths of a window's sources: priors of their unknowns, learnt scales of their queues."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.sync.delays import Scales, prior_counts, round_trip_counts, scales_of
from syncline.sync.rows import Rows
from syncline.sync.settings import EstimatorSettings

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(slots=True)
class LineState:
    """A source's path: what the rows of one line share.

    Attributes:
        name: Source.
        normal: One-way source without a path.
        round_trip_s: Shortest round trip seen.
        counts: Delay scales remembered of absorbed rows.
        log_weights: Log weights of all scales.
        scales: The scales that matter.
        heard: Measurements so far.
        waiting: Measurements since the last joint solve.
        b_var: Prior variance of the asymmetry in force, s^2.
        trips: Counts of scales by the round trips of a young window.
    """

    name: str
    normal: bool
    round_trip_s: float
    counts: Floats
    log_weights: Floats
    scales: Scales
    heard: int = 0
    waiting: int = 0
    b_var: float = 0.0
    trips: Floats | None = None

    def copy(self) -> LineState:
        """An independent copy (arrays are replaced, never written)."""
        return LineState(
            self.name,
            self.normal,
            self.round_trip_s,
            self.counts,
            self.log_weights,
            self.scales,
            self.heard,
            self.waiting,
            self.b_var,
            self.trips,
        )


def path_prior(
    settings: EstimatorSettings, trip_s: float, trips_s: Sequence[float], *, normal: bool
) -> tuple[float, float, float]:
    """Prior mean and variance of `c` and variance of `b` of one line (s, s^2).

    Whether asymmetry grows with distance is not known; the geometric mean of a path's own round
    trip and that of its peers of similar distance loses least either way.

    Args:
        settings: Priors.
        trip_s: Shortest round trip of the line.
        trips_s: Those of all two-way lines.
        normal: One-way source.
    """
    if normal:
        return 0.0, 1e-18, (settings.gnss_bias_ns * 1e-9) ** 2
    half, scale = 0.5 * trip_s, trip_s
    near = [trip for trip in trips_s if trip <= 5.0 * min(trips_s)]
    if trip_s in near:
        middle = math.exp(sum(math.log(trip) for trip in near) / len(near))
        scale = math.sqrt(trip_s * middle)
    return half, half * half, (settings.asymmetry * scale) ** 2


class Paths:
    """Lines of a window, in order of their unknowns.

    Args:
        settings: Priors.
    """

    def __init__(self, settings: EstimatorSettings) -> None:
        self.settings = settings
        self.lines: list[LineState] = []
        self.by_name: dict[str, int] = {}

    def copy(self) -> Paths:
        """An independent copy (arrays are replaced, never written)."""
        twin = Paths(self.settings)
        twin.lines = [line.copy() for line in self.lines]
        twin.by_name = dict(self.by_name)
        return twin

    def add(self, name: str, round_trip_s: float, *, normal: bool) -> LineState:
        """A new line."""
        counts = prior_counts(round_trip_s, self.settings.delay_weight)
        weights = np.log(counts / counts.sum())
        state = LineState(name, normal, round_trip_s, counts, weights, scales_of(weights))
        self.by_name[name] = len(self.lines)
        self.lines.append(state)
        return state

    def keep(self, kept: list[int]) -> None:
        """Keep only the lines of these indices, in this order."""
        self.lines = [self.lines[k] for k in kept]
        self.by_name = {line.name: k for k, line in enumerate(self.lines)}

    def prior(self, state: LineState) -> tuple[float, float, float]:
        """Prior mean and variance of `c` and variance of `b` (s, s^2)."""
        trips = [s.round_trip_s for s in self.lines if not s.normal]
        found = path_prior(self.settings, state.round_trip_s, trips, normal=state.normal)
        state.b_var = found[2]
        return found

    @property
    def servers(self) -> int:
        """Number of lines with a path."""
        return sum(not line.normal for line in self.lines)

    def forget_scales(self) -> None:
        """Begin the delay scales again from the shortest round trips (nothing was absorbed yet)."""
        for state in self.lines:
            if not state.normal:
                state.counts = prior_counts(state.round_trip_s, self.settings.delay_weight)

    def weigh_trips(self, rows: Rows) -> None:
        """Scales of every line by the round trips of a young window."""
        upper = np.flatnonzero(rows.sign > 0)
        for k, state in enumerate(self.lines):
            mine = upper[rows.line[upper] == k]
            if state.normal or len(mine) < 3:
                continue
            # rows of one exchange stand side by side
            trips = rows.obs[mine] - rows.obs[mine + 1]
            excess = np.delete(trips, int(np.argmin(trips))) - state.round_trip_s
            state.trips = round_trip_counts(excess, state.counts)

    def weights(self) -> tuple[Floats, Ints]:
        """Log weights of the scales in use for every line (S, A) and their indices (A,)."""
        logs = np.array([line.log_weights for line in self.lines])
        active = np.flatnonzero(logs.max(axis=0) > math.log(2e-3))
        return logs[:, active], active

    def learn(self, total: Floats) -> None:
        """EM step: take expected numbers of rows for each line and scale (S, 12)."""
        for state, seen in zip(self.lines, total, strict=True):
            if not state.normal:
                counts = state.counts + seen
                if state.trips is not None:
                    counts = counts + state.trips
                state.log_weights = np.log(counts / counts.sum())

    def settle(self) -> None:
        """After a solve: nobody waits, and plain weights follow the learnt ones."""
        for state in self.lines:
            state.waiting = 0
            if not state.normal:
                state.scales = scales_of(state.log_weights)

    def absorb(self, line: Ints, share: Floats) -> None:
        """Remember the scales of rows that leave the window (R,), (R, 12), fading older ones."""
        fade = 1.0 - 0.5 / self.settings.delay_memory
        member = line[:, None] == np.arange(len(self.lines))
        seen = member.T.astype(np.float64) @ share
        for state in self.lines:
            state.trips = None
        for state, number, counts in zip(self.lines, member.sum(axis=0), seen, strict=True):
            if number and not state.normal:
                state.counts = state.counts * fade ** int(number) + counts
