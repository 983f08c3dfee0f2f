"""Checks of what a model says: not finite, impossible, stuck."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode.types import Boxes, Decoded, LabelMap, Scores

CONSTANT_FRAMES = 30
"""Equal outputs on so many frames that all differ mean a stuck model."""

_SHORT_OUTPUT = 1 << 18
_SAMPLE_BYTES = 16 << 10
_BLOCK = np.dtype(np.complex128)
"""16 bytes in a row: single ones, as many, would read every cache line of a large output."""
_SHORT_LIST = 6 * 300


def not_finite(outputs: Sequence[NDArray[np.generic]]) -> str:
    """Which float output holds NaN or infinity; empty when none does.

    A sum is finite unless an element is not (or it overflows): one fast pass that takes no memory;
    only one that is not finite is looked at element by element. Short outputs are, at once.
    """
    for index, output in enumerate(outputs):
        if output.dtype.kind != "f" or output.size == 0:
            continue
        if _is_finite(output):
            continue
        bad = int(output.size - np.count_nonzero(np.isfinite(output)))
        if bad:
            return f"output {index} holds {bad} values that are NaN or infinite"
    return ""


def _is_finite(output: NDArray[np.generic]) -> bool:
    """True where every element is; False where one may not be."""
    if output.size <= _SHORT_OUTPUT:
        return bool(np.isfinite(output).all())
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.add.reduce(output, axis=None)))


def implausible(decoded: Decoded, classes: int) -> str:
    """What is impossible about a decoded output; empty when nothing is.

    Args:
        decoded: The output.
        classes: Number of labels; 0 = not known.
    """
    if isinstance(decoded, Boxes):
        return _implausible_boxes(decoded, classes)
    if isinstance(decoded, LabelMap):
        if not classes:
            return ""
        largest = int(np.maximum.reduce(decoded.labels, axis=None, initial=0))
        return f"label {largest} of {classes} classes" if largest >= classes else ""
    return "" if _all_finite(decoded) else "class scores are not finite"


def _all_finite(scores: Scores) -> bool:
    return bool(np.isfinite(scores.score).all())


def _implausible_boxes(boxes: Boxes, classes: int) -> str:
    if len(boxes) == 0:
        return ""
    if not np.isfinite(boxes.xyxy_px).all():
        return "box corners are not finite"
    if np.any(boxes.xyxy_px[:, :2] > boxes.xyxy_px[:, 2:]):
        return "a box has its corners the wrong way round"
    low, high = float(boxes.score.min()), float(boxes.score.max())
    if not (low >= 0.0 and high <= 1.0 + 1e-3):
        return f"box scores from {low:.3g} to {high:.3g}, must be 0 to 1"
    worst = int(boxes.class_id.max())
    if int(boxes.class_id.min()) < 0 or (classes and worst >= classes):
        return f"box class {worst} of {classes} classes"
    return ""


@dataclass
class StuckDetector:
    """Tells when a model's raw output stays the same while its frames change.

    One per camera and model. An output without an element (in-graph suppression that found nothing)
    does not count: an empty road is no fault.

    Attributes:
        limit: Frames after which it is stuck.
        run_length: Equal outputs in a row, on frames that all differ from their predecessor.
    """

    limit: int = CONSTANT_FRAMES
    run_length: int = 0
    _frame: int | None = None
    _output: int | None = None

    def step(self, tensor: NDArray[np.generic], outputs: Sequence[NDArray[np.generic]]) -> bool:
        """Take one frame's input tensor and raw outputs; True when the model is stuck."""
        output = _digest(outputs)
        if output != self._output or _is_empty(outputs):
            # The usual case: frames are looked at only when outputs repeat.
            self._output, self._frame, self.run_length = output, None, 1
            return False
        frame = _digest([tensor])
        if frame != self._frame:
            self._frame = frame
            self.run_length += 1
        return self.run_length >= self.limit


def _is_empty(outputs: Sequence[NDArray[np.generic]]) -> bool:
    """Whether a short list of boxes holds none."""
    if sum(output.size for output in outputs) > _SHORT_LIST:
        return False
    return not any(np.any(output) for output in outputs)


@lru_cache(maxsize=64)
def _step(size: int) -> int:
    """Every how manieth block of an array of `size` bytes is looked at.

    With a step that shares factors with the rows the same few columns of each would be looked at,
    and what changes beside them not be seen: 2 % of an int64 map of 640x384. A row's length divides
    the size, so that a step which shares none with the size wanders through all columns.
    """
    step = -(-size // _SAMPLE_BYTES)
    while math.gcd(step * _BLOCK.itemsize, size) > _BLOCK.itemsize:
        step += 1
    return step


def _digest(arrays: Sequence[NDArray[np.generic]]) -> int:
    """Checksum of arrays; large ones are sampled evenly, in short blocks, to bound its cost."""
    digest = 0
    for array in arrays:
        whole = array if array.flags.c_contiguous else np.ascontiguousarray(array)
        if array.nbytes > _SAMPLE_BYTES:
            raw = whole.reshape(-1).view(np.uint8)
            blocks = raw[: raw.size - raw.size % _BLOCK.itemsize].view(_BLOCK)
            whole = blocks[:: _step(array.nbytes)].copy()
        digest = zlib.crc32(whole.data, digest)
    return digest
