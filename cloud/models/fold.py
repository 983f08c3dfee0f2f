"""Folding what surrounds a network into its graph: uint8 frames in, labels or boxes out.

The camera's bytes go straight into the graph, where transposing and converting them is nearly
free, and ArgMax or non-maximum suppression leave it small and bounded: 5000 candidates cost the
graph's own NMS 0.7 ms and Python ones up to 50. Every operation is the same float32 arithmetic in
the same order as outside, so results are bit-identical, not close.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from syncline.cloud.models.builder import GraphBuilder
from syncline.cloud.models.graph import TensorInfo, copy_model, inputs, outputs
from syncline.edge.model.manifest import DecoderSpec, InputSpec, Manifest
from syncline.errors import ModelError

LABELS_OUTPUT = "labels"
BOXES_OUTPUT = "boxes"
FRAME_INPUT = "frame"
MAX_PER_CLASS = 100
# exp(4) * stride 32 is 1747 px: larger than any input; the same limit as in training.
MAX_LOG_DISTANCE = 4.0


@dataclass(frozen=True, slots=True)
class Head:
    """What a decoder is built from: the network's outputs, its decoder and its input."""

    infos: list[TensorInfo]
    decoder: DecoderSpec
    given: InputSpec


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes before suppression, as tensor names: boxes (1, A, 4), scores (1, C, A).

    `centred` boxes are centre x, centre y, width, height; others x0, y0, x1, y1. Input pixels.
    """

    boxes: str
    scores: str
    centred: bool


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
    elif decoder.kind in _CANDIDATES:
        folded, decoder = fold_nms(folded, decoder, given)
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
    tensor = FRAME_INPUT if FRAME_INPUT not in _all_names(folded) else f"{FRAME_INPUT}_uint8"
    tail = _input_nodes(builder, tensor, spec)
    _rename_uses(folded.graph, spec.name, tail)
    frame = helper.make_tensor_value_info(
        tensor, TensorProto.UINT8, [1, spec.height, spec.width, 3]
    )
    folded.graph.input.remove(value)
    folded.graph.input.insert(0, frame)
    _graft(folded, builder, first=True)
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
    info = _output(folded, decoder.outputs[0])
    dims = info.dims
    if len(dims) != 4 or dims[1] > 256:
        raise ModelError(f"output {info.name!r} is {list(dims)}, not logits of up to 256 classes")
    builder = GraphBuilder("fold_out")
    labels = builder.node("ArgMax", [info.name], axis=1, keepdims=0)
    builder.node("Cast", [labels], to=TensorProto.UINT8, out=LABELS_OUTPUT)
    _graft(folded, builder, first=False)
    _set_outputs(folded, (LABELS_OUTPUT, TensorProto.UINT8, [1, dims[2], dims[3]]))
    return folded, msgspec.structs.replace(decoder, kind="argmax", outputs=(LABELS_OUTPUT,))


def fold_nms(
    model: onnx.ModelProto, decoder: DecoderSpec, given: InputSpec
) -> tuple[onnx.ModelProto, DecoderSpec]:
    """Decode boxes and suppress overlaps in the graph: (N, 6) x0, y0, x1, y1, score, class.

    At most 100 boxes per class and `decoder.max_boxes` in all leave the graph, best first.

    Raises:
        ModelError: The outputs do not have the shapes of `decoder.kind`.
    """
    folded = copy_model(model)
    builder = GraphBuilder("fold_out")
    infos = [_output(folded, name) for name in decoder.outputs]
    found = _CANDIDATES[decoder.kind](builder, Head(infos, decoder, given))
    _suppress(builder, found, decoder)
    _graft(folded, builder, first=False)
    _set_outputs(folded, (BOXES_OUTPUT, TensorProto.FLOAT, ["boxes_count", 6]))
    return folded, msgspec.structs.replace(
        decoder, kind="boxes-nms", outputs=(BOXES_OUTPUT,), strides=()
    )


def fold_edgedet(
    model: onnx.ModelProto, maps: tuple[str, ...], decoder: DecoderSpec, given: InputSpec
) -> tuple[onnx.ModelProto, DecoderSpec]:
    """`fold_nms` for the raw maps of our detector family (see `cloud.train.networks.EdgeDet`).

    Args:
        model: With outputs (1, 4 + C, H / s, W / s), one per stride.
        maps: Their names, in the order of `decoder.strides`.
        decoder: Thresholds and strides; its kind and outputs are replaced.
        given: The network's input geometry.
    """
    folded = copy_model(model)
    builder = GraphBuilder("fold_out")
    infos = [_output(folded, name) for name in maps]
    _suppress(builder, _edgedet(builder, infos, decoder.strides), decoder)
    _graft(folded, builder, first=False)
    _set_outputs(folded, (BOXES_OUTPUT, TensorProto.FLOAT, ["boxes_count", 6]))
    _check_grid(infos, decoder.strides, given)
    return folded, msgspec.structs.replace(
        decoder, kind="boxes-nms", outputs=(BOXES_OUTPUT,), strides=()
    )


def _check_grid(infos: list[TensorInfo], strides: tuple[int, ...], given: InputSpec) -> None:
    for info, stride in zip(infos, strides, strict=True):
        wanted = (given.height // stride, given.width // stride)
        if info.dims[2:] != wanted:
            raise ModelError(
                f"output {info.name!r} is a {list(info.dims[2:])} map, "
                f"stride {stride} of a {given.width}x{given.height} input needs {list(wanted)}"
            )


def _edgedet(b: GraphBuilder, infos: list[TensorInfo], strides: tuple[int, ...]) -> Candidates:
    rows = infos[0].dims[1]
    flat = [
        b.node("Reshape", [info.name, b.const([1, rows, -1], np.int64)])
        for info in infos
    ]  # fmt: skip
    joined = b.node("Concat", flat, axis=2)
    grids = [
        _centres(info.dims[2], info.dims[3], s) for info, s in zip(infos, strides, strict=True)
    ]
    stride = np.concatenate(
        [np.full(g.shape[1], s, np.float32) for g, s in zip(grids, strides, strict=True)]
    )
    limit = b.const(MAX_LOG_DISTANCE)
    reach = b.node("Min", [_rows(b, joined, 0, 4), limit])
    reach = b.node("Mul", [b.node("Exp", [reach]), b.const(stride.reshape(1, 1, -1))])
    centre = b.const(np.concatenate(grids, axis=1)[None])
    low = b.node("Sub", [centre, _rows(b, reach, 0, 2)])
    high = b.node("Add", [centre, _rows(b, reach, 2, 4)])
    boxes = b.node("Transpose", [b.node("Concat", [low, high], axis=1)], perm=[0, 2, 1])
    scores = b.node("Sigmoid", [_rows(b, joined, 4, rows)])
    return Candidates(boxes, scores, centred=False)


def _centres(
    height: int, width: int, stride: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Cell centres (2, H * W), x then y, input pixels."""
    ys, xs = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return ((np.stack((xs.ravel(), ys.ravel())) + 0.5) * stride).astype(np.float32)


