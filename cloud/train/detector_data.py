"""Batches for the detector: augmented pictures and their targets, drawn in a fixed random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from syncline.cloud.train.detector_loss import Grid, Targets, assign
from syncline.cloud.train.rendered import INPUT_SIZE, MIN_SIDE_PX, Sample

MEAN, STD = 114.0, 58.0
PAD = 114
_MIN_LEFT = 0.35
"""Share of a box that must survive a crop for it to be asked for."""

_GRAIN = np.clip(
    np.random.default_rng(5).normal(128.0, 20.0, (INPUT_SIZE[1] + 32, INPUT_SIZE[0] + 32, 3)),
    0,
    255,
).astype(np.uint8)

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def augment(rng: np.random.Generator, sample: Sample) -> Sample:
    """Flip, zoom, shift and recolour a picture."""
    height, width = sample.image.shape[:2]
    zoom = float(np.exp(rng.uniform(np.log(0.7), np.log(1.8))))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    spare = np.array([width, height]) * (1.0 - zoom)
    shift = spare * rng.uniform(0.0, 1.0, 2)
    matrix = np.array([[flip * zoom, 0.0, shift[0] + (width * zoom if flip < 0 else 0.0)],
                       [0.0, zoom, shift[1]]])  # fmt: skip
    image = cv2.warpAffine(
        sample.image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(PAD,) * 3
    )
    corners = sample.boxes.reshape(-1, 2, 2) * matrix[[0, 1], [0, 1]] + matrix[:, 2]
    whole = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes = np.clip(whole, 0, [width, height, width, height]).astype(np.float32)
    sides, before = boxes[:, 2:] - boxes[:, :2], whole[:, 2:] - whole[:, :2]
    left = sides.prod(axis=1) / np.maximum(before.prod(axis=1), 1e-6)
    inside = sides.min(axis=1) >= 1.0
    ignore = sample.ignore | (left < _MIN_LEFT) | (sides.min(axis=1) < MIN_SIDE_PX)
    return Sample(
        _recolour(rng, np.asarray(image, np.uint8)),
        boxes[inside], sample.labels[inside], ignore[inside],
    )  # fmt: skip


def _recolour(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = image
    if rng.random() < 0.15:
        out = np.asarray(cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR))
    gain = np.exp(rng.normal(0.0, 0.22)) * np.exp(rng.normal(0.0, 0.06, 3))
    levels = (np.arange(256.0) - 110.0) * np.exp(rng.normal(0.0, 0.2)) + 110.0
    table = np.clip(np.multiply.outer(levels, gain), 0, 255).astype(np.uint8)
    out = np.asarray(cv2.LUT(out, table[None]), np.uint8)
    if rng.random() < 0.3:
        height, width = image.shape[:2]
        y, x = (int(v) for v in rng.integers(0, 32, 2))
        grain, share = _GRAIN[y : y + height, x : x + width], float(rng.uniform(0.1, 0.5))
        out = np.asarray(cv2.addWeighted(out, 1.0, grain, share, -128.0 * share), np.uint8)
    if rng.random() < 0.2:
        out = np.asarray(cv2.GaussianBlur(out, (3, 3), 0), np.uint8)
    return out


def tensor(images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Pictures as the normalised input (N, 3, H, W)."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return ((stacked - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def batches(
    samples: Sequence[Sample], grid: Grid, rng: np.random.Generator, size: int, steps: int
) -> Iterator[Batch]:
    """`steps` batches; every sample is seen once before any is seen again."""
    order: list[int] = []
    for _ in range(steps):
        while len(order) < size:
            order.extend(int(i) for i in rng.permutation(len(samples)))
        chosen, order = order[:size], order[size:]
        yield collate([augment(rng, samples[i]) for i in chosen], grid)


def collate(samples: Sequence[Sample], grid: Grid) -> Batch:
    """(images, label, box, asked) of some samples."""
    targets: list[Targets] = [assign(grid, s.boxes, s.labels, s.ignore) for s in samples]
    return (
        tensor([s.image for s in samples]),
        torch.from_numpy(np.stack([t.label for t in targets])),
        torch.from_numpy(np.stack([t.box for t in targets])),
        torch.from_numpy(np.stack([t.asked for t in targets])),
    )
