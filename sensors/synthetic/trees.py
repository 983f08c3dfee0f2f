"""Trees: a few painted crowns, scaled into the picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.sensors.synthetic.surfaces import Map, Surface

Image = NDArray[np.uint8]
_SIZE = 192
_KINDS = 5


def paint_tree(rng: np.random.Generator) -> tuple[Image, Image]:
    """A tree as (BGR (192, 192, 3), mask (192, 192)); its foot is the middle of the last row."""
    colour = np.zeros((_SIZE, _SIZE, 3), np.uint8)
    mask = np.zeros((_SIZE, _SIZE), np.uint8)
    colour[:] = (44, 62, 52)
    trunk = np.array([(92, 191), (100, 191), (98, 90), (94, 90)], np.int32)
    cv2.fillConvexPoly(mask, trunk, 255)
    cv2.fillConvexPoly(colour, trunk, (52, 70, 86))
    hue = rng.uniform(0.85, 1.15, 3) * (52, 104, 78)
    slim = float(rng.uniform(0.55, 0.95))
    for layer in range(3):
        for _ in range(150):
            angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
            x = 96 + np.cos(angle) * reach * 84 * slim
            y = 72 + np.sin(angle) * reach * 66
            light = 0.62 + 0.22 * layer + 0.22 * (72 - y) / 70 + 0.1 * (x - 96) / 84
            radius = int(rng.uniform(5, 13 - 3 * layer))
            leaf = tuple(float(c) for c in np.clip(hue * light, 0, 255))
            centre = (int(x - 3 * layer), int(y - 4 * layer))
            cv2.circle(colour, centre, radius, leaf, -1)
            cv2.circle(mask, centre, radius, 255, -1)
    return colour, mask


class Trees:
    """Draws trees from a handful of painted ones, kept in halving sizes (0.8 MB)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._levels: list[list[tuple[Image, Image]]] = []
        for _ in range(_KINDS):
            pair = paint_tree(rng)
            levels = [pair]
            while levels[-1][1].shape[0] > 12:
                size = (levels[-1][1].shape[1] // 2, levels[-1][1].shape[0] // 2)
                smaller = [
                    cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in levels[-1]
                ]
                levels.append((smaller[0].astype(np.uint8), smaller[1].astype(np.uint8)))
            self._levels.append(levels)

    def draw(
        self,
        out: Image,
        kind: int,
        foot_px: NDArray[np.float64],
        height_px: float,
        gain: float,
        surfaces: Map | None = None,
    ) -> None:
        """Draw a tree with its foot at `foot_px` and `height_px` tall, into the map too."""
        size = round(height_px)
        if size < 3:
            return
        x0, y0 = round(float(foot_px[0]) - size / 2), round(float(foot_px[1])) - size
        left, top = max(x0, 0), max(y0, 0)
        right, bottom = min(x0 + size, out.shape[1]), min(y0 + size, out.shape[0])
        if right <= left or bottom <= top:
            return
        levels = self._levels[kind % _KINDS]
        level = next((lv for lv in reversed(levels) if lv[1].shape[0] >= size), levels[0])
        scale = level[1].shape[0] / size
        matrix = np.array([[scale, 0, (left - x0) * scale], [0, scale, (top - y0) * scale]])
        shape = (right - left, bottom - top)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        colour = cv2.warpAffine(
            level[0], matrix, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        mask = cv2.warpAffine(level[1], matrix, shape, flags=flags)
        lit = cv2.convertScaleAbs(colour, alpha=gain)
        solid = cv2.threshold(mask, 110, 255, cv2.THRESH_BINARY)[1]
        cv2.copyTo(lit, solid, out[top:bottom, left:right])
        if surfaces is not None:
            surfaces[top:bottom, left:right][solid > 0] = Surface.VEGETATION
