"""The road's centre line and the way the ego vehicle drives it.

World frame: x east, y north, z up, metres. Heading is counter-clockwise from x, radians. Along the
road: s is the distance driven on the centre line, d the distance to its left. Time is seconds of
the drive's true time, as float: it never leaves this package as such.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LANE_M = 3.5
"""Width of a lane; the road has one in each direction, traffic keeps to the right."""
EGO_D_M = -LANE_M / 2
GRAVITY = 9.80665
_BEHIND_M = 60.0
_BEYOND_M = 400.0
_STEP_S = 0.01

Floats = NDArray[np.float64]
Metres = float | np.floating | NDArray[np.floating]
"""One value or many; also seconds."""


class Route:
    """A centre line of straights and curves.

    Args:
        rng: Source of its shape.
        length_m: Distance that will be driven; the line goes on beyond it.
    """

    def __init__(self, rng: np.random.Generator, length_m: float) -> None:
        self.s_m = np.arange(-_BEHIND_M, length_m + _BEYOND_M, 1.0)
        curvature = np.zeros_like(self.s_m)
        at_m = 60.0 + float(rng.uniform(0.0, 60.0))
        while at_m < self.s_m[-1]:
            curve_m = float(rng.uniform(70.0, 130.0))
            turn_rad = float(rng.choice([-1.0, 1.0]) * np.deg2rad(rng.uniform(8.0, 32.0)))
            phase = np.clip((self.s_m - at_m) / curve_m, 0.0, 1.0)
            curvature += turn_rad / curve_m * (1.0 - np.cos(2.0 * np.pi * phase))
            at_m += curve_m + float(rng.uniform(30.0, 110.0))
        self.curvature = curvature
        steps = 0.5 * (curvature[1:] + curvature[:-1])
        self.heading_rad = np.concatenate([[0.0], np.cumsum(steps)])
        self.x_m = np.cumsum(np.cos(self.heading_rad))
        self.y_m = np.cumsum(np.sin(self.heading_rad))

    def heading(self, s_m: Metres) -> Floats:
        """Heading of the line at `s_m`, radians: exactly the integral of `bend`."""
        at = np.clip(np.asarray(s_m, np.float64), self.s_m[0], self.s_m[-1])
        k = np.minimum((at - self.s_m[0]).astype(np.int64), len(self.s_m) - 2)
        u, begin, end = at - self.s_m[k], self.curvature[k], self.curvature[k + 1]
        return np.asarray(self.heading_rad[k] + u * (begin + 0.5 * u * (end - begin)), np.float64)

    def bend(self, s_m: Metres) -> Floats:
        """Curvature of the line at `s_m`, rad/m."""
        at = np.asarray(s_m, np.float64)
        return np.asarray(np.interp(at, self.s_m, self.curvature), np.float64)

    def place(self, s_m: Metres, d_m: Metres) -> Floats:
        """World (x, y) of points along the road; shape (..., 2)."""
        heading = self.heading(s_m)
        x = np.interp(np.asarray(s_m, np.float64), self.s_m, self.x_m) - np.sin(heading) * d_m
        y = np.interp(np.asarray(s_m, np.float64), self.s_m, self.y_m) + np.cos(heading) * d_m
        return np.asarray(np.stack([x, y], axis=-1), np.float64)


@dataclass(frozen=True, slots=True)
class Pose:
    """Ego camera pose and its rates at one instant; pitch is positive upwards.

    Attributes:
        s_m: Distance along the road.
        position_m: World (x, y, z) of the camera.
        velocity_mps: World velocity (x, y, z).
        yaw_rad: Heading.
        pitch_rad: Elevation of the optical axis.
        yaw_rate_radps: Rate of yaw.
        pitch_rate_radps: Rate of pitch.
        speed_mps: Forward speed.
        accel_mps2: Forward acceleration.
    """

    s_m: float
    position_m: Floats
    velocity_mps: Floats
    yaw_rad: float
    pitch_rad: float
    yaw_rate_radps: float
    pitch_rate_radps: float
    speed_mps: float
    accel_mps2: float


class Ego:
    """How the vehicle moves: a speed profile with one stop, lane wander, and a vibrating body.

    Args:
        rng: Source of the details.
        duration_s: Length of the drive.
        cruise_mps: Speed on the open road.
        stop_s: (begin, end) of the wait at the traffic light, or None.
        height_m: Camera above ground.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        duration_s: float,
        cruise_mps: float = 13.0,
        stop_s: tuple[float, float] | None = None,
        height_m: float = 1.4,
    ) -> None:
        self.height_m = height_m
        self._t_s = np.arange(-5.0, duration_s + 30.0, _STEP_S)
        self._speed = _speed_profile(rng, self._t_s, cruise_mps, stop_s)
        distance = np.cumsum(self._speed) * _STEP_S
        self._s_m = distance - float(np.interp(0.0, self._t_s, distance))
        self._accel = np.gradient(self._speed, _STEP_S)
        self._jerk = np.gradient(self._accel, _STEP_S)
        self._hz = np.array([0.31, 1.25, 1.9, 7.3, 9.7, 12.1])
        self._amp = np.deg2rad([0.05, 0.16, 0.09, 0.035, 0.03, 0.02]) * rng.uniform(0.6, 1.3, 6)
        self._phase = rng.uniform(0.0, 2 * np.pi, 6)
        self._wander_phase = float(rng.uniform(0.0, 2 * np.pi))
        self.mount_pitch_rad = float(np.deg2rad(rng.uniform(-1.6, -0.6)))

    def distance(self, t_s: Metres) -> Floats:
        """Distance along the road at `t_s`, metres."""
        return np.interp(np.asarray(t_s, np.float64), self._t_s, self._s_m)

    def speed(self, t_s: Metres) -> Floats:
        """Speed at `t_s`, m/s."""
        return np.interp(np.asarray(t_s, np.float64), self._t_s, self._speed)

    def _slip(self, t_s: float) -> tuple[float, float, float]:
        """(metres to the left of the lane's middle, heading off the road, rate of that)."""
        pace = 2 * np.pi * 0.11
        angle = pace * t_s + self._wander_phase
        sine, cosine = 0.12 * float(np.sin(angle)), 0.12 * float(np.cos(angle))
        speed, accel = float(self.speed(t_s)), float(np.interp(t_s, self._t_s, self._accel))
        share = min(speed / 5.0, 1.0) / max(speed, 1.0)
        growth = 0.0
        if speed < 1.0:
            growth = accel / 5.0
        elif speed > 5.0:
            growth = -accel / speed**2
        slip = pace * cosine * share
        return sine, slip, -(pace**2) * sine * share + pace * cosine * growth

    def pitch(self, t_s: float) -> tuple[float, float]:
        """Pitch and its rate: squat under acceleration, and vibration that grows with speed."""
        angle = 2 * np.pi * self._hz * t_s + self._phase
        speed, accel = float(self.speed(t_s)), float(np.interp(t_s, self._t_s, self._accel))
        scale, growth = (speed / 12.0, accel / 12.0) if speed < 15.6 else (1.3, 0.0)
        shake = float(np.sum(self._amp * np.sin(angle)))
        rate = float(np.sum(self._amp * 2 * np.pi * self._hz * np.cos(angle)))
        jerk = float(np.interp(t_s, self._t_s, self._jerk))
        pitch = self.mount_pitch_rad + 0.0045 * accel + shake * scale
        return pitch, 0.0045 * jerk + rate * scale + shake * growth

    def pose(self, route: Route, t_s: float) -> Pose:
        """Where the camera is, and how it moves, at true time `t_s`."""
        s_m, speed = float(self.distance(t_s)), float(self.speed(t_s))
        wander, slip, slip_rate = self._slip(t_s)
        moving = min(speed / 5.0, 1.0)
        heading = float(route.heading(s_m))
        x, y = route.place(s_m, EGO_D_M + wander)
        yaw = heading + slip
        pitch, pitch_rate = self.pitch(t_s)
        bob = 0.01 * float(np.sin(2 * np.pi * 1.25 * t_s + self._phase[1])) * moving
        velocity = speed * np.array([np.cos(yaw), np.sin(yaw), 0.0])
        return Pose(
            s_m=s_m,
            position_m=np.array([x, y, self.height_m + bob]),
            velocity_mps=velocity,
            yaw_rad=yaw,
            pitch_rad=pitch,
            yaw_rate_radps=float(route.bend(s_m)) * speed + slip_rate,
            pitch_rate_radps=pitch_rate,
            speed_mps=speed,
            accel_mps2=float(np.interp(t_s, self._t_s, self._accel)),
        )


def _speed_profile(
    rng: np.random.Generator, t_s: Floats, cruise_mps: float, stop_s: tuple[float, float] | None
) -> Floats:
    knots = np.arange(-10.0, t_s[-1] + 10.0, 6.0)
    speed = np.interp(t_s, knots, cruise_mps * rng.uniform(0.85, 1.15, knots.shape))
    if stop_s is not None:
        begin, end = stop_s
        slow = np.interp(t_s, [begin - 5.0, begin, end, end + 5.0], [1.0, 0.0, 0.0, 1.0])
        speed = speed * slow
    kernel = np.hanning(101)
    padded = np.pad(speed, 50, mode="edge")
    return np.asarray(np.convolve(padded, kernel / kernel.sum(), mode="valid"), np.float64)
