"""Time offset between a camera and an IMU, or between two cameras, from how both turned.

Between two frames the camera turned by `cam_rot`; the IMU's integrated rate over the same interval,
shifted by the offset, must be the same rotation seen from its own axes. Offset, axes and gyro bias
come out of one least-squares fit (Gauss-Newton, Huber weights). Unlike the usual correlation of
norms on the IMU's grid, it is not quantised, and it says how sure it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

LEAST_FRAMES = 10
BLOCKS = 8
SIGMA_FLOOR_NS = 1_000.0


@dataclass(frozen=True, slots=True)
class OffsetEstimate:
    """A time offset and how sure it is.

    Attributes:
        offset_ns: Time on the second clock = time on the camera's clock + offset.
        sigma_ns: One standard deviation: the larger of the fit's own and a jackknife's.
        axes: (3, 3) that turns the second sensor's rotation into the camera's axes.
        bias_rad_s: Rate bias in camera axes (3,).
        residual_rad: Root mean square of what is left, per interval and axis.
        explained: Share of the camera's rotation (variance) that the fit explains.
        intervals: Frame intervals used.
    """

    offset_ns: int
    sigma_ns: float
    axes: F64
    bias_rad_s: F64
    residual_rad: float
    explained: float
    intervals: int


class Turning:
    """Accumulated rotation of a sensor over time, with its rate, between samples.

    Cubic Hermite between samples. Small rotations add like vectors over a frame interval.

    Args:
        t_s: Times (K,), increasing.
        angle: Accumulated rotation (K, 3), rad.
        rate: Rate at the samples (K, 3), rad/s.
    """

    def __init__(self, t_s: F64, angle: F64, rate: F64) -> None:
        self.t_s, self.angle, self.rate = t_s, angle, rate

    @classmethod
    def of_gyro(cls, t_s: F64, gyro: F64) -> Turning:
        """Integrate a rate by the trapezium rule on its own, possibly uneven, times."""
        steps = 0.5 * (gyro[1:] + gyro[:-1]) * np.diff(t_s)[:, None]
        return cls(t_s, np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)]), gyro)

    @classmethod
    def of_rotations(cls, t_s: F64, rotations: F64) -> Turning:
        """Add up rotation vectors between times."""
        angle = np.concatenate([np.zeros((1, 3)), np.cumsum(rotations, axis=0)])
        return cls(t_s, angle, np.asarray(np.gradient(angle, t_s, axis=0), dtype=np.float64))

    def at(self, t_s: F64) -> tuple[F64, F64]:
        """Angle and rate (N, 3) at times inside the recording."""
        k = np.clip(np.searchsorted(self.t_s, t_s, side="right") - 1, 0, len(self.t_s) - 2)
        h = (self.t_s[k + 1] - self.t_s[k])[:, None]
        u = (t_s[:, None] - self.t_s[k][:, None]) / h
        a, b = self.angle[k], self.angle[k + 1]
        p, q = self.rate[k] * h, self.rate[k + 1] * h
        angle = a + u * (p + u * ((3 * (b - a) - 2 * p - q) + u * (2 * (a - b) + p + q)))
        rate = (p + u * (2 * (3 * (b - a) - 2 * p - q) + u * 3 * (2 * (a - b) + p + q))) / h
        return angle, rate


def calibrate_offset(
    cam_t_ns: ArrayLike,
    cam_rot: ArrayLike,
    imu_t_ns: ArrayLike,
    gyro: ArrayLike,
    *,
    axes: ArrayLike | None = None,
    search_ns: int = 200_000_000,
    max_sigma_ns: float = 1_000_000.0,
) -> OffsetEstimate:
    """Camera-IMU time offset: t_imu = t_cam + offset.

    Args:
        cam_t_ns: Middle of exposure of each frame's centre (N,), increasing.
        cam_rot: Rotation vectors (N-1, 3), rad: how the camera turned between neighbouring frames,
            in camera axes; rows that are not finite are left out.
        imu_t_ns: Times of the rate samples (M,), increasing, uneven is fine.
        gyro: Rates (M, 3), rad/s, in IMU axes.
        axes: Known (3, 3) rotation from IMU to camera axes; None = found as well.
        search_ns: The offset is looked for within plus or minus this.
        max_sigma_ns: Refuse an answer less sure than this.

    Returns:
        The offset.

    Raises:
        SensorDataError: Too little data, too little turning to tell (low excitation), or the two
            recordings do not describe the same motion.
    """
    cam = np.asarray(cam_t_ns, dtype=np.int64)
    turning, zero_ns = integrate_gyro(imu_t_ns, gyro)
    return checked(_estimate(cam, cam_rot, turning, zero_ns, axes, search_ns), max_sigma_ns)


def integrate_gyro(imu_t_ns: ArrayLike, gyro: ArrayLike) -> tuple[Turning, int]:
    """(turning, time of its zero in nanoseconds); arguments of `calibrate_offset`.

    Raises:
        SensorDataError: Times and rates do not fit, or are too few.
    """
    imu = np.asarray(imu_t_ns, dtype=np.int64)
    rate = np.asarray(gyro, dtype=np.float64)
    if rate.ndim != 2 or rate.shape != (len(imu), 3) or len(imu) < LEAST_FRAMES:
        raise SensorDataError(f"calibrate: gyro {rate.shape} and {len(imu)} times do not fit")
    keep = np.concatenate([[True], np.diff(imu) > 0]) & np.isfinite(rate).all(axis=1)
    zero_ns = int(imu[0])
    return Turning.of_gyro(seconds_since(imu[keep], zero_ns), rate[keep]), zero_ns


def first_guess(
    cam_t_ns: ArrayLike,
    cam_rot: ArrayLike,
    turning: Turning,
    zero_ns: int,
    axes: ArrayLike | None = None,
    search_ns: int = 200_000_000,
) -> OffsetEstimate:
    """As `calibrate_offset`, for something better to begin from: nothing is refused for doubt.

    The axes are a rotation, the one nearest to both recordings (Wahba's problem).
    """
    cam = np.asarray(cam_t_ns, dtype=np.int64)
    return _estimate(cam, cam_rot, turning, zero_ns, axes, search_ns, rigid=True)


def first_guess_from(
    first_s: F64, next_s: F64, turns: F64, turning: Turning, search_s: float
) -> OffsetEstimate:
    """As `first_guess`, from turns (K, 3) between `first_s` and `next_s`, on the turning's zero."""
    problem = _Problem(first_s, next_s, turns, turning, None, search_s)
    offset_s = problem.refine(problem.search())
    problem.axes = problem.rigid_axes(offset_s)
    return problem.estimate(offset_s)


def seconds_since(t_ns: I64, zero_ns: int) -> F64:
    """Nanoseconds as float seconds from `zero_ns`."""
    return (t_ns - zero_ns).astype(np.float64) * 1e-9


def _estimate(
    cam: I64,
    cam_rot: ArrayLike,
    turning: Turning,
    zero_ns: int,
    axes: ArrayLike | None,
    search_ns: int,
    *,
    rigid: bool = False,
) -> OffsetEstimate:
    rot = np.asarray(cam_rot, dtype=np.float64)
    if len(cam) < LEAST_FRAMES or rot.shape != (len(cam) - 1, 3):
        raise SensorDataError(
            f"calibrate: {len(cam)} frames and rotations {rot.shape} do not fit",
            remedy=f"Give at least {LEAST_FRAMES} frames and one rotation less",
        )
    fixed = None if axes is None else np.asarray(axes, dtype=np.float64)
    cam_s = seconds_since(cam, zero_ns)
    problem = _Problem(cam_s[:-1], cam_s[1:], rot, turning, fixed, search_ns * 1e-9)
    offset_s = problem.refine(problem.search())
    if rigid and axes is None:
        problem.axes = problem.rigid_axes(offset_s)
    return problem.estimate(offset_s)


def checked(estimate: OffsetEstimate, max_sigma_ns: float) -> OffsetEstimate:
    """The same estimate.

    Raises:
        SensorDataError: It is not sure enough, or the recordings do not belong together.
    """
    if not estimate.sigma_ns <= max_sigma_ns:
        raise SensorDataError(
            f"calibrate: offset {estimate.offset_ns / 1e6:.3f} ms is known to "
            f"{estimate.sigma_ns / 1e6:.3f} ms only (limit {max_sigma_ns / 1e6:g} ms): the camera "
            "turned too little",
            remedy="Record a minute in which the camera turns briskly about two axes",
        )
    if estimate.explained < 0.5:
        raise SensorDataError(
            f"calibrate: only {100 * estimate.explained:.0f} % of the camera's turning is in the "
            "other recording",
            remedy="Check that both recordings are of the same drive, and widen search_ns",
        )
    return estimate


class _Problem:
    """The fit: rows are frame intervals, three axes each."""

    def __init__(
        self,
        first: F64,
        last: F64,
        rot: F64,
        turning: Turning,
        axes: F64 | None,
        search_s: float,
    ) -> None:
        inside = (first - search_s >= turning.t_s[0]) & (last + search_s <= turning.t_s[-1])
        if inside.sum() < LEAST_FRAMES - 1:
            room = min(float(np.ptp(turning.t_s) - (last.max() - first.min())), 2 * search_s)
            search_s = max(room / 2.0, 0.0)
            inside = (first >= turning.t_s[0]) & (last <= turning.t_s[-1])
        inside &= np.isfinite(rot).all(axis=1) & (last > first)
        self.first, self.last, self.rot = first[inside], last[inside], rot[inside]
        if len(self.rot) < LEAST_FRAMES - 1:
            raise SensorDataError(
                f"calibrate: only {len(self.rot)} frame intervals lie inside the other recording",
                remedy="Record both sensors over the same time",
            )
        self.dt = (self.last - self.first)[:, None]
        self.turning, self.axes, self.search_s = turning, axes, search_s
        self.weight: F64 = np.ones(len(self.rot))

    def _turn(self, offset_s: float) -> tuple[F64, F64]:
        a, rate_a = self.turning.at(self.first + offset_s)
        b, rate_b = self.turning.at(self.last + offset_s)
        return b - a, rate_b - rate_a

    def _linear(self, offset_s: float) -> tuple[F64, F64, F64]:
        """Best axes and bias at an offset: (axes, bias, residuals (n, 3))."""
        turn, _ = self._turn(offset_s)
        w = np.sqrt(self.weight)[:, None]
        if self.axes is not None:
            rest = self.rot - turn @ self.axes.T
            bias = (w * w * self.dt * rest).sum(axis=0) / (w * w * self.dt**2).sum()
            return self.axes, bias, rest - self.dt * bias
        columns = np.concatenate([turn, self.dt], axis=1)
        scale = np.maximum(np.abs(columns).max(axis=0), 1e-12)
        ridge = 1e-9 * np.eye(4)
        normal = (columns / scale * w * w).T @ (columns / scale) + ridge * len(columns)
        solved = np.linalg.solve(normal, (columns / scale * w * w).T @ self.rot) / scale[:, None]
        return solved[:3].T, solved[3], self.rot - columns @ solved

    def search(self) -> float:
        """Best offset on a grid of a quarter frame interval."""
        step = max(0.25 * float(np.median(self.dt)), 1e-4)
        count = math.ceil(self.search_s / step)
        grid = np.linspace(-self.search_s, self.search_s, 2 * count + 1)
        costs = [float(np.sum(np.abs(self._linear(float(g))[2]))) for g in grid]
        return float(grid[int(np.argmin(costs))])

    def refine(self, offset_s: float) -> float:
        """Gauss-Newton with Huber weights."""
        for _ in range(12):
            axes, _, rest = self._linear(offset_s)
            size = np.linalg.norm(rest, axis=1)
            limit = 2.0 * float(np.median(size)) + 1e-12
            self.weight = np.minimum(1.0, limit / np.maximum(size, 1e-15))
            system, right, _ = self._normal(offset_s, axes, rest)
            step = float(np.linalg.solve(system.sum(axis=0), right.sum(axis=0))[0])
            step = float(np.clip(step, -0.02, 0.02))
            offset_s += step
            if abs(step) < 1e-9:
                break
        return float(np.clip(offset_s, -self.search_s - 0.02, self.search_s + 0.02))

    def rigid_axes(self, offset_s: float) -> F64:
        """The rotation that best turns one sensor's rotations into the other's."""
        turn, _ = self._turn(offset_s)
        ours, theirs = self.rot - self.rot.mean(axis=0), turn - turn.mean(axis=0)
        left, _, right = np.linalg.svd((self.weight[:, None] * ours).T @ theirs)
        sign = float(np.sign(np.linalg.det(left @ right)))
        axes: F64 = left @ np.diag([1.0, 1.0, sign]) @ right
        return axes

    def _normal(self, offset_s: float, axes: F64, rest: F64) -> tuple[F64, F64, int]:
        """Normal equations per block for (offset, bias, axes): (B, p, p), (B, p)."""
        turn, swing = self._turn(offset_s)
        n, free = len(rest), self.axes is None
        size = 4 + (9 if free else 0)
        jac = np.zeros((n, 3, size))
        jac[:, :, 0] = swing @ axes.T
        for axis in range(3):
            jac[:, axis, 1 + axis] = self.dt[:, 0]
            if free:
                jac[:, axis, 4 + 3 * axis : 7 + 3 * axis] = turn
        jac *= np.sqrt(self.weight)[:, None, None]
        weighted = rest * np.sqrt(self.weight)[:, None]
        blocks = max(min(BLOCKS, n // 6), 1)
        edges = np.linspace(0, n, blocks + 1).astype(int)
        parts = [slice(a, b) for a, b in pairwise(edges)]
        system = np.stack([np.einsum("nia,nib->ab", jac[p], jac[p]) for p in parts])
        right = np.stack([np.einsum("nia,ni->a", jac[p], weighted[p]) for p in parts])
        trace = np.einsum("baa->a", system)
        system = system + np.diag(1e-12 * (trace + trace.max() * 1e-6)) / blocks
        return system, right, size

    def estimate(self, offset_s: float) -> OffsetEstimate:
        """The answer with its uncertainty."""
        axes, bias, rest = self._linear(offset_s)
        system, right, size = self._normal(offset_s, axes, rest)
        total, free = system.sum(axis=0), max(3 * len(rest) - size, 1)
        variance = float((self.weight[:, None] * rest**2).sum()) / free
        formal = math.sqrt(max(float(np.linalg.inv(total)[0, 0]) * variance, 0.0))
        sigma_s = max(formal, self._jackknife(system, right))
        power = float(np.sum(self.weight[:, None] * (self.rot - self.rot.mean(axis=0)) ** 2))
        left = float(np.sum(self.weight[:, None] * rest**2))
        return OffsetEstimate(
            round(offset_s * 1e9),
            max(sigma_s * 1e9, SIGMA_FLOOR_NS) if math.isfinite(sigma_s) else math.inf,
            axes,
            bias,
            math.sqrt(float(np.mean(rest**2))),
            1.0 - left / power if power > 0.0 else 0.0,
            len(rest),
        )

    def _jackknife(self, system: F64, right: F64) -> float:
        """Spread of one more step when a block of time is left out."""
        blocks = len(system)
        if blocks < 4:
            return 0.0
        total, whole = system.sum(axis=0), right.sum(axis=0)
        steps = np.array(
            [float(np.linalg.solve(total - system[b], whole - right[b])[0]) for b in range(blocks)]
        )
        return math.sqrt((blocks - 1) / blocks * float(np.sum((steps - np.mean(steps)) ** 2)))
