"""Clocks of the synthetic drive: true time, the host's raw clock, the camera's counter.

True time is int64 nanoseconds since the drive began; UTC is a constant beside it. Every other clock
is an oscillator with an error that wanders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_STEP_NS = 250_000_000
_BEFORE_NS = 10_000_000_000
_AFTER_NS = 60_000_000_000


class Oscillator:
    """A clock: reading = start + t + integral of its rate error.

    Args:
        rng: Source of the wander.
        start_ns: Reading at true time 0.
        duration_ns: Length of the drive.
        rate_ppm: Rate error at true time 0.
        walk_ppm: Random walk of the rate, ppm per square root of a second.
        sine_ppm: Slow swing of the rate (temperature), over 90 s.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        start_ns: int,
        duration_ns: int,
        rate_ppm: float,
        walk_ppm: float = 0.01,
        sine_ppm: float = 0.2,
    ) -> None:
        self._start_ns = start_ns
        self._at_ns = np.arange(-_BEFORE_NS, duration_ns + _AFTER_NS, _STEP_NS, dtype=np.int64)
        seconds = self._at_ns * 1e-9
        walk = np.cumsum(rng.normal(0.0, walk_ppm * (_STEP_NS * 1e-9) ** 0.5, len(seconds)))
        swing = sine_ppm * np.sin(2 * np.pi * seconds / 90.0 + rng.uniform(0, 2 * np.pi))
        error_ns = np.cumsum((rate_ppm + walk + swing) * 1e-6 * _STEP_NS)
        self._error_ns = error_ns - np.interp(0, self._at_ns, error_ns)

    @overload
    def read(self, true_ns: int) -> int: ...
    @overload
    def read(self, true_ns: Ints) -> Ints: ...
    def read(self, true_ns: int | Ints) -> int | Ints:
        """What the clock shows at a true time, nanoseconds."""
        error = np.rint(np.interp(true_ns, self._at_ns, self._error_ns)).astype(np.int64)
        if isinstance(true_ns, np.ndarray):
            return np.asarray(self._start_ns + true_ns + error, dtype=np.int64)
        return self._start_ns + int(true_ns) + int(error)

    @overload
    def true(self, reading_ns: int) -> int: ...
    @overload
    def true(self, reading_ns: Ints) -> Ints: ...
    def true(self, reading_ns: int | Ints) -> int | Ints:
        """The true time at which the clock shows a reading, within a nanosecond."""
        wanted = np.asarray(reading_ns, dtype=np.int64) - self._start_ns
        guess = wanted.copy()
        for _ in range(4):
            error = np.rint(np.interp(guess, self._at_ns, self._error_ns)).astype(np.int64)
            guess = wanted - error
        return guess if isinstance(reading_ns, np.ndarray) else int(guess)

    def rate(self, true_ns: int) -> float:
        """d(reading)/d(true) - 1 around a true time."""
        span = np.interp(
            [true_ns - _STEP_NS, true_ns + _STEP_NS], self._at_ns, self._error_ns
        )  # fmt: skip
        return float(span[1] - span[0]) / (2 * _STEP_NS)


@dataclass(frozen=True, slots=True)
class TruthMapping:
    """Exact UTC of the host's raw clock: what a time service tries to find.

    Attributes:
        raw: The raw clock.
        utc0_ns: UTC at true time 0.
    """

    raw: Oscillator
    utc0_ns: int

    def utc_ns(self, raw_ns: int) -> int:
        """UTC at a raw reading."""
        return self.utc0_ns + self.raw.true(raw_ns)

    def raw_ns(self, utc_ns: int) -> int:
        """Raw reading at a UTC."""
        return self.raw.read(utc_ns - self.utc0_ns)
