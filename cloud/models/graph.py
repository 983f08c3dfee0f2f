"""Reading, writing and asking ONNX graphs: a model file is never trusted.

A model is size-limited before it is parsed; second data files are refused or, on import,
embedded after their paths were checked; the graph is validated before anything runs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper, version_converter

from syncline.errors import ModelError

MAX_MODEL_BYTES = 1 << 30
MIN_OPSET = 13
PREFERRED_OPSET = 17
IR_VERSION = 10
ONNX_DOMAINS = ("", "ai.onnx")

Shape = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, element type and shape of an input or output; a string is a free dimension."""

    name: str
    dtype: str
    shape: Shape

    @property
    def fixed(self) -> bool:
        """Whether every dimension is a number."""
        return all(isinstance(d, int) and d > 0 for d in self.shape)

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of a fixed tensor.

        Raises:
            ModelError: A dimension is free.
        """
        if not self.fixed:
            raise ModelError(
                f"tensor {self.name!r} has the free shape {list(self.shape)}",
                remedy="Export the model with fixed shapes, or give --size WIDTHxHEIGHT",
            )
        return tuple(d for d in self.shape if isinstance(d, int))


def read_model_bytes(path: Path) -> bytes:
    """The bytes of a model file.

    Raises:
        ModelError: It cannot be read or is larger than `MAX_MODEL_BYTES`.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"cannot read the model {path}: {error.strerror}", remedy="Give an ONNX file"
        ) from error
    if len(data) > MAX_MODEL_BYTES:
        raise ModelError(f"{path} is larger than {MAX_MODEL_BYTES} bytes")
    return data


def parse_model(data: bytes, origin: str = "model.onnx") -> onnx.ModelProto:
    """Parse the bytes of a model; second data files are not touched.

    Raises:
        ModelError: Not an ONNX file, damaged, or without a graph.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            f"{origin} is not an ONNX file or is damaged",
            remedy="Export it again, or fetch it again and compare its digest",
        ) from error
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{origin} holds no graph", remedy="Give an ONNX model file")
    return model


def load_model(path: Path) -> onnx.ModelProto:
    """Read and parse a model file; see `read_model_bytes` and `parse_model`."""
    return parse_model(read_model_bytes(path), path.name)


def serialise(model: onnx.ModelProto) -> bytes:
    """The bytes of a model: equal graphs give equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A deep copy, for functions that leave their argument alone."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def validate(model: onnx.ModelProto) -> None:
    """Check the graph and infer its shapes strictly.

    Raises:
        ModelError: The graph is invalid.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"the graph is invalid: {first_line(error)}", remedy="Export the model again"
        ) from error


def first_line(error: Exception) -> str:
    """The first non-empty line of an error's text, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def opset(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return max((o.version for o in model.opset_import if o.domain in ONNX_DOMAINS), default=0)


def to_opset(model: onnx.ModelProto, version: int = PREFERRED_OPSET) -> onnx.ModelProto:
    """A copy raised to an opset; a model that is there already comes back as it is.

    Raises:
        ModelError: The converter cannot raise this graph.
    """
    if opset(model) >= version:
        return model
    try:
        raised = version_converter.convert_version(model, version)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"cannot convert opset {opset(model)} to {version}: {first_line(error)}",
            remedy=f"Export the model with opset {version}",
        ) from error
    raised.ir_version = max(min(raised.ir_version, IR_VERSION), 8)
    return raised


def clean_inputs(model: onnx.ModelProto) -> int:
    """Remove initializers from the list of inputs, in place; returns how many.

    Old exporters list weights as inputs: the runtime then cannot fold them and warns about each.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    removed = len(model.graph.input) - len(kept)
    if removed:
        del model.graph.input[:]
        model.graph.input.extend(kept)
    return removed


def drop_unused(model: onnx.ModelProto) -> int:
    """Remove initializers that nothing uses, in place; returns how many."""
    used = {name for node in model.graph.node for name in node.input}
    used |= {value.name for value in model.graph.output}
    used |= {name for node in model.graph.node for name in _subgraph_names(node)}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    removed = len(model.graph.initializer) - len(kept)
    if removed:
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
    return removed


def _subgraph_names(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the subgraphs of a node (If, Loop) may take from outside."""
    for value in node.attribute:
        for graph in (*value.graphs, *([value.g] if value.HasField("g") else [])):
            for inner in graph.node:
                yield from inner.input
                yield from _subgraph_names(inner)


def inputs(model: onnx.ModelProto) -> list[TensorInfo]:
    """The true inputs: those that are no initializer."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [_info(value) for value in model.graph.input if value.name not in weights]


def outputs(model: onnx.ModelProto) -> list[TensorInfo]:
    """The outputs in the order of the graph."""
    return [_info(value) for value in model.graph.output]


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
    return TensorInfo(value.name, dtype_name(tensor.elem_type), shape)


def dtype_name(elem_type: int) -> str:
    """`float32` and the like for an ONNX element type."""
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError:
        return f"type-{elem_type}"


def set_input_size(model: onnx.ModelProto, width: int, height: int) -> None:
    """Fix batch, height and width of the single NCHW input, in place."""
    info = inputs(model)[0]
    value = next(v for v in model.graph.input if v.name == info.name)
    for dim, size in zip(value.type.tensor_type.shape.dim, (1, 3, height, width), strict=True):
        dim.dim_value = size
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    model.CopyFrom(inferred)


def tensor_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shape of every tensor that shape inference can find."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = inferred.graph
    found = {v.name: _info(v).shape for v in (*graph.value_info, *graph.input, *graph.output)}
    found |= {t.name: tuple(t.dims) for t in graph.initializer}
    return found


def constants(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant tensor: initializers and the values of Constant nodes."""
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield from (a.t for a in node.attribute if a.HasField("t"))


def to_array(tensor: onnx.TensorProto) -> NDArray[np.generic]:
    """The values of a constant."""
    return np.asarray(numpy_helper.to_array(tensor))


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def multiply_accumulates(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of one run, of convolutions and matrix products with known shapes."""
    shapes = tensor_shapes(model)
    return sum(_node_macs(node, shapes) for node in model.graph.node)


def _node_macs(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    weight = shapes.get(node.input[1], ()) if len(node.input) > 1 else ()
    out = shapes.get(node.output[0], ()) if node.output else ()
    if not _all_known(weight) or not _all_known(out):
        return 0
    if node.op_type in ("Conv", "ConvInteger"):
        return math.prod(_numbers(out)) * math.prod(_numbers(weight)[1:])
    if node.op_type == "ConvTranspose":
        source = shapes.get(node.input[0], ())
        return math.prod(_numbers(source)) * math.prod(_numbers(weight)[1:])
    if node.op_type in ("MatMul", "Gemm") and len(weight) >= 2:
        return math.prod(_numbers(out)) * _numbers(weight)[-2]
    return 0


def _all_known(shape: Iterable[int | str]) -> bool:
    dims = list(shape)
    return bool(dims) and all(isinstance(d, int) and d > 0 for d in dims)


def _numbers(shape: Iterable[int | str]) -> list[int]:
    return [d for d in shape if isinstance(d, int)]
