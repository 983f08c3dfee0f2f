"""Device time to host time, offline: the online mapper's blocks, smoothed from both sides.

Forward filter and Rauch-Tung-Striebel smoother on offset and skew, with the skew's random walk
chosen by likelihood. Steps that the online guard found split the recording into segments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from syncline.errors import SensorDataError
from syncline.sensors.bank import MAX_G2, Filter, Taken
from syncline.sensors.clock import BlockMinKalman, ClockBatch

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

MANY_BLOCKS = 900
"""Above this every third block will do to choose the walk."""
SIGMA_SHARE = 0.9
"""Late blocks count for less, which the smoother's covariance does not know; from simulation."""
WALK_GRID = tuple(1e-8 * 4.0**k for k in range(6))
"""Random walks of the skew that are tried, per square root of a second."""


@dataclass(frozen=True, slots=True)
class SmoothClock:
    """A smoothed mapping of frames: arrays (N,).

    Attributes:
        offset_ns: Host minus device time, int64.
        sigma_ns: One standard deviation.
        segment: Which stretch between steps a frame belongs to.
        walk: Random walk of the skew that fits the recording best, per square root of a second.
        live: What the online mapper said on the way, for bias and quality.
    """

    offset_ns: I64
    sigma_ns: F64
    segment: I64
    walk: float
    live: ClockBatch


@dataclass(frozen=True, slots=True)
class _Knots:
    t_s: F64
    offset: F64
    skew: F64
    var: F64


def smooth_clock(
    device_ns: I64, host_ns: I64, window_s: float = 40.0, mapper: BlockMinKalman | None = None
) -> SmoothClock:
    """Map a whole recording, every frame seen from both sides.

    Args:
        device_ns: Device times (N,), in order of arrival.
        host_ns: Arrivals less what is known to lie between (N,).
        window_s: Longest memory on either side; the walk may not be slower than this implies.
        mapper: A fresh online mapper with the parameters to use.

    Returns:
        The mapping at every frame.

    Raises:
        SensorDataError: The arrays differ in length or are empty.
    """
    if len(device_ns) != len(host_ns) or len(device_ns) == 0:
        raise SensorDataError(
            f"smooth_clock: {len(device_ns)} device and {len(host_ns)} host times must be as many"
        )
    online = mapper if mapper is not None else BlockMinKalman()
    record: list[Taken] = []
    online.bank.record = record
    live = online.map_batch(device_ns, host_ns)
    online.finish()
    x0_ns, z0_ns = online.origin_ns
    groups = _split(record)
    walk = max(_best_walk(groups), _slowest(groups, window_s))
    knots = [_smooth(group, walk) for group in groups]
    t_s = (device_ns - x0_ns).astype(np.float64) * 1e-9
    offset, sigma, segment = _evaluate(knots, t_s, (host_ns - device_ns - z0_ns).astype(np.float64))
    return SmoothClock(z0_ns + np.rint(offset).astype(np.int64), sigma, segment, walk, live)


def _split(record: list[Taken]) -> list[list[Taken]]:
    groups: list[list[Taken]] = []
    for taken in record:
        if not groups or groups[-1][-1].segment != taken.segment:
            groups.append([])
        groups[-1].append(taken)
    return groups


def _slowest(groups: list[list[Taken]], window_s: float) -> float:
    """Walk whose steady filter remembers about `window_s` (sigma / window^1.5)."""
    noise = math.sqrt(float(np.median([t.r_ns2 for g in groups for t in g])))
    step_s = float(np.median([b.t_s - a.t_s for g in groups for a, b in pairwise(g)] or [1.0]))
    return noise * 1e-9 * math.sqrt(max(step_s, 1e-3)) / max(window_s, 1.0) ** 2


def _best_walk(groups: list[list[Taken]]) -> float:
    """Climb the likelihood from the grid's middle, then half a step to either side."""
    known: dict[float, float] = {}
    thin = 3 if sum(len(group) for group in groups) > MANY_BLOCKS else 1

    def score(walk: float) -> float:
        if walk not in known:
            known[walk] = sum(_likelihood(group[::thin], walk) for group in groups)
        return known[walk]

    at = len(WALK_GRID) // 2
    while True:
        near = range(max(at - 1, 0), min(at + 2, len(WALK_GRID)))
        best = max(near, key=lambda k: score(WALK_GRID[k]))
        if best == at:
            break
        at = best
    return max((0.5 * WALK_GRID[at], WALK_GRID[at], 2.0 * WALK_GRID[at]), key=score)


def _likelihood(group: list[Taken], walk: float) -> float:
    one = Filter((walk * 1e9) ** 2, offset=group[0].y_ns)
    total, last_s = 0.0, group[0].t_s
    for taken in group:
        one.p11 += taken.loosened**2
        dt_s = max(taken.t_s - last_s, 0.0)
        g2 = one.step(dt_s, taken.y_ns, taken.r_ns2)
        before = one.p00 / max(1.0 - one.p00 / taken.r_ns2, 1e-9) + taken.r_ns2
        total -= 0.5 * (min(g2, MAX_G2) + math.log(max(before, 1.0)))
        last_s = taken.t_s
    return total


