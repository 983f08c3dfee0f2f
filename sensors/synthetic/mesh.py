"""Small polygon models: what a model is, and how one is built from lofts, boxes and plates."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.sensors.synthetic.surfaces import Surface

CORNERS = 8
"""Corners kept per face; a face with fewer repeats its last one."""

Floats = NDArray[np.float64]
Colour = tuple[float, float, float]
"""BGR, as seen in full daylight, 0..255."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Flat faces in metres: x forward, y left, z up, origin on the ground.

    Attributes:
        points_m: Corners (V, 3).
        faces: Indices into them (F, 8).
        colours: BGR (F, 3), 0..255.
        emission: Light that a face gives off itself (F,); 0 = none.
        normals: Outward unit normals (F, 3); zero = seen from both sides, evenly lit.
        layers: Faces of a higher layer lie on those below (F,).
        surfaces: What each face is of (F,), values of `Surface`.
    """

    points_m: Floats
    faces: NDArray[np.int64]
    colours: Floats
    emission: Floats
    normals: Floats
    layers: Floats
    surfaces: NDArray[np.uint8]

    def placed(self, x_m: float, y_m: float, heading_rad: float, z_m: float = 0.0) -> Mesh:
        """The mesh turned by `heading_rad` and moved to world (x, y, z)."""
        turn = rotation(heading_rad)
        return Mesh(
            self.points_m @ turn.T + np.array([x_m, y_m, z_m]),
            self.faces,
            self.colours,
            self.emission,
            self.normals @ turn.T,
            self.layers,
            self.surfaces,
        )


def rotation(heading_rad: float) -> Floats:
    """Rotation about z, (3, 3)."""
    cos, sin = float(np.cos(heading_rad)), float(np.sin(heading_rad))
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


@dataclass
class MeshBuilder:
    """Collects faces; `build` makes the mesh.

    Attributes:
        surface: What a face is of where nothing else is said.
    """

    surface: Surface
    _points: list[Floats] = field(default_factory=list)
    _faces: list[list[int]] = field(default_factory=list)
    _colours: list[Colour] = field(default_factory=list)
    _emission: list[float] = field(default_factory=list)
    _normals: list[Floats] = field(default_factory=list)
    _layers: list[int] = field(default_factory=list)
    _surfaces: list[Surface] = field(default_factory=list)
    _count: int = 0

    def face(
        self,
        corners: ArrayLike,
        colour: Colour,
        *,
        inside: ArrayLike | None,
        emission: float = 0.0,
        layer: int = 0,
        surface: Surface | None = None,
    ) -> None:
        """Add one flat convex face of up to 8 corners.

        Args:
            corners: (K, 3) metres.
            colour: See `Colour`.
            inside: A point behind the face; None = seen from both sides.
            emission: See `Mesh`.
            layer: See `Mesh`.
            surface: What it is of; None = `self.surface`.
        """
        points = np.asarray(corners, dtype=np.float64)
        index = list(range(self._count, self._count + len(points)))
        self._points.append(points)
        self._count += len(points)
        self._faces.append(index + index[-1:] * (CORNERS - len(index)))
        self._colours.append(colour)
        self._emission.append(emission)
        self._layers.append(layer)
        self._surfaces.append(self.surface if surface is None else surface)
        self._normals.append(_normal(points, inside))

    def box(
        self,
        low: Sequence[float],
        high: Sequence[float],
        colour: Colour,
        *,
        emission: float = 0.0,
        layer: int = 0,
    ) -> None:
        """Add an upright box without its floor."""
        section = [(low[1], low[2], high[2]), (high[1], low[2], high[2])]
        centre = (np.asarray(low) + np.asarray(high)) / 2
        corners = np.array(
            [[(x, y, z) for x in (low[0], high[0])] for y, *zs in section for z in zs]
        )
        left_low, left_high, right_low, right_high = corners
        for quad in (
            [left_low[0], left_low[1], left_high[1], left_high[0]],
            [right_low[0], right_low[1], right_high[1], right_high[0]],
            [left_low[0], right_low[0], right_high[0], left_high[0]],
            [left_low[1], right_low[1], right_high[1], left_high[1]],
            [left_high[0], left_high[1], right_high[1], right_high[0]],
        ):
            self.face(quad, colour, inside=centre, emission=emission, layer=layer)

    def loft(self, sections: Sequence[tuple[float, float, float, float]], colour: Colour) -> None:
        """Add a body along x from sections (x, z_low, z_high, half_width)."""
        rings = [
            np.array([(x, -w, low), (x, -w, high), (x, w, high), (x, w, low)])
            for x, low, high, w in sections
        ]
        centre = np.mean(np.concatenate(rings), axis=0)
        for one, two in itertools.pairwise(rings):
            middle = (one.mean(axis=0) + two.mean(axis=0)) / 2
            for a, b in ((0, 1), (1, 2), (2, 3)):
                self.face([one[a], one[b], two[b], two[a]], colour, inside=middle)
        self.face(rings[0], colour, inside=centre)
        self.face(rings[-1], colour, inside=centre)

    def disc(
        self,
        centre: Sequence[float],
        radius_m: float,
        axis: int,
        colour: Colour,
        *,
        inside: ArrayLike,
        emission: float = 0.0,
        layer: int = 1,
    ) -> None:
        """Add an octagon across `axis` (0 = x, 1 = y)."""
        angle = np.arange(8) * (np.pi / 4) + np.pi / 8
        corners = np.tile(np.asarray(centre, dtype=np.float64), (8, 1))
        corners[:, 1 - axis] += radius_m * np.cos(angle)
        corners[:, 2] += radius_m * np.sin(angle)
        self.face(corners, colour, inside=inside, emission=emission, layer=layer)

    def build(self) -> Mesh:
        """The mesh of everything added."""
        return Mesh(
            np.concatenate(self._points),
            np.array(self._faces, dtype=np.int64),
            np.array(self._colours, dtype=np.float64),
            np.array(self._emission, dtype=np.float64),
            np.array(self._normals, dtype=np.float64),
            np.array(self._layers, dtype=np.float64),
            np.array(self._surfaces, dtype=np.uint8),
        )


def _normal(points: Floats, inside: ArrayLike | None) -> Floats:
    if inside is None:
        return np.zeros(3)
    normal = np.cross(points[1] - points[0], points[2] - points[1])
    normal = normal / (float(np.linalg.norm(normal)) + 1e-12)
    outward = points.mean(axis=0) - np.asarray(inside, dtype=np.float64)
    return normal if float(normal @ outward) >= 0.0 else -normal
