"""sensors-39 on rendered drives: rolling and global shutter, an IMU, all times known exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest

from syncline.sensors.calibrate import OffsetEstimate
from syncline.sensors.camera_offset import (
    CameraPictures,
    calibrate_camera_pictures,
    through_imu,
)
from syncline.sensors.frame import FrameTime
from syncline.sensors.mode import SensorMode, Shutter
from syncline.sensors.picture_offset import calibrate_pictures
from syncline.sensors.rotation import follow_corners
from syncline.sensors.synthetic.camera import sensor_mode
from syncline.sensors.synthetic.imu import body_motion
from syncline.sensors.synthetic.light import AutoExposure, Setting
from syncline.sensors.synthetic.optics import Pinhole
from syncline.sensors.synthetic.plan import Style, plan_scene
from syncline.sensors.synthetic.render import Renderer
from syncline.sensors.synthetic.scene import Scene

from .test_picture_offset import frame_times

SECONDS, FPS, IMU_HZ = 13.0, 20.0, 200.0
SIZE = (640, 384)
LATER_NS, IMU_LATE_NS = 7_000_000, 4_000_000
ROLLING = sensor_mode(*SIZE, fps=FPS)
GLOBAL = replace(ROLLING, shutter=Shutter.GLOBAL)


def rendered(
    scene: Scene, seed: int, mode: SensorMode, focal: float, phase_s: float, late_ns: int
) -> CameraPictures:
    """What a camera saw, by a clock that is late."""
    lens = Pinhole.for_size(*SIZE, focal)
    middle_s = np.arange(0.5, SECONDS - 0.7, 1 / FPS) + phase_s
    renderer = Renderer(scene, lens, mode, seed)
    meter = AutoExposure(Setting.of_total(1.0 / scene.light.ambient(0.0)))

    def pictures() -> Iterator[np.ndarray]:
        for index, at_s in enumerate(middle_s.tolist()):
            drawn = renderer.draw(at_s, meter.setting, index)
            meter.step(drawn.mean_luma)
            yield np.asarray(cv2.cvtColor(drawn.image, cv2.COLOR_BGR2GRAY), np.uint8)

    K = np.array([[lens.focal_px, 0.0, lens.centre_px[0]], [0.0, lens.focal_px, lens.centre_px[1]],
                  [0.0, 0.0, 1.0]])  # fmt: skip
    followed = list(follow_corners(pictures()))
    return CameraPictures(stamped(middle_s + late_ns * 1e-9, mode), followed, K)


def stamped(middle_s: np.ndarray, mode: SensorMode) -> list[FrameTime]:
    """Times of frames whose rows' middle is at `middle_s`: half a line before their centre."""
    half_line_s = 0.0 if mode.shutter is Shutter.GLOBAL else 0.5e-9 * mode.line_time_ns
    return frame_times(middle_s + half_line_s, mode)


def gyro_of(scene: Scene, seed: int) -> tuple[np.ndarray, np.ndarray]:
    t_s = np.arange(0.0, SECONDS, 1 / IMU_HZ)
    rate = np.array([body_motion(scene.ego, scene.route, float(t))[1] for t in t_s])
    noise = np.random.default_rng([seed, 3]).normal(0.0, 0.0017, rate.shape)
    return np.rint(t_s * 1e9).astype(np.int64) + IMU_LATE_NS, rate + noise


def ratio(got: OffsetEstimate, truth_ns: int) -> float:
    return float((got.offset_ns - truth_ns) / got.sigma_ns)


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_sigma_holds_on_rendered_drives() -> None:
    """sensors-39: both cameras to the IMU, each other by the IMU, each other by pictures alone."""
    to_imu, through, alone = [], [], []
    for seed in range(21, 26):
        scene = plan_scene(seed, SECONDS, Style(night=0.5))
        phase_s = float(np.random.default_rng([seed, 77]).uniform(0.0, 1 / FPS))
        ours = rendered(scene, seed, ROLLING, 0.88, 0.0, 0)
        theirs = rendered(scene, seed, GLOBAL, 0.7, phase_s, LATER_NS)
        gyro = gyro_of(scene, seed)
        found = [calibrate_pictures(c.times, c.followed, c.K, *gyro) for c in (ours, theirs)]
        to_imu += [ratio(found[0], IMU_LATE_NS), ratio(found[1], IMU_LATE_NS - LATER_NS)]
        assert max(one.sigma_ns for one in found) < 0.35e6
        through.append(ratio(through_imu(*found), LATER_NS))
        by_pictures = calibrate_camera_pictures(ours, theirs, max_sigma_ns=1e12)
        alone.append(ratio(by_pictures, LATER_NS))
        print(f"seed {seed}: to the IMU {np.round(to_imu[-2:], 2)}, through it {through[-1]:.2f}, "
              f"alone {alone[-1]:.2f} of sigma {by_pictures.sigma_ns / 1e6:.2f} ms")  # fmt: skip
    every = np.array(to_imu + through + alone)
    assert np.abs(every).max() <= 3.3
    assert np.sqrt(np.mean(np.square(to_imu))) <= 1.3
    assert np.sqrt(np.mean(np.square(through))) <= 1.4
