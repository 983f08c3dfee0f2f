"""Denormal weights: finding them, setting them to zero, and proving that nothing changed.

A float32 below 1.18e-38 is computed in microcode on most x86 cores, a hundred times slower.
Training with weight decay leaves such weights behind; their products vanish in any sum, so
zeroing them changes no output bit. That is proved by running both graphs, not assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from syncline.cloud.models.graph import constants, copy_model, serialise
from syncline.cloud.models.runtime import Array, GraphSession, random_feeds
from syncline.errors import ModelError

_FLOATS = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.DOUBLE: np.float64,
}


@dataclass(frozen=True, slots=True)
class DenormalCount:
    """How many of a model's float constants are denormal."""

    denormal: int
    total: int

    @property
    def share(self) -> float:
        """Share of denormal values, 0..1."""
        return self.denormal / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class FlushProof:
    """Outcome of flushing.

    Attributes:
        model: The model with its denormals set to zero.
        count: What was there before.
        max_abs_diff: Largest difference of any output over the frames tried.
        frames: How many inputs were tried.
    """

    model: onnx.ModelProto
    count: DenormalCount
    max_abs_diff: float
    frames: int

    @property
    def identical(self) -> bool:
        """Whether every output bit was the same on every input tried."""
        return self.max_abs_diff == 0.0


def count_denormals(model: onnx.ModelProto) -> DenormalCount:
    """Count denormal values among the float constants of a model."""
    denormal = total = 0
    for tensor in constants(model):
        if tensor.data_type in _FLOATS and not tensor.external_data:
            values = np.asarray(numpy_helper.to_array(tensor))
            denormal += int(np.count_nonzero(_is_denormal(values)))
            total += values.size
    return DenormalCount(denormal, total)


def _is_denormal(values: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    tiny = np.finfo(np.float64 if values.dtype == np.float64 else np.float32).tiny
    size = np.abs(values)
    return np.asarray((size != 0) & (size < tiny))


def flush_denormals(model: onnx.ModelProto) -> int:
    """Set every denormal constant to zero, in place; returns how many there were."""
    flushed = 0
    for tensor in constants(model):
        if tensor.data_type not in _FLOATS:
            continue
        values = np.array(numpy_helper.to_array(tensor))
        mask = _is_denormal(values)
        if mask.any():
            values[mask] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            flushed += int(np.count_nonzero(mask))
    return flushed


def flush_and_prove(
    model: onnx.ModelProto, feeds: Iterable[Mapping[str, Array]] | None = None
) -> FlushProof:
    """Flush a copy of a model and run both on the same inputs.

    Args:
        model: Left alone.
        feeds: Inputs to try, real frames at best; by default two random ones.

    Raises:
        ModelError: An output changed, so the flushed model is not the same model.
    """
    count = count_denormals(model)
    flushed = copy_model(model)
    flush_denormals(flushed)
    before, after = GraphSession(serialise(model)), GraphSession(serialise(flushed))
    tried, worst = 0, 0.0
    for feed in feeds if feeds is not None else (random_feeds(before, seed) for seed in (0, 1)):
        worst = max(worst, _difference(before.run(feed), after.run(feed)))
        tried += 1
    if worst > 0.0:
        raise ModelError(
            f"setting {count.denormal} denormal weights to zero changes an output by {worst:.3g}",
            remedy="Keep the model as it is, or retrain with the small weights pruned",
        )
    return FlushProof(flushed, count, worst, tried)


def _difference(one: list[Array], other: list[Array]) -> float:
    """Largest absolute difference; 0 only when every bit is the same, NaN included."""
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        if a.tobytes() == b.tobytes():
            continue
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
        found = float(np.nanmax(gap, initial=0.0))
        worst = max(worst, found if found > 0 else float("inf") if np.isnan(gap).any() else 0.0)
    return worst