def _rows(b: GraphBuilder, x: str, start: int, stop: int, axis: int = 1) -> str:
    """x[:, start:stop] along an axis."""
    bounds = [b.const([value], np.int64) for value in (start, stop, axis)]
    return b.node("Slice", [x, *bounds])


def _yolox(b: GraphBuilder, head: Head) -> Candidates:
    """(1, A, 5 + C): offsets in cells, log sizes, objectness, class scores, all else activated."""
    cells, width = head.infos[0].dims[1:]
    grids, strides = [], []
    for s in head.decoder.strides:
        rows, columns = head.given.height // s, head.given.width // s
        grids.append(_centres(rows, columns, 1).T - 0.5)
        strides.append(np.full((rows * columns, 1), s, np.float32))
    grid, stride = np.concatenate(grids), np.concatenate(strides)
    if len(grid) != cells:
        raise ModelError(
            f"output {head.infos[0].name!r} has {cells} cells, its strides give {len(grid)}"
        )
    x, scale = head.infos[0].name, b.const(stride[None])
    centre = b.node("Add", [_rows(b, x, 0, 2, axis=2), b.const(grid[None])])
    centre = b.node("Mul", [centre, scale])
    size = b.node("Mul", [b.node("Exp", [_rows(b, x, 2, 4, axis=2)]), scale])
    boxes = b.node("Concat", [centre, size], axis=2)
    scores = b.node("Mul", [_rows(b, x, 4, 5, axis=2), _rows(b, x, 5, width, axis=2)])
    return Candidates(boxes, b.node("Transpose", [scores], perm=[0, 2, 1]), centred=True)


