"""Time offset between two cameras from their pictures alone: the motion both saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError
from syncline.sensors.band_offset import cells_of
from syncline.sensors.calibrate import (
    LEAST_FRAMES,
    SIGMA_FLOOR_NS,
    OffsetEstimate,
    Turning,
    checked,
    first_guess_from,
)
from syncline.sensors.frame import FrameTime
from syncline.sensors.joint_motion import OFFSET, JointMotion, Link, Seen
from syncline.sensors.picture_offset import followed_points, tables_of
from syncline.sensors.rotation import Followed, pair_rotation
from syncline.sensors.seen_motion import see_motion
from syncline.sensors.spline import Knots, Spline

F64 = NDArray[np.float64]

KNOTS_A_FRAME = 4
LONGEST_PAIR = 2.5
"""Pairs over a longer gap, in frame intervals, tell little of the motion between."""
BLOCKS = 24
LEAST_BLOCKS = 4
ROUNDS = 12
SETTLED = 0.01
MARGIN_S = 0.05


@dataclass(frozen=True, slots=True)
class CameraPictures:
    """A camera's part of a recording.

    Attributes:
        times: Time of each frame (N).
        followed: Corners followed between neighbouring frames (N-1), see `follow_corners`.
        K: Camera matrix (3, 3).
        distortion: OpenCV coefficients; empty = none.
        turns: Rotations (N-1, 3) by `pair_rotation`, where they are at hand.
    """

    times: Sequence[FrameTime]
    followed: Sequence[Followed]
    K: ArrayLike
    distortion: ArrayLike = ()
    turns: ArrayLike | None = None


def calibrate_camera_pictures(
    camera: CameraPictures,
    other: CameraPictures,
    *,
    search_ns: int = 200_000_000,
    max_sigma_ns: float = 1_000_000.0,
) -> OffsetEstimate:
    """Time offset of another camera that is fixed to the first: t_other = t_cam + offset.

    Both may move among near things, with any shutter: see `syncline.sensors.joint_motion`. Fast
    shaking, which frames cannot tell from slower, counts little (`syncline.sensors.band_offset`).
    Sigma is at least the likelihood's, and wider by how much bands, axes and blocks of time
    disagree (jackknife), and by what of the other's turning neither the first camera nor noise
    explains; it includes what the frame times are unsure of.

    Args:
        camera: The first.
        other: The other.
        search_ns: The offset is looked for within plus or minus this.
        max_sigma_ns: Refuse an answer less sure than this.

    Returns:
        The offset; `axes` turns the other camera's rotation into the first one's axes, `explained`
        is the share of the other's turning that the first one's pictures alone foretell.

    Raises:
        SensorDataError: See `calibrate_offset`.

    Memory: 30 kB a pair of pictures.
    """
    zero_ns = camera.times[0].centre_ns() if camera.times else 0
    ours, theirs = _look(camera, zero_ns), _look(other, zero_ns)
    turns = theirs.seen.motion[:, :3]
    first = first_guess_from(
        theirs.seen.first_s, theirs.seen.next_s, turns, ours.turning(), search_ns * 1e-9
    )
    fit = _PairOfCameras(ours, theirs, Link(first.offset_ns * 1e-9, first.axes))
    fit.search()
    fit.settle()
    common_ns = [float(np.median([t.sigma_ns for t in c.times])) for c in (camera, other)]
    return checked(fit.estimate(math.hypot(*common_ns)), max_sigma_ns)


def through_imu(camera: OffsetEstimate, other: OffsetEstimate) -> OffsetEstimate:
    """The offset of another camera, t_other = t_cam + offset, from both cameras' to one IMU.

    What the IMU's own time is off by cancels.

    Args:
        camera: t_imu - t_cam.
        other: t_imu - t_other.
    """
    return OffsetEstimate(
        camera.offset_ns - other.offset_ns,
        math.hypot(camera.sigma_ns, other.sigma_ns),
        camera.axes @ np.linalg.inv(other.axes),
        np.zeros(3),
        max(camera.residual_rad, other.residual_rad),
        min(camera.explained, other.explained),
        min(camera.intervals, other.intervals),
    )


@dataclass(frozen=True, slots=True)
class _Looked:
    """What a camera saw, and its own best motion."""

    seen: Seen
    spline: Spline
    period_s: float

    def turning(self) -> Turning:
        """Its own motion on the knots' grid."""
        knots = self.spline.knots
        t_s = np.asarray(knots.zero_s + knots.step_s * np.arange(knots.count - 3), np.float64)
        return Turning(t_s, *self.spline.at(t_s))


