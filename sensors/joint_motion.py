"""One motion that several cameras saw, and how their clocks and axes lie to each other.

Each pair of pictures tells, by its followed points, five vectors of its camera's motion: how it
turned from centre to centre, and rate and acceleration at both (a rolling shutter sees these too).
They are linear in a spline of the accumulated rotation. The spline's prior is a jerk that is white
noise; how strong it is about each axis is found from the pictures (the most likely, Gaussian
process regression), so that what lies between the frames is as unsure as the motion is rough.

The offset comes out with the motion eliminated. Nothing is interpolated: a camera that saw too
little of the motion, or aliased, makes the offset unsure instead of wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from syncline.sensors.chain import Chain
from syncline.sensors.spline import Knots, Spline

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

PARTS = 5
"""Vectors a pair tells: turn, rate and acceleration at its first picture, both at its second."""
OFFSET, AXES, SCALE, LINKED = 0, slice(1, 4), 4, 5
RIDGE = 1e-2
"""Inverse variance of the angle itself, of which only differences are seen, 1/rad^2."""
SCALE_PRIOR = 1.0 / 0.1**2
ROUGHNESS_LOG = (-3.0, 20.0)
REACH = 7.0
"""Logarithm of the least and largest power of the jerk, rad^2/s^5, and how far one search goes."""
NOTHING = 1e-9
"""Eigenvalues below this share tell nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a camera's K pairs of pictures tell of its motion: a quadratic about `motion`.

    Attributes:
        first_s: Centre of the first picture, on the camera's clock (K,).
        next_s: Centre of the second (K,).
        motion: Where the points were linearised (K, 15): five vectors in the camera's axes.
        weight: Second derivative of half the squared residuals (K, 15, 15).
        slope: First derivative (K, 15).
    """

    first_s: F64
    next_s: F64
    motion: F64
    weight: F64
    slope: F64

    def only(self, keep: NDArray[np.bool_]) -> Seen:
        """Some of the pairs."""
        return Seen(
            self.first_s[keep], self.next_s[keep], self.motion[keep], self.weight[keep],
            self.slope[keep],
        )  # fmt: skip

    def own_gain(self) -> tuple[F64, F64]:
        """(how much less the squared residuals would be at each pair's own motion, ranks) (K,)."""
        size = np.sqrt(np.maximum(np.diagonal(self.weight, axis1=1, axis2=2), 1e-300))
        values, vectors = np.linalg.eigh(self.weight / (size[:, :, None] * size[:, None, :]))
        told = values > NOTHING * values[:, -1:]
        along = np.einsum("kij,ki->kj", vectors, self.slope / size)
        gain = np.where(told, along**2 / np.where(told, values, 1.0), 0.0)
        return gain.sum(axis=1), told.sum(axis=1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Link:
    """How a camera lies to the first: t_first = t + offset, its turning = scale * axes @ that."""

    offset_s: float
    axes: F64
    scale: float = 1.0

    def moved(self, step: F64) -> Link:
        """After a step of (offset, axes, scale)."""
        angle = float(np.linalg.norm(step[AXES]))
        x, y, z = step[AXES]
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        turn = np.eye(3) + np.sinc(angle / np.pi) * cross
        turn = turn + 0.5 * np.sinc(angle / 2 / np.pi) ** 2 * cross @ cross
        return Link(self.offset_s + float(step[OFFSET]), turn @ self.axes, self.scale + step[SCALE])


@dataclass(frozen=True, slots=True)
class Solved:
    """A solution.

    Attributes:
        spline: The motion, first camera's axes and clock.
        surprise: Half of -2 log likelihood, up to a constant.
        step: Best step of the last camera's link (5,); zeros for one camera.
        spread: Its covariance (5, 5).
        misfit: Squared residuals beyond what each pair's own motion leaves, prior included.
        told: Numbers that the pairs tell.
        lever: How much less the motion is for each unit of the link (knots, 3, 5).
    """

    spline: Spline
    surprise: float
    step: F64
    spread: F64
    misfit: float
    told: float
    lever: F64


class JointMotion:
    """Least squares of the motion, the cameras' links held or moved.

    Args:
        seen: One or two cameras; the first one's axes and clock are the motion's.
        knots: Of the motion; their number is made to fit.
        link: Of the second camera.

    Memory: about 10 kB a pair.
    """

    def __init__(self, seen: Sequence[Seen], knots: Knots, link: Link | None = None) -> None:
        self._seen = seen
        self.link = link or Link(0.0, np.eye(3))
        span_s = max(float((s.next_s - s.first_s).max()) for s in seen)
        self._block = int(span_s / knots.step_s) + 7
        blocks = max(-(-knots.count // self._block), 2)
        knots = replace(knots, count=blocks * self._block)
        self.spline = Spline(knots, np.zeros((knots.count, 3)))
        self.roughness: F64 = np.full(3, 1e3)
        self.noise = 1.0
        self._rough = self._rough_chain()
        gains = [s.own_gain() for s in seen]
        self._gain = sum(float(g.sum()) for g, _ in gains)
        self._told = sum(float(r.sum()) for _, r in gains)

    def solve(self, link: Link | None = None, seen: Sequence[Seen] | None = None) -> Solved:
        """Best motion about `self.spline`; the link's best step beside it.

        Args:
            link: Instead of the one held.
            seen: Instead of all.
        """
        return self._solved(self._normal(link or self.link, self._seen if seen is None else seen))

    def score(self, solved: Solved) -> tuple[F64, F64, F64]:
        """What each pair of the second camera says of the offset, motion and axes adapted.

        Returns:
            (how its vectors move with the offset, their weighted residuals, how these grow with the
            offset), each (K, 5, 3), the camera's own axis last.
        """
        tall = _Tall.of(self._seen[1], self.link, self.spline, self.noise)
        along = solved.spread[:, OFFSET] / solved.spread[OFFSET, OFFSET]
        near = tall.first[:, None] + np.arange(tall.by_motion.shape[2] // 3)
        motion = (solved.lever @ along)[near].reshape(len(near), -1)
        moves = tall.by_all @ along
        apart = moves - np.einsum("kij,kj->ki", tall.by_motion, motion)
        grows = np.einsum("kij,kj->ki", self._seen[1].weight / self.noise**2, apart)
        shape = (-1, PARTS, 3)
        return moves.reshape(shape), tall.residual.reshape(shape), grows.reshape(shape)

    def find_roughness(self) -> None:
        """The most likely roughness about each axis: one golden search after the other."""
        normal = self._normal(self.link, self._seen)
        for axis in range(3):
            middle = float(np.log(self.roughness[axis]))
            low, high = np.clip([middle - REACH, middle + REACH], *ROUGHNESS_LOG)

            def surprise(value: float, axis: int = axis) -> float:
                self.roughness[axis] = np.exp(value)
                return self._solved(normal).surprise

            self.roughness[axis] = np.exp(_golden(surprise, float(low), float(high)))

    def find_noise(self) -> None:
        """Scale of the points' noise at which the misfit is what it should be."""
        solved = self.solve()
        self.noise *= float(np.sqrt(max(solved.misfit / max(solved.told - LINKED, 1.0), 1e-6)))

    def _normal(self, link: Link, seen: Sequence[Seen]) -> _Normal:
        count = self.spline.knots.count // self._block
        normal = _Normal.empty(count, 3 * self._block, link)
        for part, to, linked in zip(
            seen, (Link(0.0, np.eye(3)), link), (False, True), strict=False
        ):
            tall = _Tall.of(part, to, self.spline, self.noise)
            tall.add_to(normal, self._block, linked=linked)
        return normal

    def _solved(self, normal: _Normal) -> Solved:
        prior = self._rough.scaled(np.tile(1.0 / self.roughness, self._block))
        prior = Chain(prior.diagonal + RIDGE * np.eye(3 * self._block), prior.beside)
        right = normal.right.copy()
        now = self.spline.values.reshape(*right.shape[:2], 1)
        pull = prior.times(now)
        right[:, :, :1] -= pull
        solution, logdet = Chain.of_spans(normal.spans).plus(prior).solve(right)
        best, lever = solution[:, :, 0], solution[:, :, 1:]
        half = normal.half + 0.5 * float(np.sum(pull * now) - np.sum(right[:, :, 0] * best))
        mixed = right[:, :, 1:]
        spread, step = np.zeros((LINKED, LINKED)), np.zeros(LINKED)
        if normal.linked:
            spread = np.linalg.inv(normal.own - np.einsum("bmi,bmj->ij", mixed, lever))
            step = -spread @ (normal.own_slope + np.einsum("bmi,bm->i", mixed, best))
        knots = self.spline.knots
        surprise = half + 0.5 * logdet + 0.5 * (knots.count - 3) * np.log(self.roughness).sum()
        values = self.spline.values + (best - lever @ step).reshape(-1, 3)
        misfit = self._gain / self.noise**2 + 2.0 * half
        return Solved(
            Spline(knots, values), float(surprise), step, spread, misfit, self._told,
            lever.reshape(-1, 3, LINKED),
        )  # fmt: skip

    def _rough_chain(self) -> Chain:
        """Squared jerk of the spline over time, at roughness 1."""
        knots, block = self.spline.knots, self._block
        third = np.kron(np.array([-1.0, 3.0, -3.0, 1.0]), np.eye(3)).reshape(3, 12)
        bend = third.T @ third / knots.step_s**5
        spans = np.zeros((knots.count // block - 1, 6 * block, 6 * block))
        for first in range(knots.count - 3):
            i = min(first // block, len(spans) - 1)
            at = slice(3 * (first - i * block), 3 * (first - i * block) + 12)
            spans[i, at, at] += bend
        return Chain.of_spans(spans)


@dataclass(slots=True)
class _Normal:
    """Normal equations of all pairs: motion (spans, right side), link, and between them."""

    spans: F64
    right: F64
    own: F64
    own_slope: F64
    half: float = 0.0
    linked: bool = False

    @classmethod
    def empty(cls, blocks: int, size: int, link: Link) -> _Normal:
        own, slope = np.zeros((LINKED, LINKED)), np.zeros(LINKED)
        own[SCALE, SCALE] = SCALE_PRIOR
        slope[SCALE] = SCALE_PRIOR * (link.scale - 1.0)
        spans = np.zeros((blocks - 1, 2 * size, 2 * size))
        return cls(spans, np.zeros((blocks, size, 1 + LINKED)), own, slope)


@dataclass(frozen=True, slots=True)
class _Tall:
    """A camera's pairs in terms of spline and link, both about where they stand."""

    first: I64
    by_knots: F64
    knots_slope: F64
    mixed: F64
    by_link: F64
    link_slope: F64
    half: float
    by_motion: F64
    by_all: F64
    residual: F64

    @classmethod
    def of(cls, seen: Seen, link: Link, spline: Spline, noise: float) -> _Tall:
        first, weights = _pair_weights(seen, link, spline.knots)
        near = spline.values[first[:, None] + np.arange(weights.shape[2])]
        turning = link.scale * link.axes
        vectors = np.einsum("kpw,kwa,ba->kpb", weights[:, :PARTS], near, turning)
        faster = np.einsum("kpw,kwa,ba->kpb", weights[:, PARTS:], near, turning)
        weight, slope = seen.weight / noise**2, seen.slope / noise**2
        count = len(first)
        apart = vectors.reshape(count, -1) - seen.motion
        bent = np.einsum("kij,kj->ki", weight, apart)
        half = float(np.sum(apart * (slope + 0.5 * bent)))
        slope = slope + bent
        link_by = np.zeros((count, PARTS, 3, LINKED))
        link_by[..., OFFSET] = faster
        x, y, z = np.moveaxis(vectors, 2, 0)
        none = np.zeros_like(x)
        # A small turn e of the axes moves a vector v by e x v.
        link_by[..., AXES] = np.stack(
            [np.stack(row, axis=-1) for row in ((none, z, -y), (-z, none, x), (y, -x, none))],
            axis=2,
        )
        link_by[..., SCALE] = vectors / link.scale
        flat = link_by.reshape(count, 3 * PARTS, LINKED)
        turned = np.einsum("kpw,ab->kpawb", weights[:, :PARTS], turning)
        by = turned.reshape(count, 3 * PARTS, -1)
        wide = np.swapaxes(by, 1, 2) @ weight
        weighted = np.swapaxes(flat, 1, 2) @ weight
        return cls(
            first, wide @ by, np.einsum("kij,ki->kj", by, slope), wide @ flat, weighted @ flat,
            np.einsum("kij,ki->kj", flat, slope), half, by, flat, slope,
        )  # fmt: skip

    def add_to(self, normal: _Normal, block: int, *, linked: bool) -> None:
        """Scatter into blocks of `block` knots."""
        spans, flat = normal.spans, normal.right.reshape(-1, 1 + LINKED)
        normal.half += self.half
        if linked:
            normal.linked = True
            normal.own += self.by_link.sum(axis=0)
            normal.own_slope += self.link_slope.sum(axis=0)
        width = self.by_knots.shape[1]
        for k, first in enumerate(self.first.tolist()):
            i = min(first // block, len(spans) - 1)
            low = 3 * (first - i * block)
            spans[i, low : low + width, low : low + width] += self.by_knots[k]
            flat[3 * first : 3 * first + width, 0] -= self.knots_slope[k]
            if linked:
                flat[3 * first : 3 * first + width, 1:] += self.mixed[k]


def _pair_weights(seen: Seen, link: Link, knots: Knots) -> tuple[I64, F64]:
    """(first knot (K,), weights (K, 10, W)): the five vectors, then how each grows with time."""
    first_a, a = knots.weights(seen.first_s + link.offset_s)
    first_b, b = knots.weights(seen.next_s + link.offset_s)
    width = int((first_b - first_a).max()) + 4
    first = np.minimum(first_a, knots.count - width)
    out = np.zeros((len(first), 2 * PARTS, width))
    rows, four = np.arange(len(first))[:, None], np.arange(4)
    at_a, at_b = (first_a - first)[:, None] + four, (first_b - first)[:, None] + four
    for derivative in (0, 1):
        base = PARTS * derivative
        out[rows, base, at_a] -= a[:, derivative]
        out[rows, base, at_b] += b[:, derivative]
        for vector, (at, own, order) in enumerate(
            ((at_a, a, 1), (at_a, a, 2), (at_b, b, 1), (at_b, b, 2)), start=1
        ):
            out[rows, base + vector, at] += own[:, order + derivative]
    return first, out


def motion_of(seen_first_s: F64, seen_next_s: F64, spline: Spline) -> F64:
    """The five vectors (K, 15) of pairs, as the spline has them."""
    none = np.zeros((len(seen_first_s), 0))
    pairs = Seen(seen_first_s, seen_next_s, none, none, none)
    first, weights = _pair_weights(pairs, Link(0.0, np.eye(3)), spline.knots)
    near = spline.values[first[:, None] + np.arange(weights.shape[2])]
    vectors = np.einsum("kpw,kwa->kpa", weights[:, :PARTS], near)
    return np.asarray(vectors.reshape(len(first), -1))


def _golden(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a valley is lowest, to a fiftieth of the way."""
    share = (np.sqrt(5.0) - 1.0) / 2.0
    one, two = high - share * (high - low), low + share * (high - low)
    at_one, at_two = value(one), value(two)
    for _ in range(7):
        if at_one < at_two:
            high, two, at_two = two, one, at_one
            one = high - share * (high - low)
            at_one = value(one)
        else:
            low, one, at_one = one, two, at_two
            two = low + share * (high - low)
            at_two = value(two)
    return float((low + high) / 2)
