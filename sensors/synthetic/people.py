"""Pedestrians: a walking skeleton and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.sensors.synthetic.mesh import Colour
from syncline.sensors.synthetic.surfaces import Map, Surface

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]

(HEAD, NECK, CHEST, PELVIS, SHOULDER_L, SHOULDER_R, ELBOW_L, ELBOW_R, HAND_L, HAND_R, HIP_L, HIP_R,
 KNEE_L, KNEE_R, FOOT_L, FOOT_R, TOE_L, TOE_R, TOP) = range(19)  # fmt: skip
JOINTS = 19
SKIN, HAIR, UPPER, LOWER, SHOE = range(5)
_SKINS: tuple[Colour, ...] = ((150, 180, 222), (110, 146, 196), (74, 104, 150), (52, 70, 104))
_HAIRS: tuple[Colour, ...] = ((30, 34, 40), (48, 72, 104), (70, 70, 72), (26, 30, 60))

# (from, to, radius at either end in metres, part), drawn in this order.
_LIMBS: tuple[tuple[int, int, float, float, int], ...] = (
    (SHOULDER_R, ELBOW_R, 0.062, 0.05, UPPER), (ELBOW_R, HAND_R, 0.046, 0.042, SKIN),
    (HIP_R, KNEE_R, 0.098, 0.07, LOWER), (KNEE_R, FOOT_R, 0.066, 0.05, LOWER),
    (FOOT_R, TOE_R, 0.055, 0.045, SHOE),
    (HIP_L, KNEE_L, 0.098, 0.07, LOWER), (KNEE_L, FOOT_L, 0.066, 0.05, LOWER),
    (FOOT_L, TOE_L, 0.055, 0.045, SHOE),
    (PELVIS, CHEST, 0.155, 0.185, UPPER), (CHEST, NECK, 0.18, 0.07, UPPER),
    (SHOULDER_L, ELBOW_L, 0.062, 0.05, UPPER), (ELBOW_L, HAND_L, 0.046, 0.042, SKIN),
    (NECK, HEAD, 0.06, 0.06, SKIN),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Person:
    """Looks and gait of one pedestrian.

    Attributes:
        height_m: Body height.
        colours: BGR of skin, hair, upper body, legs, shoes.
        girth: Scale of the limbs' thickness.
        phase_rad: Gait phase at time 0.
    """

    height_m: float
    colours: tuple[Colour, ...]
    girth: float
    phase_rad: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Person:
        """Anybody."""
        upper = 0.55 * rng.uniform(25, 215, 3) + 0.45 * rng.uniform(25, 200)
        lower = rng.uniform(25, 120) + rng.uniform(-12, 24, 3)
        return cls(
            float(rng.uniform(1.5, 1.92)) if rng.random() > 0.12 else float(rng.uniform(1.05, 1.4)),
            (
                _SKINS[int(rng.integers(len(_SKINS)))],
                _HAIRS[int(rng.integers(len(_HAIRS)))],
                (float(upper[0]), float(upper[1]), float(upper[2])),
                (float(lower[0]), float(lower[1]), float(lower[2])),
                (40.0, 40.0, 44.0),
            ),
            float(rng.uniform(0.9, 1.25)),
            float(rng.uniform(0, 2 * np.pi)),
        )

    def joints(self, walked_m: float, moving: bool) -> Floats:
        """Joints (19, 3) in the body's frame: x forward, y left, z up, after `walked_m`."""
        phase = self.phase_rad + walked_m * (2 * np.pi / (0.85 * self.height_m))
        swing = 0.5 if moving else 0.04
        z = np.zeros((JOINTS, 3))
        bob = 0.015 * abs(np.cos(phase)) if moving else 0.0
        z[HEAD], z[TOP] = (0.03, 0, 0.925 + bob), (0.02, 0, 1.0 + bob)
        z[NECK], z[CHEST], z[PELVIS] = (0, 0, 0.845 + bob), (0, 0, 0.75 + bob), (0, 0, 0.54 + bob)
        for side, hip, knee, foot, toe, shoulder, elbow, hand in (
            (1.0, HIP_L, KNEE_L, FOOT_L, TOE_L, SHOULDER_L, ELBOW_L, HAND_L),
            (-1.0, HIP_R, KNEE_R, FOOT_R, TOE_R, SHOULDER_R, ELBOW_R, HAND_R),
        ):
            angle = swing * np.sin(phase + (0 if side > 0 else np.pi))
            bend = swing * 1.1 * max(0.0, np.cos(phase + (0 if side > 0 else np.pi)))
            z[hip] = (0, side * 0.055, 0.52 + bob)
            z[knee] = z[hip] + 0.245 * np.array([np.sin(angle), 0, -np.cos(angle)])
            shin = angle - bend
            z[foot] = z[knee] + 0.24 * np.array([np.sin(shin), 0, -np.cos(shin)])
            z[toe] = z[foot] + np.array([0.085, 0, -0.012])
            z[shoulder] = (0, side * 0.115, 0.815 + bob)
            arm = -0.8 * angle
            z[elbow] = z[shoulder] + 0.175 * np.array([np.sin(arm), side * 0.12, -np.cos(arm)])
            lower = arm + 0.35
            z[hand] = z[elbow] + 0.16 * np.array([np.sin(lower), 0.0, -np.cos(lower)])
        return z * self.height_m


