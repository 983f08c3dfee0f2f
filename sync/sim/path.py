"""A network path: fixed delay, queues that come and go, bursts, loss, correlation, sharing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PathSpec:
    """One access link or one route.

    Attributes:
        up_ms: Fixed delay to the server.
        down_ms: Fixed delay back.
        queue_ms: Mean of the exponential queue, each way.
        busy_queue_ms: Mean while the link is busy (0: never busy).
        dwell_s: Mean stay in each of the two conditions.
        bursts_per_h: One-way bursts an hour.
        burst_ms: Their least and greatest extra delay.
        burst_s: Their least and greatest length.
        loss: Share of exchanges that are lost.
        correlation_s: Time constant of queue correlation (0: independent).
    """

    up_ms: float = 0.1
    down_ms: float = 0.1
    queue_ms: float = 0.01
    busy_queue_ms: float = 0.0
    dwell_s: float = 120.0
    bursts_per_h: float = 0.0
    burst_ms: tuple[float, float] = (50.0, 300.0)
    burst_s: tuple[float, float] = (20.0, 90.0)
    loss: float = 0.0
    correlation_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Burst:
    begin: float
    end: float
    extra: float
    up: bool


class Path:
    """Draws delays in order of time.

    Args:
        spec: The path.
        duration_s: Length of the run.
        rng: Source of randomness.
    """

    def __init__(self, spec: PathSpec, duration_s: float, rng: np.random.Generator) -> None:
        self.spec, self._rng = spec, rng
        count = rng.poisson(spec.bursts_per_h * duration_s / 3600.0)
        self._bursts = [self._burst(duration_s) for _ in range(count)]
        self._switch = self._switches(duration_s)
        self._normal = [0.0, 0.0]
        self._last = [-1e9, -1e9]

    def _burst(self, duration_s: float) -> _Burst:
        rng, spec = self._rng, self.spec
        begin = rng.uniform(0.0, duration_s)
        length, extra = rng.uniform(*spec.burst_s), rng.uniform(*spec.burst_ms) * 1e-3
        return _Burst(begin, begin + length, extra, bool(rng.integers(2)))

    def _switches(self, duration_s: float) -> Floats:
        if self.spec.busy_queue_ms <= 0.0:
            return np.zeros(0)
        n = int(4 * duration_s / self.spec.dwell_s) + 8
        return np.cumsum(self._rng.exponential(self.spec.dwell_s, n))

    def lost(self) -> bool:
        """Draw whether an exchange is lost."""
        return bool(self._rng.random() < self.spec.loss)

    def delay(self, t: float, *, up: bool) -> float:
        """One-way delay at true time `t`, s."""
        spec = self.spec
        busy = bool(np.searchsorted(self._switch, t) & 1) if len(self._switch) else False
        mean = (spec.busy_queue_ms if busy else spec.queue_ms) * 1e-3
        total = (spec.up_ms if up else spec.down_ms) * 1e-3 + mean * self._unit(t, up)
        for burst in self._bursts:
            if burst.up == up and burst.begin <= t < burst.end:
                total += burst.extra
        return total

    def _unit(self, t: float, up: bool) -> float:
        """A unit-mean exponential draw, correlated in time when asked for."""
        if self.spec.correlation_s <= 0.0:
            return float(self._rng.exponential())
        k = int(up)
        keep = float(np.exp(-(t - self._last[k]) / self.spec.correlation_s))
        kick = float(self._rng.normal()) * float(np.sqrt(1.0 - keep * keep))
        self._normal[k] = keep * self._normal[k] + kick
        self._last[k] = t
        return -float(np.log(max(0.5 * _erfc(self._normal[k]), 1e-12)))


def _erfc(z: float) -> float:
    return math.erfc(z / math.sqrt(2.0))
