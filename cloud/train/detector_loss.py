"""Which cell answers for which box, and how wrong it is.

A cell is positive when it lies near the middle of a box of its stride's size range. Classes learn
the root of the overlap that the box reaches (after quality focal loss, Li et al. 2020), so that a
score says how good the box is; boxes learn generalised IoU (Rezatofighi et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from syncline.cloud.train.networks import DETECTOR_STRIDES, cell_centres

SIDE_RANGES = ((0.0, 44.0), (30.0, 104.0), (80.0, 1e9))
"""Longest side of the boxes that each stride answers for, pixels; they overlap."""
_RADIUS = (0.6, 1.5)
"""Reach of positive cells from the middle, in strides: at least and at most."""
BOX_WEIGHT = 2.0

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells of all strides in a row: centres (A, 2) in pixels, stride (A,), size range (A, 2)."""

    centre: Floats
    stride: Floats
    side: Floats

    @classmethod
    def of(cls, width: int, height: int) -> Grid:
        """The grid of an input size."""
        centres, strides, sides = [], [], []
        for stride, side in zip(DETECTOR_STRIDES, SIDE_RANGES, strict=True):
            centre = cell_centres(height // stride, width // stride, stride).numpy()
            centres.append(centre)
            strides.append(np.full(len(centre), stride, np.float32))
            sides.append(np.tile(np.array(side, np.float32), (len(centre), 1)))
        return cls(np.concatenate(centres), np.concatenate(strides), np.concatenate(sides))


@dataclass(frozen=True, slots=True)
class Targets:
    """What each cell should say: class (-1 = nothing), box (4), and whether it is asked at all."""

    label: NDArray[np.int64]
    box: Floats
    asked: NDArray[np.bool_]


def assign(
    grid: Grid, boxes: Floats, labels: NDArray[np.int64], ignore: NDArray[np.bool_]
) -> Targets:
    """Targets of every cell for the boxes (N, 4) of one picture."""
    count = len(grid.stride)
    label = np.full(count, -1, np.int64)
    box = np.zeros((count, 4), np.float32)
    asked = np.ones(count, bool)
    for hidden in boxes[ignore]:
        asked &= ~_covered(grid, hidden)
    order = np.argsort(-_area(boxes), kind="stable")
    for index in order:
        if ignore[index]:
            continue
        near = _near(grid, boxes[index])
        label[near], box[near] = labels[index], boxes[index]
    asked |= label >= 0
    return Targets(label, box, asked)


def _area(boxes: Floats) -> Floats:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.float32)


def _covered(grid: Grid, box: Floats) -> NDArray[np.bool_]:
    margin = grid.stride / 2
    x, y = grid.centre[:, 0], grid.centre[:, 1]
    across = (x > box[0] - margin) & (x < box[2] + margin)
    return np.asarray(across & (y > box[1] - margin) & (y < box[3] + margin))


def _near(grid: Grid, box: Floats) -> NDArray[np.bool_]:
    size = box[2:] - box[:2]
    side = float(size.max())
    away = np.abs(grid.centre - (box[:2] + box[2:]) / 2)
    stride = grid.stride[:, None]
    reach = np.clip(size[None, :] / 2, _RADIUS[0] * stride, _RADIUS[1] * stride)
    fits = (side >= grid.side[:, 0]) & (side < grid.side[:, 1])
    return np.asarray((away < reach).all(axis=1) & fits)


def overlap(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU and generalised IoU of paired boxes (N, 4)."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    inner = (high - low).clamp(min=0).prod(dim=1)
    area_a = (a[:, 2:] - a[:, :2]).clamp(min=0).prod(dim=1)
    area_b = (b[:, 2:] - b[:, :2]).clamp(min=0).prod(dim=1)
    union = area_a + area_b - inner + 1e-6
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(dim=1)
    iou = inner / union
    return iou, iou - (hull - union) / (hull + 1e-6)


def detection_loss(
    boxes: torch.Tensor,
    logits: torch.Tensor,
    label: torch.Tensor,
    box: torch.Tensor,
    asked: torch.Tensor,
) -> torch.Tensor:
    """Loss of a batch.

    Args:
        boxes: Decoded (N, A, 4).
        logits: (N, A, C).
        label: (N, A), -1 = background.
        box: (N, A, 4).
        asked: (N, A).
    """
    positive = label >= 0
    count = positive.sum().clamp(min=1)
    iou, giou = overlap(boxes[positive], box[positive])
    target = torch.zeros_like(logits)
    target[positive] = (
        functional.one_hot(label[positive], logits.shape[-1]).to(logits)
        * (iou.detach().clamp(min=0.01).sqrt()[:, None])
    )
    raw = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = (target - logits.sigmoid()).abs().square()
    classes = (raw * weight * asked[..., None]).sum() / count
    return classes + BOX_WEIGHT * (1.0 - giou).sum() / count