def _look(camera: CameraPictures, zero_ns: int) -> _Looked:
    K = np.asarray(camera.K, dtype=np.float64)
    if len(camera.times) < LEAST_FRAMES or len(camera.followed) != len(camera.times) - 1:
        raise SensorDataError(
            f"calibrate: {len(camera.times)} frames and {len(camera.followed)} followed pairs "
            "do not fit",
            remedy=f"Give at least {LEAST_FRAMES} frames and one pair less",
        )
    centres = np.array([time.centre_ns() for time in camera.times], np.int64)
    turns = camera.turns
    if turns is None:
        turns = [pair_rotation(pair, K, camera.distortion) for pair in camera.followed]
    period_s = float(np.median(np.diff(centres))) * 1e-9
    points = followed_points(camera.times, camera.followed, K, camera.distortion, zero_ns)
    kept = [
        (pair, turn)
        for pair, turn in zip(points, np.asarray(turns, dtype=np.float64), strict=True)
        if pair is not None and pair.next_s[0] - pair.centre_s[0] < LONGEST_PAIR * period_s
    ]
    if len(kept) < LEAST_FRAMES - 1:
        raise SensorDataError(
            "calibrate: too few neighbouring pictures with corners",
            remedy="Record by daylight, without losing frames",
        )
    tables = list(tables_of(pair for pair, _ in kept))
    focal_px = float(K[0, 0])
    step_s = period_s / KNOTS_A_FRAME
    seen, spline = see_motion(tables, np.array([turn for _, turn in kept]), focal_px, step_s)
    return _Looked(seen, spline, period_s)


