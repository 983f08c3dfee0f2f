"""Box decoding and non-maximum suppression as graph operators.

Semantics are those of the decoders in `syncline.edge.decode`: one class per cell, the best one;
suppression within a class; the best `max_boxes` leave. What is added is the bound: at most 100
boxes per class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from syncline.cloud.models.builder import GraphBuilder, free_name, graft, output_info, set_outputs
from syncline.cloud.models.graph import TensorInfo, copy_model, opset
from syncline.edge.model.manifest import DecoderSpec, InputSpec
from syncline.errors import ModelError

BOXES_OUTPUT = "boxes"
MAX_PER_CLASS = 100
# exp(4) * stride 32 is 1747 px: larger than any input; the same limit as in training.
MAX_LOG_DISTANCE = 4.0


@dataclass(frozen=True, slots=True)
class Head:
    """What a decoder is built from: outputs, thresholds, input geometry, number of labels."""

    infos: list[TensorInfo]
    decoder: DecoderSpec
    given: InputSpec
    labels: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes before suppression, as tensor names: boxes (1, A, 4), scores (1, C, A).

    `centred` boxes are centre x, centre y, width, height; others x0, y0, x1, y1. Input pixels.
    """

    boxes: str
    scores: str
    centred: bool


def fold_nms(
    model: onnx.ModelProto, decoder: DecoderSpec, given: InputSpec, labels: int
) -> tuple[onnx.ModelProto, DecoderSpec]:
    """Decode boxes and suppress overlaps in the graph: (N, 6) x0, y0, x1, y1, score, class.

    At most 100 boxes per class and `decoder.max_boxes` in all leave the graph, best first.

    Raises:
        ModelError: The outputs do not have the shapes of `decoder.kind`.
    """
    folded = copy_model(model)
    builder = GraphBuilder("fold_out", opset(folded))
    infos = [output_info(folded, name) for name in decoder.outputs]
    found = _CANDIDATES[decoder.kind](builder, Head(infos, decoder, given, labels))
    name = _suppress(builder, found, decoder, free_name(folded, BOXES_OUTPUT))
    graft(folded, builder, first=False)
    set_outputs(folded, (name, TensorProto.FLOAT, ["boxes_count", 6]))
    return folded, msgspec.structs.replace(decoder, kind="boxes-nms", outputs=(name,), strides=())


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
    builder = GraphBuilder("fold_out", opset(folded))
    infos = [output_info(folded, name) for name in maps]
    found = _edgedet(builder, infos, decoder.strides)
    name = _suppress(builder, found, decoder, free_name(folded, BOXES_OUTPUT))
    graft(folded, builder, first=False)
    set_outputs(folded, (name, TensorProto.FLOAT, ["boxes_count", 6]))
    _check_grid(infos, decoder.strides, given)
    return folded, msgspec.structs.replace(decoder, kind="boxes-nms", outputs=(name,), strides=())


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
    # channels first: slices are then contiguous, and objectness spreads over whole rows
    x = b.node("Transpose", [head.infos[0].name], perm=[0, 2, 1])
    scale = b.const(stride.T[None])
    centre = b.node("Mul", [b.node("Add", [_rows(b, x, 0, 2), b.const(grid.T[None])]), scale])
    size = b.node("Mul", [b.node("Exp", [_rows(b, x, 2, 4)]), scale])
    boxes = b.node("Transpose", [b.node("Concat", [centre, size], axis=1)], perm=[0, 2, 1])
    scores = b.node("Mul", [_rows(b, x, 4, 5), _rows(b, x, 5, width)])
    return Candidates(boxes, scores, centred=True)


def _yolov5(b: GraphBuilder, head: Head) -> Candidates:
    """(1, A, 5 + C): centre and size in pixels, objectness, class scores."""
    x = b.node("Transpose", [head.infos[0].name], perm=[0, 2, 1])
    scores = b.node("Mul", [_rows(b, x, 4, 5), _rows(b, x, 5, head.infos[0].dims[2])])
    return Candidates(_rows(b, head.infos[0].name, 0, 4, axis=2), scores, centred=True)


