"""Camera-IMU offset from followed points: the gyro turns the camera, every pair may also move.

The camera's rotation between two pictures is not estimated at all. For an offset, axes, scale and
bias the gyro says how the camera turned between the *row times* of each followed point; both rays
are turned to the centre of the first picture. What is left, `d = b - a`, lies along the epipolar
line of that pair's own translation `t`: `d . (t x a) / |t x a| = 0`. All pairs share the few global
numbers and are solved together, each `t` eliminated (Kneip and Lynen, Direct optimization of
frame-to-frame rotation, ICCV 2013, with the gyro in place of the rotation).

Rotations found pair by pair instead carry what near things and a rolling shutter add to them: the
focus of expansion swings with the pitch, so that moving looks like turning a little later.

Along the line a point counts as far as its pair shows no parallax: the variance there is the noise
of the points plus the pair's own spread. A camera that only turns so loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from syncline.sensors.band_offset import Cells, cells_of
from syncline.sensors.calibrate import SIGMA_FLOOR_NS, OffsetEstimate, Turning

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

FOE_RAD = 0.01
"""Nearer than this to the focus of expansion the direction of the epipolar line means little."""
NOISE_FLOOR_PX = 0.05
"""Least noise of a point: no corner is followed better."""
COHERENT_PX = 0.001
"""What pictures may err in step with the motion, which no statistics show: a thousandth pixel."""
CAUCHY = 2.0
"""Robust limit, in standard deviations."""
ROUNDS, TRANSLATIONS, FIRST_TRANSLATIONS = 20, 3, 6
SETTLED = 0.01
"""Steps of the offset smaller than this share of its sigma change nothing."""
BLOCKS = 24
LEAST_BLOCKS = 6
OFFSET, BIAS, AXES, SCALE, FREE = 0, slice(1, 4), slice(4, 7), 7, 8
PRIOR = np.array([0.0, *(1 / 0.05**2,) * 3, *(1.0,) * 3, 1 / 0.1**2])
"""Inverse variances that only hold what the drive does not show: bias 0.05 rad/s, scale 10 %."""


@dataclass(frozen=True, slots=True)
class Points:
    """Points followed from one picture to the next, some pairs in one table.

    Attributes:
        start: First row of each pair (K,).
        a: Unit rays in the first picture (P, 3), camera axes.
        b: Unit rays in the second picture (P, 3).
        a_s: Time of the point's row in the first picture (P,), seconds.
        b_s: Time of its row in the second (P,).
        centre_s: Time of the first picture's centre (P,).
        next_s: Time of the second picture's centre (P,).
    """

    start: I64
    a: F64
    b: F64
    a_s: F64
    b_s: F64
    centre_s: F64
    next_s: F64

    @property
    def pair(self) -> I64:
        """Number of each point's pair (P,)."""
        lengths = np.diff(np.append(self.start, len(self.a)))
        return np.repeat(np.arange(len(self.start)), lengths)


@dataclass(frozen=True, slots=True)
class Guess:
    """Where the solution stands. `scale` takes up a focal length that is a little off."""

    offset_s: float
    axes: F64
    bias: F64
    scale: float = 1.0

    def moved(self, step: F64, keep_axes: bool) -> Guess:
        """After one step."""
        return Guess(
            self.offset_s + float(np.clip(step[OFFSET], -0.02, 0.02)),
            self.axes if keep_axes else turned(step[None, AXES], self.axes.T).T,
            self.bias + step[BIAS],
            self.scale + float(step[SCALE]),
        )


