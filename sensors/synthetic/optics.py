"""A pinhole camera with a rolling shutter: every point is seen when its own row is exposed.

Camera axes: right, down, forward. Rows are timed by the sensor mode
(`syncline.sensors.mode.SensorMode.line_of`), so the pictures obey the same equations that the
frame timer inverts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.sensors.mode import SensorMode, Shutter
from syncline.sensors.synthetic.road import Pose

NEAR_M = 0.4
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pinhole:
    """Intrinsics, pixels."""

    width: int
    height: int
    focal_px: float
    centre_px: tuple[float, float]

    @classmethod
    def for_size(cls, width: int, height: int, focal_share: float = 0.88) -> Pinhole:
        """A dash camera of about 59 degrees; the axis a little above the middle."""
        return cls(width, height, focal_share * width, (width / 2, height * 0.47))


@dataclass(frozen=True, slots=True)
class View:
    """One exposure: camera, sensor mode, the pose at the middle of the frame, and row times.

    Attributes:
        camera: Intrinsics.
        mode: Timing of the rows.
        pose: Pose at the middle of the frame's rows.
        exposure_s: Length of the exposure.
    """

    camera: Pinhole
    mode: SensorMode
    pose: Pose
    exposure_s: float = 0.0

    def row_dt_s(self, rows: Floats) -> Floats:
        """Middle of exposure of rows, seconds after the middle of the frame."""
        if self.mode.shutter is Shutter.GLOBAL:
            return np.zeros_like(rows)
        line = self.mode.line_of(np.clip(rows, 0.0, self.camera.height - 1.0))
        middle = (self.mode.line_count - 1) / 2.0
        return (line - middle) * (self.mode.line_time_ns * 1e-9)

    def to_camera(self, points_m: Floats, velocity_mps: Floats, dt_s: Floats) -> Floats:
        """World points (N, 3) as (right, down, forward), each at its own time.

        Args:
            points_m: World points at the middle of the frame.
            velocity_mps: Velocity of each, (N, 3).
            dt_s: Time of each after the middle of the frame, (N,).
        """
        pose = self.pose
        rel = points_m - pose.position_m + (velocity_mps - pose.velocity_mps) * dt_s[:, None]
        yaw = pose.yaw_rad + pose.yaw_rate_radps * dt_s
        pitch = pose.pitch_rad + pose.pitch_rate_radps * dt_s
        cos_yaw, sin_yaw = np.cos(yaw), np.sin(yaw)
        cos_pitch, sin_pitch = np.cos(pitch), np.sin(pitch)
        level = rel[:, 0] * cos_yaw + rel[:, 1] * sin_yaw
        right = rel[:, 0] * sin_yaw - rel[:, 1] * cos_yaw
        down = level * sin_pitch - rel[:, 2] * cos_pitch
        forward = level * cos_pitch + rel[:, 2] * sin_pitch
        return np.stack([right, down, forward], axis=1)

    def pixels(self, camera_m: Floats) -> Floats:
        """Camera points (N, 3) as pixels (N, 2); points behind the near plane are meaningless."""
        depth = np.maximum(camera_m[:, 2], NEAR_M)
        return camera_m[:, :2] * (self.camera.focal_px / depth)[:, None] + self.camera.centre_px

    def project(self, points_m: Floats, velocity_mps: Floats) -> tuple[Floats, Floats]:
        """World points to (pixels (N, 2), camera points (N, 3)), rolling shutter obeyed.

        A point's row fixes its time and its time its row: two rounds bring that below 0.01 px.
        """
        dt_s = np.zeros(len(points_m))
        for _ in range(2):
            rows = self.pixels(self.to_camera(points_m, velocity_mps, dt_s))[:, 1]
            dt_s = self.row_dt_s(rows)
        camera_m = self.to_camera(points_m, velocity_mps, dt_s)
        return self.pixels(camera_m), camera_m
