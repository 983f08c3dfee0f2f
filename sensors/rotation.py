"""How a camera turned from one frame to the next, from the pictures: the only user of cv2 here.

Corners are followed with pyramidal Lucas-Kanade and checked by following them back. Turning alone
is tried first; where near things moved, the essential matrix separates turning from moving.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

CORNERS = 400
LEAST_CORNERS = 15
BACK_PX = 0.5
RANSAC_PX = 0.5
PARALLAX_PX = 1.0
"""Above this the camera moved among near things: turning alone does not explain the pictures."""
FAR_RAD = 0.1


@dataclass(frozen=True, slots=True)
class Followed:
    """Corners of one picture and where they are in the next: pixels (n, 2) each, at most 400."""

    before_px: F32
    after_px: F32


def follow_corners(images: Iterable[U8]) -> Iterator[Followed]:
    """Corners followed between neighbouring pictures: N-1 of them, empty where nothing was found.

    Args:
        images: Grey pictures (H, W) uint8, in order; one at a time is held.

    Raises:
        SensorDataError: A picture is not grey uint8.
    """
    before: U8 | None = None
    for image in images:
        if image.ndim != 2 or image.dtype != np.uint8:
            raise SensorDataError(f"image_rotations: picture {image.shape} {image.dtype} not grey")
        if before is not None:
            yield _follow(before, image)
        before = image


def unit_rays(points_px: F32, K: F64, distortion: ArrayLike = ()) -> F64:
    """Pixels (n, 2) as unit rays (n, 3) in camera axes (right, down, forward)."""
    bent = np.asarray(distortion, dtype=np.float64)
    if len(points_px) == 0:
        return np.zeros((0, 3))
    flat = cv2.undistortPoints(points_px.reshape(-1, 1, 2).astype(np.float64), K, bent)
    return _rays(np.asarray(flat, dtype=np.float64).reshape(-1, 2))


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
    turns = [pair_rotation(pair, camera, distortion) for pair in follow_corners(images)]
    return np.array(turns, dtype=np.float64).reshape(-1, 3)


def pair_rotation(pair: Followed, K: F64, distortion: ArrayLike = ()) -> F64:
    """Rotation vector (3,) of the camera from followed corners; NaN when it cannot be told."""
    if len(pair.before_px) < LEAST_CORNERS:
        return np.full(3, np.nan)
    a, b = unit_rays(pair.before_px, K, distortion), unit_rays(pair.after_px, K, distortion)
    focal = float(K[0, 0])
    turn, off_px = _turn_only(a, b, focal)
    if off_px > PARALLAX_PX:
        flat = [(rays[:, :2] / rays[:, 2:]).astype(np.float32) for rays in (a, b)]
        turn = _turn_moving(flat[0], flat[1], turn, RANSAC_PX / focal)
    return -turn


def _rays(points: F64) -> F64:
    rays = np.concatenate([points, np.ones((len(points), 1))], axis=1)
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


def _turn_moving(a: F32, b: F32, guess: F64, limit: float) -> F64:
    """The same by the essential matrix; of its two rotations the one nearer to `guess`."""
    found, inliers = cv2.findEssentialMat(a, b, np.eye(3), cv2.RANSAC, 0.999, limit)
    if np.shape(found) != (3, 3) or int(np.sum(inliers)) < LEAST_CORNERS:
        return np.full(3, np.nan)
    one, two, _ = cv2.decomposeEssentialMat(found)
    turns = [np.asarray(cv2.Rodrigues(r)[0], dtype=np.float64).reshape(3) for r in (one, two)]
    best = min(turns, key=lambda turn: float(np.linalg.norm(turn - guess)))
    return best if float(np.linalg.norm(best - guess)) < FAR_RAD else np.full(3, np.nan)


def _follow(before: U8, after: U8) -> Followed:
    none = np.zeros((0, 2), dtype=np.float32)
    corners = cv2.goodFeaturesToTrack(before, CORNERS, 0.01, 8)
    start = np.asarray(corners if np.size(corners) > 1 else none, dtype=np.float32)
    if len(start) < LEAST_CORNERS:
        return Followed(none, none)
    size = (21, 21)
    there, ok, _ = cv2.calcOpticalFlowPyrLK(before, after, start, start.copy(), winSize=size)
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, start.copy(), winSize=size)
    off = np.linalg.norm((start - back).reshape(-1, 2), axis=1)
    good = (ok.ravel() == 1) & (ok_back.ravel() == 1) & (off < BACK_PX)
    there = np.asarray(there, dtype=np.float32)
    return Followed(start[good].reshape(-1, 2), there[good].reshape(-1, 2))
