"""Re-timing: one joint smoother over a whole drive, run afterwards.

The causal estimator has judged every measurement and left each accepted row with an
expectation-propagation site. Here all rows of a timescale are solved at once, with knots over the
whole drive and the sites matched again until they settle: the forward-backward solution of one
joint model, not a sum of two filters. What the filter knew is included, so the median error
cannot get worse for want of data.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from syncline.errors import ClockError
from syncline.sync.delays import SCALES_S, prior_counts
from syncline.sync.estimator import TimeEstimator
from syncline.sync.measurement import Measurement
from syncline.sync.rows import Rows
from syncline.sync.settings import EstimatorSettings
from syncline.sync.solve import Oscillator, Posterior, Prior, System
from syncline.sync.wander import NS
from syncline.sync.window import Window

Floats = NDArray[np.float64]

_MAX_KNOTS = 160
_CHUNK_S = 6.0 * 3600.0
_OVERLAP_S = 3600.0
_SWEEPS = 10


@dataclass(frozen=True, slots=True)
class Smooth:
    """A solved stretch: use it between `begin` and `end` (seconds since the epoch)."""

    begin: float
    end: float
    post: Posterior


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of one timescale with the names of their lines and the wander the filter ended with."""

    rows: Rows
    lines: tuple[str, ...]
    normal: tuple[bool, ...]
    round_trip_s: tuple[float, ...]
    asymmetry_var: tuple[float, ...]
    wander: float
    rate: float


def gather(window: Window) -> Stretch | None:
    """All rows that a window accepted, the absorbed ones first."""
    if window.pending:
        window.solve()
    parts = [window.rows]
    kept = window.kept
    while kept is not None:
        parts.append(kept.rows)
        kept = kept.older
    rows = Rows(*(np.concatenate([getattr(p, n) for p in reversed(parts)]) for n in _columns()))
    if len(rows) == 0 or window.line is None:
        return None
    order = np.argsort(rows.t, kind="stable")
    rows = Rows(*(getattr(rows, n)[order] for n in _columns()))
    return Stretch(
        rows,
        tuple(line.name for line in window.paths.lines),
        tuple(line.normal for line in window.paths.lines),
        tuple(line.round_trip_s for line in window.paths.lines),
        tuple(line.b_var for line in window.paths.lines),
        window.wander,
        window.line.y,
    )


def _columns() -> tuple[str, ...]:
    return tuple(Rows.__dataclass_fields__)


