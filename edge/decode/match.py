"""Which boxes of two sets are the same things: overlaps and greedy one-to-one matches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode.types import Boxes

MATCH_IOU = 0.5


def match(
    ours: Boxes, theirs: Boxes, iou: float = MATCH_IOU
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Greedy one-to-one matches of boxes of one class, largest overlap first.

    Returns:
        (which of ours have a partner, which of theirs have one).
    """
    mine, other = np.zeros(len(ours), np.bool_), np.zeros(len(theirs), np.bool_)
    for row, column in pairs(ours, theirs, iou):
        mine[row] = other[column] = True
    return mine, other


def pairs(ours: Boxes, theirs: Boxes, iou: float = MATCH_IOU) -> list[tuple[int, int]]:
    """The matches of `match` as indices (of ours, of theirs), largest overlap first."""
    if not len(ours) or not len(theirs):
        return []
    overlap = pairwise_iou(ours.xyxy_px, theirs.xyxy_px)
    overlap[ours.class_id[:, None] != theirs.class_id[None, :]] = 0.0
    rows, columns = np.nonzero(overlap >= iou)
    mine, other = set[int](), set[int]()
    found = []
    for index in np.argsort(-overlap[rows, columns], kind="stable").tolist():
        row, column = int(rows[index]), int(columns[index])
        if row not in mine and column not in other:
            mine.add(row)
            other.add(column)
            found.append((row, column))
    return found


def pairwise_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) and (M, 4) as corners, float64 (N, M)."""
    a64, b64 = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    low, high = np.maximum(a64[..., :2], b64[..., :2]), np.minimum(a64[..., 2:], b64[..., 2:])
    inter = np.prod(np.maximum(high - low, 0.0), axis=-1)
    union = _area(a64) + _area(b64) - inter
    shares: NDArray[np.float64] = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return shares


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    area: NDArray[np.float64] = np.prod(sides, axis=-1)
    return area
