"""Folding what surrounds a network into its graph: uint8 frames in, labels or boxes out.

The camera's bytes go straight into the graph, where transposing and converting them is nearly
free, and ArgMax or non-maximum suppression leave it small and bounded: 5000 candidates cost the
graph's own NMS 0.7 ms and Python ones up to 50. Every operation is the same float32 arithmetic in
the same order as outside, so results are bit-identical, not close.
"""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from syncline.cloud.models.builder import (
    GraphBuilder,
    free_name,
    graft,
    output_info,
    rename_uses,
    set_outputs,
)
from syncline.cloud.models.fold_boxes import NMS_KINDS, fold_nms
from syncline.cloud.models.graph import copy_model, inputs
from syncline.edge.model.manifest import DecoderSpec, InputSpec, Manifest
from syncline.errors import ModelError

LABELS_OUTPUT = "labels"
FRAME_INPUT = "frame"


def fold(model: onnx.ModelProto, manifest: Manifest) -> tuple[onnx.ModelProto, Manifest]:
    """Fold the input and, where the decoder allows it, the output.

    Args:
        model: Left alone; its input must have a fixed shape.
        manifest: How it is fed and decoded now.

    Returns:
        The folded model and the manifest that describes it.
    """
    folded, given = fold_input(model, manifest.input)
    decoder = manifest.decoder
    if decoder.kind == "logits":
        folded, decoder = fold_argmax(folded, decoder)
    elif decoder.kind == "twinlite":
        folded, decoder = fold_twinlite(folded, decoder)
    elif decoder.kind in NMS_KINDS:
        folded, decoder = fold_nms(folded, decoder, given, len(manifest.labels))
    return folded, msgspec.structs.replace(manifest, input=given, decoder=decoder)


def fold_input(model: onnx.ModelProto, spec: InputSpec) -> tuple[onnx.ModelProto, InputSpec]:
    """Make the graph take the uint8 NHWC frame; layout, conversion and normalisation go inside.

    The colour order stays as it is: swapping bytes on the way in is cheaper than in the graph.

    Raises:
        ModelError: The graph has no input of that name.
    """
    if spec.dtype == "uint8" and spec.layout == "NHWC":
        return model, spec
    folded = copy_model(model)
    value = next((v for v in folded.graph.input if v.name == spec.name), None)
    if value is None:
        raise ModelError(
            f"the graph has no input {spec.name!r}",
            remedy=f"It has {[info.name for info in inputs(model)]}",
        )
    builder = GraphBuilder("fold_in")
    tensor = free_name(folded, FRAME_INPUT)
    tail = _input_nodes(builder, tensor, spec)
    rename_uses(folded.graph, spec.name, tail)
    frame = helper.make_tensor_value_info(
        tensor, TensorProto.UINT8, [1, spec.height, spec.width, 3]
    )
    folded.graph.input.remove(value)
    folded.graph.input.insert(0, frame)
    graft(folded, builder, first=True)
    given = InputSpec(
        name=tensor,
        width=spec.width,
        height=spec.height,
        layout="NHWC",
        dtype="uint8",
        color=spec.color,
        resize=spec.resize,
        pad=spec.pad,
    )
    return folded, given


def _input_nodes(builder: GraphBuilder, frame: str, spec: InputSpec) -> str:
    """Nodes from the frame to the tensor that the network took before; its name.

    Transposing comes before the conversion: it then moves one byte per value, not four.
    """
    planar = spec.layout == "NCHW"
    x = builder.node("Transpose", [frame], perm=[0, 3, 1, 2]) if planar else frame
    if spec.dtype == "uint8":
        return x
    x = builder.node("Cast", [x], to=TensorProto.FLOAT)
    shape = (1, 3, 1, 1) if planar else (1, 1, 1, 3)
    if any(spec.mean):
        x = builder.node("Sub", [x, builder.const(np.reshape(spec.mean, shape))])
    if spec.std != (1.0, 1.0, 1.0):
        x = builder.node("Div", [x, builder.const(np.reshape(spec.std, shape))])
    return x


def fold_argmax(
    model: onnx.ModelProto, decoder: DecoderSpec
) -> tuple[onnx.ModelProto, DecoderSpec]:
    """Replace logits (1, C, H, W) by a uint8 label map (1, H, W).

    Raises:
        ModelError: The output is not such a map, or has more than 256 classes.
    """
    folded = copy_model(model)
    info = output_info(folded, decoder.outputs[0])
    dims = info.dims
    if len(dims) != 4 or dims[1] > 256:
        raise ModelError(f"output {info.name!r} is {list(dims)}, not logits of up to 256 classes")
    builder, name = GraphBuilder("fold_out"), free_name(folded, LABELS_OUTPUT)
    labels = builder.node("ArgMax", [info.name], axis=1, keepdims=0)
    builder.node("Cast", [labels], to=TensorProto.UINT8, out=name)
    graft(folded, builder, first=False)
    set_outputs(folded, (name, TensorProto.UINT8, [1, dims[2], dims[3]]))
    return folded, msgspec.structs.replace(decoder, kind="argmax", outputs=(name,))


def fold_twinlite(
    model: onnx.ModelProto, decoder: DecoderSpec
) -> tuple[onnx.ModelProto, DecoderSpec]:
    """Replace the two maps (1, 2, H, W) by one of labels: 0 none, 1 drivable, 2 lane, 3 both."""
    folded = copy_model(model)
    builder, name = GraphBuilder("fold_out"), free_name(folded, LABELS_OUTPUT)
    infos = [output_info(folded, name) for name in decoder.outputs]
    bits = [_second_wins(builder, info.name) for info in infos]
    lane = builder.node("Mul", [bits[1], builder.const(2, np.int32)])
    both = builder.node("Add", [bits[0], lane])
    builder.node("Cast", [both], to=TensorProto.UINT8, out=name)
    graft(folded, builder, first=False)
    set_outputs(folded, (name, TensorProto.UINT8, [1, *infos[0].dims[2:]]))
    return folded, msgspec.structs.replace(decoder, kind="argmax", outputs=(name,))


def _second_wins(b: GraphBuilder, name: str) -> str:
    """1 where the second channel is greater, as int32 (1, H, W): cheaper than ArgMax."""
    first, second = (b.node("Gather", [name, b.const(i, np.int64)], axis=1) for i in (0, 1))
    return b.node("Cast", [b.node("Greater", [second, first])], to=TensorProto.INT32)
