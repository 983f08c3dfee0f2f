"""Average precision and F1 of detections against truth, at IoU 0.5, per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.cloud.train.rendered import Sample

IOU = 0.5
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one class is found.

    Attributes:
        ap50: Area under precision over recall, all points.
        f1: At the score threshold given.
        precision: At the score threshold given.
        recall: At the score threshold given.
        truths: Boxes asked for.
    """

    ap50: float
    f1: float
    precision: float
    recall: float
    truths: int


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """IoU of boxes (N, 4) with boxes (M, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - inner
    return np.asarray(inner / np.maximum(union, 1e-6), np.float32)


def match(found: Floats, truth: Floats, ignore: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Verdict on each detection, best first: 1 right, 0 wrong, -1 not counted."""
    verdict = np.zeros(len(found), np.int8)
    if len(truth) == 0 or len(found) == 0:
        return verdict
    overlaps = iou_matrix(found, truth)
    taken = np.zeros(len(truth), bool)
    for k, row in enumerate(overlaps):
        free = np.where(taken | ignore, -1.0, row)
        best = int(free.argmax())
        if free[best] >= IOU:
            verdict[k], taken[best] = 1, True
        elif _hidden(found[k], truth[ignore], row[ignore]):
            verdict[k] = -1
    return verdict


def _hidden(box: Floats, ignored: Floats, overlaps: Floats) -> bool:
    """True when a detection is of something that is not asked for."""
    if len(ignored) == 0:
        return False
    low, high = np.maximum(box[:2], ignored[:, :2]), np.minimum(box[2:], ignored[:, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=1)
    share = inner / max(float((box[2:] - box[:2]).prod()), 1e-6)
    return bool((overlaps > 0.3).any() or (share > 0.6).any())


def score_class(
    found: Sequence[Floats], samples: Sequence[Sample], label: int, threshold: float
) -> ClassScore:
    """Score one class.

    Args:
        found: Per picture (N, 6): xyxy, score, class.
        samples: The pictures' truth.
        label: Class id.
        threshold: Score from which a detection counts for F1.
    """
    scores, verdicts, truths = [], [], 0
    for rows, sample in zip(found, samples, strict=True):
        rows = rows[rows[:, 5] == label]
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        mine = sample.labels == label
        truths += int((mine & ~sample.ignore).sum())
        verdict = match(rows[:, :4], sample.boxes[mine], sample.ignore[mine])
        scores.append(rows[verdict >= 0, 4])
        verdicts.append(verdict[verdict >= 0])
    score, verdict = np.concatenate(scores), np.concatenate(verdicts)
    order = np.argsort(-score, kind="stable")
    score, right = score[order], verdict[order].astype(np.float64)
    kept = score >= threshold
    hits = float(right[kept].sum())
    precision, recall = hits / max(int(kept.sum()), 1), hits / max(truths, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return ClassScore(_average_precision(right, truths), f1, precision, recall, truths)


def _average_precision(right: NDArray[np.float64], truths: int) -> float:
    if truths == 0 or len(right) == 0:
        return 0.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(np.concatenate([[0.0], hits / truths]))
    return float((best * steps).sum())