class PointFit:
    """Gauss-Newton over all pairs.

    Args:
        tables: Followed points; a table is what is worked on at once.
        turning: The gyro, integrated.
        focal_px: To speak of noise in pixels.
        guess: Where to begin.
        keep_axes: The axes are known.

    Memory: the tables, and about 1.5 kB for each point of the largest.
    """

    def __init__(
        self,
        tables: Sequence[Points],
        turning: Turning,
        focal_px: float,
        guess: Guess,
        *,
        keep_axes: bool = False,
    ) -> None:
        self._tables, self._turning, self._focal_px = tables, turning, focal_px
        self.guess, self._keep_axes = guess, keep_axes
        self._pairs = [PairSet(table, focal_px) for table in tables]
        held = np.full(FREE, 1e12 if keep_axes else 0.0)
        held[[OFFSET, *range(1, 4), SCALE]] = 0.0
        self._prior = np.diag(PRIOR + held)

    def solve(self) -> OffsetEstimate:
        """The offset with its uncertainty; nothing is refused here."""
        for _ in range(ROUNDS):
            system, right = self._normal()
            spread = np.linalg.inv(system.sum(axis=0) + self._prior)
            step = -spread @ right.sum(axis=0)
            self.guess = self.guess.moved(step, self._keep_axes)
            if step[OFFSET] ** 2 < spread[OFFSET, OFFSET] * SETTLED**2:
                break
        system, right = self._normal()
        total = system.sum(axis=0) + self._prior
        formal = math.sqrt(float(np.linalg.inv(total)[OFFSET, OFFSET]))
        sigma_s = max(formal, _jackknife(system, right, self._prior))
        step_s = 0.0
        if math.isfinite(sigma_s):
            step_s, sigma_s = self._cells(sigma_s).combined()
        sigma_ns = 1e9 * math.hypot(sigma_s, COHERENT_PX * formal * math.sqrt(self._weight()))
        noise = np.concatenate([pairs.noise_px for pairs in self._pairs])
        return OffsetEstimate(
            round((self.guess.offset_s + step_s) * 1e9),
            max(sigma_ns, SIGMA_FLOOR_NS) if math.isfinite(sigma_ns) else math.inf,
            self.guess.axes * self.guess.scale,
            self.guess.bias,
            float(np.sqrt(np.mean(noise**2))) / self._focal_px,
            self._explained(noise),
            len(noise),
        )

    def _normal(self) -> tuple[F64, F64]:
        parts = []
        for table, pairs in zip(self._tables, self._pairs, strict=True):
            d, a, slope = turned_points(table, self._turning, self.guess)
            parts.append(pairs.normal(d, a, slope))
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _cells(self, sigma_s: float) -> Cells:
        """What slow and fast swings about each axis say of the offset, by turns between centres."""
        guess, parts = self.guess, []
        for table, pairs in zip(self._tables, self._pairs, strict=True):
            d, a, _ = turned_points(table, self._turning, guess)
            weight, slope = pairs.normal(d, a, -cross_matrix(a + d))
            at = [t[table.start] + guess.offset_s for t in (table.centre_s, table.next_s)]
            swing = self._turning.at(at[1])[1] - self._turning.at(at[0])[1]
            moves = guess.scale * swing @ guess.axes.T
            parts.append((moves, slope, np.einsum("kij,kj->ki", weight, moves)))
        moves, slope, grows = (np.concatenate(part)[:, None] for part in zip(*parts, strict=True))
        return cells_of(moves, slope, grows, sigma_s**2, 0.0)

    def _weight(self) -> float:
        """Of all points across their epipolar lines, 1/px^2."""
        return float(sum(pairs.weight() for pairs in self._pairs))

    def _explained(self, noise_px: F64) -> float:
        """Share of what a camera that does not turn would leave across the epipolar lines."""
        still = replace(self.guess, bias=np.zeros(3), scale=0.0)
        left = []
        for table in self._tables:
            d, a, _ = turned_points(table, self._turning, still)
            fresh = PairSet(table, self._focal_px)
            fresh.translate(d, a)
            left.append(fresh.noise_px)
        power = float(np.sum(np.concatenate(left) ** 2))
        return 1.0 - float(np.sum(noise_px**2)) / power


def turned_points(table: Points, turning: Turning, guess: Guess) -> tuple[F64, F64, F64]:
    """Rays turned to the first picture's centre.

    Returns:
        (b - a (P, 3), a (P, 3), derivative of b - a by the unknowns (P, 3, FREE)).
    """
    centre, rate = turning.at(table.centre_s + guess.offset_s)
    rays_then, slopes = [], []
    for rays, t_s in ((table.a, table.a_s), (table.b, table.b_s)):
        angle, swing = turning.at(t_s + guess.offset_s)
        after_s = t_s - table.centre_s
        turn = guess.scale * (angle - centre) @ guess.axes.T
        moved = turned(turn + after_s[:, None] * guess.bias, rays)
        rays_then.append(moved)
        # A small turn e moves a ray x by e x x, which is -[x] e.
        cross = -cross_matrix(moved)
        slope = np.zeros((len(rays), 3, FREE))
        rates = guess.scale * (swing - rate) @ guess.axes.T
        slope[:, :, OFFSET] = np.einsum("nij,nj->ni", cross, rates)
        slope[:, :, BIAS] = cross * after_s[:, None, None]
        slope[:, :, AXES] = -cross @ cross_matrix(turn)
        slope[:, :, SCALE] = np.einsum("nij,nj->ni", cross, (angle - centre) @ guess.axes.T)
        slopes.append(slope)
    return rays_then[1] - rays_then[0], rays_then[0], slopes[1] - slopes[0]


