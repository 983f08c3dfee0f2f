"""How much two models agree, per slice; and how well each agrees with labels where there are any.

Detections: F1 of greedy matches of one class at IoU 0.5, largest overlap first. Label maps: share
of equal pixels and mean IoU over the classes that occur. Class scores: share of equal first places.
Memory: one table of counts per slice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode import Boxes, Decoded, LabelMap, Scores
from syncline.edge.decode.match import match
from syncline.errors import ModelError

IGNORE = 255
_MAX_CLASSES = 256
_MAX_TEXT = 256

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
        truth_frames: Frames that have labels.
        truth_pixels: Pixels of their label maps, ignored ones too.
        class_frames: Frames whose labels hold a class, by class.
    """

    frames: int = 0
    matched: int = 0
    reference: int = 0
    candidate: int = 0
    confusion: Counts | None = None
    truth: tuple[Counts, Counts] | None = None
    truth_frames: int = 0
    truth_pixels: int = 0
    class_frames: Counts = field(default_factory=lambda: np.zeros(_MAX_CLASSES, np.int64))

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
        return found | self._against_truth()

    def _against_truth(self) -> dict[str, float]:
        """Figures against labels; none where not a pixel was judged."""
        judged = self.judged_pixels
        if self.truth is None or not judged:
            return {}
        before, after = (mean_iou(table) for table in self.truth)
        return {
            "miou_fp32": before,
            "miou": after,
            "miou_drop": before - after,
            "truth_frames": float(self.truth_frames),
            "judged_pixels": float(judged),
        }

    def by_class(self, labels: Sequence[str]) -> dict[str, dict[str, float]]:
        """Frames and pixels judged, and intersection over union, of every class with labels."""
        if self.truth is None:
            return {}
        pixels = self.truth[0].sum(axis=1)
        before, after = (class_iou(table) for table in self.truth)
        return {
            f"class.{k}.{labels[k] if k < len(labels) else k}"[:_MAX_TEXT]: {
                "truth_frames": float(self.class_frames[k]),
                "judged_pixels": float(pixels[k]),
                "iou_fp32": float(before[k]),
                "iou": float(after[k]),
            }
            for k in np.flatnonzero(pixels).tolist()
        }

    @property
    def judged_pixels(self) -> int:
        """Pixels that have a label."""
        return int(self.truth[0].sum()) if self.truth is not None else 0

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
            tally.matched += int(match(reference, candidate)[0].sum())
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
        tally.truth_frames += 1
        tally.truth_pixels += labels.size
        tally.class_frames += pair[0].any(axis=1)


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
    """Share of equal pixels; NaN of none, which no limit lets pass."""
    total = int(table.sum())
    return float(np.trace(table)) / total if total else math.nan


def mean_iou(table: Counts) -> float:
    """Mean intersection over union of the classes that the first labelling holds; NaN of none."""
    present = table.sum(axis=1) > 0
    return float(np.mean(class_iou(table)[present])) if present.any() else math.nan


def class_iou(table: Counts) -> NDArray[np.float64]:
    """Intersection over union by class, (256,); 0 where neither labelling holds it."""
    hits = np.diag(table).astype(np.float64)
    union = table.sum(axis=0) + table.sum(axis=1) - hits
    return np.asarray(np.divide(hits, union, out=np.zeros_like(hits), where=union > 0))


def best_constant_iou(table: Counts) -> float:
    """Mean IoU of the best answer that does not look: one label for every pixel; NaN of none."""
    pixels = table.sum(axis=1)
    present = int(np.count_nonzero(pixels))
    return float(pixels.max()) / float(pixels.sum()) / present if present else math.nan
