"""What a time-offset calibration looks like: both sensors' turning, and the misfit around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.sensors.calibrate import OffsetEstimate, Turning, seconds_since

F64 = NDArray[np.float64]

GRID = 201
LEAST_SPAN_S = 0.005
SIGMAS_SHOWN = 20.0
OUTLIER = 4.0
"""Times the median beyond which a difference counts for no more."""


@dataclass(frozen=True, slots=True)
class FitSeries:
    """Curves of a calibration.

    Attributes:
        t_s: Middle of each frame interval, seconds from the first frame (N,).
        camera_rad_s: Mean rate of the camera over the interval, camera axes (N, 3).
        other_rad_s: The other sensor's, turned and shifted by the estimate, bias added (N, 3).
        offset_s: Offsets that were tried (M,).
        misfit_rad_s: Root mean square difference at each, outliers cut off (M,).
    """

    t_s: F64
    camera_rad_s: F64
    other_rad_s: F64
    offset_s: F64
    misfit_rad_s: F64


def gyro_series(
    found: OffsetEstimate,
    cam_t_ns: ArrayLike,
    cam_rot: ArrayLike,
    imu_t_ns: ArrayLike,
    gyro: ArrayLike,
) -> FitSeries:
    """Curves of `calibrate_offset`: the same arguments and its answer."""
    imu = np.asarray(imu_t_ns, dtype=np.int64)
    rate = np.asarray(gyro, dtype=np.float64)
    keep = np.concatenate([[True], np.diff(imu) > 0]) & np.isfinite(rate).all(axis=1)
    zero_ns = int(imu[0])
    turning = Turning.of_gyro(seconds_since(imu[keep], zero_ns), rate[keep])
    return _series(found, np.asarray(cam_t_ns, np.int64), cam_rot, turning, zero_ns)


def camera_series(
    found: OffsetEstimate,
    cam_t_ns: ArrayLike,
    cam_rot: ArrayLike,
    other_t_ns: ArrayLike,
    other_rot: ArrayLike,
) -> FitSeries:
    """Curves of `calibrate_camera_pictures`: the same arguments and its answer."""
    other = np.asarray(other_t_ns, dtype=np.int64)
    zero_ns = int(other[0])
    turned = np.nan_to_num(np.asarray(other_rot, dtype=np.float64))
    turning = Turning.of_rotations(seconds_since(other, zero_ns), turned)
    return _series(found, np.asarray(cam_t_ns, np.int64), cam_rot, turning, zero_ns)


def _series(
    found: OffsetEstimate,
    cam_ns: NDArray[np.int64],
    cam_rot: ArrayLike,
    turning: Turning,
    zero_ns: int,
) -> FitSeries:
    rot = np.asarray(cam_rot, dtype=np.float64)
    cam_s = seconds_since(cam_ns, zero_ns)
    answer_s = found.offset_ns * 1e-9
    span_s = max(SIGMAS_SHOWN * found.sigma_ns * 1e-9, LEAST_SPAN_S)
    first, last = cam_s[:-1], cam_s[1:]
    inside = (first + answer_s - span_s >= turning.t_s[0]) & np.isfinite(rot).all(axis=1)
    inside &= (last + answer_s + span_s <= turning.t_s[-1]) & (last > first)
    first, last, rot = first[inside], last[inside], rot[inside]
    dt = (last - first)[:, None]

    def other(offset_s: float) -> F64:
        turned = turning.at(last + offset_s)[0] - turning.at(first + offset_s)[0]
        rate: F64 = turned @ found.axes.T / dt + found.bias_rad_s
        return rate

    camera = rot / dt
    tried = answer_s + np.linspace(-span_s, span_s, GRID)
    apart = [np.linalg.norm(camera - other(float(at)), axis=1) for at in [answer_s, *tried]]
    most = OUTLIER * float(np.median(apart[0])) if len(apart[0]) else 0.0
    misfit = np.array([np.sqrt(np.mean(np.minimum(a, most) ** 2)) for a in apart[1:]])
    return FitSeries(0.5 * (first + last) - cam_s[0], camera, other(answer_s), tried, misfit)
