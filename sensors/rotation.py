"""How a camera turned from one frame to the next, from the pictures: the only user of cv2 here.

Corners are followed with pyramidal Lucas-Kanade and checked by following them back. Turning alone
is tried first; where near things moved, the essential matrix separates turning from moving.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

CORNERS = 400
LEAST_CORNERS = 15
BACK_PX = 0.5
RANSAC_PX = 0.5
PARALLAX_PX = 1.0
"""Above this the camera moved among near things: turning alone does not explain the pictures."""
FAR_RAD = 0.1


def image_rotations(images: Iterable[U8], K: ArrayLike, distortion: ArrayLike = ()) -> F64:
    """Rotation of the camera between neighbouring pictures.

    Args:
        images: Grey pictures (H, W) uint8, in order; one at a time is held.
        K: Camera matrix (3, 3).
        distortion: OpenCV coefficients (k1, k2, p1, p2, ...); empty = none.

    Returns:
        Rotation vectors (N-1, 3), rad, in camera axes: the integral of the camera's own rate. Rows
        of NaN where too few corners could be followed.

    Raises:
        SensorDataError: A picture is not grey uint8, or K is not (3, 3).
    """
    camera = np.asarray(K, dtype=np.float64)
    if camera.shape != (3, 3):
        raise SensorDataError(f"image_rotations: K has shape {camera.shape}, must be (3, 3)")
    bent = np.asarray(distortion, dtype=np.float64)
    out: list[F64] = []
    before: U8 | None = None
    for image in images:
        if image.ndim != 2 or image.dtype != np.uint8:
            raise SensorDataError(f"image_rotations: picture {image.shape} {image.dtype} not grey")
        if before is not None:
            out.append(frame_rotation(before, image, camera, bent))
        before = image
    return np.array(out, dtype=np.float64).reshape(-1, 3)


def frame_rotation(before: U8, after: U8, camera: F64, distortion: F64) -> F64:
    """Rotation vector (3,) between two pictures; NaN when it cannot be told."""
    unknown = np.full(3, np.nan)
    first, second = _follow(before, after)
    if len(first) < LEAST_CORNERS:
        return unknown
    a = np.asarray(cv2.undistortPoints(first, camera, distortion), np.float32).reshape(-1, 2)
    b = np.asarray(cv2.undistortPoints(second, camera, distortion), np.float32).reshape(-1, 2)
    focal = float(camera[0, 0])
    turn, off_px = _turn_only(_rays(a), _rays(b), focal)
    if off_px > PARALLAX_PX:
        turn = _turn_moving(a, b, turn, RANSAC_PX / focal)
    return -turn


def _rays(points: NDArray[np.float32]) -> F64:
    rays = np.concatenate([points.astype(np.float64), np.ones((len(points), 1))], axis=1)
    unit: F64 = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return unit


def _turn_only(a: F64, b: F64, focal_px: float) -> tuple[F64, float]:
    """Rotation vector that turns rays `a` into `b`, and the median of what is left in pixels.

    Repeated least squares with Cauchy weights, so that near things that move do not count.
    """
    turn = np.eye(3)
    weight = np.ones(len(a))
    off = np.zeros(len(a))
    for _ in range(8):
        left, _, right = np.linalg.svd((b * weight[:, None]).T @ a)
        sign = np.sign(np.linalg.det(left @ right))
        turn = left @ np.diag([1.0, 1.0, sign]) @ right
        off = np.linalg.norm(b - a @ turn.T, axis=1) * focal_px
        scale = max(1.48 * float(np.median(off)), 0.02)
        weight = 1.0 / (1.0 + (off / scale) ** 2)
    vector, _ = cv2.Rodrigues(turn)
    return np.asarray(vector, dtype=np.float64).reshape(3), float(np.median(off))


def _turn_moving(a: NDArray[np.float32], b: NDArray[np.float32], guess: F64, limit: float) -> F64:
    """The same by the essential matrix; of its two rotations the one nearer to `guess`."""
    found, inliers = cv2.findEssentialMat(a, b, np.eye(3), cv2.RANSAC, 0.999, limit)
    if np.shape(found) != (3, 3) or int(np.sum(inliers)) < LEAST_CORNERS:
        return np.full(3, np.nan)
    one, two, _ = cv2.decomposeEssentialMat(found)
    turns = [np.asarray(cv2.Rodrigues(r)[0], dtype=np.float64).reshape(3) for r in (one, two)]
    best = min(turns, key=lambda turn: float(np.linalg.norm(turn - guess)))
    return best if float(np.linalg.norm(best - guess)) < FAR_RAD else np.full(3, np.nan)


def _follow(before: U8, after: U8) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    none = np.zeros((0, 1, 2), dtype=np.float32)
    corners = cv2.goodFeaturesToTrack(before, CORNERS, 0.01, 8)
    start = np.asarray(corners if np.size(corners) > 1 else none, dtype=np.float32)
    if len(start) < LEAST_CORNERS:
        return none, none
    size = (21, 21)
    there, ok, _ = cv2.calcOpticalFlowPyrLK(before, after, start, start.copy(), winSize=size)
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, start.copy(), winSize=size)
    off = np.linalg.norm((start - back).reshape(-1, 2), axis=1)
    good = (ok.ravel() == 1) & (ok_back.ravel() == 1) & (off < BACK_PX)
    return start[good], np.asarray(there, dtype=np.float32)[good]
