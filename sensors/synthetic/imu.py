"""The inertial sensor: rates and forces of the ego motion, with noise, bias and jitter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.sensors.synthetic.clocks import Oscillator
from syncline.sensors.synthetic.road import GRAVITY, Ego, Route

Floats = NDArray[np.float64]
_ROAD_HZ = (9.0, 13.0, 23.0)


@dataclass(frozen=True, slots=True)
class ImuSpec:
    """An automotive MEMS part.

    Attributes:
        rate_hz: Samples per second.
        gyro_noise_radps: One sigma per sample.
        accel_noise_mps2: One sigma per sample.
        gyro_bias_radps: One sigma of the constant bias.
        accel_bias_mps2: One sigma of the constant bias.
        stamp_jitter_ns: One sigma of the stamp.
        transport_ns: Least delay to arrival.
        road_mps2: Amplitude of road vibration at 12 m/s.
    """

    rate_hz: float = 200.0
    gyro_noise_radps: float = 0.0017
    accel_noise_mps2: float = 0.025
    gyro_bias_radps: float = 0.004
    accel_bias_mps2: float = 0.06
    stamp_jitter_ns: float = 20_000.0
    transport_ns: int = 300_000
    road_mps2: float = 0.35


@dataclass(frozen=True, slots=True)
class ImuSample:
    """One sample; body axes x forward, y left, z up.

    Attributes:
        sensor: Name.
        raw_ns: Stamp, CLOCK_MONOTONIC_RAW.
        arrival_raw_ns: When the host had it.
        sigma_ns: One sigma of the stamp.
        accel_mps2: Specific force (x, y, z): gravity shows as +z.
        gyro_radps: Angular rate (x, y, z).
        true_gyro_radps: The rate without bias and noise.
        true_ns: True time of the sample.
    """

    sensor: str
    raw_ns: int
    arrival_raw_ns: int
    sigma_ns: float
    accel_mps2: tuple[float, float, float]
    gyro_radps: tuple[float, float, float]
    true_gyro_radps: tuple[float, float, float]
    true_ns: int


def body_motion(ego: Ego, route: Route, t_s: float) -> tuple[Floats, Floats]:
    """(specific force, angular rate) of the camera body without noise, (3,) each.

    A pitch upwards turns about -y; turning left at speed v pushes the body to the left: +v w on y.
    """
    pose = ego.pose(route, t_s)
    rate = pose.yaw_rate_radps
    sin_p, cos_p = float(np.sin(pose.pitch_rad)), float(np.cos(pose.pitch_rad))
    gyro = np.array([rate * sin_p, -pose.pitch_rate_radps, rate * cos_p])
    force = np.array(
        [
            pose.accel_mps2 * cos_p + GRAVITY * sin_p,
            pose.speed_mps * rate,
            GRAVITY * cos_p - pose.accel_mps2 * sin_p,
        ]
    )
    return force, gyro


def imu_stream(
    seed: int,
    ego: Ego,
    route: Route,
    raw: Oscillator,
    duration_ns: int,
    spec: ImuSpec | None = None,
) -> Iterator[ImuSample]:
    """Samples in order of arrival; constant memory."""
    spec = spec or ImuSpec()
    rng = np.random.default_rng([seed, 11])
    gyro_bias = rng.normal(0.0, spec.gyro_bias_radps, 3)
    accel_bias = rng.normal(0.0, spec.accel_bias_mps2, 3)
    phases = rng.uniform(0.0, 2 * np.pi, (len(_ROAD_HZ), 3))
    period_ns, last_ns = 1e9 / spec.rate_hz, 0
    for index in range(int(duration_ns / period_ns)):
        true_ns = round(index * period_ns)
        t_s = true_ns * 1e-9
        force, gyro = body_motion(ego, route, t_s)
        shake = np.sin(2 * np.pi * np.array(_ROAD_HZ)[:, None] * t_s + phases).sum(axis=0)
        force = force + shake * (spec.road_mps2 / 2 * float(ego.speed(t_s)) / 12.0)
        accel = force + accel_bias + rng.normal(0.0, spec.accel_noise_mps2, 3)
        turned = gyro + gyro_bias + rng.normal(0.0, spec.gyro_noise_radps, 3)
        stamp_ns = raw.read(true_ns) + round(rng.normal(0.0, spec.stamp_jitter_ns))
        delay_ns = spec.transport_ns + round(rng.exponential(120_000.0))
        last_ns = max(raw.read(true_ns) + delay_ns, last_ns + 1)
        yield ImuSample(
            "imu0", stamp_ns, last_ns, spec.stamp_jitter_ns, _triple(accel), _triple(turned),
            _triple(gyro), true_ns,
        )  # fmt: skip


def _triple(values: Floats) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
