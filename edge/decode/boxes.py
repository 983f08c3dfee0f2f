"""Decoders of detection heads. All select by score first and decode only what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode.nms import Suppressor
from syncline.edge.decode.types import Boxes, Shape
from syncline.edge.model.manifest import Manifest
from syncline.edge.preprocess import Geometry
from syncline.errors import ManifestError

Floats = NDArray[np.float32]


class BoxDecoder:
    """What all detection heads share: thresholds, suppression, the way back to source pixels."""

    rank: int = 3

    def __init__(self, manifest: Manifest) -> None:
        self.spec = manifest.decoder
        self.input = manifest.input
        self.classes: Final = len(manifest.labels)
        self.threshold = np.float32(self.spec.score_threshold)
        self._suppress = Suppressor(self.spec.nms_iou, self.spec.max_boxes)

    def __call__(self, outputs: Sequence[NDArray[np.generic]], geometry: Geometry) -> Boxes:
        """Decode, suppress, and map to source pixels; see `Decoder`."""
        floats = [np.asarray(output, dtype=np.float32) for output in outputs]
        if any(output.ndim != self.rank for output in floats):
            raise ManifestError(
                f"{self.spec.kind}: outputs have shapes {[o.shape for o in floats]}, "
                f"must have {self.rank} axes"
            )
        kept = self._suppress(self.candidates(floats))
        return Boxes(geometry.to_source(kept.xyxy_px), kept.score, kept.class_id)

    def candidates(self, outputs: Sequence[Floats]) -> Boxes:
        """Boxes above the score threshold, in input pixels."""
        raise NotImplementedError

    def check(self, shapes: Sequence[Shape]) -> None:
        """See `Decoder`."""
        for shape in shapes:
            if len(shape) not in self.ranks:
                raise ManifestError(
                    f"decoder.kind={self.spec.kind!r} takes outputs of {self.rank} axes, "
                    f"the graph gives {list(shape)}"
                )
        self.check_classes(self.class_count(shapes))

    @property
    def ranks(self) -> tuple[int, ...]:
        """Numbers of axes that an output may have."""
        return (self.rank,)

    def class_count(self, shapes: Sequence[Shape]) -> int | None:
        """Number of classes that the shapes speak of, where they are fixed."""
        raise NotImplementedError

    def check_classes(self, found: int | None) -> None:
        """Hold the graph's number of classes against the labels."""
        if self.classes and found is not None and found != self.classes:
            raise ManifestError(
                f"the graph has {found} classes, the manifest {self.classes} labels",
                remedy="Give one label per class, in the order of the graph",
            )


