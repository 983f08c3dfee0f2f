"""Projects and paints the flat faces of everything in view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.sensors.synthetic.light import GAMMA
from syncline.sensors.synthetic.optics import NEAR_M, View
from syncline.sensors.synthetic.scene import Item
from syncline.sensors.synthetic.surfaces import Map

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]
Canvas = tuple[NDArray[np.uint16], int, float]
"""A second picture that faces are filled into: (array, value, scale)."""
_HAZE = np.array([226.0, 220.0, 210.0])
_HAZE_M = 450.0
_GLOWING = 0.4
_SMALLEST_PX = 0.8


@dataclass(frozen=True, slots=True)
class Drawn:
    """A thing as projected.

    Attributes:
        pixels: Its points (N, 2).
        front: Which of them are in front of the camera (N,).
        depth_m: Distance of its nearest point along the axis.
        low_px: Least (x, y) of the points in front.
        high_px: Greatest (x, y) of them.
    """

    pixels: Floats
    front: NDArray[np.bool_]
    depth_m: float
    low_px: Floats
    high_px: Floats


@dataclass(frozen=True, slots=True)
class Sketch:
    """All faces of a frame in one set of arrays.

    Attributes:
        view: Camera and pose.
        items: Per item what was projected; None = out of sight.
        distance_m: Per item, for the order of drawing.
        pixels: All points (N, 2).
        camera_m: The same in the camera frame (N, 3).
        faces: Visible faces (F, 8), indices into the points.
        owner: Item of each face (F,).
        colours: BGR (F, 3).
        emission: (F,).
        normals: (F, 3).
        order: Draw order key of each face within its item; larger = farther.
        surfaces: What each face is of (F,).
    """

    view: View
    items: list[Drawn | None]
    distance_m: Floats
    pixels: Floats
    camera_m: Floats
    faces: NDArray[np.int64]
    owner: NDArray[np.int64]
    colours: Floats
    emission: Floats
    normals: Floats
    order: Floats
    surfaces: Map


def gather(view: View, items: list[Item]) -> Sketch:
    """Project everything at once and keep the faces that turn towards the camera."""
    points = [_points(item) for item in items]
    counts = np.array([len(p) for p in points])
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    velocity = np.repeat([item.velocity_mps for item in items], counts, axis=0)
    pixels, camera_m = view.project(np.concatenate(points), velocity)
    drawn = _drawn(view, pixels, camera_m, first)
    centres = np.array([item.centre_m for item in items])
    distance = np.linalg.norm(centres[:, :2] - view.pose.position_m[:2], axis=1)
    for index, item in enumerate(items):
        if not item.solid and item.mesh is not None:
            distance[index] = _hollow_distance(
                item, distance[index], camera_m[first[index] : first[index] + counts[index]]
            )
    meshes = [
        (i, item.mesh)
        for i, item in enumerate(items)
        if item.mesh is not None and drawn[i] is not None
    ]
    faces = np.concatenate([mesh.faces + first[i] for i, mesh in meshes])
    owner = np.repeat([i for i, _ in meshes], [len(mesh.faces) for _, mesh in meshes])
    parts = [
        np.concatenate([getattr(mesh, name) for _, mesh in meshes])
        for name in ("colours", "emission", "normals", "layers", "surfaces")
    ]
    return _facing(view, (drawn, distance, pixels, camera_m), (faces, owner), parts)


def _hollow_distance(item: Item, distance_m: float, camera_m: Floats) -> float:
    """Flat things on the ground come before all that stands on it; big frames by their depth."""
    assert item.mesh is not None
    if item.mesh.points_m[:, 2].max() < 0.05:
        return distance_m + 1000.0
    if len(item.mesh.faces) <= 14 and np.ptp(item.mesh.points_m[:, 2]) > 5.2:
        return float(max(camera_m[:, 2].mean(), 0.0))
    return distance_m


def _points(item: Item) -> Floats:
    if item.mesh is not None:
        return item.mesh.points_m
    if item.joints_m is not None:
        return item.joints_m
    assert item.tree is not None
    top_m = item.centre_m + np.array([0.0, 0.0, item.tree[1]])
    return np.array([item.centre_m, top_m])


def _drawn(
    view: View, pixels: Floats, camera_m: Floats, first: NDArray[np.int64]
) -> list[Drawn | None]:
    low, high = np.minimum.reduceat(pixels, first), np.maximum.reduceat(pixels, first)
    near, far = (
        np.minimum.reduceat(camera_m[:, 2], first),
        np.maximum.reduceat(camera_m[:, 2], first),
    )
    wide = (high[:, 1] - low[:, 1]) * 0.6
    outside = (high[:, 0] < -wide) | (low[:, 0] > view.camera.width + wide) | (high[:, 1] < 0)
    gone = (far <= NEAR_M) | (outside & (near > NEAR_M))
    front = camera_m[:, 2] > NEAR_M
    ends = [*first[1:], len(pixels)]
    drawn: list[Drawn | None] = []
    for i, (a, b) in enumerate(zip(first, ends, strict=True)):
        if not gone[i] and near[i] <= NEAR_M:
            kept = pixels[a:b][front[a:b]]
            low[i], high[i] = kept.min(axis=0), kept.max(axis=0)
        part = Drawn(pixels[a:b], front[a:b], float(near[i]), low[i], high[i])
        drawn.append(None if gone[i] else part)
    return drawn


def _facing(
    view: View,
    projected: tuple[list[Drawn | None], Floats, Floats, Floats],
    indexed: tuple[NDArray[np.int64], NDArray[np.int64]],
    parts: list[NDArray[Any]],
) -> Sketch:
    drawn, distance, pixels, camera_m = projected
    faces, owner = indexed
    corners = camera_m[faces]
    depth = np.linalg.norm(corners[:, :4].mean(axis=1), axis=1)
    pose = view.pose
    normals = parts[2]
    towards = _to_camera_axes(normals, pose.yaw_rad, pose.pitch_rad)
    turned = np.einsum("ij,ij->i", towards, corners[:, 0]) < 0.0
    flat = ~normals.any(axis=1)
    ahead = (corners[:, :, 2] > NEAR_M).any(axis=1)
    uv = pixels[faces]
    low, high = uv.min(axis=1), uv.max(axis=1)
    inside = (high > 0).all(axis=1) & (low < (view.camera.width, view.camera.height)).all(axis=1)
    inside &= (high - low).max(axis=1) > _SMALLEST_PX
    cut = (corners[:, :, 2] <= NEAR_M).any(axis=1)
    keep = (turned | flat) & ahead & (inside | cut)
    order = depth - 1.2 * parts[3]
    return Sketch(
        view, drawn, distance, pixels, camera_m, faces[keep], owner[keep],
        parts[0][keep], parts[1][keep], normals[keep], order[keep], parts[4][keep],
    )  # fmt: skip


def _to_camera_axes(vectors: Floats, yaw: float, pitch: float) -> Floats:
    cos_yaw, sin_yaw, cos_p, sin_p = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    level = vectors[:, 0] * cos_yaw + vectors[:, 1] * sin_yaw
    right = vectors[:, 0] * sin_yaw - vectors[:, 1] * cos_yaw
    up = vectors[:, 2]
    return np.stack([right, level * sin_p - up * cos_p, level * cos_p + up * sin_p], axis=1)


@dataclass(frozen=True, slots=True)
class Lamp:
    """A glowing face: middle and size in pixels, BGR colour, light given off."""

    centre_px: Floats
    size_px: float
    colour: Floats
    power: float


@dataclass(frozen=True, slots=True)
class Faces:
    """Faces ready to paint: in order, with final colours."""

    sketch: Sketch
    colours: list[tuple[float, ...]]
    sorted_faces: NDArray[np.int64]
    starts: NDArray[np.int64]
    fixed: NDArray[np.int32]
    cut: NDArray[np.bool_]
    glowing: dict[int, list[Lamp]]

    def paint(
        self, index: int, image: Image, canvas: Canvas | None, surfaces: Map | None = None
    ) -> None:
        """Paint the faces of one item, and fill them into a second canvas and a map where given."""
        for position in range(int(self.starts[index]), int(self.starts[index + 1])):
            face = int(self.sorted_faces[position])
            if self.cut[face]:
                shape = self._clipped(face)
                if shape is None:
                    continue
            else:
                shape = self.fixed[face]
            cv2.fillConvexPoly(image, shape, self.colours[face], cv2.LINE_AA, 4)
            if canvas is not None:
                small = np.rint(shape * canvas[2]).astype(np.int32)
                cv2.fillConvexPoly(canvas[0], small, canvas[1], cv2.LINE_8, 4)
            if surfaces is not None:
                value = int(self.sketch.surfaces[face])
                cv2.fillConvexPoly(surfaces, shape, value, cv2.LINE_8, 4)

    def _clipped(self, face: int) -> NDArray[np.int32] | None:
        corners = self.sketch.camera_m[self.sketch.faces[face]]
        kept = []
        for k in range(len(corners)):
            here, there = corners[k], corners[(k + 1) % len(corners)]
            if here[2] > NEAR_M:
                kept.append(here)
            if (here[2] > NEAR_M) != (there[2] > NEAR_M):
                share = (NEAR_M - here[2]) / (there[2] - here[2])
                kept.append(here + share * (there - here))
        if len(kept) < 3:
            return None
        pixels = self.sketch.view.pixels(np.array(kept))
        return np.rint(np.clip(pixels, -8e3, 8e3) * 16).astype(np.int32)


def shade(sketch: Sketch, light: Floats, total: float, haze_gain: float, sun: Floats) -> Faces:
    """Give every face its final colour and its place in the order.

    Args:
        sketch: Projected faces.
        light: Light on each item.
        total: Exposure (ms) times gain.
        haze_gain: Factor on the haze's coded colour.
        sun: Direction to the sun times its strength.
    """
    towards = np.clip(sketch.normals @ sun, 0.0, 1.0)
    lit = 0.50 + 0.62 * towards + 0.14 * sketch.normals[:, 2]
    lit = np.where(sketch.normals.any(axis=1), lit, 0.9)
    power = light[sketch.owner] * lit + sketch.emission
    coded = sketch.colours * ((power * total) ** (1.0 / GAMMA))[:, None]
    far = 1.0 - np.exp(-sketch.camera_m[sketch.faces[:, 0], 2] / _HAZE_M)
    far = np.clip(far, 0.0, 1.0) * np.where(sketch.emission > 0.1, 0.3, 1.0)
    coded = (
        np.minimum(coded, 255.0) * (1 - far[:, None])
        + np.minimum(_HAZE * haze_gain, 255.0) * far[:, None]
    )
    order = np.lexsort((-sketch.order, sketch.owner))
    starts = np.searchsorted(sketch.owner[order], np.arange(len(sketch.items) + 1))
    fixed = np.rint(np.clip(sketch.pixels, -8e3, 8e3) * 16).astype(np.int32)[sketch.faces]
    cut = (sketch.camera_m[sketch.faces, 2] <= NEAR_M).any(axis=1)
    colours = [tuple(row) for row in np.clip(coded, 0, 255).tolist()]
    order, starts = order.astype(np.int64), starts.astype(np.int64)
    return Faces(sketch, colours, order, starts, fixed, cut, _glowing(sketch, cut))


def _glowing(sketch: Sketch, cut: NDArray[np.bool_]) -> dict[int, list[Lamp]]:
    found = np.flatnonzero((sketch.emission >= _GLOWING) & ~cut)
    uv = sketch.pixels[sketch.faces[found]]
    middle, size = uv.mean(axis=1), np.ptp(uv, axis=1).max(axis=1, initial=0.0)
    lamps: dict[int, list[Lamp]] = {}
    for k, face in enumerate(found):
        lamp = Lamp(middle[k], float(size[k]), sketch.colours[face], float(sketch.emission[face]))
        lamps.setdefault(int(sketch.owner[face]), []).append(lamp)
    return lamps
