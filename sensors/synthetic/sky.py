"""The sky and what stands at the horizon: a strip that turns with the heading."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.sensors.synthetic.optics import View
from syncline.sensors.synthetic.surfaces import Map, Surface

_WIDTH = 4096
_HEIGHT = 420
_HORIZON = 330
_RAD_PER_PX = 2 * np.pi / _WIDTH

Image = NDArray[np.uint8]


def _clouds(rng: np.random.Generator) -> NDArray[np.float32]:
    total = np.zeros((_HEIGHT, _WIDTH), np.float32)
    for cells, weight in ((10, 0.55), (24, 0.3), (60, 0.15), (130, 0.08)):
        small = rng.normal(0, 1, (max(cells // 3, 2), cells)).astype(np.float32)
        small[:, -1] = small[:, 0]
        total += weight * cv2.resize(small, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    return total


def _hills(rng: np.random.Generator, low: float, high: float, waves: int) -> NDArray[np.float64]:
    x = np.linspace(0, 2 * np.pi, _WIDTH, endpoint=False)
    ridge = np.zeros(_WIDTH)
    for k in range(1, waves):
        ridge += rng.normal() / k * np.sin(k * 3 * x + rng.uniform(0, 6.28))
    ridge = (ridge - ridge.min()) / (np.ptp(ridge) + 1e-9)
    return np.asarray(low + (high - low) * ridge)


def paint_sky(rng: np.random.Generator) -> tuple[Image, Map]:
    """A full turn of sky and hills, (420, 4096, 3), and which is which; the horizon is row 330."""
    up = np.clip((_HORIZON - np.arange(_HEIGHT)) / _HORIZON, 0, 1)[:, None, None]
    zenith = np.array([224.0, 168.0, 108.0]) * rng.uniform(0.92, 1.08)
    haze = np.array([236.0, 226.0, 212.0])
    sky = haze * (1 - up**0.6) + zenith * up**0.6
    cover = np.clip((_clouds(rng) - rng.uniform(-0.35, 0.5)) * 0.9, 0, 1)[..., None]
    white = np.array([246.0, 243.0, 240.0])
    sky = sky * (1 - 0.85 * cover) + white * 0.85 * cover
    rows = np.arange(_HEIGHT)[:, None]
    surfaces = np.full((_HEIGHT, _WIDTH), Surface.SKY, np.uint8)
    for low, high, waves, colour in (
        (10, 46, 9, (186, 176, 158)),
        (3, 26, 22, (150, 158, 140)),
        (1, 13, 90, (92, 116, 98)),
    ):
        hill = rows > _HORIZON - _hills(rng, low, high, waves)[None, :]
        sky[hill], surfaces[hill] = colour, Surface.VEGETATION
    return np.asarray(np.clip(sky, 0, 255), np.uint8), surfaces


class Sky:
    """Draws the sky of any view; holds one strip of 8 MB and its map of 3 MB."""

    def __init__(self, rng: np.random.Generator) -> None:
        strip, surfaces = paint_sky(rng)
        self._strip = np.hstack([strip, strip[:, :2048]])
        self._surfaces = np.hstack([surfaces, surfaces[:, :2048]])

    def draw(self, view: View, rows: int, out: Image, surfaces: Map | None = None) -> None:
        """Fill the first `rows` rows of `out`, each at the heading and pitch of its own time.

        Args:
            view: Camera and pose.
            rows: How many.
            out: Picture, changed.
            surfaces: The same rows are filled with what is seen.
        """
        if rows <= 0:
            return
        camera, pose = view.camera, view.pose
        v = np.arange(rows, dtype=np.float64)
        dt_s = view.row_dt_s(v)
        turn = (np.arange(camera.width) - camera.centre_px[0]) / camera.focal_px
        bearing = np.arctan(turn) / _RAD_PER_PX
        yaw = (pose.yaw_rad + pose.yaw_rate_radps * dt_s) / _RAD_PER_PX
        first = float(np.mod(-yaw[0] - 1000.0, _WIDTH))
        map_x = (first + 1000.0 - (yaw - yaw[0]))[:, None] + bearing[None, :]
        pitch = pose.pitch_rad + pose.pitch_rate_radps * dt_s
        rise = np.arctan((camera.centre_px[1] - v) / camera.focal_px) + pitch
        map_y = np.broadcast_to((_HORIZON - rise / _RAD_PER_PX)[:, None], map_x.shape)
        maps = (map_x.astype(np.float32), np.ascontiguousarray(map_y, dtype=np.float32))
        edge = cv2.BORDER_REPLICATE
        out[:rows] = cv2.remap(self._strip, *maps, cv2.INTER_LINEAR, borderMode=edge)
        if surfaces is not None:
            surfaces[:rows] = cv2.remap(self._surfaces, *maps, cv2.INTER_NEAREST, borderMode=edge)
