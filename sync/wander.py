"""The oscillator: random-walk frequency modulation as an integrated Wiener process.

State at a knot: offset x (s) and frequency y in units of 1/NS so that both have similar size.
Between knots dt apart: F = [[1, dt/NS], [0, 1]],
Q = q^2 [[dt^3/3, NS dt^2/2], [., NS^2 dt]] + diag(white_fm^2 dt, 0)
(Van Dierendonck, McGraw & Brown 1984; Zucca & Tavella 2005). Between two known knots the mean is
the cubic Hermite spline and the variance q^2 dt^3/3 (s (1-s))^3 (Wahba 1978).

The knots are written as a linear map of the first state and of unit-variance increments, so that a
quiet crystal beside a diffuse start costs no precision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NS = 1000.0
"""Seconds over which the frequency state is expressed as an offset."""


def increments(step_s: Floats, wander: float, white_fm: float) -> tuple[Floats, Floats, Floats]:
    """Cholesky factor (l_xx, l_yx, l_yy) of the process noise of each step (K-1,)."""
    q2 = wander * wander
    a = q2 * step_s**3 / 3.0 + white_fm * white_fm * step_s
    b = q2 * step_s * step_s * (0.5 * NS)
    c = q2 * step_s * (NS * NS)
    l_xx = np.sqrt(a)
    l_yx = b / l_xx
    return l_xx, l_yx, np.sqrt(np.maximum(c - l_yx * l_yx, 1e-3 * c))


def knot_map(knots_s: Floats, wander: float, white_fm: float) -> Floats:
    """Map of [x_1, y_1, u_1, ..., u_{K-1}] (two unit increments a step) to all knots.

    Returns:
        (2K, 2K): rows x_1, y_1, x_2, y_2, ...
    """
    k = len(knots_s)
    out = np.zeros((2 * k, 2 * k))
    out[0::2, 0] = 1.0
    out[0::2, 1] = (knots_s - knots_s[0]) / NS
    out[1::2, 1] = 1.0
    if k > 1:
        l_xx, l_yx, l_yy = increments(np.diff(knots_s), wander, white_fm)
        past = np.tri(k, k - 1, -1)
        lag = past * (knots_s[:, None] - knots_s[None, 1:]) / NS
        out[0::2, 2::2] = past * l_xx + lag * l_yx
        out[0::2, 3::2] = lag * l_yy
        out[1::2, 2::2] = past * l_yx
        out[1::2, 3::2] = past * l_yy
    return out


def interpolate(
    knots_s: Floats, t_s: Floats, wander: float
) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Weights of the knots for the offset at `t_s` (R,), all within the knots.

    Returns:
        Index of the left knot (R,), weights of (x, y) left and (x, y) right (R, 4), and the
        variance of the bridge between the knots (R,).
    """
    n = len(t_s)
    if len(knots_s) < 2:
        w = np.zeros((n, 4))
        w[:, 0] = 1.0
        return np.zeros(n, dtype=np.intp), w, np.zeros(n)
    i = np.searchsorted(knots_s, t_s, side="right") - 1
    np.clip(i, 0, len(knots_s) - 2, out=i)
    left = knots_s[i]
    dt = knots_s[i + 1] - left
    s = np.clip((t_s - left) / dt, 0.0, 1.0)
    s2 = s * s
    s3 = s2 * s
    w = np.empty((n, 4))
    w[:, 2] = 3.0 * s2 - 2.0 * s3
    w[:, 0] = 1.0 - w[:, 2]
    dt_n = dt / NS
    w[:, 3] = (s3 - s2) * dt_n
    w[:, 1] = (s3 - 2.0 * s2 + s) * dt_n
    return i, w, (wander * wander / 3.0) * (dt * (s - s2)) ** 3