def _smooth(group: list[Taken], walk: float) -> _Knots:
    one = Filter((walk * 1e9) ** 2, offset=group[0].y_ns)
    last_s = group[0].t_s
    states: list[tuple[float, float, float, float, float]] = []
    for taken in group:
        one.p11 += taken.loosened**2
        one.step(max(taken.t_s - last_s, 0.0), taken.y_ns, taken.r_ns2)
        states.append((one.offset, one.skew, one.p00, one.p01, one.p11))
        last_s = taken.t_s
    return _backward(group, states, one.walk)


def _backward(
    group: list[Taken], states: list[tuple[float, float, float, float, float]], walk: float
) -> _Knots:
    m0, m1, s00, s01, s11 = states[-1]
    out = [(m0, m1, s00)]
    for k in range(len(group) - 2, -1, -1):
        offset, skew, p00, p01, p11 = states[k]
        dt = max(group[k + 1].t_s - group[k].t_s, 0.0)
        a01, a11 = p01 + dt * p11, p11 + walk * dt + group[k + 1].loosened ** 2
        a00 = p00 + 2 * dt * p01 + dt * dt * p11 + walk * dt**3 / 3
        a01 += walk * dt * dt / 2
        det = max(a00 * a11 - a01 * a01, 1e-12)
        f00, f10 = p00 + dt * p01, p01 + dt * p11
        g00, g01 = (f00 * a11 - p01 * a01) / det, (p01 * a00 - f00 * a01) / det
        g10, g11 = (f10 * a11 - p11 * a01) / det, (p11 * a00 - f10 * a01) / det
        d0, d1 = m0 - (offset + skew * dt), m1 - skew
        m0, m1 = offset + g00 * d0 + g01 * d1, skew + g10 * d0 + g11 * d1
        e00, e01, e11 = s00 - a00, s01 - a01, s11 - a11
        s00 = p00 + g00 * g00 * e00 + 2 * g00 * g01 * e01 + g01 * g01 * e11
        s01 = p01 + g00 * (g10 * e00 + g11 * e01) + g01 * (g10 * e01 + g11 * e11)
        s11 = p11 + g10 * g10 * e00 + 2 * g10 * g11 * e01 + g11 * g11 * e11
        out.append((m0, m1, s00))
    table = np.array(out[::-1], dtype=np.float64)
    t_s = np.array([t.t_s for t in group], dtype=np.float64)
    doubt = np.array([t.doubt_ns2 for t in group], dtype=np.float64)
    return _Knots(t_s, table[:, 0], table[:, 1], np.maximum(table[:, 2], 0.0) + doubt)


def _at(knots: _Knots, t_s: F64) -> tuple[F64, F64]:
    """Cubic Hermite between knots, straight lines outside; linear variance."""
    last = len(knots.t_s) - 1
    k = np.clip(np.searchsorted(knots.t_s, t_s, side="right") - 1, 0, max(last - 1, 0))
    n = np.minimum(k + 1, last)
    width = np.where(n > k, np.maximum(knots.t_s[n] - knots.t_s[k], 1e-9), 1.0)
    u = np.clip((t_s - knots.t_s[k]) / width, 0.0, 1.0)
    h00, h10 = (1 + 2 * u) * (1 - u) ** 2, u * (1 - u) ** 2
    h01, h11 = u * u * (3 - 2 * u), u * u * (u - 1)
    inside = h00 * knots.offset[k] + h10 * width * knots.skew[k]
    inside += h01 * knots.offset[n] + h11 * width * knots.skew[n]
    before = np.minimum(t_s - knots.t_s[0], 0.0) * knots.skew[0]
    after = np.maximum(t_s - knots.t_s[-1], 0.0) * knots.skew[-1]
    value = np.where(n > k, inside, knots.offset[k]) + before + after
    return value, SIGMA_SHARE * np.sqrt((1 - u) * knots.var[k] + u * knots.var[n])


def _evaluate(knots: list[_Knots], t_s: F64, z_ns: F64) -> tuple[F64, F64, I64]:
    offset, sigma = _at(knots[0], t_s)
    segment = np.zeros(len(t_s), dtype=np.int64)
    for number, later in enumerate(knots[1:], start=1):
        there, its_sigma = _at(later, t_s)
        jump = there - offset
        gap = (t_s > knots[number - 1].t_s[-1]) & (t_s < later.t_s[0])
        fits_new = z_ns - there > -0.5 * np.abs(jump)
        fits_old = z_ns - offset > -0.5 * np.abs(jump)
        chosen = np.where(fits_new & fits_old, jump > 0.0, fits_new)
        new = (t_s >= later.t_s[0]) | (gap & chosen)
        offset, sigma = np.where(new, there, offset), np.where(new, its_sigma, sigma)
        segment[new] = number
    return offset, sigma, segment
