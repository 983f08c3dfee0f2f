"""Camera-IMU offset from a drive's pictures: followed corners, each at the time of its own row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError
from syncline.sensors.calibrate import (
    LEAST_FRAMES,
    OffsetEstimate,
    Turning,
    checked,
    first_guess,
    integrate_gyro,
    seconds_since,
)
from syncline.sensors.epipolar import Guess, PointFit, Points
from syncline.sensors.frame import FrameTime
from syncline.sensors.rotation import LEAST_CORNERS, Followed, pair_rotation, unit_rays

F64 = NDArray[np.float64]

TABLE_PAIRS = 64
"""Pairs of pictures worked on at once: about 50 MB at 400 points each."""
MARGIN_S = 0.05
"""The gyro must reach this far beyond the frames: so far may the offset still move."""
UNDERSTOOD = 1.4
"""Sigma is so much wider than the fit finds: 18 cameras of rendered drives erred by 1.25 of its
sigmas (RMS), and two cameras of one drive by 3.6, for a reason that was not found."""


def calibrate_pictures(
    times: Sequence[FrameTime],
    followed: Sequence[Followed],
    K: ArrayLike,
    imu_t_ns: ArrayLike,
    gyro: ArrayLike,
    *,
    distortion: ArrayLike = (),
    cam_rot: ArrayLike | None = None,
    axes: ArrayLike | None = None,
    search_ns: int = 200_000_000,
    max_sigma_ns: float = 1_000_000.0,
) -> OffsetEstimate:
    """Camera-IMU time offset, t_imu = t_cam + offset, of a camera that may move among near things.

    Unlike `calibrate_offset` it wants no rotations: see `syncline.sensors.epipolar`. It knows from
    the frames' mode when each row was exposed.

    Args:
        times: Time of each frame (N).
        followed: Corners followed between neighbouring frames (N-1), see `follow_corners`.
        K: Camera matrix (3, 3).
        imu_t_ns: Times of the rate samples (M,), increasing, uneven is fine.
        gyro: Rates (M, 3), rad/s, in IMU axes.
        distortion: OpenCV coefficients; empty = none.
        cam_rot: Rotations (N-1, 3) by `pair_rotation`, where they are at hand.
        axes: Known (3, 3) rotation from IMU to camera axes; None = found as well.
        search_ns: The offset is looked for within plus or minus this.
        max_sigma_ns: Refuse an answer less sure than this.

    Returns:
        The offset; `axes` holds the gyro's scale as the camera sees it, too. Sigma includes that
        of the frame times; their `bias_ns` it cannot.

    Raises:
        SensorDataError: See `calibrate_offset`.

    Memory: 25 kB a pair of pictures.
    """
    camera = np.asarray(K, dtype=np.float64)
    if len(times) < LEAST_FRAMES or len(followed) != len(times) - 1:
        raise SensorDataError(
            f"calibrate: {len(times)} frames and {len(followed)} followed pairs do not fit",
            remedy=f"Give at least {LEAST_FRAMES} frames and one pair less",
        )
    centres = np.array([time.centre_ns() for time in times], np.int64)
    if cam_rot is None:
        cam_rot = np.array([pair_rotation(pair, camera, distortion) for pair in followed])
    turning, zero_ns = integrate_gyro(imu_t_ns, gyro)
    first = first_guess(centres, cam_rot, turning, zero_ns, axes, search_ns)
    guess = Guess(first.offset_ns * 1e-9, first.axes, first.bias_rad_s)
    points = followed_points(times, followed, camera, distortion, zero_ns)
    tables = list(tables_of(_inside(points, turning, guess.offset_s)))
    if sum(len(table.start) for table in tables) < LEAST_FRAMES - 1:
        raise SensorDataError(
            "calibrate: too few pictures with corners lie inside the other recording",
            remedy="Record both sensors over the same time, by daylight",
        )
    focal_px = float(camera[0, 0])
    fit = PointFit(tables, turning, focal_px, guess, keep_axes=axes is not None)
    found = fit.solve()
    # The clock mapping errs alike in all frames: what a frame is unsure of does not average out.
    common_ns = float(np.median([time.sigma_ns for time in times]))
    sigma_ns = math.hypot(UNDERSTOOD * found.sigma_ns, common_ns)
    return checked(replace(found, sigma_ns=sigma_ns), max_sigma_ns)


def followed_points(
    times: Sequence[FrameTime],
    followed: Sequence[Followed],
    K: F64,
    distortion: ArrayLike,
    zero_ns: int,
) -> Iterator[Points | None]:
    """The table of each pair (N-1), None where it has too few corners."""
    for before, after, pair in zip(times[:-1], times[1:], followed, strict=True):
        count = len(pair.before_px)
        centre_ns = before.centre_ns()
        if count < LEAST_CORNERS or after.centre_ns() <= centre_ns:
            yield None
            continue
        yield Points(
            np.zeros(1, np.int64),
            unit_rays(pair.before_px, K, distortion),
            unit_rays(pair.after_px, K, distortion),
            seconds_since(before.pixel_time(pair.before_px), zero_ns),
            seconds_since(after.pixel_time(pair.after_px), zero_ns),
            np.full(count, (centre_ns - zero_ns) * 1e-9),
            np.full(count, (after.centre_ns() - zero_ns) * 1e-9),
        )


def tables_of(pairs: Iterable[Points]) -> Iterator[Points]:
    """Some pairs to a table."""
    held: list[Points] = []
    for pair in pairs:
        held.append(pair)
        if len(held) == TABLE_PAIRS:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _inside(pairs: Iterable[Points | None], turning: Turning, offset_s: float) -> Iterator[Points]:
    """Pairs inside the gyro's recording."""
    low, high = turning.t_s[0] + MARGIN_S - offset_s, turning.t_s[-1] - MARGIN_S - offset_s
    for pair in pairs:
        if pair is not None and pair.a_s.min() > low and pair.b_s.max() < high:
            yield pair


def _joined(pairs: Sequence[Points]) -> Points:
    lengths = [len(pair.a) for pair in pairs]
    return Points(
        np.concatenate([[0], np.cumsum(lengths[:-1])]).astype(np.int64),
        np.concatenate([pair.a for pair in pairs]),
        np.concatenate([pair.b for pair in pairs]),
        np.concatenate([pair.a_s for pair in pairs]),
        np.concatenate([pair.b_s for pair in pairs]),
        np.concatenate([pair.centre_s for pair in pairs]),
        np.concatenate([pair.next_s for pair in pairs]),
    )
