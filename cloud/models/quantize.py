"""Static int8 quantisation with the types of the target, in bounded memory.

Only the body of the graph is quantised (see `partition`); calibration streams one frame at a
time and keeps a minimum and a maximum per tensor. Percentile and entropy calibration keep every
activation of every frame (16 GiB at 48 frames of 640x360) and gave no better result, so MinMax is
what there is.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

# The wrapper comes first: it switches the runtime's telemetry off before the runtime is imported.
from syncline.cloud.models.runtime import Array, GraphSession  # isort: skip

from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from syncline.cloud.models.graph import (
    MIN_OPSET,
    first_line,
    load_model,
    opset,
    serialise,
    to_array,
    to_opset,
    validate,
)
from syncline.cloud.models.partition import partition
from syncline.cloud.models.targets import Target
from syncline.errors import ModelError, SynclineError

Feeds = Mapping[str, Array]


class StreamingReader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds of the body, one at a time: each frame runs through the head when it is asked for.

    Args:
        feeds: Inputs of the whole graph; consumed lazily, never collected.
        head: The graph from them to the body's inputs, or None when they are the same.
    """

    def __init__(self, feeds: Iterable[Feeds], head: onnx.ModelProto | None) -> None:
        self._feeds: Iterator[Feeds] = iter(feeds)
        self._head = GraphSession(serialise(head)) if head is not None else None
        self.frames = 0

    def get_next(self) -> dict[str, Array] | None:
        """The next inputs of the body; None at the end."""
        feed = next(self._feeds, None)
        if feed is None:
            return None
        self.frames += 1
        if self._head is None:
            return dict(feed)
        return dict(zip(self._head.output_names, self._head.run(feed), strict=True))


def optimised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph ready to be split: batch norms folded, constants folded, shapes inferred.

    Raises:
        ModelError: The runtime's optimiser refuses the graph.
    """
    raised = to_opset(model) if opset(model) < MIN_OPSET else model
    with _scratch() as folder:
        # by path: given a model, it moves the weights out of the very object it was given
        (folder / "raw.onnx").write_bytes(serialise(raised))
        try:
            quant_pre_process(
                str(folder / "raw.onnx"), str(folder / "ready.onnx"), skip_symbolic_shape=True
            )
        except Exception as error:
            raise ModelError(
                f"the graph cannot be prepared for int8: {first_line(error)}",
                remedy="Run `syncline model check` on it",
            ) from error
        return load_model(folder / "ready.onnx")


def quantise_graph(
    model: onnx.ModelProto,
    feeds: Iterable[Feeds],
    target: Target,
    *,
    keep_stem: bool = True,
) -> onnx.ModelProto:
    """Quantise a graph for a target.

    Args:
        model: Left alone; fixed input shape.
        feeds: Calibration inputs by name, as many as there are; consumed one at a time. Memory:
            one frame and one run of the network.
        target: Whose number types are used.
        keep_stem: Leave a thin first convolution in float.

    Raises:
        ModelError: Nothing to quantise, no calibration input, or the quantiser fails.
    """
    parts = partition(optimised(model), keep_stem=keep_stem)
    reader = StreamingReader(feeds, parts.head_model())
    body = _quantise_body(parts.body_model(), reader, target)
    merged = parts.with_body(body)
    validate(merged)
    return merged


def _quantise_body(
    body: onnx.ModelProto, reader: StreamingReader, target: Target
) -> onnx.ModelProto:
    options = {
        "ActivationSymmetric": target.symmetric,
        "WeightSymmetric": True,
        # TensorRT wants float biases and weights with their own Q/DQ pair
        "AddQDQPairToWeight": target.symmetric,
        "QuantizeBias": not target.symmetric,
    }
    with _scratch() as folder, _quiet_quantiser():
        path = folder / "int8.onnx"
        (folder / "body.onnx").write_bytes(serialise(body))
        try:
            quantize_static(
                str(folder / "body.onnx"),
                str(path),
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=target.reduce_range,
                activation_type=getattr(QuantType, _QUANT_TYPES[target.activation]),
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=options,
            )
        except SynclineError:
            raise  # of a frame or of the head, not of the quantiser
        except Exception as error:
            if reader.frames == 0:
                raise ModelError(
                    "there is no calibration frame", remedy="Give --calibration FOLDER"
                ) from error
            raise ModelError(f"the quantiser failed: {first_line(error)}") from error
        return load_model(path)


_QUANT_TYPES = {"uint8": "QUInt8", "int8": "QInt8"}


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="syncline-model-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _quiet_quantiser() -> Iterator[None]:
    """The quantiser advises steps on the root logger that were taken already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def activation_types(model: onnx.ModelProto) -> frozenset[str]:
    """Number types of the quantised activations in a QDQ graph, such as {"uint8"}."""
    zero_points = {t.name: to_array(t).dtype.name for t in model.graph.initializer}
    weights = set(zero_points)
    found = {
        zero_points.get(node.input[2], "unknown") if len(node.input) > 2 else "uint8"
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in weights
    }
    return frozenset(found)


def check_types(model: onnx.ModelProto, target: Target) -> None:
    """Make sure that a build holds the activation type of its target and no other.

    Raises:
        ModelError: It holds another one.
    """
    found = activation_types(model)
    if found != {target.activation}:
        raise ModelError(
            f"activations are {sorted(found)}, target {target.name} runs {target.activation}",
            remedy=f"Quantise the fp32 model again with --target {target.name}",
        )


def quantised_weight_range(model: onnx.ModelProto) -> tuple[int, int]:
    """Smallest and largest int8 weight of a graph; (0, 0) without any.

    Within -64..64 two products with uint8 activations fit the 16 bits in which AVX2 kernels sum
    them (`vpmaddubsw`): 2 * 64 * 255 < 2**15. Beyond it they saturate.
    """
    values = [
        to_array(t)
        for t in model.graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) >= 2
    ]
    if not values:
        return (0, 0)
    return int(min(np.min(v) for v in values)), int(max(np.max(v) for v in values))
