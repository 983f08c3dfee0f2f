"""A crystal: rate, random-walk and white FM, thermal noise, temperature ramps, real records."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEP_S = 1.0


@dataclass(frozen=True, slots=True)
class Ramp:
    """Rate change from 0 to `ppm` between `begin_s` and `end_s`, kept afterwards."""

    begin_s: float
    end_s: float
    ppm: float


@dataclass(frozen=True, slots=True)
class OscillatorSpec:
    """What a crystal does.

    Attributes:
        rate_ppm: Constant rate; None draws U(-spread, spread).
        spread_ppm: Spread of the draw.
        wander: Random-walk FM, 1/sqrt(s).
        white_fm: White FM, sqrt(s).
        thermal: One sigma of a slow thermal rate noise (Ornstein-Uhlenbeck).
        thermal_tau_s: Its time constant.
        ramps: Temperature ramps.
        record: Fractional frequency, one value a second, added as it is (repeated when short).
    """

    rate_ppm: float | None = None
    spread_ppm: float = 30.0
    wander: float = 1e-9
    white_fm: float = 0.0
    thermal: float = 2e-8
    thermal_tau_s: float = 900.0
    ramps: tuple[Ramp, ...] = ()
    record: Floats | None = None


class Oscillator:
    """Raw time as a function of true time, on a 1 s grid with linear interpolation.

    Args:
        spec: The crystal.
        duration_s: Length of the run.
        rng: Source of randomness.
    """

    def __init__(self, spec: OscillatorSpec, duration_s: float, rng: np.random.Generator) -> None:
        n = math.ceil(duration_s / _STEP_S) + 2
        self.grid = np.arange(n) * _STEP_S
        drawn = rng.uniform(-spec.spread_ppm, spec.spread_ppm)
        rate = np.full(n, (drawn if spec.rate_ppm is None else spec.rate_ppm) * 1e-6)
        rate += np.cumsum(rng.normal(0.0, 1.0, n)) * spec.wander * math.sqrt(_STEP_S)
        rate += _thermal(spec, n, rng)
        for ramp in spec.ramps:
            share = np.clip((self.grid - ramp.begin_s) / (ramp.end_s - ramp.begin_s), 0.0, 1.0)
            rate += share * ramp.ppm * 1e-6
        if spec.record is not None:
            rate += np.resize(spec.record, n)
        gained = np.concatenate(([0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1])) * _STEP_S))
        if spec.white_fm > 0.0:
            gained += np.cumsum(rng.normal(0.0, 1.0, n)) * spec.white_fm * math.sqrt(_STEP_S)
        self.gained = gained
        self.rate = rate

    def raw(self, true_s: Floats | float) -> Floats:
        """Seconds on the raw clock (counting from 0) at true time `true_s`."""
        return np.asarray(true_s + np.interp(true_s, self.grid, self.gained), dtype=np.float64)


def _thermal(spec: OscillatorSpec, n: int, rng: np.random.Generator) -> Floats:
    if spec.thermal <= 0.0:
        return np.zeros(n)
    keep = math.exp(-_STEP_S / spec.thermal_tau_s)
    kick = rng.normal(0.0, spec.thermal * math.sqrt(1.0 - keep * keep), n)
    kick[0] = rng.normal(0.0, spec.thermal)
    out, value = np.empty(n), 0.0
    for i, k in enumerate(kick.tolist()):
        value = keep * value + k
        out[i] = value
    return out
