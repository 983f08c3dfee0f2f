"""The detector's training loop: warm up, hold the rate, let it fall; can stop and go on anywhere.

A step's batch depends on the seed and its number alone, and a checkpoint holds all else, so a run
that was stopped ends with the network of one that was not. The rate is held until it falls (Hu et
al. 2024, warm-up, stable, decay): how long to train can be decided late.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from syncline.cloud.train.detector_data import CROP, batch_at
from syncline.cloud.train.detector_loss import Grid, detection_loss
from syncline.cloud.train.networks import EdgeDet, decode_maps
from syncline.cloud.train.rendered import Sample

log = logging.getLogger(__name__)

AVERAGE_DECAY = 0.995
LAST_RATE = 0.01
_EVERY = 100
"""Steps between two checkpoints, and between two lines of the log."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights.

    Attributes:
        seed: Of weights, order and augmentation.
        width: Channel multiplier of the network.
        steps: Optimiser steps.
        batch: Crops per step.
        rate: Learning rate while it is held.
        warm: Steps in which it rises.
        fall: Steps at the end in which it falls to a hundredth.
        threads: Torch threads; sums depend on it.
        parent: SHA-256 of the weights it starts from; empty: from nothing.
    """

    seed: int = 1
    width: float = 0.5
    steps: int = 4000
    batch: int = 16
    rate: float = 2e-3
    warm: int = 150
    fall: int = 1200
    threads: int = 1
    parent: str = ""

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warm:
            return self.rate * (step + 1) / self.warm
        left = min((self.steps - step) / self.fall, 1.0)
        return self.rate * (LAST_RATE + (1.0 - LAST_RATE) * left)


class Training:
    """A network on its way, with all that a checkpoint holds."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        cv2.setNumThreads(1)
        self.recipe = recipe
        self.step = 0
        self.net: Any = EdgeDet(recipe.width, classes).to(memory_format=torch.channels_last)
        decay = get_ema_multi_avg_fn(AVERAGE_DECAY)
        self.average = AveragedModel(self.net, multi_avg_fn=decay, use_buffers=True)
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=recipe.rate, weight_decay=0.02
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write a checkpoint whole or not at all: a run may be stopped at any moment."""
        part = path.with_suffix(".part")
        parts = (self.net, self.average, self.optimiser)
        torch.save({"step": self.step, "parts": [p.state_dict() for p in parts]}, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        for part, values in zip(
            (self.net, self.average, self.optimiser), state["parts"], strict=True
        ):
            part.load_state_dict(values)
        self.step = state["step"]

    def inherit(self, weights: Path) -> None:
        """Start from weights, a file of `torch.save(net.state_dict())`."""
        values = torch.load(weights, weights_only=True)
        self.net.load_state_dict(values)
        self.average.module.load_state_dict(values)

    def advance(self, samples: Sequence[Sample], grid: Grid) -> float:
        """Take one step; returns its loss."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate_at(self.step)
        images, *targets = batch_at(samples, grid, recipe.seed, recipe.batch, self.step)
        boxes, logits = decode_maps(self.net(images))
        loss = detection_loss(boxes, logits, *targets)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 10.0)
        self.optimiser.step()
        self.average.update_parameters(self.net)
        self.step += 1
        return float(loss.detach())


def train(
    recipe: Recipe,
    samples: Sequence[Sample],
    classes: int,
    checkpoint: Path,
    start: Path | None = None,
) -> torch.nn.Module:
    """Train, from `checkpoint` on where there is one; returns the averaged network in eval mode.

    Args:
        recipe: See `Recipe`.
        samples: Training pictures.
        classes: Number of classes.
        checkpoint: Kept up to date; delete it to start again.
        start: Weights to start from.
    """
    training = Training(recipe, classes)
    if checkpoint.exists():
        training.load(checkpoint)
        log.info("goes on from step=%d", training.step)
    elif start is not None:
        training.inherit(start)
    grid, total = Grid.of(*CROP), 0.0
    while training.step < recipe.steps:
        total += training.advance(samples, grid)
        if training.step % _EVERY == 0 or training.step == recipe.steps:
            log.info("step=%d of=%d loss=%.3f", training.step, recipe.steps, total / _EVERY)
            training.save(checkpoint)
            total = 0.0
    net: torch.nn.Module = training.average.module.eval()
    return net
