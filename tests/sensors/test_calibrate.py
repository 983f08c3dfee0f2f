"""Acceptance case sensors-39: camera-IMU time offsets from rotations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from syncline.errors import SensorDataError
from syncline.sensors.calibrate import OffsetEstimate, calibrate_offset
from syncline.sensors.fit import camera_series, gyro_series
from syncline.sensors.rotation import image_rotations

OFFSET_NS = 12_300_000


class Motion:
    """A smooth random rotation, known at any time (s); rate in rad/s per axis about `size`."""

    def __init__(self, seed: int, size: float, vibration: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.hz = np.concatenate([rng.uniform(0.1, 1.5, (3, 6)), np.full((3, 1), 8.0)], axis=1)
        self.phase = rng.uniform(0, 2 * np.pi, (3, 7))
        self.size = size * rng.uniform(0.3, 1.0, (3, 7)) / 2
        self.size[:, 6] = vibration
        self.rng = rng
        self.axes, _ = cv2.Rodrigues(rng.normal(0, 1, 3))

    def angle(self, t: np.ndarray) -> np.ndarray:
        w = 2 * np.pi * self.hz
        return np.asarray((self.size / w * np.sin(w * t[:, None, None] + self.phase)).sum(axis=2))

    def rate(self, t: np.ndarray) -> np.ndarray:
        w = 2 * np.pi * self.hz
        return np.asarray((self.size * np.cos(w * t[:, None, None] + self.phase)).sum(axis=2))

    def record(
        self, seconds: float, fps: float = 30.0, noise: float = 1e-4, jitter_s: float = 0.0
    ) -> tuple[np.ndarray, ...]:
        cam = np.arange(0.5, seconds - 0.5, 1 / fps)
        steady = np.arange(0, seconds, 1 / 200)
        imu = np.sort(steady + self.rng.uniform(-jitter_s, jitter_s, len(steady)))
        rot = np.diff(self.angle(cam), axis=0) @ self.axes.T
        rot = rot + self.rng.normal(0, noise, rot.shape)
        gyro = self.rate(imu - OFFSET_NS * 1e-9) + np.array([0.01, -0.02, 0.005])
        gyro += self.rng.normal(0, 2e-3, gyro.shape)
        return ns(cam), rot, ns(imu), gyro


def ns(seconds: np.ndarray) -> np.ndarray:
    return np.rint(seconds * 1e9).astype(np.int64)


def error_ms(estimate: OffsetEstimate) -> float:
    return (estimate.offset_ns - OFFSET_NS) / 1e6


def test_sixty_seconds() -> None:
    """sensors-39: |error| <= 0.06 ms and an honest sigma; axes and bias found on the way."""
    errors, sigmas = [], []
    for seed in range(16):
        motion = Motion(seed, 1.0)
        got = calibrate_offset(*motion.record(60.0))
        errors.append(error_ms(got))
        sigmas.append(got.sigma_ns / 1e6)
        assert np.abs(got.axes - motion.axes).max() < 0.01
        assert np.abs(motion.axes.T @ got.bias_rad_s + [0.01, -0.02, 0.005]).max() < 0.002
        assert got.explained > 0.99
    assert np.abs(errors).max() <= 0.06
    assert np.mean(np.abs(errors) <= 2 * np.array(sigmas)) >= 0.85
    assert np.sqrt(np.mean(np.square(errors))) >= 0.5 * np.mean(sigmas)


def test_curves_of_a_calibration_show_the_answer() -> None:
    """sensors-39: what the plot draws: equal rates, and a valley at the answer."""
    motion = Motion(5, 0.5)
    cam, rot, imu, gyro = motion.record(20.0)
    rot[100] += 0.2
    found = calibrate_offset(cam, rot, imu, gyro)
    curves = gyro_series(found, cam, rot, imu, gyro)
    apart = np.abs(curves.camera_rad_s - curves.other_rad_s).max(axis=1)
    assert np.median(apart) < 0.02 * np.ptp(curves.camera_rad_s)
    valley_ns = curves.offset_s[np.argmin(curves.misfit_rad_s)] * 1e9
    assert abs(valley_ns - found.offset_ns) <= 3 * found.sigma_ns + 100_000
    assert curves.misfit_rad_s.max() > 1.2 * curves.misfit_rad_s.min()
    later = cam + 4_000_000
    found = replace(found, offset_ns=4_000_000, axes=np.eye(3), bias_rad_s=np.zeros(3))
    same = camera_series(found, cam, rot, later, rot)
    assert np.abs(same.camera_rad_s - same.other_rad_s).max() < 0.05


def test_vibration_uneven_imu_and_known_axes() -> None:
    """sensors-39: 8 Hz vibration, an IMU whose samples jitter, and axes from a calibration."""
    shaking = Motion(3, 1.0, vibration=0.3)
    assert abs(error_ms(calibrate_offset(*shaking.record(60.0)))) <= 0.1
    uneven = Motion(4, 1.0)
    assert abs(error_ms(calibrate_offset(*uneven.record(60.0, jitter_s=0.002)))) <= 0.1
    known = Motion(5, 1.0)
    got = calibrate_offset(*known.record(20.0), axes=known.axes)
    assert abs(error_ms(got)) <= 0.15


def test_lost_rows_and_outliers() -> None:
    """sensors-39: pictures that could not be followed, and rotations that are nonsense."""
    motion = Motion(6, 1.0)
    cam, rot, imu, gyro = motion.record(60.0)
    rot[::50] = np.nan
    rot[7::90] += 0.3
    assert abs(error_ms(calibrate_offset(cam, rot, imu, gyro))) <= 0.15


@pytest.mark.parametrize("size", [0.0, 0.002, 0.01])
def test_low_excitation_is_refused(size: float) -> None:
    """sensors-39: a camera that hardly turns tells no offset."""
    with pytest.raises(SensorDataError, match="calibrate"):
        calibrate_offset(*Motion(1, size).record(60.0), max_sigma_ns=500_000)


def test_another_drive_is_refused() -> None:
    """sensors-39: recordings that do not belong together."""
    cam, rot, _, _ = Motion(1, 1.0).record(60.0)
    _, _, imu, gyro = Motion(2, 1.0).record(60.0)
    with pytest.raises(SensorDataError, match="calibrate"):
        calibrate_offset(cam, rot, imu, gyro)


def test_shapes_are_refused() -> None:
    cam, rot, imu, gyro = Motion(1, 1.0).record(5.0)
    with pytest.raises(SensorDataError, match="gyro"):
        calibrate_offset(cam, rot, imu[:-1], gyro)
    with pytest.raises(SensorDataError, match="rotations"):
        calibrate_offset(cam, rot[:-1], imu, gyro)
    with pytest.raises(SensorDataError, match="lie inside"):
        calibrate_offset(cam + 10**12, rot, imu, gyro)


def rendered(turns: np.ndarray, K: np.ndarray) -> list[np.ndarray]:
    """Pictures of a far texture from a camera that turns."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (960, 1280), dtype=np.uint8)
    soft = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.5), dtype=np.float64)
    far = ((soft - soft.min()) * (255 / np.ptp(soft))).astype(np.uint8)
    out = []
    big = K.copy()
    big[:2, 2] = (640.0, 480.0)
    for turn in turns:
        rotation, _ = cv2.Rodrigues(turn)
        warp = big @ rotation @ np.linalg.inv(K)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        out.append(cv2.warpPerspective(far, warp, (640, 480), flags=flags))
    return out