class _PairOfCameras:
    """The search for the offset: the second camera's link to the first."""

    def __init__(self, ours: _Looked, theirs: _Looked, link: Link) -> None:
        low_s, high_s = ours.seen.first_s.min(), ours.seen.next_s.max()
        first_s, next_s = (t + link.offset_s for t in (theirs.seen.first_s, theirs.seen.next_s))
        inside = (first_s > low_s - MARGIN_S) & (next_s < high_s + MARGIN_S)
        theirs_seen = theirs.seen.only(inside)
        step_s = min(ours.period_s, theirs.period_s) / KNOTS_A_FRAME
        knots = Knots.over(low_s - 4 * MARGIN_S, high_s + 4 * MARGIN_S, step_s)
        self._seen = [ours.seen, theirs_seen]
        self._ours, self._period_s = ours, max(ours.period_s, theirs.period_s)
        self.joint = JointMotion(self._seen, knots, link)
        self.joint.spline = _resampled(ours.spline, self.joint.spline.knots)

    def search(self) -> None:
        """The likeliest of the offsets about the first guess: aliasing makes several valleys."""
        self.joint.find_roughness()
        middle = self.joint.link
        tried = [
            Link(middle.offset_s + share * self._period_s, middle.axes, middle.scale)
            for share in np.linspace(-1.0, 1.0, 17)
        ]
        surprise = [self.joint.solve(link).surprise for link in tried]
        self.joint.link = tried[int(np.argmin(surprise))]

    def settle(self) -> None:
        """Motion, link, roughness and noise in turns."""
        for turn in range(ROUNDS):
            solved = self.joint.solve()
            step = solved.step.copy()
            step[OFFSET] = np.clip(step[OFFSET], -0.005, 0.005)
            self.joint.link = self.joint.link.moved(step)
            self.joint.spline = solved.spline
            if turn in (2, 5):
                self.joint.find_roughness()
                self.joint.find_noise()
            elif turn > 5 and step[OFFSET] ** 2 < solved.spread[OFFSET, OFFSET] * SETTLED**2:
                break

    def estimate(self, common_ns: float) -> OffsetEstimate:
        """The offset, t_other = t_cam - link's offset, with its uncertainty."""
        solved = self.joint.solve()
        variance = float(solved.spread[OFFSET, OFFSET])
        score = self.joint.score(solved)
        cells = cells_of(*score, variance, self._period_s)
        step_s, sigma_s = cells.combined()
        sigma_s *= max(1.0, self._jackknife() / math.sqrt(variance))
        link = self.joint.link
        missed, explained = self._foretold()
        model_s = self._unmodelled() * cells.spread(missed, score[0][:, 0])
        sigma_ns = math.hypot(1e9 * sigma_s, 1e9 * model_s, common_ns)
        return OffsetEstimate(
            round(-(link.offset_s + step_s) * 1e9),
            max(sigma_ns, SIGMA_FLOOR_NS) if math.isfinite(sigma_ns) else math.inf,
            link.axes.T / link.scale,
            np.zeros(3),
            float(np.sqrt(np.mean(missed**2))),
            explained,
            len(self._seen[1].first_s),
        )

    def _unmodelled(self) -> float:
        """Share (of a deviation) of what is left that the noise of the points does not explain.

        It may move in step with the offset, and does not average out with time: only over bands and
        axes, where its signs are independent.
        """
        return math.sqrt(max(0.0, 1.0 - 1.0 / self.joint.noise**2))

    def _foretold(self) -> tuple[F64, float]:
        """(what the first camera's own motion misses of the other's turns (K, 3), share found)."""
        seen, link = self._seen[1], self.joint.link
        a = self._ours.spline.at(seen.first_s + link.offset_s)[0]
        b = self._ours.spline.at(seen.next_s + link.offset_s)[0]
        turns = seen.motion[:, :3]
        missed = turns - link.scale * (b - a) @ link.axes.T
        power = float(np.sum((turns - turns.mean(axis=0)) ** 2))
        share = 1.0 - float(np.sum(missed**2)) / power if power > 0.0 else 0.0
        return missed, share

    def _jackknife(self) -> float:
        """Spread of one more step when a block of time is left out of both, seconds."""
        ours, theirs = self._seen
        at_s = [ours.first_s, theirs.first_s + self.joint.link.offset_s]
        blocks = min(BLOCKS, len(theirs.first_s) // 3)
        if blocks < LEAST_BLOCKS:
            return math.inf
        low_s, high_s = at_s[1].min(), at_s[1].max() + 1e-6
        edges = np.linspace(low_s, high_s, blocks + 1)
        steps = []
        for begin, end in pairwise(edges.tolist()):
            rest = [
                seen.only((t < begin) | (t >= end))
                for seen, t in zip(self._seen, at_s, strict=True)
            ]
            steps.append(self.joint.solve(seen=rest).step[OFFSET])
        return math.sqrt((blocks - 1) / blocks * float(np.sum((steps - np.mean(steps)) ** 2)))


def _resampled(spline: Spline, knots: Knots) -> Spline:
    """About the same curve on other knots: a knot's value is nearly the curve's, one knot on."""
    t_s = knots.zero_s + knots.step_s * (np.arange(knots.count) - 1.0)
    ends = spline.knots.zero_s, spline.knots.zero_s + spline.knots.step_s * (spline.knots.count - 3)
    return Spline(knots, spline.at(np.clip(t_s, *ends))[0])
