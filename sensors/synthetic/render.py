"""Draws a scene as a camera with a rolling shutter, exposure, gain and noise sees it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.sensors.mode import SensorMode
from syncline.sensors.synthetic.faces import Drawn, Faces, gather, shade
from syncline.sensors.synthetic.ground import Ground
from syncline.sensors.synthetic.labels import Occlusion, TruthBox
from syncline.sensors.synthetic.light import Setting, coded_gain
from syncline.sensors.synthetic.optics import NEAR_M, Pinhole, View
from syncline.sensors.synthetic.people import draw_person, mark_person
from syncline.sensors.synthetic.road import Pose
from syncline.sensors.synthetic.scene import Item, Scene
from syncline.sensors.synthetic.sky import Sky
from syncline.sensors.synthetic.surfaces import Map
from syncline.sensors.synthetic.trees import Trees

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]
_NOISE = 3.1
"""Standard deviation of the noise at gain 1, coded levels, is this times 0.3."""
_GLOW_PX = 64
_SHADOW_M = 70.0


@dataclass(frozen=True, slots=True)
class Rendered:
    """A picture and what is in it.

    Attributes:
        image: BGR (H, W, 3) uint8.
        boxes: Everything labelled, seen or hidden.
        pose: Camera pose at the middle of the frame's rows.
        mean_luma: What a light meter reads.
        surfaces: A `Surface` per pixel (H, W), where it was asked for.
    """

    image: Image
    boxes: tuple[TruthBox, ...]
    pose: Pose
    mean_luma: float
    surfaces: Map | None = None


class Renderer:
    """Draws frames of one scene; pure but for its textures (about 30 MB).

    Args:
        scene: What there is to see.
        camera: Intrinsics.
        mode: Row timing.
        seed: Decides textures and noise.
    """

    def __init__(self, scene: Scene, camera: Pinhole, mode: SensorMode, seed: int) -> None:
        rng = np.random.default_rng([seed, 2])
        self._scene, self._camera, self._mode = scene, camera, mode
        self._ground = Ground(rng, scene.route)
        self._sky = Sky(rng)
        self._trees = Trees(rng)
        grain = rng.normal(0.0, 32.0, (camera.height + 64, camera.width + 64, 3)) + 128.0
        self._noise = np.clip(grain, 0, 255).astype(np.uint8)
        self._seed = seed
        axis = (np.arange(_GLOW_PX) - _GLOW_PX / 2 + 0.5) / (_GLOW_PX / 2)
        reach = np.hypot(axis[:, None], axis[None, :])
        self._glow = (np.clip(1 - reach, 0, 1) ** 3).astype(np.float32)

    def draw(self, t_s: float, setting: Setting, frame: int, *, surfaces: bool = False) -> Rendered:
        """The frame whose rows' middle is exposed at `t_s`.

        Args:
            t_s: True time.
            setting: Exposure and gain.
            frame: Number of the frame, for its noise.
            surfaces: Whether to tell what every pixel shows; the picture is the same.
        """
        pose = self._scene.ego.pose(self._scene.route, t_s)
        view = View(self._camera, self._mode, pose, setting.exposure_ms * 1e-3)
        image = np.empty((self._camera.height, self._camera.width, 3), np.uint8)
        shown = np.empty(image.shape[:2], np.uint8) if surfaces else None
        self._backdrop(view, t_s, setting, image, shown)
        items = list(self._scene.visible(t_s, pose.s_m))
        boxes = self._things(view, t_s, setting, items, (image, shown))
        image = self._sensor(view, setting, frame, image)
        mean = float(np.mean(image[::4, ::4, 1]))
        return Rendered(image, tuple(boxes), pose, mean, shown)

    def _backdrop(
        self, view: View, t_s: float, setting: Setting, image: Image, surfaces: Map | None
    ) -> None:
        first, s_row = self._ground.draw(
            view, image, surfaces
        )  # before the sky: it knows the horizon
        light = self._scene.light
        lit = light.at(s_row, t_s) + self._lamps(view, s_row - view.pose.s_m, t_s)
        gain = coded_gain(lit, setting.total).astype(np.float32)
        self._sky.draw(view, first, image, surfaces)
        sky_gain = float(coded_gain(light.sky(t_s), setting.total))
        image[:first] = cv2.convertScaleAbs(image[:first], alpha=sky_gain)
        haze = np.minimum(np.array([226.0, 220.0, 210.0]) * sky_gain, 255.0)
        far = np.clip(1.0 - np.exp(-(s_row - view.pose.s_m) / 450.0), 0.0, 1.0)
        far = (far * (1.0 - light.cover(s_row))).astype(np.float32)
        ground = image[first:].astype(np.float32)
        ground *= (gain * (1.0 - far))[:, None, None]
        ground += (far[:, None] * haze[None, :].astype(np.float32))[:, None, :]
        image[first:] = cv2.convertScaleAbs(ground)

    def _lamps(self, view: View, ahead_m: Floats, t_s: float) -> Floats:
        """Light of the vehicle's own headlamps at distances ahead."""
        dark = self._scene.light.darkness(t_s, view.pose.s_m)
        reach = np.maximum(ahead_m, 3.0)
        return dark * 0.16 * np.exp(-reach / 16.0) * np.clip((reach - 2.0) / 5.0, 0.2, 1.0)

    def _things(
        self,
        view: View,
        t_s: float,
        setting: Setting,
        items: list[Item],
        canvas: tuple[Image, Map | None],
    ) -> list[TruthBox]:
        image, surfaces = canvas
        sketch = gather(view, items)
        away = np.array([item.s_m for item in items]) - view.pose.s_m
        light = self._scene.light.at(away + view.pose.s_m, t_s) + self._lamps(view, away, t_s)
        sky_gain = float(coded_gain(self._scene.light.sky(t_s), setting.total))
        dark = self._scene.light.darkness(t_s, view.pose.s_m)
        sun = self._scene.light.sun
        faces = shade(sketch, light, setting.total, sky_gain, sun * (1.0 - dark))
        occlusion = Occlusion(self._camera.width, self._camera.height)
        for index in np.argsort(-sketch.distance_m, kind="stable"):
            item = items[int(index)]
            drawn = sketch.items[int(index)]
            if drawn is None:
                continue
            if item.mesh is not None:
                if item.label is not None and drawn.depth_m < _SHADOW_M:
                    self._shadow(view, item, image, 0.6 - 0.4 * dark)
                faces.paint(int(index), image, occlusion.canvas(item), surfaces)
                if dark > 0.15:
                    self._glows(faces, int(index), setting.total * dark, image)
            else:
                scale = self._camera.focal_px / max(drawn.depth_m, NEAR_M)
                gain = float(coded_gain(light[index], setting.total))
                self._soft(item, drawn, scale, gain, canvas)
            occlusion.add(item, drawn)
        return occlusion.boxes(view)

    def _soft(
        self, item: Item, drawn: Drawn, scale: float, gain: float, canvas: tuple[Image, Map | None]
    ) -> None:
        """People and trees."""
        image, surfaces = canvas
        if drawn.depth_m < 1.5:
            return
        if item.person is not None:
            draw_person(image, drawn.pixels, scale, item.person, gain)
            if surfaces is not None:
                mark_person(surfaces, drawn.pixels, scale, item.person)
        elif item.tree is not None:
            height_px = float(drawn.pixels[0, 1] - drawn.pixels[1, 1])
            self._trees.draw(image, item.tree[0], drawn.pixels[0], height_px, gain, surfaces)

    def _shadow(self, view: View, item: Item, image: Image, strength: float) -> None:
        assert item.mesh is not None
        points = item.mesh.points_m
        low = points[points[:, 2] < 0.8].copy()
        if len(low) == 0:
            return
        low[:, 2] = 0.0
        hull = _ground_hull(low, 0.12)
        pixels, camera = view.project(hull, np.tile(item.velocity_mps, (len(hull), 1)))
        if camera[:, 2].min() < NEAR_M:
            return
        _darken(image, pixels, strength)

    def _glows(self, faces: Faces, index: int, total: float, image: Image) -> None:
        for lamp in faces.glowing.get(index, ()):
            strength = min(lamp.power * total / 60.0, 1.0)
            radius = min(max(int(lamp.size_px * 5.0 + 3.0), 4), 70)
            if strength > 0.05:
                self._add_glow(image, lamp.centre_px, radius, lamp.colour * 0.5 * strength)

    def _add_glow(self, image: Image, centre: Floats, radius: int, colour: Floats) -> None:
        x0, y0 = round(float(centre[0])) - radius, round(float(centre[1])) - radius
        left, top = max(x0, 0), max(y0, 0)
        right = min(x0 + 2 * radius, image.shape[1])
        bottom = min(y0 + 2 * radius, image.shape[0])
        if right <= left or bottom <= top:
            return
        glow = cv2.resize(self._glow, (2 * radius, 2 * radius))[
            top - y0 : bottom - y0, left - x0 : right - x0, None
        ]
        area = image[top:bottom, left:right]
        cv2.add(area, (glow * colour[None, None, :]).astype(np.uint8), dst=area)

    def _sensor(self, view: View, setting: Setting, frame: int, image: Image) -> Image:
        """Motion blur by turning, and noise by gain."""
        sizes = (
            abs(view.pose.yaw_rate_radps) * view.camera.focal_px * view.exposure_s,
            abs(view.pose.pitch_rate_radps) * view.camera.focal_px * view.exposure_s,
        )
        if max(sizes) > 0.4:
            across, down = _box(sizes[0]), _box(sizes[1])
            image = np.asarray(cv2.sepFilter2D(image, -1, across, down), np.uint8)
        rng = np.random.default_rng([self._seed, 3, frame])
        x, y = (int(v) for v in rng.integers(0, 64, 2))
        noise = self._noise[y : y + image.shape[0], x : x + image.shape[1]]
        share = 0.3 * _NOISE * setting.gain**0.5 / 32.0
        return np.asarray(cv2.addWeighted(image, 1.0, noise, share, -128.0 * share), np.uint8)


def _box(size_px: float) -> Floats:
    """A box filter of fractional width."""
    half = int(np.ceil(max(size_px - 1.0, 0.0) / 2.0))
    offsets = np.abs(np.arange(-half, half + 1))
    kernel = np.clip(max(size_px, 1.0) / 2.0 - offsets + 0.5, 0.0, 1.0)
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)


def _ground_hull(points: Floats, margin_m: float) -> Floats:
    flat = points[:, :2].astype(np.float32)
    hull = cv2.convexHull(flat).reshape(-1, 2).astype(np.float64)
    centre = hull.mean(axis=0)
    out = hull - centre
    out *= 1.0 + margin_m / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-6)
    return np.column_stack([out + centre, np.full(len(out), 0.01)])


def _darken(image: Image, pixels: Floats, strength: float) -> None:
    left, top = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.ceil(pixels.max(axis=0)).astype(int) + 2
    area = image[top:bottom, left:right]
    if area.size == 0:
        return
    dark = area.copy()
    shape = np.rint((pixels - (left, top)) * 16).astype(np.int32)
    cv2.fillConvexPoly(dark, shape, (12, 12, 12), cv2.LINE_AA, 4)
    area[:] = cv2.addWeighted(area, 1.0 - strength, dark, strength, 0.0)
