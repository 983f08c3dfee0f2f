"""How much light there is, and how the camera answers: exposure first, then gain.

Light is relative: 1.0 is a bright day, for which 1 ms at gain 1 exposes well. Colours are coded
(gamma 2.2), so light L seen with exposure x shows a colour scaled by (x L)^(1/2.2).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

GAMMA = 2.2
EXPOSURE_MS = (0.5, 18.0)
GAIN = (1.0, 16.0)
TUNNEL_LIGHT = 0.03
_DIM_FROM = 12.0
"""Exposure times gain from where on a dark scene is left a little dark."""
_PORTAL_M = 14.0
"""Distance over which daylight fades inside a portal."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Light:
    """Light along the road and over time.

    Attributes:
        knots_s: Times of the ambient light's knots.
        levels: Ambient light at the knots.
        tunnels: (begin, end) of each tunnel, s in metres.
        sun: Direction to the sun, unit (x, y, z).
    """

    knots_s: Floats
    levels: Floats
    tunnels: tuple[tuple[float, float], ...]
    sun: Floats

    def ambient(self, t_s: float) -> float:
        """Light in the open at `t_s`, changing evenly in stops."""
        return float(np.exp(np.interp(t_s, self.knots_s, np.log(self.levels))))

    def sky(self, t_s: float) -> float:
        """Light of the sky: falls faster than that of a street, which has lamps."""
        ambient = self.ambient(t_s)
        return float(ambient * min(ambient / 0.4, 1.0) ** 0.9)

    def cover(self, s_m: ArrayLike) -> Floats:
        """How deep inside a tunnel `s_m` is: 0 in the open, 1 where no daylight reaches."""
        s = np.asarray(s_m, dtype=np.float64)
        cover = np.zeros(s.shape)
        for begin, end in self.tunnels:
            inside = np.minimum(s - begin, end - s)
            cover = np.maximum(cover, np.clip(inside / _PORTAL_M, 0.0, 1.0))
        return cover

    def at(self, s_m: ArrayLike, t_s: float) -> Floats:
        """Light at `s_m` and `t_s`."""
        ambient = self.ambient(t_s)
        cover = self.cover(s_m)
        lit: Floats = np.exp((1 - cover) * np.log(ambient) + cover * np.log(TUNNEL_LIGHT))
        return lit

    def darkness(self, t_s: float, s_m: float) -> float:
        """0 by day, 1 where lamps are lit and matter."""
        light = float(self.at(s_m, t_s))
        return float(np.clip((np.log(0.25) - np.log(light)) / np.log(0.25 / 0.03), 0.0, 1.0))


def coded_gain(light: ArrayLike, exposure_ms_gain: float) -> Floats:
    """Factor on coded colours for light seen with exposure (ms) times gain."""
    return (np.asarray(light, dtype=np.float64) * exposure_ms_gain) ** (1.0 / GAMMA)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the sensor was told: exposure and gain."""

    exposure_ms: float
    gain: float

    @property
    def total(self) -> float:
        """Exposure in ms times gain."""
        return self.exposure_ms * self.gain

    @classmethod
    def of_total(cls, total: float) -> Setting:
        """Split a total: exposure as long as allowed first, then gain."""
        total = float(np.clip(total, EXPOSURE_MS[0] * GAIN[0], EXPOSURE_MS[1] * GAIN[1]))
        exposure = min(max(total, EXPOSURE_MS[0]), EXPOSURE_MS[1])
        return cls(exposure, total / exposure)


@dataclass
class AutoExposure:
    """Steers the mean of the picture to a target; settings take effect frames later.

    Attributes:
        setting: What the next frame is exposed with.
        delay: Frames between a decision and the frame that has it.
        target: Mean luma aimed at.
        speed: Share of the error, in stops, corrected per frame.
    """

    setting: Setting
    delay: int = 2
    target: float = 104.0
    speed: float = 0.30
    _queue: deque[Setting] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._queue.extend([self.setting] * self.delay)

    def step(self, mean_luma: float) -> None:
        """Take the mean luma of a frame; move `setting` on by one frame."""
        last = self._queue[-1] if self._queue else self.setting
        dim = min((_DIM_FROM / last.total) ** 0.28, 1.0)
        stops = GAMMA * np.log(self.target * dim / max(mean_luma, 3.0))
        moved = float(np.exp(np.clip(stops, -1.5, 1.5) * self.speed / (1 + self.delay / 2)))
        self._queue.append(Setting.of_total(last.total * moved))
        self.setting = self._queue.popleft()