class Smoother:
    """Smooths one stretch of rows.

    Args:
        stretch: Rows of one timescale.
        settings: Priors.
    """

    def __init__(self, stretch: Stretch, settings: EstimatorSettings) -> None:
        self.settings, self.stretch = settings, stretch
        self.wander = stretch.wander
        self._log_weights = np.zeros((len(stretch.lines), len(SCALES_S)))

    def run(self) -> list[Smooth]:
        """Solve all chunks; each is valid around its own middle."""
        t = self.stretch.rows.t
        begin, end = float(t[0]), float(t[-1])
        count = max(1, math.ceil((end - begin - _OVERLAP_S) / (_CHUNK_S - _OVERLAP_S)))
        step = (end - begin) / count
        out = []
        for i in range(count):
            a = begin + i * step - (0.5 * _OVERLAP_S if i else 0.0)
            b = begin + (i + 1) * step + (0.5 * _OVERLAP_S if i < count - 1 else 0.0)
            keep = (t >= a) & (t <= b)
            low = -math.inf if i == 0 else begin + i * step
            high = math.inf if i == count - 1 else begin + (i + 1) * step
            if keep.any():
                out.append(self._solve(keep, low, high))
        return out

    def _solve(self, keep: NDArray[np.bool_], low: float, high: float) -> Smooth:
        rows = self.stretch.rows.copy()
        rows.select(keep)
        knots = self._knots(rows.t)
        prior = self._prior(rows, float(knots[0]))
        counts = self._prior_counts()
        self._learn_rows = rows
        s = self.settings
        for sweep in range(_SWEEPS):
            osc = Oscillator(self.wander, s.white_fm)
            system = System(rows, knots, prior, osc)

            def learn(share: Floats, edge: NDArray[np.intp], active: NDArray[np.intp]) -> None:
                self._learn(rows, counts, share, edge, active)

            if sweep == 0:
                self._log_weights = np.log(counts / counts.sum(axis=1, keepdims=True))
            post = system.sweep(self._weights, learn, (1, 1), 0.5)
            rows.tau, rows.nu = post.tau, post.nu
            energy, number = post.energy
            if sweep >= 2 and number > 8:
                prior_energy = s.wander_weight * (s.wander_typical / self.wander) ** 2
                ratio = (prior_energy + energy) / (s.wander_weight + number)
                wander = self.wander * min(max(ratio, 0.5), 2.0)
                self.wander = min(max(wander, s.wander_min), s.wander_max)
        return Smooth(low, high, post)

    def _knots(self, t: Floats) -> Floats:
        """Knots at row times, evenly thinned; holes keep their two ends."""
        t = np.unique(t)
        if len(t) > _MAX_KNOTS:
            even = np.linspace(t[0], t[-1], _MAX_KNOTS // 2)
            by_time = np.searchsorted(t, even).clip(0, len(t) - 1)
            by_count = np.linspace(0, len(t) - 1, _MAX_KNOTS // 2).astype(np.intp)
            t = t[np.unique(np.concatenate((by_time, np.maximum(by_time - 1, 0), by_count)))]
        out: Floats = t[np.append(np.diff(t) > 1e-3, True)]
        return out

    def _prior(self, rows: Rows, t: float) -> Prior:
        s, stretch = self.settings, self.stretch
        n = len(stretch.lines)
        mean, var = np.zeros(2 + 2 * n), np.zeros(2 + 2 * n)
        mean[0], mean[1] = float(np.median(rows.obs[:8])), stretch.rate * NS
        var[0] = (2.0 * max(stretch.round_trip_s)) ** 2 + 1e-8
        var[1] = (s.rate_sigma * NS) ** 2
        for k, (trip, normal) in enumerate(zip(stretch.round_trip_s, stretch.normal, strict=True)):
            mean[2 + 2 * k] = 0.0 if normal else 0.5 * trip
            var[2 + 2 * k] = 1e-18 if normal else 0.25 * trip * trip
            # the causal estimator's weights of the paths: what nobody can see shall not move
            var[3 + 2 * k] = stretch.asymmetry_var[k]
        return Prior(t, mean, np.diag(var))

    def _prior_counts(self) -> Floats:
        weight = self.settings.delay_weight
        return np.array([prior_counts(trip, weight) for trip in self.stretch.round_trip_s])

    def _weights(self) -> tuple[Floats, NDArray[np.intp]]:
        active = np.flatnonzero(self._log_weights.max(axis=0) > math.log(2e-3))
        return self._log_weights[:, active], active

    def _learn(
        self,
        rows: Rows,
        prior: Floats,
        share: Floats,
        edge: NDArray[np.intp],
        active: NDArray[np.intp],
    ) -> None:
        counts = prior.copy()
        member = rows.line[edge][:, None] == np.arange(len(prior))
        counts[:, active] += member.T.astype(np.float64) @ share
        self._log_weights = np.log(counts / counts.sum(axis=1, keepdims=True))


class Proofs:
    """Hard bound from both sides: every proof of a stretch carried forward and backward.

    Args:
        stretch: Accepted rows.
        smooth: Smoothed offset at the rows' times (R,).
        settings: Oscillator limit and least one-way share.
    """

    def __init__(self, stretch: Stretch, smooth: Floats, settings: EstimatorSettings) -> None:
        rows, n = stretch.rows, len(stretch.rows)
        trips = np.array(stretch.round_trip_s)[rows.line]
        share = settings.min_one_way * trips
        trust = np.maximum(settings.gnss_trust_ns * 1e-9, 5.0 * np.sqrt(rows.var))
        share -= rows.root
        high = np.where(rows.sign > 0, rows.obs - share, np.inf)
        low = np.where(rows.sign < 0, rows.obs + share, -np.inf)
        normal = rows.sign == 0
        high[normal], low[normal] = (rows.obs + trust)[normal], (rows.obs - trust)[normal]
        self.t, self.drift = rows.t, settings.drift_limit_ppb * 1e-9
        high, low = high - smooth, low - smooth
        self.high, self.low = high.copy(), low.copy()
        self.high_back, self.low_back = high.copy(), low.copy()
        step = np.diff(rows.t) * settings.proof_drift_ppb * 1e-9
        for i in range(1, n):
            self.high[i] = min(high[i], self.high[i - 1] + step[i - 1])
            self.low[i] = max(low[i], self.low[i - 1] - step[i - 1])
        for i in range(n - 2, -1, -1):
            self.high_back[i] = min(high[i], self.high_back[i + 1] + step[i])
            self.low_back[i] = max(low[i], self.low_back[i + 1] - step[i])

    def bound(self, t: Floats) -> Floats:
        """Greatest possible error of the smoothed offset at `t` (N,), s."""
        n = len(self.t)
        after = np.searchsorted(self.t, t, side="right")
        i, j = np.clip(after - 1, 0, n - 1), np.clip(after, 0, n - 1)
        di, dj = np.abs(t - self.t[i]) * self.drift, np.abs(self.t[j] - t) * self.drift
        high = np.minimum(self.high[i] + di, self.high_back[j] + dj)
        low = np.maximum(self.low[i] - di, self.low_back[j] - dj)
        out: Floats = np.maximum(np.maximum(high, -low), 0.0)
        return out


class Retimed:
    """A drive's time after smoothing.

    Args:
        measurements: In order of arrival.
        settings: None for the defaults.

    Raises:
        ClockError: No measurement could be used.
    """

    def __init__(
        self, measurements: Sequence[Measurement], settings: EstimatorSettings | None = None
    ) -> None:
        self.settings = settings or EstimatorSettings()
        fine = [m for m in measurements if not m.coarse]
        if not fine and measurements:
            # messages without a pulse: their latency is a bias that nothing here can see
            worst = float(max(m.root_bound_ns for m in measurements))
            trust = self.settings.gnss_trust_ns + worst
            self.settings = replace(self.settings, gnss_bias_ns=0.5 * worst, gnss_trust_ns=trust)
        causal = TimeEstimator("retime", self.settings, keep=True)
        for m in fine or measurements:
            causal.update(m)
        core = causal.core
        for watch in core.watches.values():
            if watch.track is not None:
                core.darken(watch)
        self.raw0_ns, self.utc0_ns = core.raw0_ns, core.utc0_ns
        stretches = [gather(w) for w in (*core.finished, core.window)]
        self._parts: list[tuple[float, list[Smooth], Proofs]] = []
        for stretch in stretches:
            if stretch is not None:
                self._add(stretch)
        if not self._parts:
            raise ClockError(
                "re-timing: no usable measurement",
                remedy="Check that the log holds time measurements of a synchronised source",
            )

    def _add(self, stretch: Stretch) -> None:
        smooths = Smoother(stretch, self.settings).run()
        x, _ = _evaluate(smooths, stretch.rows.t)
        begin = float(stretch.rows.t[0])
        self._parts.append((begin, smooths, Proofs(stretch, x, self.settings)))

    def at(self, raw_ns: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats, Floats]:
        """UTC (ns), statistical bound (s) and hard bound (s) at raw times (N,)."""
        t = (np.asarray(raw_ns, dtype=np.int64) - self.raw0_ns) * 1e-9
        starts = [part[0] for part in self._parts]
        which = np.array([max(bisect.bisect_right(starts, float(v)) - 1, 0) for v in t])
        x, var, hard = np.zeros(len(t)), np.zeros(len(t)), np.zeros(len(t))
        for k, (_, smooths, proofs) in enumerate(self._parts):
            mine = which == k
            if mine.any():
                x[mine], var[mine] = _evaluate(smooths, t[mine])
                hard[mine] = proofs.bound(t[mine])
        utc = self.utc0_ns + (raw_ns - self.raw0_ns) + np.rint(x * 1e9).astype(np.int64)
        stat = self.settings.coverage_z * np.sqrt(var) + self.settings.stat_floor_ns * 1e-9
        return utc, np.minimum(stat, hard), hard


def _evaluate(smooths: list[Smooth], t: Floats) -> tuple[Floats, Floats]:
    x, var = np.zeros(len(t)), np.zeros(len(t))
    for s in smooths:
        mine = (t >= s.begin) & (t < s.end)
        if mine.any():
            x[mine], var[mine] = s.post.offset(t[mine])
    return x, var