def _yolov5(b: GraphBuilder, head: Head) -> Candidates:
    """(1, A, 5 + C): centre and size in pixels, objectness, class scores."""
    x, width = head.infos[0].name, head.infos[0].dims[2]
    scores = b.node("Mul", [_rows(b, x, 4, 5, axis=2), _rows(b, x, 5, width, axis=2)])
    boxes = _rows(b, x, 0, 4, axis=2)
    return Candidates(boxes, b.node("Transpose", [scores], perm=[0, 2, 1]), centred=True)


def _yolov8(b: GraphBuilder, head: Head) -> Candidates:
    """(1, 4 + C, A): centre and size in pixels, class scores."""
    x, height = head.infos[0].name, head.infos[0].dims[1]
    boxes = b.node("Transpose", [_rows(b, x, 0, 4)], perm=[0, 2, 1])
    return Candidates(boxes, _rows(b, x, 4, height), centred=True)


def _ssd(b: GraphBuilder, head: Head) -> Candidates:
    """Scores (1, A, 1 + C) with background first, boxes (1, A, 4) as corners in 0..1."""
    scores, boxes = head.infos
    size = b.const([[[head.given.width, head.given.height] * 2]])
    pixels = b.node("Mul", [boxes.name, size])
    wanted = _rows(b, scores.name, 1, scores.dims[2], axis=2)
    return Candidates(pixels, b.node("Transpose", [wanted], perm=[0, 2, 1]), centred=False)


_Decode = Callable[[GraphBuilder, Head], Candidates]
_CANDIDATES: dict[str, _Decode] = {
    "yolox": _yolox,
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "ssd": _ssd,
}


def _suppress(b: GraphBuilder, found: Candidates, decoder: DecoderSpec) -> None:
    """Non-maximum suppression per class, then the best `max_boxes` as rows of six floats."""
    limits = [
        b.const([min(MAX_PER_CLASS, decoder.max_boxes)], np.int64),
        b.const([decoder.nms_iou]),
        b.const([decoder.score_threshold]),
    ]
    chosen = b.node(
        "NonMaxSuppression", [found.boxes, found.scores, *limits], center_point_box=found.centred
    )
    score = b.node("GatherND", [found.scores, chosen])
    limit = b.const([decoder.max_boxes], np.int64)
    count = b.node("Min", [b.node("Shape", [score]), limit])
    best, order = b.name("best"), b.name("order")
    top = helper.make_node("TopK", [score, count], [best, order], name=b.name("node"))
    b.nodes.append(top)
    rows = b.node("Gather", [chosen, order], axis=0)
    index = b.node("Gather", [rows, b.const(2, np.int64)], axis=1)
    boxes = b.node("Gather", [b.node("Squeeze", [found.boxes, b.const([0], np.int64)]), index])
    if found.centred:
        boxes = _corners(b, boxes)
    label = b.node("Cast", [_rows(b, rows, 1, 2)], to=TensorProto.FLOAT)
    column = b.node("Unsqueeze", [best, b.const([1], np.int64)])
    b.node("Concat", [boxes, column, label], axis=1, out=BOXES_OUTPUT)


def _corners(b: GraphBuilder, boxes: str) -> str:
    """Centre and size (N, 4) to corners."""
    centre = _rows(b, boxes, 0, 2)
    half = b.node("Mul", [_rows(b, boxes, 2, 4), b.const(0.5)])
    return b.node("Concat", [b.node("Sub", [centre, half]), b.node("Add", [centre, half])], axis=1)


def _output(model: onnx.ModelProto, name: str) -> TensorInfo:
    info = next((value for value in outputs(model) if value.name == name), None)
    if info is None:
        raise ModelError(
            f"the graph has no output {name!r}",
            remedy=f"It has {[value.name for value in outputs(model)]}",
        )
    return info


def _set_outputs(model: onnx.ModelProto, *values: tuple[str, int, list[int | str]]) -> None:
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(*value) for value in values)


def _graft(model: onnx.ModelProto, builder: GraphBuilder, *, first: bool) -> None:
    """Put a builder's nodes before or after a graph's own, keeping topological order."""
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*builder.nodes, *nodes] if first else [*nodes, *builder.nodes])
    model.graph.initializer.extend(builder.initializers)


def _rename_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def _all_names(model: onnx.ModelProto) -> set[str]:
    graph = model.graph
    named = {t.name for t in (*graph.initializer, *graph.input, *graph.output)}
    return named | {name for node in graph.node for name in (*node.input, *node.output)}
