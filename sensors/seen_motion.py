"""What a camera's followed points tell of its motion, pair by pair; near things and rows allowed.

As `syncline.sensors.epipolar`, but without a gyro: the motion itself is unknown. Each pair's own
translation is eliminated, what is left is a quadratic in how the camera turned between the pictures
and while each of them was read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from syncline.sensors.epipolar import PairSet, Points, cross_matrix, turned
from syncline.sensors.joint_motion import PARTS, JointMotion, Seen, motion_of
from syncline.sensors.spline import Knots, Spline

F64 = NDArray[np.float64]

ROUNDS = 3
MARGIN_S = 0.3
"""The motion is known this far beyond the pictures, so far as it can be."""


def see_motion(
    tables: Sequence[Points], pair_turns: F64, focal_px: float, step_s: float
) -> tuple[Seen, Spline]:
    """(what the pairs tell, their own best motion); all times on the camera's clock.

    Args:
        tables: Followed points.
        pair_turns: Rotation vectors (K, 3) of the pairs to begin from; rows may be NaN.
        focal_px: To speak of noise in pixels.
        step_s: Between the knots of the motion.
    """
    first_s = np.concatenate([table.centre_s[table.start] for table in tables])
    next_s = np.concatenate([table.next_s[table.start] for table in tables])
    knots = Knots.over(first_s.min() - MARGIN_S, next_s.max() + MARGIN_S, step_s)
    joint = JointMotion([_first_look(first_s, next_s, pair_turns)], knots)
    spline = joint.solve().spline
    sets = [PairSet(table, focal_px) for table in tables]
    for _ in range(ROUNDS):
        parts = [
            pairs.normal(*_linear(table, spline)) for table, pairs in zip(tables, sets, strict=True)
        ]
        seen = Seen(
            first_s, next_s, motion_of(first_s, next_s, spline),
            np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]),
        )  # fmt: skip
        roughness = joint.roughness
        joint = JointMotion([seen], knots)
        joint.roughness, joint.spline = roughness, Spline(joint.spline.knots, spline.values)
        joint.find_roughness()
        spline = joint.solve().spline
    return seen, spline


def _first_look(first_s: F64, next_s: F64, pair_turns: F64) -> Seen:
    """The pairs' own rotations, a milliradian unsure."""
    count = len(first_s)
    known = np.asarray(np.isfinite(pair_turns).all(axis=1))
    motion, weight = np.zeros((count, 3 * PARTS)), np.zeros((count, 3 * PARTS, 3 * PARTS))
    motion[:, :3] = np.where(known[:, None], pair_turns, 0.0)
    weight[:, :3, :3] = np.where(known, 1e6, 0.0)[:, None, None] * np.eye(3)
    return Seen(first_s, next_s, motion, weight, np.zeros((count, 3 * PARTS)))


def _linear(table: Points, spline: Spline) -> tuple[F64, F64, F64]:
    """(b - a, a, derivative of b - a by the pair's five vectors (P, 3, 15)), all turned back."""
    centre, _ = spline.at(table.centre_s)
    a = turned(spline.at(table.a_s)[0] - centre, table.a)
    b = turned(spline.at(table.b_s)[0] - centre, table.b)
    by_a, by_b = -cross_matrix(a), -cross_matrix(b)
    row_a = (table.a_s - table.centre_s)[:, None, None]
    row_b = (table.b_s - table.next_s)[:, None, None]
    slope = np.concatenate(
        [by_b, -row_a * by_a, -0.5 * row_a**2 * by_a, row_b * by_b, 0.5 * row_b**2 * by_b], axis=2
    )
    return b - a, a, slope
