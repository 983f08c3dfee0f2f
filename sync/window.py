"""The sliding window: recent rows solved jointly, older ones summarised in a normal prior.

Revisiting the recent rows is what makes early mistakes harmless: a row's meaning (queue or edge) is
judged again with the replies that follow, and only rows that have had `window_rows` of company are
absorbed into the prior (fixed-lag smoothing). Between joint solves each reply moves the posterior
once (see sequential.py); solves come as often as they still change the answer. Memory is constant.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from syncline.sync.delays import SCALES_S
from syncline.sync.line import Edges, Line
from syncline.sync.paths import LineState, Paths
from syncline.sync.rows import Kept, Row, Rows
from syncline.sync.sequential import Sequential
from syncline.sync.settings import EstimatorSettings
from syncline.sync.solve import Oscillator, Posterior, Prior, System
from syncline.sync.wander import NS, choose_knots

Floats = NDArray[np.float64]

_ROUND_S = 1.0
"""Replies of several servers within so long are one round."""
_CREDIT = 8.0
"""Joint solves of several servers that may follow each other at once."""
_MOST_LINES = 24
"""Beyond so many lines those without rows in the window are forgotten."""

_SILENT = 0.0, 0.0, math.inf
"""Site and surprise of an edge that has said nothing yet."""


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
        self.pending: list[Row] = []
        self.paths = Paths(settings)
        self.prior = Prior(0.0, np.array([0.0, rate * NS]), np.diag([1.0, (sigma * NS) ** 2]))
        self.now: Sequential | None = None
        self.line: Line | None = None
        self.absorbed = 0
        self.taken = 0
        self.solves = 0
        self.keep = keep
        self.kept: Kept | None = None
        self.due = False
        self._interval, self._newest = 1, 0
        self._solved_t = -math.inf
        self._credit = 0.0
        self._offset_var = 1.0
        # A false stamp is one in so many that it takes as much to find it as at the gate. Of those
        # that the proofs let pass none is further off than a round trip to either side.
        self._stray = 0.5 * math.exp(-0.5 * settings.gate_sigma**2)
        self._share = np.zeros((0, len(SCALES_S)))

    @property
    def can_wait(self) -> bool:
        """True while a joint solve may be put off, because nobody needs the window at present."""
        return len(self.pending) < min(max(self.taken // 4, 4), 64)

    def snapshot(self) -> Window:
        """An independent copy (arrays are replaced, never written)."""
        twin = object.__new__(Window)
        twin.__dict__.update(self.__dict__)
        twin.rows = self.rows.copy()
        twin.pending = self.pending[:]
        twin.paths = self.paths.copy()
        twin.now = self.now.copy() if self.now is not None else None
        return twin

    # -- rows in ---------------------------------------------------------------------------------

    def add_exchange(
        self, name: str, e: Edges, root: float, *, tested: bool = True, odd: bool = False
    ) -> None:
        """Two edges of an exchange.

        Args:
            name: Line.
            e: The exchange.
            root: Error that the server admits, s.
            tested: It passed the gate of an established clock; else it may be false.
            odd: It would not have passed that gate.
        """
        t, upper, lower, sigma = e
        round_trip = max(upper - lower, 1e-7)
        k, state = self._line(name, t, 0.5 * (upper + lower), round_trip, normal=False)
        if round_trip < state.round_trip_s:
            state.round_trip_s = round_trip
            if self.absorbed == 0:
                self._refresh_prior()
        if not self._in_reach(t):
            return
        var, now = sigma * sigma, self.now
        high = low = _SILENT
        if now is not None:
            noise = var + self._reach(now, t)
            high = now.edge(k, 1.0, t, upper, noise, state.scales)
            low = now.edge(k, -1.0, t, lower, noise, state.scales)
        surprise, stray = max(high[2], low[2]), 0.0
        if not tested:
            stray = self._stray / state.round_trip_s
        if odd:
            # it meets the joint solve with nothing said yet, so that those before it judge it
            high = low = _SILENT
        self.pending.append((t, upper, var, k, 1.0, high[0], high[1], root, stray))
        self.pending.append((t, lower, var, k, -1.0, low[0], low[1], root, stray))
        self.taken += 2
        self._newest = k
        self._count(state, t, surprise)

    def add_normal(self, name: str, t: float, offset: float, sigma: float) -> None:
        """One normal row (a GNSS block), s. Its own bias is a prior of the line."""
        k, state = self._line(name, t, offset, 3.0 * sigma, normal=True)
        if not self._in_reach(t):
            return
        var, now, surprise = sigma * sigma, self.now, math.inf
        if now is not None:
            surprise = now.normal(k, t, offset, var + self._reach(now, t)) / 3.0
        self.pending.append((t, offset, var, k, 0.0, 1.0 / var, 0.0, 0.0, 0.0))
        self.taken += 1
        self._newest = k
        self._count(state, t, surprise)

    def _reach(self, now: Sequential, t: float) -> float:
        """Carry the running posterior to `t`; the variance of reaching back to a late row."""
        if t >= now.t:
            now.predict(t, self.wander, self.settings.white_fm)
            return 0.0
        return self.wander * self.wander * (now.t - t) ** 3 / 3.0

    def _count(self, state: LineState, t: float, surprise: float) -> None:
        """Count a measurement, and find whether the window must be solved again now."""
        state.heard += 1
        state.waiting += 1
        s = self.settings
        # a normal row means the same for ever: solving again only improves the wander
        share = max(state.heard // (s.solve_share if not state.normal else 3), 1)
        gone = t - self._solved_t
        ready = state.waiting >= min(self._interval, share) or surprise > s.surprise
        if gone > s.solve_every_s or (ready and self._may_solve(gone)):
            self.due = True
        if self.now is not None:
            self.line = self.now.line(self.wander, self._newest)

    def _may_solve(self, gone: float) -> bool:
        """False while several servers' joint solves have used up what they may cost.

        Peers that contradict each other move each other's paths at every solve, for ever.
        """
        if self.paths.servers < 2:
            return True
        if self.absorbed == 0:
            return gone >= _ROUND_S
        return self._credit + gone / self.settings.solve_pause_s >= 1.0

    def _in_reach(self, t: float) -> bool:
        """False for a late row from before the prior; until rows are absorbed the prior yields."""
        if t >= self.prior.t:
            return True
        if self.absorbed == 0:
            self.prior = replace(self.prior, t=t)
            return True
        return False

    def _line(
        self, name: str, t: float, offset: float, round_trip: float, *, normal: bool
    ) -> tuple[int, LineState]:
        known = self.paths.by_name.get(name)
        if known is not None:
            return known, self.paths.lines[known]
        if self.taken == 0:
            mean = self.prior.mean.copy()
            mean[0] = offset
            self._offset_var = (2.0 * round_trip) ** 2
            self.prior = Prior(t, mean, self.prior.cov)
        state = self.paths.add(name, round_trip, normal=normal)
        c_mean, c_var, b_var = self.paths.prior(state)
        n = len(self.prior.mean)
        cov = np.zeros((n + 2, n + 2))
        cov[:n, :n] = self.prior.cov
        cov[n, n], cov[n + 1, n + 1] = c_var, b_var
        self.prior = Prior(self.prior.t, np.append(self.prior.mean, [c_mean, 0.0]), cov)
        if self.absorbed == 0:
            self._refresh_prior()
        if self.now is not None:
            self.now.extend(self.prior.mean, self.prior.cov)
        return len(self.paths.lines) - 1, state

    def _refresh_prior(self) -> None:
        """Before anything is absorbed, priors follow the shortest round trips seen."""
        mean, cov = self.prior.mean.copy(), self.prior.cov.copy()
        for k, state in enumerate(self.paths.lines):
            c_mean, c_var, b_var = self.paths.prior(state)
            mean[2 + 2 * k] = c_mean
            cov[2 + 2 * k, 2 + 2 * k], cov[3 + 2 * k, 3 + 2 * k] = c_var, b_var
        self.paths.forget_scales()
        cov[0, 0] = self._offset_var
        self.prior = Prior(self.prior.t, mean, cov)

    # -- rows out --------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Pending rows join the window; the oldest leave it for the prior."""
        if self.pending:
            blank = np.zeros((len(self.pending), len(SCALES_S)))
            self._share = np.concatenate((self._share, blank))
            order = self.rows.extend(self.pending)
            if order is not None:
                self._share = self._share[order]
            self.pending = []
        if len(self.paths.lines) > _MOST_LINES and not self.keep:
            self._prune()
        over = len(self.rows) - self.settings.window_rows
        if over > 0:
            t = self.rows.t[over - 1]
            self._absorb(int(np.searchsorted(self.rows.t, t, side="right")))

    def _prune(self) -> None:
        """Forget lines without rows: paths that a source has left. Memory stays bounded."""
        used = np.unique(self.rows.line)
        kept = [k for k in range(len(self.paths.lines)) if k in used]
        index = np.full(len(self.paths.lines), -1, dtype=np.intp)
        index[kept] = np.arange(len(kept))
        self.rows.line = index[self.rows.line]
        self._newest = max(int(index[self._newest]), 0)
        self.paths.keep(kept)
        columns = [0, 1, *(c for k in kept for c in (2 + 2 * k, 3 + 2 * k))]
        mean, cov = self.prior.mean[columns], self.prior.cov[np.ix_(columns, columns)]
        self.prior = Prior(self.prior.t, mean, cov)
        self.now = None

    def _absorb(self, count: int) -> None:
        """Move the prior past the oldest rows, with the sites they have (forward filtering)."""
        rows = self.rows.head(count)
        if self.keep:
            names = tuple(line.name for line in self.paths.lines)
            self.kept = Kept(rows, names, self.kept)
        knots = choose_knots(rows.t, self.prior.t, self.settings.absorb_knots)
        osc = Oscillator(self.wander, self.settings.white_fm)
        mean, cov = System(rows, knots, self.prior, osc).newest(rows.tau, rows.nu)
        span = max(float(knots[-1]) - self.prior.t, 0.0) * 1e-3
        for k, state in enumerate(self.paths.lines):
            if not state.normal:
                step = self.settings.path_wander * state.round_trip_s
                cov[2 + 2 * k, 2 + 2 * k] += step * step * span
        self.prior = Prior(float(knots[-1]), mean, cov)
        self.paths.absorb(rows.line, self._share[:count])
        self._share = self._share[count:]
        self.rows.drop_first(count)
        self.absorbed += count

    # -- solve -----------------------------------------------------------------------------------

    def solve(self) -> Line:
        """Solve the window and return the oscillator's line at its newest row."""
        self._flush()
        before = self.now
        self.solves += 1
        knots = choose_knots(self.rows.t, self.prior.t, self.settings.knots)
        if self.absorbed == 0:
            self.paths.weigh_trips(self.rows)
        for _ in range(4):
            used = self.wander
            post = self._run(used, knots)
            self._adapt_wander(post)
            if self.wander < 2.0 * used:
                break
        mean, cov = post.newest()
        self.now = Sequential(float(knots[-1]), mean, cov)
        credit = self._credit + (self.now.t - self._solved_t) / self.settings.solve_pause_s - 1.0
        self._credit = min(max(credit, 0.0), _CREDIT)
        self.due, self._solved_t = False, self.now.t
        if before is not None:
            self._pace(before, self.now)
        self.paths.settle()
        self.line = self.now.line(self.wander, self._newest)
        return self.line

    def _pace(self, before: Sequential, after: Sequential) -> None:
        """Solve more seldom while joint solves agree with what the single steps had found."""
        rate, var = after.rate()
        change = abs(rate - before.rate()[0]) / math.sqrt(max(var, 1e-30))
        for k, state in enumerate(self.paths.lines):
            if state.waiting:
                old, new = before.path(k), after.path(k)
                change = max(change, abs(new[0] - old[0]) / math.sqrt(new[1] + 1e-18))
                change = max(change, abs(new[2] - old[2]) / math.sqrt(new[3] + 1e-18))
        if change < 0.3:
            self._interval = min(2 * self._interval, self.settings.solve_interval)
        elif change > 1.0:
            self._interval = max(self._interval // 2, 1)

    def _run(self, wander: float, knots: Floats) -> Posterior:
        rows, s = self.rows, self.settings
        system = System(rows, knots, self.prior, Oscillator(wander, self.settings.white_fm))
        lines = len(self.paths.lines)
        member = (np.arange(lines)[:, None] == rows.line).astype(np.float64)

        def learn(share: Floats, edge: NDArray[np.intp], active: NDArray[np.intp]) -> None:
            whole = len(edge) == len(rows)
            seen, total = np.zeros((len(rows), len(SCALES_S))), np.zeros((lines, len(SCALES_S)))
            if whole:
                seen[:, active] = share
            else:
                seen[edge[:, None], active] = share
            total[:, active] = (member if whole else member[:, edge]) @ share
            self._share = seen
            self.paths.learn(total)

        post = system.sweep(self.paths.weights, learn, (s.sweeps, s.sweeps_most), s.damp)
        rows.tau, rows.nu = post.tau, post.nu
        return post

    # -- oscillator noise ------------------------------------------------------------------------

    def _adapt_wander(self, post: Posterior) -> None:
        energy, count = post.energy
        if count < 4:
            return
        s = self.settings
        prior = s.wander_weight * (self.wander0 / self.wander) ** 2
        ratio = ((prior + energy) / (s.wander_weight + count)) ** (0.5 * s.wander_boost)
        least = 0.8 ** min(max(self._interval, 1), 4)
        wander = self.wander * min(max(ratio, least), 4.0)
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
        self.rows, self.pending, self.paths = Rows(), [], Paths(self.settings)
        self.absorbed, self.taken, self._share = 1, 1, np.zeros((0, len(SCALES_S)))
        self.line = line._replace(xx=line.xx + var, xy=0.0, fine=line.fine + var)
        self.now, self._interval, self._newest = None, 1, 0

    # -- what a line looks like ------------------------------------------------------------------

    def doubted(self) -> frozenset[float]:
        """Times of untested exchanges of which an edge is rather a false stamp than a queue."""
        rows = self.rows
        false = (rows.stray > 0.0) & (self._share.sum(axis=1) < 0.5)
        return frozenset(rows.t[false].tolist())

    def path(self, name: str) -> tuple[float, float, float, float] | None:
        """Predicted edges of a line at the newest row.

        Returns:
            Upper edge, its variance, lower edge, its variance (s, s^2); None for an unknown line.
        """
        k = self.paths.by_name.get(name)
        return None if self.now is None or k is None else self.now.path(k)

    def all_paths(self) -> dict[str, tuple[float, float, float, float]]:
        """Predicted edges of every line, as `path` gives them."""
        now = self.now
        return {} if now is None else {n: now.path(k) for n, k in self.paths.by_name.items()}