def draw_person(out: Image, pixels: Floats, px_per_m: float, person: Person, gain: float) -> None:
    """Draw a projected skeleton.

    Args:
        out: Picture, changed.
        pixels: Joints (19, 2).
        px_per_m: Scale at the person's distance.
        person: Looks.
        gain: Factor on coded colours.
    """
    colours = [tuple(min(c * gain, 255.0) for c in colour) for colour in person.colours]
    _draw(out, pixels, px_per_m, person, colours, cv2.LINE_AA)


def mark_person(surfaces: Map, pixels: Floats, px_per_m: float, person: Person) -> None:
    """Fill a projected skeleton into a map of surfaces; arguments as for `draw_person`."""
    value = [(float(Surface.PERSON),)] * len(person.colours)
    _draw(surfaces, pixels, px_per_m, person, value, cv2.LINE_8)


def _draw(
    out: Image,
    pixels: Floats,
    px_per_m: float,
    person: Person,
    colours: Sequence[tuple[float, ...]],
    line: int,
) -> None:
    thick = px_per_m * person.girth
    for start, end, r_start, r_end, part in _LIMBS:
        ends = (pixels[start], pixels[end])
        capsule(out, *ends, r_start * thick, r_end * thick, colours[part], line)
    size = px_per_m * person.height_m / 1.75
    _disc(out, pixels[HEAD], 0.105 * size, colours[SKIN], line)
    crown = pixels[HEAD] * 0.45 + pixels[TOP] * 0.55
    _disc(out, crown, 0.098 * size, colours[HAIR], line)


def capsule(
    out: Image,
    a: Floats,
    b: Floats,
    r_a: float,
    r_b: float,
    colour: tuple[float, ...],
    line: int = cv2.LINE_AA,
) -> None:
    """Fill a limb between two round ends."""
    along = b - a
    length = float(np.hypot(along[0], along[1]))
    if length > 1e-6:
        across = np.array([-along[1], along[0]]) / length
        quad = np.array([a + across * r_a, b + across * r_b, b - across * r_b, a - across * r_a])
        cv2.fillConvexPoly(out, np.rint(quad * 16).astype(np.int32), colour, line, 4)
    if r_b > 0.7:
        _disc(out, b, r_b, colour, line)
    if r_a > 0.7:
        _disc(out, a, r_a, colour, line)


def _disc(
    out: Image, centre: Floats, radius_px: float, colour: tuple[float, ...], line: int
) -> None:
    x, y = round(float(centre[0]) * 16), round(float(centre[1]) * 16)
    cv2.circle(out, (x, y), max(round(radius_px * 16), 6), colour, -1, line, 4)