def _yolov8(b: GraphBuilder, head: Head) -> Candidates:
    """(1, 4 + C, A): centre and size in pixels, class scores."""
    x, height = head.infos[0].name, head.infos[0].dims[1]
    boxes = b.node("Transpose", [_rows(b, x, 0, 4)], perm=[0, 2, 1])
    return Candidates(boxes, _rows(b, x, 4, height), centred=True)


def _ssd(b: GraphBuilder, head: Head) -> Candidates:
    """Scores (1, A, C) and boxes (1, A, 4) as corners in 0..1.

    One class more than labels means that the first is background.
    """
    scores, boxes = head.infos
    size = b.const([[[head.given.width, head.given.height] * 2]])
    pixels = b.node("Mul", [boxes.name, size])
    count = scores.dims[2]
    first = 1 if count == head.labels + 1 else 0
    wanted = _rows(b, scores.name, first, count, axis=2)
    return Candidates(pixels, b.node("Transpose", [wanted], perm=[0, 2, 1]), centred=False)


def _fastestdet(b: GraphBuilder, head: Head) -> Candidates:
    """(1, 5 + C, H, W): objectness, tx, ty, tw, th, class scores; see `FastestDetDecoder`."""
    _, rows, height, width = head.infos[0].dims
    flat = b.node("Reshape", [head.infos[0].name, b.const([1, rows, -1], np.int64)])
    powers = [b.const(0.6), b.const(0.4)]
    parts = (_rows(b, flat, 0, 1), _rows(b, flat, 5, rows))
    raised = [b.node("Pow", [part, power]) for part, power in zip(parts, powers, strict=True)]
    scores = b.node("Mul", raised)
    full = np.array([head.given.width, head.given.height], np.float32).reshape(1, 2, 1)
    grid = np.array([width, height], np.float32).reshape(1, 2, 1)
    cell = b.const(_centres(height, width, 1)[None] - 0.5)
    centre = b.node("Add", [cell, b.node("Tanh", [_rows(b, flat, 1, 3)])])
    centre = b.node("Mul", [b.node("Div", [centre, b.const(grid)]), b.const(full)])
    size = b.node("Mul", [b.node("Sigmoid", [_rows(b, flat, 3, 5)]), b.const(full)])
    boxes = b.node("Concat", [centre, size], axis=1)
    return Candidates(b.node("Transpose", [boxes], perm=[0, 2, 1]), scores, centred=True)


_Decode = Callable[[GraphBuilder, Head], Candidates]
_CANDIDATES: dict[str, _Decode] = {
    "yolox": _yolox,
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "ssd": _ssd,
    "fastestdet": _fastestdet,
}
NMS_KINDS = frozenset(_CANDIDATES)


def _suppress(b: GraphBuilder, found: Candidates, decoder: DecoderSpec, out: str) -> str:
    """Non-maximum suppression per class, then the best `max_boxes` as rows of six floats."""
    limits = [
        b.const([min(MAX_PER_CLASS, decoder.max_boxes)], np.int64),
        b.const([decoder.nms_iou]),
        b.const([decoder.score_threshold]),
    ]
    scores = _best_class_only(b, found.scores)
    chosen = b.node(
        "NonMaxSuppression", [found.boxes, scores, *limits], center_point_box=int(found.centred)
    )
    score = b.node("GatherND", [scores, chosen])
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
    return b.node("Concat", [boxes, column, label], axis=1, out=out)


def _best_class_only(b: GraphBuilder, scores: str) -> str:
    """Scores (1, C, A) with all but the best class of each cell at zero."""
    best = b.reduce_max(scores, 1)
    return b.node("Where", [b.node("Equal", [scores, best]), scores, b.const(0.0)])


def _corners(b: GraphBuilder, boxes: str) -> str:
    """Centre and size (N, 4) to corners."""
    centre = _rows(b, boxes, 0, 2)
    half = b.node("Mul", [_rows(b, boxes, 2, 4), b.const(0.5)])
    return b.node("Concat", [b.node("Sub", [centre, half]), b.node("Add", [centre, half])], axis=1)
