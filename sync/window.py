"""The sliding window: recent rows solved jointly, older ones summarised in a normal prior.

Revisiting the recent rows is what makes early mistakes harmless: a row's meaning (queue or edge) is
judged again with every reply that follows, and only rows that have had `window_rows` of company are
absorbed into the prior (fixed-lag smoothing). Memory is constant.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from syncline.sync.delays import SCALES_S, prior_counts
from syncline.sync.rows import Kept, Rows
from syncline.sync.settings import EstimatorSettings
from syncline.sync.solve import Oscillator, Posterior, Prior, System
from syncline.sync.wander import NS

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """The oscillator's line after a solve: x(t) = x + y (t - t0), with covariance.

    Attributes:
        t: Seconds since the window's epoch.
        x: UTC minus raw, s.
        y: Rate.
        xx: Variance of x.
        xy: Covariance.
        yy: Variance of y.
        wander: Random-walk FM in force.
    """

    t: float
    x: float
    y: float
    xx: float
    xy: float
    yy: float
    wander: float

    def at(self, t: float) -> float:
        """Offset at `t`, s."""
        return self.x + self.y * (t - self.t)

    def var(self, t: float) -> float:
        """Variance of the offset at `t`, s^2."""
        dt = t - self.t
        grown = self.wander * self.wander * abs(dt) ** 3 / 3.0
        return max(self.xx + dt * (2.0 * self.xy + dt * self.yy) + grown, 0.0)


@dataclass
class LineState:
    """A source's path: what the rows of one line share.

    Attributes:
        name: Source.
        normal: One-way source without a path.
        round_trip_s: Shortest round trip seen.
        counts: Delay scales remembered of absorbed rows.
        log_weights: Log weights of all scales.
    """

    name: str
    normal: bool
    round_trip_s: float
    counts: Floats
    log_weights: Floats


class Window:
    """Joint estimate of the oscillator and of every source's path.

    Args:
        settings: See `EstimatorSettings`.
        rate: Prior mean of the oscillator's rate.
        rate_sigma: Its sigma; None for the settings' value.
        wander: First guess of random-walk FM; None for the settings' value.
        keep: Keep absorbed rows for the smoother (memory then grows with the drive).
    """

    def __init__(
        self,
        settings: EstimatorSettings,
        rate: float = 0.0,
        rate_sigma: float | None = None,
        wander: float | None = None,
        keep: bool = False,
    ) -> None:
        self.settings = settings
        self.rate0 = rate
        self.wander_limit = settings.wander_max
        self.wander0 = wander or settings.wander_typical
        self.wander = wander or settings.wander_start
        sigma = settings.rate_sigma if rate_sigma is None else rate_sigma
        self.rows = Rows()
        self.lines: list[LineState] = []
        self.by_name: dict[str, int] = {}
        self.prior = Prior(0.0, np.array([0.0, rate * NS]), np.diag([1.0, (sigma * NS) ** 2]))
        self.post: Posterior | None = None
        self.line: Line | None = None
        self.absorbed = 0
        self.solves = 0
        self.keep = keep
        self.kept: Kept | None = None
        self._offset_var = 1.0
        self._share = np.zeros((0, len(SCALES_S)))

    def snapshot(self) -> Window:
        """An independent copy (arrays are replaced, never written)."""
        twin = copy.copy(self)
        twin.rows = self.rows.copy()
        twin.lines = [copy.copy(line) for line in self.lines]
        twin.by_name = dict(self.by_name)
        return twin

    # -- rows in ---------------------------------------------------------------------------------

    def add_exchange(self, name: str, t: float, upper: float, lower: float, sigma: float) -> None:
        """Two edges of an exchange at local midpoint `t`, s."""
        round_trip = max(upper - lower, 1e-7)
        k = self._line(name, t, 0.5 * (upper + lower), round_trip, normal=False)
        state = self.lines[k]
        if round_trip < state.round_trip_s:
            state.round_trip_s = round_trip
            if self.absorbed == 0:
                self._refresh_prior()
        if not self._in_reach(t):
            return
        var = sigma * sigma
        self.rows.append(t, k, [(upper, 1.0, var), (lower, -1.0, var)])
        self._trim()

    def add_normal(self, name: str, t: float, offset: float, sigma: float) -> None:
        """One normal row (a GNSS block), s."""
        k = self._line(name, t, offset, 3.0 * sigma, normal=True)
        if not self._in_reach(t):
            return
        self.rows.append(t, k, [(offset, 0.0, sigma * sigma)])
        self._trim()

    def _in_reach(self, t: float) -> bool:
        """False for a late row from before the prior; until rows are absorbed the prior yields."""
        if t >= self.prior.t:
            return True
        if self.absorbed == 0:
            self.prior = replace(self.prior, t=t)
            return True
        return False

    def _line(self, name: str, t: float, offset: float, round_trip: float, *, normal: bool) -> int:
        if len(self.rows) == 0 and self.absorbed == 0:
            mean = self.prior.mean.copy()
            mean[0] = offset
            self._offset_var = (2.0 * round_trip) ** 2
            self.prior = Prior(t, mean, self.prior.cov)
        if name in self.by_name:
            return self.by_name[name]
        counts = prior_counts(round_trip, self.settings.delay_weight)
        weights = np.log(counts / counts.sum())
        self.lines.append(LineState(name, normal, round_trip, counts, weights))
        self.by_name[name] = len(self.lines) - 1
        c_mean, c_var, b_var = self._path_prior(self.lines[-1])
        n = len(self.prior.mean)
        cov = np.zeros((n + 2, n + 2))
        cov[:n, :n] = self.prior.cov
        cov[n, n], cov[n + 1, n + 1] = c_var, b_var
        self.prior = Prior(self.prior.t, np.append(self.prior.mean, [c_mean, 0.0]), cov)
        if self.absorbed == 0:
            self._refresh_prior()
        return len(self.lines) - 1

    def _path_prior(self, state: LineState) -> tuple[float, float, float]:
        if state.normal:
            return 0.0, 1e-18, (self.settings.gnss_bias_ns * 1e-9) ** 2
        half = 0.5 * state.round_trip_s
        return half, half * half, (self.settings.asymmetry * self._scale(state)) ** 2

    def _scale(self, state: LineState) -> float:
        """Round trip that asymmetry is scaled by: between a path's own and that of its peers.

        Whether asymmetry grows with distance is not known; the geometric mean with the peers of
        similar distance loses least either way.
        """
        trips = [s.round_trip_s for s in self.lines if not s.normal]
        near = [trip for trip in trips if trip <= 5.0 * min(trips)]
        own = state.round_trip_s
        if own not in near:
            return own
        middle = math.exp(sum(math.log(trip) for trip in near) / len(near))
        return math.sqrt(own * middle)

    def _refresh_prior(self) -> None:
        """Before anything is absorbed, priors follow the shortest round trips seen."""
        mean, cov = self.prior.mean.copy(), self.prior.cov.copy()
        for k, state in enumerate(self.lines):
            c_mean, c_var, b_var = self._path_prior(state)
            mean[2 + 2 * k] = c_mean
            cov[2 + 2 * k, 2 + 2 * k], cov[3 + 2 * k, 3 + 2 * k] = c_var, b_var
            if not state.normal:
                state.counts = prior_counts(state.round_trip_s, self.settings.delay_weight)
        cov[0, 0] = self._offset_var
        self.prior = Prior(self.prior.t, mean, cov)

    # -- rows out --------------------------------------------------------------------------------

    def _trim(self) -> None:
        while len(self.rows) > self.settings.window_rows:
            t = self.rows.t[0]
            count = int(np.searchsorted(self.rows.t, t, side="right"))
            self._absorb(count)

    def _absorb(self, count: int) -> None:
        """Move the prior to the oldest rows and take their sites (a Kalman forward step)."""
        rows, s = self.rows, self.settings
        if self.keep:
            names = tuple(line.name for line in self.lines)
            self.kept = Kept(rows.head(count), names, self.kept)
        t = float(rows.t[0])
        mean, cov = self._predict_prior(t)
        for r in range(count):
            k, tau, nu = int(rows.line[r]), float(rows.tau[r]), float(rows.nu[r])
            h = np.zeros(len(mean))
            h[0], h[2 + 2 * k], h[3 + 2 * k] = 1.0, rows.sign[r], 1.0
            gain = cov @ h
            den = 1.0 + tau * float(h @ gain)
            mean = mean + gain * ((nu - tau * (float(h @ mean) - rows.obs[r])) / den)
            cov = cov - np.outer(gain, gain) * (tau / den)
            if rows.sign[r] != 0.0 and r < len(self._share):
                state = self.lines[k]
                state.counts = state.counts * (1.0 - 0.5 / s.delay_memory) + self._share[r]
        self.prior = Prior(t, mean, 0.5 * (cov + cov.T))
        self._share = self._share[count:]
        rows.drop_first(count)
        self.absorbed += count

    def _predict_prior(self, t: float) -> tuple[Floats, Floats]:
        mean, cov = self.prior.mean.copy(), self.prior.cov.copy()
        dt = max(t - self.prior.t, 0.0)
        f, q2 = dt / NS, self.wander * self.wander
        mean[0] += f * mean[1]
        cov[0] += f * cov[1]
        cov[:, 0] += f * cov[:, 1]
        cov[0, 0] += q2 * dt**3 / 3.0 + self.settings.white_fm**2 * dt
        cov[0, 1] += q2 * dt * dt * 0.5 * NS
        cov[1, 0] = cov[0, 1]
        cov[1, 1] += q2 * dt * NS * NS
        for k, state in enumerate(self.lines):
            if not state.normal:
                step = self.settings.path_wander * state.round_trip_s
                cov[2 + 2 * k, 2 + 2 * k] += step * step * dt * 1e-3
        return mean, cov

    # -- solve -----------------------------------------------------------------------------------

    def knots(self) -> Floats:
        """Times of the knots: dense near the newest row, thinner towards the past."""
        t = np.unique(self.rows.t)
        n, k = len(t), self.settings.knots
        if n > k:
            at = (n - 1) * (1.0 - (np.arange(k) / (k - 1)) ** 1.7)
            t = t[np.unique(np.rint(at).astype(np.intp))]
        t = t[np.append(np.diff(t) > 1e-3, True)]
        if self.prior.t < t[0] - 1e-3:
            return np.concatenate(([self.prior.t], t))
        t[0] = self.prior.t
        return np.asarray(t, dtype=np.float64)

    def solve(self, sweeps: int | None = None) -> Line:
        """Solve the window and return the oscillator's line at its newest row."""
        self.solves += 1
        young = self.absorbed == 0 and len(self.rows) < 100
        sweeps = sweeps or self.settings.sweeps + young
        for _ in range(4):
            used = self.wander
            post = self._run(used, self.rows, sweeps)
            self._adapt_wander(post)
            if self.wander < 1.5 * used:
                break
        self._take(post)
        assert self.line is not None
        return self.line

    def _weights(self) -> tuple[Floats, NDArray[np.intp]]:
        logs = np.array([line.log_weights for line in self.lines])
        active = np.flatnonzero(logs.max(axis=0) > math.log(2e-3))
        return logs[:, active], active

    def _run(self, wander: float, rows: Rows, sweeps: int) -> Posterior:
        osc = Oscillator(wander, self.settings.white_fm)
        system = System(rows, self.knots(), self.prior, osc)
        post = system.sweep(self._weights, self._learn_delays, sweeps, self.settings.damp)
        rows.tau, rows.nu = post.tau, post.nu
        return post

    def _learn_delays(
        self, responsibility: Floats, edge: NDArray[np.intp], active: NDArray[np.intp]
    ) -> None:
        """EM step for the delay scales of every line."""
        share = np.zeros((len(self.rows), len(SCALES_S)))
        share[edge[:, None], active] = responsibility
        self._share = share
        member = self.rows.line[:, None] == np.arange(len(self.lines))
        total = member.T.astype(np.float64) @ share
        for k, state in enumerate(self.lines):
            if not state.normal:
                counts = state.counts + total[k]
                state.log_weights = np.log(counts / counts.sum())

    def _take(self, post: Posterior) -> None:
        self.post = post
        t0, x0, y0 = post.base
        j = 2 * len(post.knots) - 2
        t = float(post.knots[-1])
        m, h = post.mean, np.zeros((2, len(post.mean)))
        h[0, j] = h[1, j + 1] = 1.0
        c = post.covariance(h)
        self.line = Line(
            t,
            float(x0 + y0 * (t - t0) / NS + m[j]),
            float((y0 + m[j + 1]) / NS),
            float(c[0, 0]),
            float(c[0, 1]) / NS,
            float(c[1, 1]) / NS**2,
            self.wander,
        )

    # -- oscillator noise ------------------------------------------------------------------------

    def _adapt_wander(self, post: Posterior) -> None:
        energy, count = post.energy
        if count < 4:
            return
        s = self.settings
        prior = s.wander_weight * (self.wander0 / self.wander) ** 2
        ratio = ((prior + energy) / (s.wander_weight + count)) ** (0.5 * s.wander_boost)
        wander = self.wander * min(max(ratio, 0.8), 4.0)
        self.wander = min(max(wander, s.wander_min), self.wander_limit)

    def cap_wander(self, limit: float) -> None:
        """Believe no wander above `limit` from now on (a drag was found)."""
        self.wander_limit = limit

    def widen(self, var: float) -> None:
        """The offset is newly uncertain by `var` (s^2): older rows keep only the rate.

        The newest line becomes the prior; paths are learnt afresh.
        """
        if self.line is None:
            return
        line = self.line
        cov = np.diag([line.xx + var, line.yy * NS * NS])
        self.prior = Prior(line.t, np.array([line.x, line.y * NS]), cov)
        self.rows, self.lines, self.by_name = Rows(), [], {}
        self.absorbed, self._share = 1, np.zeros((0, len(SCALES_S)))
        self.line = replace(line, xx=line.xx + var, xy=0.0)
        self.post = None

    # -- what a line looks like ------------------------------------------------------------------

    def path(self, name: str) -> tuple[float, float, float, float] | None:
        """(c + b, its variance with x | c - b ...): predicted edges of a line at the newest row.

        Returns:
            Upper edge, its variance, lower edge, its variance (s, s^2); None for an unknown line.
        """
        if self.post is None or name not in self.by_name or self.line is None:
            return None
        m, k = self.post.mean, len(self.post.knots)
        col = 2 * k + 2 * self.by_name[name]
        if col + 1 >= len(m):
            return None
        h = np.zeros((2, len(m)))
        h[:, 2 * k - 2] = h[:, col + 1] = 1.0
        h[:, col] = 1.0, -1.0
        var = self.post.covariance(h)
        middle, c = self.line.x + float(m[col + 1]), float(m[col])
        return middle + c, float(var[0, 0]), middle - c, float(var[1, 1])
