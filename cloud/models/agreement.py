"""How much two models agree, per slice; and how well each agrees with labels where there are any.

Detections: F1 of greedy matches of one class at IoU 0.5, best score first. Label maps: share of
equal pixels and mean IoU over the classes that occur. Class scores: share of equal first places.
Memory: one table of counts per slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode import Boxes, Decoded, LabelMap, Scores
from syncline.errors import ModelError

MATCH_IOU = 0.5
IGNORE = 255
_MAX_CLASSES = 256

Kind = Literal["boxes", "labels", "scores"]
Counts = NDArray[np.int64]


@dataclass
class Tally:
    """Counts of one slice.

    Attributes:
        frames: Frames seen.
        matched: Boxes, or first places, that both have.
        reference: Boxes of the reference, or frames.
        candidate: Boxes of the candidate, or frames.
        confusion: Pixels by (reference label, candidate label).
        truth: Pixels by (true label, label), for reference and candidate.
    """

    frames: int = 0
    matched: int = 0
    reference: int = 0
    candidate: int = 0
    confusion: Counts | None = None
    truth: tuple[Counts, Counts] | None = None

    def metrics(self, kind: Kind) -> dict[str, float]:
        """The slice's figures for the manifest."""
        found: dict[str, float] = {"frames": float(self.frames)}
        if kind == "boxes":
            found |= {"f1": self.f1, "reference_boxes": float(self.reference)}
        elif kind == "scores":
            found["top1_agreement"] = self.matched / max(self.frames, 1)
        elif self.confusion is not None:
            found["pixel_agreement"] = accuracy(self.confusion)
            found["miou_agreement"] = mean_iou(self.confusion)
        if self.truth is not None:
            before, after = (mean_iou(table) for table in self.truth)
            found |= {"miou_fp32": before, "miou": after, "miou_drop": before - after}
        return found

    @property
    def f1(self) -> float:
        """2 matched / (reference + candidate); 1 when neither has a box."""
        both = self.reference + self.candidate
        return 2.0 * self.matched / both if both else 1.0


@dataclass
class Agreement:
    """Tallies per slice, `all` among them.

    Attributes:
        kind: What is compared, known after the first frame.
        slices: By name.
    """

    kind: Kind = "boxes"
    slices: dict[str, Tally] = field(default_factory=dict)

    def add(
        self,
        reference: Decoded,
        candidate: Decoded,
        groups: tuple[str, ...],
        truth: NDArray[np.uint8] | None = None,
    ) -> None:
        """Count one frame.

        Args:
            reference: What the fp32 model says.
            candidate: What the other one says.
            groups: Slices the frame is in, besides `all`.
            truth: Label map (h, w) of any size, 255 = ignore; for label maps only.

        Raises:
            ModelError: The two are not of one kind, or shapes differ.
        """
        for name in dict.fromkeys(("all", *groups)):
            tally = self.slices.setdefault(name, Tally())
            tally.frames += 1
            self._count(tally, reference, candidate, truth)

    def _count(
        self, tally: Tally, reference: Decoded, candidate: Decoded, truth: NDArray[np.uint8] | None
    ) -> None:
        if isinstance(reference, Boxes) and isinstance(candidate, Boxes):
            self.kind = "boxes"
            tally.matched += count_matches(reference, candidate)
            tally.reference += len(reference)
            tally.candidate += len(candidate)
        elif isinstance(reference, LabelMap) and isinstance(candidate, LabelMap):
            self.kind = "labels"
            _count_labels(tally, reference.labels, candidate.labels, truth)
        elif isinstance(reference, Scores) and isinstance(candidate, Scores):
            self.kind = "scores"
            tally.matched += int(reference.score.argmax() == candidate.score.argmax())
        else:
            raise ModelError("the two models do not give results of one kind")

    def metrics(self) -> Mapping[str, dict[str, float]]:
        """Figures per slice."""
        return {name: tally.metrics(self.kind) for name, tally in self.slices.items()}


def _count_labels(
    tally: Tally,
    reference: NDArray[np.uint8],
    candidate: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
) -> None:
    if reference.shape != candidate.shape:
        raise ModelError(f"label maps of {reference.shape} and {candidate.shape}")
    table = confusion(reference, candidate)
    tally.confusion = table if tally.confusion is None else tally.confusion + table
    if truth is not None:
        labels = nearest(truth, reference.shape)
        pair = (confusion(labels, reference), confusion(labels, candidate))
        old = tally.truth
        tally.truth = pair if old is None else (old[0] + pair[0], old[1] + pair[1])


def nearest(labels: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A label map resampled by nearest neighbour, centres aligned."""
    rows = ((np.arange(shape[0]) + 0.5) * labels.shape[0] / shape[0]).astype(np.intp)
    columns = ((np.arange(shape[1]) + 0.5) * labels.shape[1] / shape[1]).astype(np.intp)
    return np.asarray(labels[rows[:, None], columns[None, :]])


def confusion(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Counts:
    """Pixels by (first label, second label), (256, 256); 255 in the first is left out."""
    kept = first != IGNORE
    index = first[kept].astype(np.int64) * _MAX_CLASSES + second[kept]
    counts = np.bincount(index, minlength=_MAX_CLASSES * _MAX_CLASSES)
    return np.asarray(counts.reshape(_MAX_CLASSES, _MAX_CLASSES), dtype=np.int64)


def accuracy(table: Counts) -> float:
    """Share of equal pixels."""
    total = int(table.sum())
    return float(np.trace(table)) / total if total else 1.0


def mean_iou(table: Counts) -> float:
    """Mean intersection over union of the classes that the first labelling holds."""
    hits = np.diag(table).astype(np.float64)
    union = table.sum(axis=0) + table.sum(axis=1) - hits
    present = table.sum(axis=1) > 0
    return float(np.mean(hits[present] / union[present])) if present.any() else 1.0


def count_matches(reference: Boxes, candidate: Boxes) -> int:
    """Greedy one-to-one matches of one class at IoU >= 0.5, the candidate's best box first."""
    if not len(reference) or not len(candidate):
        return 0
    overlap = pairwise_iou(candidate.xyxy_px, reference.xyxy_px)
    overlap[candidate.class_id[:, None] != reference.class_id[None, :]] = 0.0
    free = np.ones(len(reference), dtype=bool)
    matched = 0
    for row in np.argsort(-candidate.score, kind="stable"):
        values = np.where(free, overlap[row], 0.0)
        best = int(values.argmax())
        if values[best] >= MATCH_IOU:
            free[best] = False
            matched += 1
    return matched


def pairwise_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of boxes (N, 4) and (M, 4) as corners, (N, M)."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    size = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.clip(size, 0.0, None), axis=-1)
    areas = [np.prod(np.clip(x[..., 2:] - x[..., :2], 0.0, None), axis=-1) for x in (a, b)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