class YoloxDecoder(BoxDecoder):
    """YOLOX: (1, cells, 5 + C) of cx, cy, w, h (grid units), objectness, class scores.

    Centre = (output + cell) * stride, size = exp(output) * stride, score = objectness * class
    (Ge et al., YOLOX, arXiv:2107.08430, and its demo code).
    """

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self._cells, self._strides = self._grid()

    def _grid(self) -> tuple[Floats, Floats]:
        cells, strides = [], []
        for stride in self.spec.strides:
            rows, columns = np.mgrid[: self.input.height // stride, : self.input.width // stride]
            grid = np.stack([columns, rows], axis=-1).reshape(-1, 2)
            cells.append(grid)
            strides.append(np.full((len(grid), 1), stride))
        return (
            np.concatenate(cells).astype(np.float32),
            np.concatenate(strides).astype(np.float32),
        )

    def class_count(self, shapes: Sequence[Shape]) -> int | None:
        """Also holds the number of cells against the strides."""
        rows, width = shapes[0][1], shapes[0][2]
        if isinstance(rows, int) and rows != len(self._cells):
            raise ManifestError(
                f"the graph gives {rows} cells, input and decoder.strides make {len(self._cells)}"
            )
        return width - 5 if isinstance(width, int) else None

    def candidates(self, outputs: Sequence[Floats]) -> Boxes:
        """See `BoxDecoder.candidates`."""
        rows = outputs[0][0]
        if len(rows) != len(self._cells):
            raise ManifestError(f"yolox: {len(rows)} cells, must be {len(self._cells)}")
        which, score, class_id = _best_class(rows, self.threshold)
        stride = self._strides[which]
        centre = (rows[which, :2] + self._cells[which]) * stride
        size = np.exp(rows[which, 2:4]) * stride
        return Boxes(_corners(centre, size), score, class_id)


class Yolov5Decoder(BoxDecoder):
    """YOLOv5 export: (1, N, 5 + C) of cx, cy, w, h (input px), objectness, class scores."""

    def class_count(self, shapes: Sequence[Shape]) -> int | None:
        """See `BoxDecoder.class_count`."""
        width = shapes[0][2]
        return width - 5 if isinstance(width, int) else None

    def candidates(self, outputs: Sequence[Floats]) -> Boxes:
        """See `BoxDecoder.candidates`."""
        rows = outputs[0][0]
        which, score, class_id = _best_class(rows, self.threshold)
        return Boxes(_corners(rows[which, :2], rows[which, 2:4]), score, class_id)


class Yolov8Decoder(BoxDecoder):
    """YOLOv8-style export: (1, 4 + C, N) of cx, cy, w, h (input px), class scores."""

    def class_count(self, shapes: Sequence[Shape]) -> int | None:
        """See `BoxDecoder.class_count`."""
        width = shapes[0][1]
        return width - 4 if isinstance(width, int) else None

    def candidates(self, outputs: Sequence[Floats]) -> Boxes:
        """See `BoxDecoder.candidates`."""
        columns = outputs[0][0]
        best = columns[4:].max(axis=0)
        which = np.flatnonzero(best >= self.threshold)
        class_id = columns[4:, which].argmax(axis=0).astype(np.int64)
        boxes = _corners(columns[:2, which].T, columns[2:4, which].T)
        return Boxes(boxes, best[which], class_id)


class FastestDetDecoder(BoxDecoder):
    """FastestDet: (1, 5 + C, H, W) of objectness, tx, ty, tw, th, class scores.

    Score = objectness^0.6 * class^0.4, centre = (cell + tanh(t)) / grid, size = sigmoid(t) of the
    input (github.com/dog-qiuqiu/FastestDet, `utils/tool.py`).
    """

    rank = 4

    def class_count(self, shapes: Sequence[Shape]) -> int | None:
        """See `BoxDecoder.class_count`."""
        width = shapes[0][1]
        return width - 5 if isinstance(width, int) else None

    def candidates(self, outputs: Sequence[Floats]) -> Boxes:
        """See `BoxDecoder.candidates`."""
        head = outputs[0][0]
        grid_h, grid_w = head.shape[1:]
        flat = head.reshape(len(head), -1)
        score = flat[0] ** np.float32(0.6) * flat[5:].max(axis=0) ** np.float32(0.4)
        which = np.flatnonzero(score >= self.threshold)
        cell = np.stack([which % grid_w, which // grid_w], axis=-1).astype(np.float32)
        picked = flat[:, which]
        full = np.array([self.input.width, self.input.height], np.float32)
        grid = np.array([grid_w, grid_h], np.float32)
        centre = (cell + np.tanh(picked[1:3].T)) / grid * full
        size = full / (np.float32(1.0) + np.exp(-picked[3:5].T))
        class_id = picked[5:].argmax(axis=0).astype(np.int64)
        return Boxes(_corners(centre, size), score[which], class_id)


class SsdDecoder(BoxDecoder):
    """SSD style: scores (1, N, C) and boxes (1, N, 4), already decoded, corners in 0..1.

    One class more than labels means that the first is background.
    """

    def class_count(self, shapes: Sequence[Shape]) -> int | None:
        """Without the background class."""
        if shapes[1][2] not in (4, None) and not isinstance(shapes[1][2], str):
            raise ManifestError(f"ssd: boxes have shape {list(shapes[1])}, must be (1, N, 4)")
        width = shapes[0][2]
        if not isinstance(width, int):
            return None
        return width - 1 if width == self.classes + 1 else width

    def candidates(self, outputs: Sequence[Floats]) -> Boxes:
        """See `BoxDecoder.candidates`."""
        scores, boxes = outputs[0][0], outputs[1][0]
        scores = scores[:, max(scores.shape[1] - self.classes, 0) if self.classes else 0 :]
        best = scores.max(axis=1)
        which = np.flatnonzero(best >= self.threshold)
        full = np.array([self.input.width, self.input.height] * 2, np.float32)
        class_id = scores[which].argmax(axis=1).astype(np.int64)
        return Boxes(boxes[which] * full, best[which], class_id)


class InGraphNmsDecoder(BoxDecoder):
    """Suppressed in the graph: (N, 6) or (1, N, 6) of x0, y0, x1, y1 (input px), score, class."""

    def __call__(self, outputs: Sequence[NDArray[np.generic]], geometry: Geometry) -> Boxes:
        """No second suppression; see `Decoder`."""
        rows = np.asarray(outputs[0], dtype=np.float32)
        if rows.ndim not in self.ranks or rows.shape[-1] != 6:
            raise ManifestError(f"boxes-nms: output has shape {rows.shape}, must be (N, 6)")
        rows = rows.reshape(-1, 6)
        which = np.flatnonzero(rows[:, 4] >= self.threshold)
        which = which[np.argsort(-rows[which, 4], kind="stable")][: self.spec.max_boxes]
        picked = rows[which]
        return Boxes(geometry.to_source(picked[:, :4]), picked[:, 4], picked[:, 5].astype(np.int64))

    @property
    def ranks(self) -> tuple[int, ...]:
        """See `BoxDecoder.ranks`."""
        return (2, 3)

    def class_count(self, shapes: Sequence[Shape]) -> int | None:
        """Not visible in the shape; the width is."""
        if isinstance(shapes[0][-1], int) and shapes[0][-1] != 6:
            raise ManifestError(f"boxes-nms: output has shape {list(shapes[0])}, must be (N, 6)")
        return None


def _best_class(
    rows: Floats, threshold: np.float32
) -> tuple[NDArray[np.intp], Floats, NDArray[np.int64]]:
    """(row, score, class) of rows (N, 5 + C) whose objectness * best class reaches the threshold.

    Class scores are at most 1, so objectness alone rules most rows out.
    """
    which = np.flatnonzero(rows[:, 4] >= threshold)
    picked = rows[which]
    class_id = picked[:, 5:].argmax(axis=1)
    score = picked[:, 4] * picked[np.arange(len(picked)), 5 + class_id]
    good = score >= threshold
    return which[good], score[good], class_id[good].astype(np.int64)


def _corners(centre: Floats, size: Floats) -> Floats:
    """Centre and size (N, 2) as corners (N, 4)."""
    half = size * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=1)
