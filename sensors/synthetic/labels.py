"""Ground truth: boxes, how much of each is seen, and when its rows were exposed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.sensors.synthetic.faces import Canvas, Drawn
from syncline.sensors.synthetic.optics import View
from syncline.sensors.synthetic.scene import Item, Label

_NO_COVER_M = 90.0
"""Farther away, what has no label hides nothing that could be seen."""
_SCALE = 0.5
"""Size of the occlusion picture relative to the frame."""


@dataclass(frozen=True, slots=True)
class TruthBox:
    """One labelled thing in one frame.

    Attributes:
        id: The same thing in every frame.
        label: Its class.
        xyxy_px: Box clipped to the frame.
        visible: Share of its outline that nothing hides and the frame holds, 0..1.
        truncated: True when the frame cuts it.
        distance_m: Along the camera's axis.
        row_dt_ns: Middle of exposure of the box's centre row after the middle of the frame's rows.
    """

    id: int
    label: Label
    xyxy_px: tuple[float, float, float, float]
    visible: float
    truncated: bool
    distance_m: float
    row_dt_ns: int


class Occlusion:
    """Follows what covers what, at half the size of the frame, in the order of drawing."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._ids = np.zeros((round(height * _SCALE), round(width * _SCALE)), np.uint16)
        self._seen: list[tuple[int, Item, Drawn, float]] = []

    def canvas(self, item: Item) -> Canvas | None:
        """Where a thing without a solid outline is to be filled face by face."""
        if item.solid:
            return None
        return self._ids, 0, _SCALE

    def add(self, item: Item, drawn: Drawn) -> None:
        """Cover what lies behind a solid thing; remember it when it has a label."""
        if not item.solid or (item.label is None and drawn.depth_m > _NO_COVER_M):
            return
        points = drawn.pixels[drawn.front]
        if item.tree is not None:
            points = _crown(points)
        if len(points) < 3:
            return
        hull = cv2.convexHull(np.clip(points, -4e3, 4e3).astype(np.float32)).reshape(-1, 2)
        value = len(self._seen) + 1 if item.label is not None else 0
        shape = np.rint(hull * (_SCALE * 16)).astype(np.int32)
        cv2.fillConvexPoly(self._ids, shape, value, cv2.LINE_8, 4)
        if item.label is not None:
            self._seen.append((value, item, drawn, float(cv2.contourArea(hull))))

    def boxes(self, view: View) -> list[TruthBox]:
        """The truth of everything added."""
        counts = np.bincount(self._ids.ravel(), minlength=len(self._seen) + 1)
        found = []
        for value, item, drawn, area in self._seen:
            box = self._box(view, item, drawn, counts[value] / max(area * _SCALE**2, 1.0))
            if box is not None:
                found.append(box)
        return found

    def _box(self, view: View, item: Item, drawn: Drawn, visible: float) -> TruthBox | None:
        assert item.label is not None
        margin = 0.0
        if item.person is not None:
            margin = 0.045 * view.camera.focal_px / max(drawn.depth_m, 1.0)
        (x0, y0), (x1, y1) = (drawn.low_px - margin).tolist(), (drawn.high_px + margin).tolist()
        width, height = self._size
        inner = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        if min(inner[2] - inner[0], inner[3] - inner[1]) < 1.0:
            return None
        cut = inner != (x0, y0, x1, y1) or not bool(drawn.front.all())
        row_dt = view.row_dt_s(np.array([(inner[1] + inner[3]) / 2.0]))[0]
        return TruthBox(
            item.id,
            item.label,
            inner,
            float(min(visible, 1.0)),
            cut,
            drawn.depth_m,
            round(float(row_dt) * 1e9),
        )


def _crown(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The outline of a tree from its foot and top."""
    if len(points) < 2:
        return points
    foot, top = points[0], points[1]
    tall = foot[1] - top[1]
    spread = np.array(
        [[-0.3, 0.35], [-0.2, 0.7], [0.2, 0.7], [0.3, 0.35], [0.15, 0.98], [-0.15, 0.98]]
    )
    return np.asarray(foot + spread * [tall, -tall])
