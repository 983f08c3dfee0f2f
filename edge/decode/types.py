"""What comes out of a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.edge.preprocess import Geometry


@dataclass(frozen=True, slots=True)
class Boxes:
    """Detections of one frame, best first.

    Attributes:
        xyxy_px: float32 (N, 4): left, top, right, bottom in source image pixels.
        score: float32 (N,), 0..1.
        class_id: int64 (N,), index of the manifest's labels.
    """

    xyxy_px: NDArray[np.float32]
    score: NDArray[np.float32]
    class_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.score)

    @staticmethod
    def none() -> Boxes:
        """No detections."""
        return Boxes(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Class of each pixel, at the resolution that the network gives.

    The letterbox border is cut off: the map covers exactly the source image.

    Attributes:
        labels: uint8 (h, w).
        source_width: Width of the frame, pixels.
        source_height: Height of the frame, pixels.
    """

    labels: NDArray[np.uint8]
    source_width: int
    source_height: int

    def upsampled(self) -> NDArray[np.uint8]:
        """The map at source resolution, uint8 (H, W), nearest neighbour."""
        size = (self.source_width, self.source_height)
        image: NDArray[np.uint8] = np.asarray(
            cv2.resize(self.labels, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8
        )
        return image


@dataclass(frozen=True, slots=True)
class Scores:
    """Class scores of one frame.

    Attributes:
        score: float32 (C,), one per label, as the graph gives them.
    """

    score: NDArray[np.float32]

    def top(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Class ids and scores of the best `count`, best first."""
        order = np.argsort(-self.score, kind="stable")[:count].astype(np.int64)
        return order, self.score[order]


Decoded = Boxes | LabelMap | Scores
"""What a decoder returns."""

Shape = Sequence[int | str | None]
"""Shape of a graph output as the graph declares it; names and None are free."""


class Decoder(Protocol):
    """Makes sense of a graph's outputs."""

    def __call__(self, outputs: Sequence[NDArray[np.generic]], geometry: Geometry) -> Decoded:
        """Decode the outputs of one frame.

        Raises:
            ManifestError: An output does not have the shape that the decoder takes.
        """

    def check(self, shapes: Sequence[Shape]) -> None:
        """Hold declared output shapes against the manifest, before the first frame.

        Raises:
            ManifestError: The decoder cannot take them, or the number of classes is not the
                number of labels.
        """
