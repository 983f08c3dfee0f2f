"""Does a measurement contradict the own clock? Pure functions of the window and one exchange."""

from __future__ import annotations

import math
from typing import NamedTuple

from syncline.sync.hard import HardInterval
from syncline.sync.line import Edges, Line
from syncline.sync.settings import EstimatorSettings
from syncline.sync.window import Window


class Finding(NamedTuple):
    """By how much (s) an exchange contradicts the own clock; does a shorter path explain it?

    Attributes:
        excess: Contradiction beyond what is forgiven; not positive when there is none.
        shorter: The round trip is shorter than the path known, the own clock lies inside.
    """

    excess: float
    shorter: bool


NOTHING = Finding(0.0, False)


Path = tuple[float, float, float, float]
"""Predicted upper edge and its variance, lower edge and its variance, at the line's time."""


def departure(line: Line, path: Path, e: Edges, wander: float) -> tuple[float, float]:
    """Signed departure of an exchange from the predicted path, and its sigma.

    Positive when the source runs ahead of the prediction, 0 while the exchange fits.
    """
    top, top_var, bottom, bottom_var = path
    dt = abs(e.t - line.t)
    grown = dt * (2.0 * line.xy + dt * line.yy) + wander * wander * dt**3 / 3.0
    move = line.y * (e.t - line.t)
    ahead, behind = e.lower - bottom - move, top + move - e.upper
    noise = e.sigma * e.sigma
    if ahead >= behind:
        return max(ahead, 0.0), math.sqrt(max(bottom_var + grown, 0.0) + noise)
    return -max(behind, 0.0), math.sqrt(max(top_var + grown, 0.0) + noise)


def against_path(
    window: Window,
    name: str,
    e: Edges,
    settings: EstimatorSettings,
    *,
    strict: bool,
    optimism: float = 1.0,
) -> Finding:
    """Judge an exchange against the established path of its source.

    Args:
        window: The own clock.
        name: The source's line.
        e: The exchange.
        settings: Gates.
        strict: The source was caught dragging: forgive only noise.
        optimism: Factor on the sigmas of a clock that has seen little.
    """
    line, path = window.line, window.path(name)
    if line is None:
        return NOTHING
    wander = line.wander if strict else max(line.wander, settings.gate_wander)
    dt = abs(e.t - line.t)
    if path is None:
        grown = wander * wander * dt**3 / 3.0
        sigma = math.sqrt(line.var(e.t) + grown + e.sigma * e.sigma)
        off = max(e.lower - line.at(e.t), line.at(e.t) - e.upper)
        room = settings.gate_sigma * optimism * sigma + settings.gate_floor_s
        return Finding(off - room, False)
    found, sigma = departure(line, path, e, wander)
    distance = abs(found)
    trip = path[0] - path[2]
    room = settings.gate_floor_s + settings.gate_sigma * optimism * sigma
    room += 0.01 * trip if strict else settings.gate_share * trip + settings.gate_rate * dt
    excess = distance - room
    if excess <= 0.0:
        return NOTHING
    shorter = (e.upper - e.lower) < trip - 0.5 * distance
    x = line.at(e.t)
    inside = e.lower - room <= x <= e.upper + room
    return Finding(excess, shorter and inside and not strict)


def against_proof(
    hard: HardInterval, line: Line | None, e: Edges, settings: EstimatorSettings
) -> Finding:
    """Judge an exchange against the hard interval alone: all a young clock may insist on."""
    if not hard.known or line is None:
        return NOTHING
    dt = abs(e.t - hard.t)
    grow = 2.0 * settings.rate_sigma * dt + settings.gate_floor_s
    low, high = hard.low + line.y * dt - grow, hard.high + line.y * dt + grow
    return Finding(max(e.lower - high, low - e.upper), False)
