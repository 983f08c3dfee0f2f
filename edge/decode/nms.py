"""Greedy non-maximum suppression per class, by ONNX Runtime's own kernel.

It is exact, and its cost is bounded: 5000 candidates take about a millisecond where OpenCV takes 37
and numpy 50. The one-node graph lies beside this file.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode.types import Boxes
from syncline.edge.session import KernelSession

MAX_CANDIDATES = 30_000
"""Candidates beyond these, by score, are not looked at: the bound on cost per frame."""

_MAX_CELLS = 1 << 21
_FEW_CELLS = 1 << 13
"""Of a table of classes and boxes that is so small, finding out which classes occur costs more."""
_PREFIX = 4
_ANY_SCORE = np.zeros(1, np.float32)
_GRAPH = "nms.onnx"


class Suppressor:
    """Non-maximum suppression with fixed thresholds.

    Args:
        iou: A box that overlaps a better one of its class by more is dropped.
        max_boxes: At most so many boxes are kept, best first.
    """

    def __init__(self, iou: float, max_boxes: int) -> None:
        self._iou = np.array([iou], np.float32)
        self._limit = np.array([max_boxes], np.int64)
        self._max_boxes = max_boxes
        graph = resources.files("syncline.edge.decode").joinpath(_GRAPH).read_bytes()
        self._session = KernelSession(graph)

    def __call__(self, candidates: Boxes) -> Boxes:
        """The boxes that survive, best first.

        Args:
            candidates: Boxes above the score threshold in any order, scores > 0.
        """
        count = min(len(candidates), MAX_CANDIDATES)
        if count == 0:
            return Boxes.none()
        ranked = _take(candidates, np.argsort(-candidates.score, kind="stable")[:count])
        for prefix in (_PREFIX * self._max_boxes, count):
            # Only better boxes suppress: what is kept of a prefix is a prefix of what is kept.
            keep = self._keep(ranked if prefix >= count else _first(ranked, prefix))
            if len(keep) >= self._max_boxes or prefix >= count:
                break
        return _take(ranked, keep[: self._max_boxes])

    def _keep(self, boxes: Boxes) -> NDArray[np.int64]:
        """Ascending indices of the boxes to keep."""
        if len(boxes) == 1:
            return np.zeros(1, np.int64)
        span = int(boxes.class_id.max()) + 1
        if span * len(boxes) <= _FEW_CELLS and boxes.class_id.min() >= 0:
            return np.sort(self._run(boxes, boxes.class_id, span))
        classes, column = np.unique(boxes.class_id, return_inverse=True)
        if len(classes) * len(boxes) <= _MAX_CELLS:
            return np.sort(self._run(boxes, column, len(classes)))
        parts = []
        for index in range(len(classes)):
            members = np.flatnonzero(column == index)
            zeros = np.zeros(len(members), np.intp)
            parts.append(members[self._run(_take(boxes, members), zeros, 1)])
        return np.sort(np.concatenate(parts))

    def _run(self, boxes: Boxes, column: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        scores = np.zeros((1, classes, len(boxes)), np.float32)
        scores[0, column, np.arange(len(boxes))] = boxes.score
        selected = self._session.run(
            {
                "boxes": boxes.xyxy_px[None],
                "scores": scores,
                "max_per_class": self._limit,
                "iou": self._iou,
                "score": _ANY_SCORE,
            }
        )[0]
        kept: NDArray[np.int64] = selected[:, 2].astype(np.int64)
        return kept


def _first(boxes: Boxes, count: int) -> Boxes:
    return Boxes(boxes.xyxy_px[:count], boxes.score[:count], boxes.class_id[:count])


def _take(boxes: Boxes, index: NDArray[np.intp] | NDArray[np.int64]) -> Boxes:
    return Boxes(boxes.xyxy_px[index], boxes.score[index], boxes.class_id[index])