def test_rotation_from_pictures() -> None:
    """sensors-39: the picture's own rotation, to a tenth of a milliradian."""
    K = np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]])
    steps = np.array([[0.01, 0, 0], [0, -0.02, 0.0], [0.005, 0.01, -0.015], [0, 0, 0]])
    turns = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    got = image_rotations(rendered(turns, K), K)
    assert got.shape == (4, 3)
    assert np.abs(got - steps).max() < 3e-4
    blank = [np.zeros((480, 640), np.uint8)] * 2
    assert np.isnan(image_rotations(blank, K)).all()
    with pytest.raises(SensorDataError, match="grey"):
        image_rotations([np.zeros((4, 4, 3), np.uint8)], K)
    with pytest.raises(SensorDataError, match="K"):
        image_rotations(blank, np.eye(2))


def test_euroc_camera_imu(shared_data: Path) -> None:
    """sensors-39: EuRoC's hardware-synchronised rig: 0 within the claimed uncertainty."""
    folder = shared_data / "euroc_micro/mav0"
    files = sorted((folder / "cam0/data").glob("*.png"))
    stamps = np.array([int(f.stem) for f in files])
    K = np.array([[458.654, 0, 367.215], [0, 457.296, 248.375], [0, 0, 1]])
    bent = [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05]
    pictures = (np.asarray(cv2.imread(str(f), cv2.IMREAD_GRAYSCALE), np.uint8) for f in files)
    rot = image_rotations(pictures, K, bent)
    rows = np.loadtxt(folder / "imu0/data.csv", delimiter=",", comments="#", usecols=(1, 2, 3))
    times = np.loadtxt(
        folder / "imu0/data.csv", delimiter=",", comments="#", usecols=0, dtype=np.int64
    )
    body_to_cam = np.array(
        [[0.0148655429818, 0.999557249008, -0.0257744366974],
         [-0.999880929698, 0.0149672133247, 0.00375618835797],
         [0.00414029679422, 0.025715529948, 0.999660727178]]
    )  # fmt: skip
    near = times < stamps[-1] + 2_000_000_000
    got = calibrate_offset(
        stamps, rot, times[near], rows[near], axes=body_to_cam, search_ns=60_000_000
    )
    assert got.sigma_ns <= 1_000_000
    assert abs(got.offset_ns) <= 3 * got.sigma_ns
    assert got.explained > 0.9
