"""Disagreement of a shadow model with the serving one: which frames are worth uploading.

On 233 CamVid frames, argmax disagreement found the serving model's errors best of all scores tried
(Spearman 0.69); class areas best foretold what the shadow would gain. Both need a shadow that is
better than the serving model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode.types import Boxes, LabelMap, Scores
from syncline.edge.job import Result

STRIDE_PX = 4
"""Full-size label maps are compared on every fourth pixel of every fourth row."""
LEAST_ROWS = 60
"""A map that would keep fewer rows or columns is at a stride already and is compared more finely:
on every sixteenth pixel of the picture the score of a map at stride 4 was mostly noise."""

MATCH_IOU = 0.5
CONFIDENT_SCORE = 0.7


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far two models are apart on one frame.

    Attributes:
        score: 0 = they agree, 1 = they agree on nothing; what frames are chosen by.
        class_area_l1: Label maps: sum over classes of |difference of area shares|, 0..2.
        unmatched: Boxes: confident boxes of either model without a partner in the other.
        flicker: Boxes: 1 - F1 of the serving model against its own previous frame.
    """

    score: float
    class_area_l1: float = 0.0
    unmatched: int = 0
    flicker: float = 0.0


def compare_labels(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> Disagreement:
    """Compare two label maps of one shape at stride 4, small ones whole (`LEAST_ROWS`)."""
    step = min(max(min(ours.shape) // LEAST_ROWS, 1), STRIDE_PX)
    a, b = ours[::step, ::step], theirs[::step, ::step]
    count = max(a.size, 1)
    areas = np.bincount(a.reshape(-1), minlength=256) - np.bincount(b.reshape(-1), minlength=256)
    return Disagreement(
        score=float(np.count_nonzero(a != b)) / count,
        class_area_l1=float(np.abs(areas).sum()) / count,
    )


def compare_boxes(
    ours: Boxes, theirs: Boxes, previous: Boxes | None = None, iou: float = MATCH_IOU
) -> Disagreement:
    """Compare two sets of boxes, and the serving model's with its previous frame."""
    mine, other = match(ours, theirs, iou)
    lonely = np.count_nonzero(ours.score[~mine] > CONFIDENT_SCORE)
    lonely += np.count_nonzero(theirs.score[~other] > CONFIDENT_SCORE)
    return Disagreement(
        score=_one_minus_f1(mine, other),
        unmatched=int(lonely),
        flicker=0.0 if previous is None else _one_minus_f1(*match(ours, previous, iou)),
    )


def compare_scores(ours: Scores, theirs: Scores) -> Disagreement:
    """Compare class scores: half the L1 distance of the normalised scores."""
    a, b = (np.maximum(s.score.astype(np.float64), 0.0) for s in (ours, theirs))
    a, b = a / max(a.sum(), 1e-12), b / max(b.sum(), 1e-12)
    return Disagreement(score=float(np.abs(a - b).sum()) / 2.0)


def match(
    ours: Boxes, theirs: Boxes, iou: float = MATCH_IOU
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Greedy one-to-one matches of boxes of one class, largest overlap first.

    Returns:
        (which of ours have a partner, which of theirs have one).
    """
    mine, other = np.zeros(len(ours), np.bool_), np.zeros(len(theirs), np.bool_)
    if not len(ours) or not len(theirs):
        return mine, other
    overlap = pairwise_iou(ours.xyxy_px, theirs.xyxy_px)
    overlap[ours.class_id[:, None] != theirs.class_id[None, :]] = 0.0
    rows, columns = np.nonzero(overlap >= iou)
    for index in np.argsort(-overlap[rows, columns], kind="stable"):
        row, column = rows[index], columns[index]
        if not mine[row] and not other[column]:
            mine[row] = other[column] = True
    return mine, other


def pairwise_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) and (M, 4), float64 (N, M)."""
    a64, b64 = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    low, high = np.maximum(a64[..., :2], b64[..., :2]), np.minimum(a64[..., 2:], b64[..., 2:])
    inter = np.prod(np.maximum(high - low, 0.0), axis=-1)
    union = _area(a64) + _area(b64) - inter
    shares: NDArray[np.float64] = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return shares


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    area: NDArray[np.float64] = np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    return area


def _one_minus_f1(mine: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """1 - F1 of a matching; two empty sets agree."""
    total = len(mine) + len(other)
    return 1.0 - (float(mine.sum()) + float(other.sum())) / total if total else 0.0


@dataclass
class Comparator:
    """Compares results frame by frame; remembers one set of boxes per camera for the flicker."""

    _previous: dict[str, Boxes] = field(default_factory=dict)

    def step(self, primary: Result, shadow: Result) -> Disagreement | None:
        """The disagreement of two results of one frame; None when they cannot be compared."""
        camera = primary.frame.camera
        if not (primary.valid and shadow.valid):
            return None
        ours, theirs = primary.output, shadow.output
        if isinstance(ours, Boxes) and isinstance(theirs, Boxes):
            previous = self._previous.get(camera)
            self._previous[camera] = ours
            return compare_boxes(ours, theirs, previous)
        if isinstance(ours, LabelMap) and isinstance(theirs, LabelMap):
            return compare_labels(*_same_shape(ours, theirs))
        if isinstance(ours, Scores) and isinstance(theirs, Scores):
            return compare_scores(ours, theirs) if len(ours.score) == len(theirs.score) else None
        return None


def _same_shape(a: LabelMap, b: LabelMap) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both maps at the resolution of the finer one, by index (nearest neighbour)."""
    if a.labels.shape == b.labels.shape:
        return a.labels, b.labels
    height = max(a.labels.shape[0], b.labels.shape[0])
    width = max(a.labels.shape[1], b.labels.shape[1])
    first, second = (_nearest(m.labels, height, width) for m in (a, b))
    return first, second


def _nearest(labels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    rows = np.arange(height) * labels.shape[0] // height
    columns = np.arange(width) * labels.shape[1] // width
    picked: NDArray[np.uint8] = labels[rows[:, None], columns[None, :]]
    return picked
