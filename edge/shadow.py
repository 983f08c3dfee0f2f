"""Disagreement of a shadow model with the serving one: which frames are worth uploading.

On 233 CamVid frames, argmax disagreement found the serving model's errors best of all scores tried
(Spearman 0.69); class areas best foretold what the shadow would gain. Both need a shadow that is
better than the serving model, and classes that mean the same.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode.match import MATCH_IOU, match
from syncline.edge.decode.types import Boxes, LabelMap, Scores
from syncline.edge.job import Result
from syncline.edge.model.manifest import Manifest
from syncline.errors import ManifestError

STRIDE_PX = 4
"""Full-size label maps are compared on every fourth pixel of every fourth row."""
LEAST_ROWS = 60
"""A map that would keep fewer rows or columns is at a stride already and is compared more finely:
on every sixteenth pixel of the picture the score of a map at stride 4 was mostly noise."""

CONFIDENT_SCORE = 0.7
_REMEMBERED = 8
"""Results of the serving model per camera among which the one before is looked up: a shadow is
ended by the next frame, so that it is never many behind."""
_FAMILIES = {
    "argmax": "label map",
    "logits": "label map",
    "twinlite": "label map",
    "scores": "class scores",
}


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far two models are apart on one frame.

    Attributes:
        score: 0 = they agree, 1 = they agree on nothing.
        class_area_l1: Label maps: sum over classes of |difference of area shares|, 0..2.
        unmatched: Boxes: confident boxes of either model without a partner in the other.
        flicker: Boxes: 1 - F1 of the serving model against its own previous frame.
    """

    score: float
    class_area_l1: float = 0.0
    unmatched: int = 0
    flicker: float = 0.0

    @property
    def worth(self) -> float:
        """What frames are chosen by, 0..3: the sum that the measurements propose.

        Label maps: score + class-area L1. The L1 is at most twice the score, and that only where
        the pixels all change from one class to another; where borders wobble it is near 0. So a
        pixel counts once, and up to three times where it goes with its class.

        Boxes: score + n / (n + 1) + flicker / 2, n the confident boxes without a partner. As a bare
        number n would outweigh the others and send busy crossings alone: on 552 rendered frames the
        tenth so chosen had 1.1 times the mean error, 1.5 with the first such box counting as much
        as all that follow. A box lost for one frame flickers twice, when it goes and when it is
        back: half each.
        """
        lonely = self.unmatched / (self.unmatched + 1)
        return self.score + self.class_area_l1 + lonely + self.flicker / 2


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


def _one_minus_f1(mine: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """1 - F1 of a matching; two empty sets agree."""
    total = len(mine) + len(other)
    return 1.0 - (float(mine.sum()) + float(other.sum())) / total if total else 0.0


@dataclass
class Comparator:
    """Compares results frame by frame; remembers a few sets of boxes per camera for the flicker."""

    _seen: dict[tuple[str, str], deque[tuple[int, Boxes]]] = field(default_factory=dict)

    def note(self, primary: Result) -> None:
        """Take every result of the serving model: the one before a frame is not always compared."""
        if primary.valid and isinstance(primary.output, Boxes):
            key = primary.slot, primary.frame.camera
            seen = self._seen.setdefault(key, deque(maxlen=_REMEMBERED))
            seen.append((primary.frame.at_ns, primary.output))

    def step(self, primary: Result, shadow: Result) -> Disagreement | None:
        """The disagreement of two results of one frame; None when they cannot be compared."""
        if not (primary.valid and shadow.valid) or _difference(primary.manifest, shadow.manifest):
            return None
        ours, theirs = primary.output, shadow.output
        if isinstance(ours, Boxes) and isinstance(theirs, Boxes):
            return compare_boxes(ours, theirs, self._before(primary))
        if isinstance(ours, LabelMap) and isinstance(theirs, LabelMap):
            return compare_labels(*_same_shape(ours, theirs))
        if isinstance(ours, Scores) and isinstance(theirs, Scores):
            return compare_scores(ours, theirs) if len(ours.score) == len(theirs.score) else None
        return None

    def _before(self, primary: Result) -> Boxes | None:
        """What the serving model said of the frame before."""
        seen = self._seen.get((primary.slot, primary.frame.camera), ())
        earlier = (boxes for at_ns, boxes in reversed(seen) if at_ns < primary.frame.at_ns)
        return next(earlier, None)


def check_comparable(primary: Manifest, shadow: Manifest) -> None:
    """Refuse a shadow whose outputs mean something else: its disagreement would say nothing.

    Raises:
        ManifestError: Naming the difference.
    """
    difference = _difference(primary, shadow)
    if difference:
        raise ManifestError(
            f"the shadow {shadow.name!r} cannot be compared with {primary.name!r}: {difference}",
            remedy="Choose a shadow of the same task with the same labels in the same order",
        )


def _difference(primary: Manifest | None, shadow: Manifest | None) -> str:
    """Why two models cannot be compared; empty when they can. None = nothing is known."""
    if primary is None or shadow is None:
        return ""
    if primary.task != shadow.task:
        return f"its task is {shadow.task!r}, not {primary.task!r}"
    if _family(primary) != _family(shadow):
        return f"it gives {_family(shadow)} ({shadow.decoder.kind}), not {_family(primary)}"
    if primary.labels == shadow.labels:
        return ""
    if len(primary.labels) != len(shadow.labels):
        return f"it has {len(shadow.labels)} labels, not {len(primary.labels)}"
    pairs = enumerate(zip(primary.labels, shadow.labels, strict=True))
    at, (ours, theirs) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    return f"its label {at} is {theirs!r}, not {ours!r}"


def _family(manifest: Manifest) -> str:
    return _FAMILIES.get(manifest.decoder.kind, "boxes")


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
