"""Batches for the detector: augmented crops and their targets, drawn in a fixed random order.

The network is convolutional, so it learns on crops of the size of `CROP`, at the scale at which it
sees whole pictures later: as many things per step as in whole pictures, at half the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from syncline.cloud.train.detector_loss import Grid, Targets, assign
from syncline.cloud.train.rendered import ASKED_SIDE_PX, INPUT_SIZE, Sample

MEAN, STD = 114.0, 58.0
PAD = 114
CROP = (320, 192)
_ZOOM = (0.6, 1.7)
"""Scale of the training pictures against the scale at which the network works."""
_AIMED = 0.75
"""Share of crops that are placed on a box; the others lie anywhere."""
_MIN_LEFT = 0.35
"""Share of a box that must survive a crop for it to be asked for."""

_GRAIN = np.clip(
    np.random.default_rng(5).normal(128.0, 20.0, (CROP[1] + 32, CROP[0] + 32, 3)),
    0,
    255,
).astype(np.uint8)

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def augment(rng: np.random.Generator, sample: Sample) -> Sample:
    """Flip, zoom, crop to `CROP` and recolour a picture."""
    base = INPUT_SIZE[0] / sample.image.shape[1]
    zoom = base * float(np.exp(rng.uniform(*np.log(_ZOOM))))
    flip = bool(rng.random() < 0.5)
    matrix = _window(rng, sample, zoom, flip)
    image = cv2.warpAffine(
        sample.image, matrix, CROP, flags=cv2.INTER_LINEAR, borderValue=(PAD,) * 3
    )
    corners = sample.boxes.reshape(-1, 2, 2) * matrix[[0, 1], [0, 1]] + matrix[:, 2]
    whole = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes = np.clip(whole, 0, [*CROP, *CROP]).astype(np.float32)
    sides, before = boxes[:, 2:] - boxes[:, :2], whole[:, 2:] - whole[:, :2]
    left = sides.prod(axis=1) / np.maximum(before.prod(axis=1), 1e-6)
    inside = sides.min(axis=1) >= 1.0
    tiny = sides.min(axis=1) < ASKED_SIDE_PX * base
    ignore = sample.ignore | (left < _MIN_LEFT) | tiny
    return Sample(
        _recolour(rng, np.asarray(image, np.uint8)),
        boxes[inside], sample.labels[inside], ignore[inside],
    )  # fmt: skip


def _window(
    rng: np.random.Generator, sample: Sample, zoom: float, flip: bool
) -> NDArray[np.float64]:
    """Matrix (2, 3) from picture to crop: anywhere, or with a random box somewhere inside."""
    height, width = sample.image.shape[:2]
    spare = np.array(CROP) - np.array([width, height]) * zoom
    shift = spare * rng.uniform(0.0, 1.0, 2)
    asked = np.flatnonzero(~sample.ignore)
    if len(asked) and rng.random() < _AIMED:
        x0, y0, x1, y1 = sample.boxes[rng.choice(asked)]
        middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) * zoom
        if flip:
            middle[0] = width * zoom - middle[0]
        wanted = np.array(CROP) * rng.uniform(0.1, 0.9, 2) - middle
        shift = np.clip(wanted, np.minimum(spare, 0.0), np.maximum(spare, 0.0))
    across = -zoom if flip else zoom
    return np.array(
        [[across, 0.0, shift[0] + (width * zoom if flip else 0.0)], [0.0, zoom, shift[1]]]
    )


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


def batch_at(samples: Sequence[Sample], grid: Grid, seed: int, size: int, step: int) -> Batch:
    """The batch of a step, whatever came before; every sample is seen once before any again."""
    rng = np.random.default_rng([seed, 1, step])
    chosen = [_drawn(len(samples), seed, place) for place in range(step * size, step * size + size)]
    return collate([augment(rng, samples[i]) for i in chosen], grid)


def _drawn(count: int, seed: int, place: int) -> int:
    return _order(count, seed, place // count)[place % count]


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    rng = np.random.default_rng([seed, 2, epoch])
    return tuple(int(i) for i in rng.permutation(count))


def collate(samples: Sequence[Sample], grid: Grid) -> Batch:
    """(images, label, box, asked) of some samples."""
    targets: list[Targets] = [assign(grid, s.boxes, s.labels, s.ignore) for s in samples]
    return (
        tensor([s.image for s in samples]),
        torch.from_numpy(np.stack([t.label for t in targets])),
        torch.from_numpy(np.stack([t.box for t in targets])),
        torch.from_numpy(np.stack([t.asked for t in targets])),
    )
