"""Acceptance case sensors-40: rolling shutter taken out of points and boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from syncline.errors import SensorDataError
from syncline.sensors.deskew import deskew, deskew_boxes
from syncline.sensors.frame import Anchor, FrameTime, Quality
from syncline.sensors.mode import ScanDirection, SensorMode
from syncline.timebase import Clock

K = np.array([[1000.0, 0.0, 640.0], [0.0, 1000.0, 360.0], [0.0, 0.0, 1.0]])
YAW = np.array([0.0, np.radians(30.0), 0.0])
READOUT_NS = 14_697_000


def frame(
    line_scale: float = 1.0, direction: ScanDirection = ScanDirection.TOP_BOTTOM
) -> FrameTime:
    mode = SensorMode.simple(1280, 720, readout_ns=READOUT_NS * line_scale, direction=direction)
    mid = 10**15
    return FrameTime(
        "cam", 0, mid, mid, mid + READOUT_NS, 0.0, Clock.MONOTONIC_RAW, Anchor.TRIGGER,
        Quality.OK, mode,
    )  # fmt: skip


def seen_rolling(rays: np.ndarray, ft: FrameTime, omega: np.ndarray) -> np.ndarray:
    """Pixels of fixed rays as the rolling shutter of a turning camera records them."""
    out = np.empty((len(rays), 2))
    for i, ray in enumerate(rays):
        v = 360.0
        for _ in range(60):
            dt = float(ft.pixel_time(np.array([640.0, v])) - ft.centre_ns()) * 1e-9
            turn, _ = cv2.Rodrigues(-omega * dt)
            p = K @ (turn @ ray)
            v = p[1] / p[2]
        out[i] = p[:2] / p[2]
    return out


def scene(omega: np.ndarray, ft: FrameTime) -> tuple[np.ndarray, np.ndarray]:
    grid = np.stack(np.meshgrid([-0.5, 0.0, 0.5], [-0.3, -0.1, 0.1, 0.3]), -1).reshape(-1, 2)
    rays = np.concatenate([grid, np.ones((len(grid), 1))], axis=1)
    truth = rays @ K.T
    return seen_rolling(rays, ft, omega), truth[:, :2] / truth[:, 2:]


@pytest.mark.parametrize("omega", [YAW, np.array([0.4, -0.3, 0.8])])
def test_points_are_put_right(omega: np.ndarray) -> None:
    """sensors-40: what is left is at most 0.05 px; uncorrected it is pixels."""
    ft = frame()
    uv, truth = scene(omega, ft)
    assert np.abs(uv - truth).max() > 2.0
    assert np.abs(deskew(uv, ft, K, omega) - truth).max() <= 0.05


def test_wrong_direction_is_detected() -> None:
    """sensors-40: the wrong scan direction, or sign, doubles the error instead."""
    ft = frame()
    uv, truth = scene(YAW, ft)
    before = np.abs(uv - truth).max()
    upside_down = frame(direction=ScanDirection.BOTTOM_TOP)
    assert np.abs(deskew(uv, upside_down, K, YAW) - truth).max() > 1.7 * before
    assert np.abs(deskew(uv, ft, K, -YAW) - truth).max() > 1.7 * before


def test_line_time_error_shows() -> None:
    """sensors-40: 5 % of line time are about 0.3 px at 30 deg/s."""
    uv, truth = scene(YAW, frame())
    assert 0.1 < np.abs(deskew(uv, frame(1.05), K, YAW) - truth).max() < 0.5


def test_boxes_and_reference_time() -> None:
    ft = frame()
    box = np.array([[600.0, 100.0, 700.0, 200.0]])
    moved = deskew_boxes(box, ft, K, YAW)
    corners = deskew([[600.0, 100.0], [700.0, 200.0]], ft, K, YAW)
    assert moved.shape == (1, 4)
    assert (moved[0, :2] <= corners.min(axis=0) + 1e-9).all()
    assert (moved[0, 2:] >= corners.max(axis=0) - 1e-9).all()
    row_ns = int(ft.pixel_time(np.array([600.0, 100.0])))
    kept = deskew([[600.0, 100.0]], ft, K, YAW, reference_ns=row_ns)
    assert np.abs(kept - [[600.0, 100.0]]).max() < 1e-9
    still = deskew(box.reshape(2, 2), ft, K, np.zeros(3))
    assert np.abs(still - box.reshape(2, 2)).max() < 1e-9


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(SensorDataError, match="uv"):
        deskew(np.zeros((2, 3)), frame(), K, YAW)
    with pytest.raises(SensorDataError, match="boxes"):
        deskew_boxes(np.zeros(4), frame(), K, YAW)
    with pytest.raises(SensorDataError, match="finite"):
        deskew(np.zeros((1, 2)), frame(), K, np.array([np.nan, 0, 0]))
