"""How a segmenter is trained, whatever its pictures are: augmentation, loss, loop, score."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from syncline.cloud.models.agreement import IGNORE, confusion, mean_iou
from syncline.cloud.train.networks import EdgeSeg
from syncline.cloud.train.pairs import Images, Pairs, Task

Weights = Mapping[str, torch.Tensor]
log = logging.getLogger(__name__)

_SMALLEST_SHARE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        width: Of EdgeSeg: 32 or 56.
        epochs: Passes over the frames.
        batch: Frames per step.
        rate: Peak learning rate of AdamW, one cycle.
        seed: Of weights, order and augmentation.
    """

    width: int = 32
    epochs: int = 50
    batch: int = 8
    rate: float = 3e-3
    seed: int = 0


def augment(
    frame: Images, label: Images, rng: np.random.Generator, task: Task
) -> tuple[NDArray[np.float32], Images]:
    """Mirror, zoom into a random crop, and change light: what a camera does on another day."""
    if rng.random() < 0.5:
        frame, label = frame[:, ::-1], label[:, ::-1]
    zoom = rng.uniform(*task.zoom)
    height, width = label.shape
    rows, columns = int(height * zoom), int(width * zoom)
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    box = np.s_[top : top + rows, left : left + columns]
    frame = np.asarray(cv2.resize(np.ascontiguousarray(frame[box]), task.crop), np.uint8)
    label = np.asarray(
        cv2.resize(np.ascontiguousarray(label[box]), task.crop, interpolation=cv2.INTER_NEAREST),
        np.uint8,
    )
    gain, offset = rng.uniform(0.7, 1.3, 3), rng.uniform(-20, 20)
    bright = np.clip(frame * gain + offset, 0, 255).astype(np.float32)
    return bright, label


def to_tensor(frames: NDArray[np.float32]) -> torch.Tensor:
    """(N, H, W, 3) on 0..255 to the network's input (N, 3, H, W), in the order of memory it had."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2) / 255.0


def class_weights(labels: Images, classes: int) -> torch.Tensor:
    """Inverse square root of frequency: rare classes count more, within reason."""
    found = np.bincount(labels.ravel(), minlength=IGNORE + 1)
    counts = found[:classes].astype(np.float64)
    weights = 1.0 / np.sqrt(np.maximum(counts / counts.sum(), _SMALLEST_SHARE))
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


class Training:
    """A network on its way; deterministic for a seed on one thread.

    Args:
        pairs: Frames to learn from.
        recipe: See `Recipe`.
        task: See `Task`.
        start: Weights to go on from, of a network of the same width; None = from nothing.
    """

    def __init__(
        self, pairs: Pairs, recipe: Recipe, task: Task, start: Weights | None = None
    ) -> None:
        torch.manual_seed(recipe.seed)
        self._pairs, self._recipe, self._task = pairs, recipe, task
        self._rng = np.random.default_rng(recipe.seed)
        net = EdgeSeg(recipe.width, task.classes)
        if start is not None:
            net.load_state_dict(start)
        self.net: Any = net.to(memory_format=torch.channels_last)
        weights = class_weights(pairs.labels, task.classes)
        self._loss = nn.CrossEntropyLoss(weights, ignore_index=IGNORE)
        self._steps = max(len(pairs) // recipe.batch, 1)
        self._optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=recipe.rate, weight_decay=1e-2
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, recipe.rate, total_steps=self._steps * recipe.epochs
        )

    def epoch(self) -> float:
        """One pass over the frames; its mean loss."""
        self.net.train()
        batch = self._recipe.batch
        order, total = self._rng.permutation(len(self._pairs)), 0.0
        for step in range(self._steps):
            total += self._step(order[step * batch : (step + 1) * batch])
        return total / self._steps

    def _step(self, chosen: NDArray[np.int64]) -> float:
        pairs, task = self._pairs, self._task
        made = [augment(pairs.frames[i], pairs.labels[i], self._rng, task) for i in chosen]
        frames = to_tensor(np.stack([frame for frame, _ in made]))
        asked = task.coarsen(np.stack([label for _, label in made]))
        self._optimiser.zero_grad(set_to_none=True)
        value = self._loss(self.net(frames), torch.from_numpy(asked.astype(np.int64)))
        value.backward()
        self._optimiser.step()
        self._schedule.step()
        return float(value.detach())


def train(pairs: Pairs, recipe: Recipe, task: Task, start: Weights | None = None) -> nn.Module:
    """Train EdgeSeg; deterministic for a seed on one thread. Arguments as for `Training`."""
    training = Training(pairs, recipe, task, start)
    for epoch in range(recipe.epochs):
        log.info("epoch=%d of=%d loss=%.4f", epoch + 1, recipe.epochs, training.epoch())
    net: nn.Module = training.net.eval()
    return net


def evaluate(net: nn.Module, pairs: Pairs, task: Task) -> float:
    """Mean IoU at the network's stride over the classes that occur."""
    table = np.zeros((256, 256), np.int64)
    with torch.no_grad():
        for frame, label in zip(pairs.frames, pairs.labels, strict=True):
            logits = net(to_tensor(frame[None].astype(np.float32)))
            found = logits.argmax(1)[0].numpy().astype(np.uint8)
            table += confusion(task.coarsen(label[None])[0], found)
    return mean_iou(table)
