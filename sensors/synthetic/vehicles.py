"""Models of vehicles: sedan, hatchback, SUV, van, box truck and bus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from syncline.sensors.synthetic.mesh import Colour, Mesh, MeshBuilder
from syncline.sensors.synthetic.surfaces import Surface

GLASS: Colour = (74.0, 64.0, 54.0)
TYRE: Colour = (34.0, 33.0, 33.0)
RIM: Colour = (140.0, 140.0, 138.0)
PAINTS: tuple[Colour, ...] = (
    (226, 228, 228), (40, 38, 38), (150, 152, 150), (98, 96, 94), (44, 40, 168), (148, 84, 36),
    (116, 60, 28), (60, 88, 44), (70, 142, 196), (52, 176, 214), (190, 190, 176), (60, 54, 92),
)  # fmt: skip
HEADLAMP = 6.0
TAILLAMP = 0.5


@dataclass(frozen=True, slots=True)
class Shape:
    """Side view of a car: body sections, then the cabin's base and roof.

    Attributes:
        body: Sections (x, z_low, z_high, half_width), front to back.
        base: (front x, back x, z, half width) of the cabin's base.
        roof: The same of its roof.
        wheels: x of the front and the back axle.
        wheel_m: Wheel radius.
    """

    body: tuple[tuple[float, float, float, float], ...]
    base: tuple[float, float, float, float]
    roof: tuple[float, float, float, float]
    wheels: tuple[float, float] = (1.4, -1.4)
    wheel_m: float = 0.33


SEDAN = Shape(
    ((2.32, 0.36, 0.62, 0.72), (2.12, 0.24, 0.76, 0.88), (0.95, 0.2, 0.95, 0.91),
     (-1.5, 0.2, 1.0, 0.91), (-2.2, 0.26, 0.98, 0.87), (-2.34, 0.4, 0.86, 0.8)),
    (1.0, -1.85, 0.96, 0.83), (0.2, -1.1, 1.45, 0.6),
)  # fmt: skip
HATCH = Shape(
    ((1.95, 0.34, 0.66, 0.72), (1.78, 0.24, 0.8, 0.85), (0.95, 0.2, 0.98, 0.88),
     (-1.75, 0.22, 1.02, 0.88), (-1.95, 0.34, 0.9, 0.84)),
    (1.05, -1.86, 0.98, 0.81), (0.25, -1.5, 1.5, 0.62), (1.25, -1.25), 0.31,
)  # fmt: skip
SUV = Shape(
    ((2.3, 0.46, 0.84, 0.8), (2.12, 0.32, 0.98, 0.93), (1.0, 0.3, 1.12, 0.96),
     (-2.1, 0.3, 1.15, 0.96), (-2.3, 0.44, 1.05, 0.9)),
    (1.1, -2.2, 1.12, 0.88), (0.35, -1.9, 1.72, 0.7), (1.42, -1.42), 0.38,
)  # fmt: skip
VAN = Shape(
    ((2.5, 0.4, 0.95, 0.84), (2.3, 0.3, 1.12, 0.96), (1.75, 0.28, 1.3, 0.98),
     (-2.5, 0.3, 1.35, 0.98), (-2.6, 0.4, 1.3, 0.95)),
    (1.8, -2.55, 1.28, 0.94), (1.05, -2.5, 2.2, 0.84), (1.65, -1.6), 0.36,
)  # fmt: skip
CARS = (SEDAN, HATCH, SUV, VAN)


def car(shape: Shape, paint: Colour, *, braking: bool = False) -> Mesh:
    """A car of some shape and paint."""
    build = MeshBuilder(Surface.VEHICLE)
    build.loft(shape.body, paint)
    _cabin(build, shape, paint)
    _wheels(build, shape.wheels, shape.wheel_m, shape.body[1][3] - 0.02)
    front, back = shape.body[0], shape.body[-1]
    _lamps(build, front, back, braking)
    return build.build()


def _cabin(build: MeshBuilder, shape: Shape, paint: Colour) -> None:
    front_b, back_b, z_b, w_b = shape.base
    front_r, back_r, z_r, w_r = shape.roof
    base = np.array(
        [(front_b, w_b, z_b), (front_b, -w_b, z_b), (back_b, -w_b, z_b), (back_b, w_b, z_b)]
    )
    roof = np.array(
        [(front_r, w_r, z_r), (front_r, -w_r, z_r), (back_r, -w_r, z_r), (back_r, w_r, z_r)]
    )
    inside = (base.mean(axis=0) + roof.mean(axis=0)) / 2
    build.face(roof, paint, inside=inside)
    for i in range(4):
        j = (i + 1) % 4
        side = np.array([base[i], base[j], roof[j], roof[i]])
        build.face(side, paint, inside=inside)
        across = i in (0, 2)
        for pane in _panes(side, (1,) if across else (1, 2)):
            build.face(pane, GLASS, inside=inside, layer=1)


def _panes(side: np.ndarray, which: tuple[int, ...]) -> list[np.ndarray]:
    """Window panes inset in a cabin side: one, or two with a pillar between."""
    low_a, low_b, high_b, high_a = side

    def at(u: float, v: float) -> np.ndarray:
        low, high = low_a * (1 - u) + low_b * u, high_a * (1 - u) + high_b * u
        return np.asarray(low * (1 - v) + high * v)

    spans = [(0.06, 0.94)] if len(which) == 1 else [(0.08, 0.47), (0.53, 0.92)]
    return [np.array([at(a, 0.1), at(b, 0.1), at(b, 0.9), at(a, 0.9)]) for a, b in spans]


def _wheels(build: MeshBuilder, axles: tuple[float, float], radius_m: float, half_m: float) -> None:
    for x in axles:
        for side in (-1.0, 1.0):
            y = side * (half_m + 0.03)
            inside = (x, 0.0, radius_m)
            build.disc((x, y, radius_m), radius_m, 1, TYRE, inside=inside, layer=1)
            build.disc((x, y * 1.01, radius_m), radius_m * 0.6, 1, RIM, inside=inside, layer=2)
            edge = y - side * 0.2
            tread = [
                (x - 0.24, edge, 0.0),
                (x - 0.24, y, 0.0),
                (x - 0.24, y, 0.4),
                (x - 0.24, edge, 0.4),
            ]
            build.face(tread, TYRE, inside=(x, y, 0.2))


def _lamps(
    build: MeshBuilder,
    front: tuple[float, float, float, float],
    back: tuple[float, float, float, float],
    braking: bool,
) -> None:
    def plate(x: float, y: tuple[float, float], z: tuple[float, float]) -> list[tuple[float, ...]]:
        return [(x, y[0], z[0]), (x, y[1], z[0]), (x, y[1], z[1]), (x, y[0], z[1])]

    x, low, high, half = front
    for side in (-1.0, 1.0):
        span = (side * (half - 0.3), side * half)
        lamp = plate(x + 0.02, span, (high - 0.18, high - 0.02))
        build.face(lamp, (236, 240, 240), inside=(0, 0, 0.5), emission=HEADLAMP, layer=1)
    grille = plate(x + 0.02, (-half * 0.5, half * 0.5), (low + 0.03, high - 0.1))
    build.face(grille, (44, 42, 40), inside=(0, 0, 0.5), layer=1)
    x, low, high, half = back
    glow = TAILLAMP * (5.0 if braking else 1.0)
    for side in (-1.0, 1.0):
        span = (side * (half - 0.28), side * half)
        lamp = plate(x - 0.02, span, (high - 0.26, high - 0.06))
        colour = (50.0, 40.0, 235.0) if braking else (36.0, 30.0, 168.0)
        build.face(lamp, colour, inside=(0, 0, 0.5), emission=glow, layer=1)
    number = plate(x - 0.02, (-0.26, 0.26), (low + 0.1, low + 0.22))
    build.face(number, (214, 220, 222), inside=(0, 0, 0.5), layer=1)


def truck(paint: Colour, cargo: Colour, length_m: float = 7.5) -> Mesh:
    """A box truck; its origin is the middle."""
    build = MeshBuilder(Surface.VEHICLE)
    nose = length_m / 2
    split = nose - 1.9
    build.box((-nose, -1.2, 0.95), (split - 0.15, 1.2, 3.35), cargo)
    build.box((-nose, -1.0, 0.55), (nose - 0.3, 1.0, 0.95), (54, 52, 52))
    build.loft(
        ((nose, 0.5, 1.35, 1.02), (nose - 0.15, 0.45, 1.5, 1.12), (nose - 0.6, 0.45, 2.5, 1.12),
         (split, 0.45, 2.6, 1.12)), paint,
    )  # fmt: skip
    shield = [(nose - 0.16, -0.98, 1.52), (nose - 0.16, 0.98, 1.52),
              (nose - 0.58, 0.98, 2.4), (nose - 0.58, -0.98, 2.4)]  # fmt: skip
    build.face(shield, GLASS, inside=(split, 0, 1.4), layer=1)
    for side in (-1.0, 1.0):
        y = side * 1.13
        pane = [
            (nose - 0.7, y, 1.5),
            (split + 0.35, y, 1.5),
            (split + 0.35, y, 2.3),
            (nose - 0.8, y, 2.3),
        ]
        build.face(pane, GLASS, inside=(split, 0, 1.5), layer=1)
    _wheels(build, (nose - 1.1, -nose + 1.6), 0.46, 1.1)
    _lamps(build, (nose, 0.5, 0.95, 1.0), (-nose, 0.6, 1.3, 1.15), braking=False)
    return build.build()


def bus(paint: Colour, length_m: float = 11.0) -> Mesh:
    """A city bus, labelled as a truck; its origin is the middle."""
    build = MeshBuilder(Surface.VEHICLE)
    nose = length_m / 2
    build.box((-nose, -1.25, 0.35), (nose, 1.25, 3.0), paint)
    for side in (-1.0, 1.0):
        y = side * 1.26
        for x in np.arange(-nose + 0.5, nose - 1.4, 1.5):
            pane = [(x, y, 1.35), (x + 1.3, y, 1.35), (x + 1.3, y, 2.45), (x, y, 2.45)]
            build.face(pane, GLASS, inside=(x, 0, 1.5), layer=1)
    for x, top in ((nose + 0.01, 2.6), (-nose - 0.01, 2.4)):
        pane = [(x, -1.1, 1.3), (x, 1.1, 1.3), (x, 1.1, top), (x, -1.1, top)]
        build.face(pane, GLASS, inside=(0, 0, 1.5), layer=1)
    _wheels(build, (nose - 2.4, -nose + 2.8), 0.48, 1.22)
    _lamps(build, (nose + 0.01, 0.5, 0.95, 1.15), (-nose - 0.01, 0.7, 1.25, 1.15), braking=False)
    return build.build()
