"""Where points and boxes of a rolling-shutter frame would be if the whole frame were one instant.

`x' = pi(R(t_ref <- mid_v) pi^-1(x))`: a point is turned by the camera's rotation between the time
of its own row and the reference time. Translation is left out: it needs depth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError
from syncline.sensors.frame import FrameTime, Ns

F64 = NDArray[np.float64]


def deskew(
    uv: ArrayLike,
    ft: FrameTime,
    K: ArrayLike,
    angular_velocity: ArrayLike,
    reference_ns: Ns | None = None,
) -> F64:
    """Move points to where they would be at one time.

    Args:
        uv: Undistorted pixels (..., 2) as (column, row).
        ft: The frame's time.
        K: Camera matrix (3, 3).
        angular_velocity: Of the camera in its own axes (x right, y down, z forward), rad/s, (3,).
        reference_ns: Time to move to; None = middle of exposure of the frame's centre.

    Returns:
        Pixels (..., 2).

    Raises:
        SensorDataError: A shape is wrong or a value is not finite.
    """
    points = np.asarray(uv, dtype=np.float64)
    camera = np.asarray(K, dtype=np.float64)
    omega = np.asarray(angular_velocity, dtype=np.float64)
    if points.ndim == 0 or points.shape[-1] != 2 or camera.shape != (3, 3) or omega.shape != (3,):
        raise SensorDataError(
            f"deskew: uv {points.shape}, K {camera.shape}, angular_velocity {omega.shape} must be "
            "(..., 2), (3, 3), (3,)"
        )
    if not (np.isfinite(camera).all() and np.isfinite(omega).all()):
        raise SensorDataError("deskew: K and angular_velocity must be finite")
    at_ns = ft.centre_ns() if reference_ns is None else reference_ns
    dt_s = (ft.pixel_time(points) - at_ns).astype(np.float64) * 1e-9
    ones = np.ones((*points.shape[:-1], 1))
    rays = np.concatenate([points, ones], axis=-1) @ np.linalg.inv(camera).T
    turned = _rotate(rays, omega, dt_s)
    out = turned @ camera.T
    moved: F64 = out[..., :2] / out[..., 2:3]
    return moved


def deskew_boxes(
    boxes: ArrayLike,
    ft: FrameTime,
    K: ArrayLike,
    angular_velocity: ArrayLike,
    reference_ns: Ns | None = None,
) -> F64:
    """Move axis-parallel boxes: each to the box around its four moved corners.

    Args:
        boxes: (N, 4) as (left, top, right, bottom), undistorted pixels.
        ft: The frame's time.
        K: Camera matrix (3, 3).
        angular_velocity: See `deskew`.
        reference_ns: See `deskew`.

    Returns:
        Boxes (N, 4).

    Raises:
        SensorDataError: A shape is wrong or a value is not finite.
    """
    box = np.asarray(boxes, dtype=np.float64)
    if box.ndim != 2 or box.shape[1] != 4:
        raise SensorDataError(f"deskew_boxes: boxes have shape {box.shape}, must be (N, 4)")
    corners = box[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    moved = deskew(corners, ft, K, angular_velocity, reference_ns)
    edges: F64 = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
    return edges


def _rotate(rays: F64, omega: F64, dt_s: F64) -> F64:
    """Rays of the camera at row time, seen from the camera at the reference time (Rodrigues).

    A camera that turns by `omega * dt` after the reference sees a fixed ray turned the other way;
    going back to the reference turns it forward by `omega * dt`.
    """
    speed = float(np.linalg.norm(omega))
    if speed == 0.0:
        return rays
    axis = omega / speed
    angle = (speed * dt_s)[..., None]
    along = (rays @ axis)[..., None] * axis
    across = np.cross(np.broadcast_to(axis, rays.shape), rays)
    turned: F64 = rays * np.cos(angle) + across * np.sin(angle) + along * (1.0 - np.cos(angle))
    return turned
