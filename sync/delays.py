"""Likelihood of queueing delay: a mixture of exponentials on a grid of scales, plus stamp noise.

A one-way delay is a fixed path plus a queue that can only be late. The excess over the path is
modelled as a mixture of exponentials with scales on a geometric grid: any completely monotone,
heavy-tailed density is close to one (Feldmann & Whitt 1998). With normal stamp noise each component
is an exponentially modified Gaussian (Grushka 1972), whose moments against a normal prior are in
closed form through the Mills ratio. See docs/time-estimator.md, section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import erfc, exp

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SCALES_S: Floats = np.asarray(1e-6 * 4.0 ** np.arange(12), dtype=np.float64)
"""Scales of the mixture, seconds: 1 us to 4 s."""

_RATES = 1.0 / SCALES_S
_LOG_RATES = np.log(_RATES)
_SQRT2 = math.sqrt(2.0)
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_LOG2 = math.log(2.0)
_INV_SQRT2 = 1.0 / _SQRT2
_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
_PHI = 2.0 * _INV_SQRT_2PI
# erfcx by Chebyshev fit, relative error 1.2e-7 (Press et al., Numerical Recipes, 6.2.2)
_ERFC = (
    0.17087277,
    -0.82215223,
    1.48851587,
    -1.13520398,
    0.27886807,
    -0.18628806,
    0.09678418,
    0.37409196,
    1.00002368,
    -1.26551223,
)


@dataclass(frozen=True, slots=True)
class Tilt:
    """Moments of a normal cavity times the delay likelihood, one entry per row.

    Attributes:
        log_z: Log evidence (R,).
        slope: d log_z / d(cavity mean) (R,).
        curve: d2 log_z / d(cavity mean)^2 (R,).
        share: Posterior share of each active scale (R, A).
    """

    log_z: Floats
    slope: Floats
    curve: Floats
    share: Floats


def mills(t: Floats) -> tuple[Floats, Floats]:
    """phi(t) / Phi(-t) and log Phi(-t), relative error about 1e-7."""
    z = np.abs(t) * (1.0 / _SQRT2)
    k = 1.0 / (1.0 + 0.5 * z)
    p = _ERFC[0] * k
    for c in _ERFC[1:-1]:
        p += c
        p *= k
    p += _ERFC[-1]
    log_erfcx = np.log(k) + p
    z2 = z * z
    log_q = log_erfcx - z2
    negative = t < 0
    if negative.any():
        half = 0.5 * np.exp(np.minimum(log_q, 0.0))
        log_q = np.where(negative, np.log1p(-half), log_q - _LOG2)
    else:
        log_q -= _LOG2
    return np.exp(-z2 - log_q - _LOG_SQRT_2PI), log_q


def tilt(
    excess: Floats,
    var: Floats,
    log_weights: Floats,
    active: NDArray[np.intp],
    stray: Floats | None = None,
) -> Tilt:
    """Match a normal cavity against the delay likelihood.

    Args:
        excess: Observed delay minus the cavity mean of the path line, s (R,). Negative is
            impossible but for stamp noise and an uncertain line.
        var: Cavity variance plus noise variance, s^2 (R,).
        log_weights: Log weight of each active scale for each row (R, A).
        active: Indices into `SCALES_S` (A,).
        stray: Density of a stamp that is false, wherever the line is, 1/s (R,); None for none.
    """
    rate, log_rate = _RATES[active], _LOG_RATES[active]
    sd = np.sqrt(var)[:, None]
    r = excess[:, None]
    t = rate * sd
    half = 0.5 * t * t
    t -= r / sd
    rho, log_q = mills(t)
    log_p = log_weights + log_rate + half - rate * r + log_q
    inv_sd = 1.0 / sd
    g = rate - rho * inv_sd
    h = rho * (t - rho) * (inv_sd * inv_sd)
    np.minimum(h, 0.0, out=h)
    top = log_p.max(axis=1)
    e = np.exp(log_p - top[:, None])
    total = e.sum(axis=1)
    share = e / total[:, None]
    slope = (share * g).sum(axis=1)
    second = (share * (h + g * g)).sum(axis=1)
    log_z = top + np.log(total)
    if stray is not None:
        both = np.logaddexp(log_z, np.log(np.maximum(stray, 1e-300)))
        queued = np.exp(log_z - both)
        slope, second, share = queued * slope, queued * second, queued[:, None] * share
        log_z = both
    return Tilt(log_z, slope, second - slope * slope, share)


Scales = tuple[tuple[float, float], ...]
"""Rate and weight times rate of the scales that matter to a line."""


def scales_of(log_weights: Floats) -> Scales:
    """The scales of a line that weigh more than a five-hundredth."""
    active = [(r, w) for r, w in zip(_RATES.tolist(), np.exp(log_weights).tolist(), strict=True)]
    return tuple((r, w * r) for r, w in active if w > 2e-3)


def match(excess: float, var: float, scales: Scales) -> tuple[float, float]:
    """Slope and curvature of `tilt` for a single row, in plain floats.

    Args:
        excess: Observed delay minus the cavity mean of the path line, s.
        var: Cavity variance plus noise variance, s^2.
        scales: Of the line.
    """
    sd = math.sqrt(var)
    inv = 1.0 / sd
    u = excess * inv
    bell = _INV_SQRT_2PI * exp(-0.5 * u * u) if u > 0.0 else 1.0
    total = slope = curve = 0.0
    for rate, weight in scales:
        t = rate * sd - u
        if t < -6.0:
            # far out in the tail: a pure exponential
            p, g = weight * exp(rate * (0.5 * rate * var - excess)), rate
        else:
            if t < 25.0:
                rho = _PHI * exp(-0.5 * t * t) / erfc(t * _INV_SQRT2)
            else:
                # Laplace's continued fraction of the Mills ratio
                rho = t + 1.0 / (t + 2.0 / (t + 3.0 / t))
            p, g = bell * weight / rho, rate - rho * inv
            if rho > t:
                curve -= p * rho * (rho - t) / var
        total += p
        slope += p * g
        curve += p * g * g
    if total <= 0.0:
        return 0.0, 0.0
    slope /= total
    return slope, curve / total - slope * slope


def round_trip_counts(excess: Floats, prior: Floats) -> Floats:
    """Expected rows of each scale by the excess round trips alone, whatever the line.

    Two equal exponential queues add up to a gamma density of shape 2. It tells the scales apart
    without the line, which a few replies cannot fix: scales learnt from the edges of a young line
    only confirm the line they were learnt from.

    Args:
        excess: Round trips beyond the shortest, s (N,).
        prior: Counts expected before any were seen (12,).

    Returns:
        Counts of edges, two for each exchange, on top of `prior` (12,).
    """
    z = _RATES * np.maximum(excess, 1e-7)[:, None]
    density = z * np.exp(-z) * _RATES
    counts = prior
    for _ in range(8):
        odds = counts * (1.0 / np.add.reduce(counts))
        counts = prior + 2.0 * odds * ((1.0 / (density @ odds + 1e-300)) @ density)
    out: Floats = counts - prior
    return out


def prior_counts(round_trip_s: float, strength: float) -> Floats:
    """Expected scales before any were seen: log-uniform between 0.1 % and all of the round trip."""
    z = np.log(SCALES_S / max(round_trip_s, 1e-6))
    p = np.exp(-0.5 * np.maximum(np.abs(z + 2.3) - 2.3, 0.0) ** 2) + 1e-3
    counts: Floats = strength * p / p.sum()
    return counts