class PairSet:
    """What each pair of pictures has of its own: translation, noise, weights of its points."""

    def __init__(self, table: Points, focal_px: float) -> None:
        self._start, self._pair, self._focal_px = table.start, table.pair, focal_px
        self._weight: F64 | None = None
        self._to: F64 = np.tile([0.0, 0.0, 1.0], (len(table.start), 1))
        self.noise_px: F64 = np.ones(len(table.start))

    def translate(self, d: F64, a: F64) -> tuple[F64, F64]:
        """Best translations: (unit normals of the epipolar lines (P, 3), lever of t (P, 3))."""
        normal = np.cross(a, d)
        rounds = FIRST_TRANSLATIONS if self._weight is None else TRANSLATIONS
        weight = np.ones(len(a)) if self._weight is None else self._weight
        for _ in range(rounds):
            share = (weight / self._across(a)[1] ** 2)[:, None, None]
            outer = self._sum(share * normal[:, :, None] * normal[:, None, :])
            self._to = np.linalg.eigh(outer)[1][:, :, 0]
            across, size = self._across(a)
            off_px = self._focal_px * np.sum(d * across, axis=1)
            self.noise_px = np.maximum(self._spread(off_px), NOISE_FLOOR_PX)
            weight = _cauchy(off_px, self.noise_px[self._pair], self.noise_px[self._pair])
        self._weight = weight
        return across, normal / size[:, None]

    def normal(self, d: F64, a: F64, slope: F64) -> tuple[F64, F64]:
        """Normal equations of each pair (K, FREE, FREE), (K, FREE), its translation eliminated."""
        across, lever = self.translate(d, a)
        assert self._weight is not None
        weight = self._weight
        along = np.cross(across, a)
        far_px = self._focal_px * np.sum(d * along, axis=1)
        spread = np.hypot(self.noise_px, self._spread(far_px))[self._pair]
        far_weight = _cauchy(far_px, spread, spread)
        off_px = self._focal_px * np.sum(d * across, axis=1)
        by_p = self._focal_px * np.einsum("ni,nik->nk", across, slope)
        by_far = self._focal_px * np.einsum("ni,nik->nk", along, slope)
        by_t = self._focal_px * np.einsum("ni,nij->nj", lever, _beside(self._to)[self._pair])
        pp = self._outer(weight, by_p, by_p) + self._outer(far_weight, by_far, by_far)
        pt, tt = self._outer(weight, by_p, by_t), self._outer(weight, by_t, by_t)
        right = self._sum(
            (weight * off_px)[:, None] * by_p + (far_weight * far_px)[:, None] * by_far
        )
        right_t = self._sum((weight * off_px)[:, None] * by_t)
        gain = np.linalg.solve(tt + 1e-6 * np.eye(2), np.swapaxes(pt, 1, 2))
        return pp - pt @ gain, right - np.einsum("nji,nj->ni", gain, right_t)

    def weight(self) -> float:
        """Of all points, 1/px^2."""
        return 0.0 if self._weight is None else float(self._weight.sum())

    def _across(self, a: F64) -> tuple[F64, F64]:
        across = np.cross(self._to[self._pair], a)
        size = np.sqrt(np.sum(across**2, axis=1) + FOE_RAD**2)
        return across / size[:, None], size

    def _sum(self, values: F64) -> F64:
        return np.asarray(np.add.reduceat(values, self._start, axis=0))

    def _outer(self, weight: F64, left: F64, right: F64) -> F64:
        return self._sum(weight[:, None, None] * left[:, :, None] * right[:, None, :])

    def _spread(self, values: F64) -> F64:
        """Robust standard deviation about zero of each pair (K,)."""
        parts = np.split(np.abs(values), self._start[1:])
        return 1.4826 * np.array([float(np.median(part)) for part in parts])


def _cauchy(values: F64, sigma: F64, limit: F64) -> F64:
    weight: F64 = 1.0 / (sigma**2 * (1.0 + (values / (CAUCHY * limit)) ** 2))
    return weight


def _beside(directions: F64) -> F64:
    """Two unit vectors across each direction, (K, 3, 2)."""
    steep = np.abs(directions[:, :1]) < 0.7
    helper = np.where(steep, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    one = np.cross(directions, helper)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    return np.stack([one, np.cross(directions, one)], axis=2)


def cross_matrix(vectors: F64) -> F64:
    """[v] with [v] w = v x w, (N, 3, 3)."""
    out = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    out[:, 0, 1], out[:, 0, 2], out[:, 1, 2] = -z, y, -x
    return out - np.swapaxes(out, 1, 2)


def turned(turn: F64, rays: F64) -> F64:
    """Rays (N, 3) turned by rotation vectors (N, 3), or all by one (1, 3): Rodrigues."""
    size = np.linalg.norm(turn, axis=1, keepdims=True) / np.pi
    once = np.cross(turn, rays)
    return np.asarray(
        rays + np.sinc(size) * once + 0.5 * np.sinc(size / 2) ** 2 * np.cross(turn, once)
    )


def _jackknife(system: F64, right: F64, prior: F64) -> float:
    """Spread of one more step when a block of time is left out; inf with too few pairs to tell."""
    blocks = min(BLOCKS, len(system))
    if blocks < LEAST_BLOCKS:
        return math.inf
    edges = np.linspace(0, len(system), blocks + 1).astype(int)
    total, whole = system.sum(axis=0) + prior, right.sum(axis=0)
    steps = np.array(
        [
            float(np.linalg.solve(total - system[i:j].sum(0), whole - right[i:j].sum(0))[OFFSET])
            for i, j in pairwise(edges)
        ]
    )
    return math.sqrt((blocks - 1) / blocks * float(np.sum((steps - np.mean(steps)) ** 2)))
