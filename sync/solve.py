"""One Gaussian solve with expectation-propagation sweeps over the rows of a window.

Unknowns z = [x_1, y_1, ..., x_K, y_K | c_1, b_1, ..., c_S, b_S]: offset and frequency at K knots,
and for each line the shortest one-way delay c (half the shortest round trip) and the asymmetry b
that nobody can see. An upper edge observes x + b + c + queue, a lower edge x + b - c - queue, a
normal row x + b + noise. Edges are made normal by expectation propagation (Minka 2001): each row's
site is re-matched against the moments of its cavity times the delay likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from syncline.sync.delays import tilt
from syncline.sync.rows import Rows
from syncline.sync.wander import NS, Walk

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_SETTLED = 0.5
"""Sigmas by which a sweep may move a predicted edge for the last time."""


@dataclass(frozen=True)
class Prior:
    """Normal prior of [x, y | c_1, b_1, ...] at one time.

    Attributes:
        t: Seconds since the window's epoch.
        mean: (2 + 2S,).
        cov: (2 + 2S, 2 + 2S).
    """

    t: float
    mean: Floats
    cov: Floats

    @cached_property
    def root(self) -> Floats:
        """A square root of the covariance, whose entries may be of very different size."""
        cov = self.cov
        scale = np.sqrt(np.maximum(cov.diagonal(), 1e-40))[:, None]
        unit = cov / (scale * scale.T)
        unit.flat[:: len(unit) + 1] += 1e-12
        try:
            root = np.linalg.cholesky(unit)
        except np.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(unit)
            root = vectors * np.sqrt(np.maximum(values, 1e-12))
        out: Floats = scale * root
        return out


@dataclass(frozen=True, slots=True)
class Oscillator:
    """Process noise: random-walk FM (1/sqrt(s)) and white FM (sqrt(s))."""

    wander: float
    white_fm: float


@dataclass(frozen=True, slots=True)
class Posterior:
    """Result of a solve, in the unit-variance unknowns xi.

    Attributes:
        walk: Increments of the oscillator over the knots.
        prior: In force at the first knot.
        mean: Of xi (D,): the start's, then two for each step.
        root: W with covariance W.T @ W (D, D).
        tau: Sites after the sweeps (R,).
        nu: Sites after the sweeps, relative to the observation (R,).
        energy: Expected squared increments and their number (EM for the wander).
    """

    walk: Walk
    prior: Prior
    mean: Floats
    root: Floats
    tau: Floats
    nu: Floats
    energy: tuple[float, int] = (0.0, 0)

    def newest(self) -> tuple[Floats, Floats]:
        """Mean and covariance of [x, y | c_1, b_1, ...] at the last knot, absolute."""
        n, start = len(self.prior.mean), self.prior.root
        lag = (float(self.walk.knots[-1]) - self.prior.t) / NS
        share = np.zeros((n, len(self.mean)))
        share[:, :n] = start
        share[0, :n] += lag * start[1]
        share[:2, n:] = self.walk.last()
        mean, g = self.prior.mean + share @ self.mean, self.root @ share.T
        mean[0] += lag * self.prior.mean[1]
        return mean, g.T @ g

    def offset(self, t_s: Floats) -> tuple[Floats, Floats]:
        """Offset and its variance at `t_s` (N,), s and s^2; behind the last knot by its rate."""
        lag = (t_s - self.prior.t) / NS
        n, start = len(self.prior.mean), self.prior.root
        share = np.empty((len(self.mean), len(t_s)))
        share[:n] = start[0, :, None] + start[1, :, None] * lag
        bridge = self.walk.offset(t_s, share[n:], beyond=True)
        x = self.prior.mean[0] + self.prior.mean[1] * lag + self.mean @ share
        beyond = np.maximum(t_s - self.walk.knots[-1], 0.0)
        return x, _variance(self.root, share) + bridge + self.walk.wander**2 * beyond**3 / 3.0


class System:
    """The linear algebra of one window for one oscillator; sweeps change only the sites.

    All unknowns are written in unit-variance coordinates xi: those of the prior, and two for each
    step between knots.

    Args:
        rows: Observations.
        knots: Times of the knots, ascending; the first is the prior's time.
        prior: At `knots[0]`.
        osc: Process noise.

    Attributes:
        a: Shares of xi in what each row observes (D, R).
        obs: Observations less what the prior's mean predicts (R,).
        var: Variance of the stamps and of the bridge between knots (R,).
    """

    def __init__(self, rows: Rows, knots: Floats, prior: Prior, osc: Oscillator) -> None:
        self.rows, self.prior = rows, prior
        self.walk = Walk(knots, osc.wander, osc.white_fm)
        n = len(prior.mean)
        self.dim = n + 2 * (len(knots) - 1)
        lag, c = (rows.t - prior.t) * (1.0 / NS), 2 + 2 * rows.line
        # what each unknown of the prior and, below them, its mean add to x, y, c and b
        part = np.concatenate((prior.root, prior.mean[:, None]), axis=1).T
        seen = part.take(c, axis=1) * rows.sign
        seen += part.take(c + 1, axis=1)
        seen += part[:, 1, None] * lag
        seen += part[:, 0, None]
        self.a = np.empty((self.dim, len(rows)))
        self.a[:n] = seen[:n]
        self.obs = rows.obs - seen[n]
        self.var = rows.var + self.walk.offset(rows.t, self.a[n:])

    def gauss(self, tau: Floats, nu: Floats) -> tuple[Floats, Floats]:
        """Mean of xi for given sites, and W with covariance W.T @ W (never indefinite)."""
        a = self.a
        lam = (a * tau) @ a.T
        lam.flat[:: self.dim + 1] += 1.0
        w = np.linalg.inv(np.linalg.cholesky(lam))
        return (w @ (a @ (nu + tau * self.obs))) @ w, w

    def newest(self, tau: Floats, nu: Floats) -> tuple[Floats, Floats]:
        """Mean and covariance of [x, y | c_1, b_1, ...] at the last knot for given sites."""
        mean, w = self.gauss(tau, nu)
        return Posterior(self.walk, self.prior, mean, w, tau, nu).newest()

    def sweep(
        self,
        weights: Callable[[], tuple[Floats, Ints]],
        learn: Callable[[Floats, Ints, Ints], None],
        sweeps: tuple[int, int],
        damp: float,
    ) -> Posterior:
        """Run EP sweeps from given sites until they settle.

        Args:
            weights: Gives log weights of the active scales per line (S, A) and their indices (A,).
            learn: Takes the responsibilities (E, A), edge rows (E,) and active scales of a sweep.
            sweeps: Least and most. After the least, more only while the predicted edges still move.
            damp: Share of the new site taken at the first sweep, 0..1.
        """
        rows = self.rows
        edge = np.flatnonzero(rows.sign)
        tau, nu = rows.tau.copy(), rows.nu.copy()
        a, obs, var, sign, line = self.a, self.obs, self.var, rows.sign, rows.line
        site: slice | Ints = slice(None)
        if len(edge) < len(rows):
            normal, site = np.flatnonzero(rows.sign == 0.0), edge
            tau[normal] = 1.0 / self.var[normal]
            nu[normal] = 0.0
            a, obs, var, sign, line = a[:, edge], obs[edge], var[edge], sign[edge], line[edge]
        most = 1.0 / var
        stray = rows.stray[site] if rows.stray.any() else None
        mean, w = self.gauss(tau, nu)
        m = mean @ a - obs
        for sweep in range(sweeps[1] if len(edge) else 0):
            t, u = tau[site], nu[site]
            inv = 1.0 / _variance(w, a)
            cv = 1.0 / np.maximum(inv - t, 1e-3 * inv)
            cm = cv * (m * inv - u)
            log_weights, active = weights()
            out = tilt(-sign * cm, cv + var, log_weights[line], active, stray)
            learn(out.share, edge, active)
            curve = np.minimum(out.curve, 0.0)
            den = np.maximum(1.0 + cv * out.curve, 1e-6)
            tau_new, nu_new = -curve / den, (sign * out.slope - curve * cm) / den
            # Noise of `var` cannot tell more than 1 / var, so more is round-off: after a suspend
            # the cavity is 1e14 times wider than the noise and `den` is lost.
            less = most / np.maximum(tau_new, most)
            # parallel updates overshoot while all edges lean on the same cavity: ever shorter steps
            step = damp * min(1.0, 3.0 / (sweep + 1.0))
            tau[site] = t + step * (tau_new * less - t)
            nu[site] = u + step * (nu_new * less - u)
            mean, w = self.gauss(tau, nu)
            before, m = m, mean @ a - obs
            moved = m - before
            if sweep + 1 >= sweeps[0] and float((moved * moved * inv).max()) < _SETTLED**2:
                break
        n = len(self.prior.mean)
        u, root = mean[n:], w[:, n:]
        energy = float(u @ u + np.einsum("ij,ij->", root, root)), len(u)
        return Posterior(self.walk, self.prior, mean, w, tau, nu, energy)


def _variance(root: Floats, a: Floats) -> Floats:
    """Variances of the columns of `a` (D, R) for a covariance root.T @ root, never negative."""
    g = root @ a
    out: Floats = np.einsum("ij,ij->j", g, g)
    return np.maximum(out, 1e-30)
