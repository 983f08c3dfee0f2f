"""Frames with label maps, and what a segmenter is to learn from them; needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEGMENTER_STRIDE = 4
"""Of a segmenter's labels: a float bilinear resize in the graph costs more than the network."""

Images = NDArray[np.uint8]
Coarsen = Callable[[Images], Images]
"""Labels (N, H, W) to those at the network's stride (N, H / 4, W / 4)."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Frames uint8 (N, H, W, 3) BGR and labels uint8 (N, H, W), 255 = ignore."""

    frames: Images
    labels: Images

    def __len__(self) -> int:
        return len(self.frames)

    def part(self, start: int, stop: int) -> Pairs:
        """Frames start..stop."""
        return Pairs(self.frames[start:stop], self.labels[start:stop])


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be learned.

    Attributes:
        classes: Number of classes.
        crop: (width, height) that it is learned on; the network is convolutional and takes any.
        zoom: Least and greatest share of a frame's sides that becomes a crop.
        coarsen: Makes the labels that are asked for.
    """

    classes: int
    crop: tuple[int, int]
    zoom: tuple[float, float]
    coarsen: Coarsen


def at_centres(labels: Images) -> Images:
    """Labels at the network's stride, taken at the cells' centres."""
    half = SEGMENTER_STRIDE // 2
    return labels[:, half::SEGMENTER_STRIDE, half::SEGMENTER_STRIDE]
