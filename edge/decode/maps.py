"""Decoders of label maps and class scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode.types import LabelMap, Scores, Shape
from syncline.edge.model.manifest import Manifest
from syncline.edge.preprocess import Geometry
from syncline.errors import ManifestError

MAX_MAP_CLASSES = 256


class MapDecoder:
    """What label-map decoders share."""

    def __init__(self, manifest: Manifest) -> None:
        self.kind: Final = manifest.decoder.kind
        self.classes: Final = len(manifest.labels)

    def __call__(self, outputs: Sequence[NDArray[np.generic]], geometry: Geometry) -> LabelMap:
        """Decode, and cut the letterbox border off; see `Decoder`."""
        labels = self.labels(outputs)
        if labels.ndim != 2:
            raise ManifestError(f"{self.kind}: output makes a map of shape {labels.shape}")
        cut = _cut_border(labels, geometry)
        return LabelMap(cut, geometry.source_width, geometry.source_height)

    def labels(self, outputs: Sequence[NDArray[np.generic]]) -> NDArray[np.uint8]:
        """The full map (h, w), border included."""
        raise NotImplementedError

    def check(self, shapes: Sequence[Shape]) -> None:
        """See `Decoder`."""
        raise NotImplementedError

    def _check_channels(self, found: object, wanted: int) -> None:
        if isinstance(found, int) and wanted and found != wanted:
            raise ManifestError(
                f"{self.kind}: the graph has {found} classes, the manifest {wanted} labels",
                remedy="Give one label per class, in the order of the graph",
            )


class ArgmaxDecoder(MapDecoder):
    """Labels from the graph itself: integer (h, w), (1, h, w) or (1, 1, h, w), below 256."""

    def labels(self, outputs: Sequence[NDArray[np.generic]]) -> NDArray[np.uint8]:
        """See `MapDecoder.labels`."""
        given = outputs[0]
        squeezed = given.reshape(given.shape[-2:]) if given.ndim >= 2 else given
        return squeezed.astype(np.uint8, copy=False)

    def check(self, shapes: Sequence[Shape]) -> None:
        """See `Decoder`."""
        if not 2 <= len(shapes[0]) <= 4 or any(n not in (1, None) for n in shapes[0][:-2]):
            raise ManifestError(f"argmax: output has shape {list(shapes[0])}, must be (1, h, w)")


class LogitsDecoder(MapDecoder):
    """Float (1, C, h, w); the first of equal maxima wins."""

    def labels(self, outputs: Sequence[NDArray[np.generic]]) -> NDArray[np.uint8]:
        """See `MapDecoder.labels`."""
        if outputs[0].ndim != 4:
            raise ManifestError(f"logits: output has shape {outputs[0].shape}, not (1, C, h, w)")
        return plane_argmax(outputs[0][0])

    def check(self, shapes: Sequence[Shape]) -> None:
        """See `Decoder`."""
        shape = shapes[0]
        if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] > MAX_MAP_CLASSES):
            raise ManifestError(f"logits: output has shape {list(shape)}, must be (1, C, h, w)")
        self._check_channels(shape[1], self.classes)


class TwinliteDecoder(MapDecoder):
    """TwinLiteNet: two (1, 2, h, w); label bit 0 = drivable area, bit 1 = lane line.

    Labels are thus 0 background, 1 drivable, 2 lane, 3 lane on drivable.
    """

    def labels(self, outputs: Sequence[NDArray[np.generic]]) -> NDArray[np.uint8]:
        """See `MapDecoder.labels`."""
        if any(output.ndim != 4 or output.shape[1] != 2 for output in outputs):
            raise ManifestError("twinlite: outputs must be (1, 2, h, w)")
        drivable, lane = (plane_argmax(output[0]) for output in outputs)
        return np.bitwise_or(drivable, np.left_shift(lane, np.uint8(1)))

    def check(self, shapes: Sequence[Shape]) -> None:
        """See `Decoder`."""
        for shape in shapes:
            if len(shape) != 4 or shape[1] != 2:
                raise ManifestError(
                    f"twinlite: output has shape {list(shape)}, must be (1, 2, h, w)"
                )


class ScoresDecoder:
    """Classification: float (1, C) or (C,), taken as the graph gives them."""

    def __init__(self, manifest: Manifest) -> None:
        self.classes: Final = len(manifest.labels)

    def __call__(self, outputs: Sequence[NDArray[np.generic]], geometry: Geometry) -> Scores:
        """See `Decoder`; the geometry plays no part."""
        del geometry
        score = np.asarray(outputs[0], dtype=np.float32).reshape(-1)
        if self.classes and len(score) != self.classes:
            raise ManifestError(f"scores: {len(score)} scores for {self.classes} labels")
        return Scores(score.copy())

    def check(self, shapes: Sequence[Shape]) -> None:
        """See `Decoder`."""
        width = shapes[0][-1] if shapes[0] else None
        if isinstance(width, int) and self.classes and width != self.classes:
            raise ManifestError(
                f"scores: the graph has {width} classes, the manifest {self.classes} labels",
                remedy="Give one label per class, in the order of the graph",
            )


def plane_argmax(planes: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Index of the largest of planes (C, h, w), uint8 (h, w); the first of equals wins.

    Plane by plane is five times faster than `argmax(axis=0)`, whose inner loop strides.
    """
    best = planes[0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for index in range(1, len(planes)):
        better = planes[index] > best
        np.copyto(labels, np.uint8(index), where=better)
        np.copyto(best, planes[index], where=better)
    return labels


def _cut_border(labels: NDArray[np.uint8], at: Geometry) -> NDArray[np.uint8]:
    """The part of the map that the image fills; the map may be coarser than the input."""
    if (at.content_width, at.content_height) == (at.input_width, at.input_height):
        return np.ascontiguousarray(labels)
    height, width = labels.shape
    scale_y, scale_x = height / at.input_height, width / at.input_width
    top, left = round(at.pad_y * scale_y), round(at.pad_x * scale_x)
    bottom = max(round((at.pad_y + at.content_height) * scale_y), top + 1)
    right = max(round((at.pad_x + at.content_width) * scale_x), left + 1)
    return np.ascontiguousarray(labels[top:bottom, left:right])
