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

import numpy as np
from numpy.typing import NDArray

from syncline.sync.delays import tilt
from syncline.sync.rows import Rows
from syncline.sync.wander import NS, interpolate, knot_map

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_SETTLED = 0.5
"""Sigmas by which a sweep may move a predicted edge for the last time."""


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Oscillator:
    """Process noise: random-walk FM (1/sqrt(s)) and white FM (sqrt(s))."""

    wander: float
    white_fm: float


@dataclass
class Posterior:
    """Result of a solve.

    Attributes:
        knots: Times (K,).
        mean: Of [x_1, y_1, ..., x_K, y_K | c_1, b_1, ...] in deviations from `base` (2K + 2S,).
        map: From the unit-variance unknowns to the same (2K + 2S, D).
        root: W of the unit-variance unknowns, covariance W.T @ W (D, D).
        base: Prior's line: time, offset, frequency state.
        tau: Sites after the sweeps (R,).
        nu: Sites after the sweeps, relative to the observation (R,).
        energy: Expected squared increments and their number (EM for the wander).
    """

    knots: Floats
    mean: Floats
    map: Floats
    root: Floats
    base: tuple[float, float, float]
    tau: Floats
    nu: Floats
    energy: tuple[float, int]

    def newest(self) -> tuple[Floats, Floats]:
        """Mean and covariance of [x, y | c_1, b_1, ...] at the last knot, absolute."""
        j = 2 * len(self.knots) - 2
        mean, g = self.mean[j:].copy(), self.root @ self.map[j:].T
        t0, x0, y0 = self.base
        mean[0] += x0 + y0 * (float(self.knots[-1]) - t0) / NS
        mean[1] += y0
        return mean, g.T @ g


class System:
    """The linear algebra of one window for one oscillator; sweeps change only the sites.

    All unknowns are written in unit-variance coordinates xi: z = start + map @ xi.

    Args:
        rows: Observations.
        knots: Times of the knots, ascending; the first is the prior's time.
        prior: At `knots[0]`.
        osc: Process noise.
    """

    def __init__(self, rows: Rows, knots: Floats, prior: Prior, osc: Oscillator) -> None:
        self.rows, self.knots = rows, knots
        k, n = len(knots), len(prior.mean)
        self.base = (float(knots[0]), float(prior.mean[0]), float(prior.mean[1]))
        root = _root(prior.cov)
        states = knot_map(knots, osc.wander, osc.white_fm)
        self.dim = n + 2 * (k - 1)
        self.map = np.zeros((2 * k + n - 2, self.dim))
        self.map[: 2 * k, :n] = states[:, :2] @ root[:2]
        self.map[: 2 * k, n:] = states[:, 2:]
        self.map[2 * k :, :n] = root[2:]
        self.start = np.zeros(2 * k + n - 2)
        self.start[2 * k :] = prior.mean[2:]
        self.noise = slice(n, self.dim)
        self._design(osc)

    def _design(self, osc: Oscillator) -> None:
        rows, k = self.rows, len(self.knots)
        left, w, bridge = interpolate(self.knots, rows.t, osc.wander)
        column = 2 * k + 2 * rows.line
        m = self.map
        if k > 1:
            g = np.einsum("ij,ijk->ik", w, m[2 * left[:, None] + np.arange(4)])
        else:
            g = np.repeat(m[:1], len(rows), axis=0)
        self.a = g + rows.sign[:, None] * m[column] + m[column + 1]
        t0, x0, y0 = self.base
        line = x0 + y0 * (rows.t - t0) / NS
        self.obs = rows.obs - line - rows.sign * self.start[column] - self.start[column + 1]
        self.var = rows.var + bridge

    def gauss(self, tau: Floats, nu: Floats) -> tuple[Floats, Floats]:
        """Mean of xi for given sites, and W with covariance W.T @ W (never indefinite)."""
        a = self.a
        lam = (a.T * tau) @ a
        lam.flat[:: self.dim + 1] += 1.0
        w = np.linalg.inv(np.linalg.cholesky(lam))
        return w.T @ (w @ (a.T @ (nu + tau * self.obs))), w

    def newest(self, tau: Floats, nu: Floats) -> tuple[Floats, Floats]:
        """Mean and covariance of [x, y | c_1, b_1, ...] at the last knot for given sites."""
        mean, w = self.gauss(tau, nu)
        z = self.start + self.map @ mean
        return Posterior(self.knots, z, self.map, w, self.base, tau, nu, (0.0, 0)).newest()

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
        sign, normal = rows.sign[edge], np.flatnonzero(rows.sign == 0.0)
        tau, nu = rows.tau.copy(), rows.nu.copy()
        tau[normal] = 1.0 / self.var[normal]
        nu[normal] = 0.0
        line = rows.line[edge]
        a, obs, var = self.a[edge], self.obs[edge], self.var[edge]
        mean, w = self.gauss(tau, nu)
        m = a @ mean - obs
        for sweep in range(sweeps[1] if len(edge) else 0):
            v = _variance(w, a)
            inv = 1.0 / v
            cv = 1.0 / np.maximum(inv - tau[edge], 1e-3 * inv)
            cm = cv * (m * inv - nu[edge])
            log_weights, active = weights()
            out = tilt(-sign * cm, cv + var, log_weights[line], active)
            learn(out.share, edge, active)
            slope, den = sign * out.slope, np.maximum(1.0 + cv * out.curve, 1e-6)
            tau_new = np.maximum(-out.curve / den, 0.0)
            nu_new = np.where(out.curve < 0.0, (slope - out.curve * cm) / den, slope / den)
            # Noise of `var` cannot tell more than 1 / var, so more is round-off: after a suspend
            # the cavity is 1e14 times wider than the noise and `den` is lost.
            most = 1.0 / (var * np.maximum(tau_new, 1.0 / var))
            tau_new, nu_new = tau_new * most, nu_new * most
            # parallel updates overshoot while all edges lean on the same cavity: ever shorter steps
            step = damp * min(1.0, 3.0 / (sweep + 1.0))
            tau[edge] += step * (tau_new - tau[edge])
            nu[edge] += step * (nu_new - nu[edge])
            mean, w = self.gauss(tau, nu)
            before, m = m, a @ mean - obs
            if sweep + 1 >= sweeps[0] and np.max(np.abs(m - before) / np.sqrt(v)) < _SETTLED:
                break
        u, root = mean[self.noise], w[:, self.noise]
        energy = float(u @ u + np.sum(root * root)), len(u)
        z = self.start + self.map @ mean
        return Posterior(self.knots, z, self.map, w, self.base, tau, nu, energy)


def _root(cov: Floats) -> Floats:
    """A square root of a covariance whose entries may be of very different size."""
    scale = np.sqrt(np.maximum(np.diag(cov), 1e-40))
    unit = cov / np.outer(scale, scale)
    unit.flat[:: len(unit) + 1] += 1e-12
    try:
        root = np.linalg.cholesky(unit)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(unit)
        root = vectors * np.sqrt(np.maximum(values, 1e-12))
    out: Floats = scale[:, None] * root
    return out


def _variance(root: Floats, a: Floats) -> Floats:
    """Variances of the rows of `a` (R, D) for a covariance root.T @ root, never negative."""
    g = root @ a.T
    out: Floats = np.einsum("ij,ij->j", g, g)
    return np.maximum(out, 1e-30)
