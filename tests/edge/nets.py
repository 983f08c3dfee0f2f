"""Random-weight networks of realistic cost: only their speed means anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from syncline.edge.model.bundle import Bundle
from syncline.edge.model.manifest import DecoderSpec, InputSpec, Manifest, TargetSpec

from . import tiny

Weights = dict[str, NDArray[np.generic]]
CLASSES = 11


class _Net:
    """Adds layers one after another."""

    def __init__(self, seed: int, dtype: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: Weights = {}
        self.name = "x"
        if dtype == "uint8":
            self.add("Transpose", perm=[0, 3, 1, 2])
            self.add("Cast", to=TensorProto.FLOAT)
        self.weights["mean"] = np.asarray(127.5, np.float32)
        self.weights["scale"] = np.asarray(1.0 / 64.0, np.float32)
        self.add("Sub", "mean")
        self.add("Mul", "scale")

    def add(self, kind: str, *more: str, **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.name, *more], [output], **attributes))
        self.name = output
        return output

    def conv(self, given: int, made: int, *, stride: int = 1, kernel: int = 3) -> str:
        index = len(self.nodes)
        fan = given * kernel * kernel
        shape = (made, given, kernel, kernel)
        self.weights[f"w{index}"] = self.rng.normal(0, (2 / fan) ** 0.5, shape).astype(np.float32)
        self.weights[f"b{index}"] = np.zeros(made, np.float32)
        pads, steps = [kernel // 2] * 4, [stride] * 2
        return self.add("Conv", f"w{index}", f"b{index}", pads=pads, strides=steps)

    def block(self, given: int, made: int, stride: int = 1) -> None:
        self.conv(given, made, stride=stride)
        self.add("Relu")


def segmenter(dtype: str = "uint8", width: int = 16, seed: int = 1) -> bytes:
    """320 x 240 to labels at stride 4, dense 3x3 and ReLU: about 9 ms of one 3 GHz AVX2 core."""
    net = _Net(seed, dtype)
    net.block(3, width, 2)
    net.block(width, 2 * width, 2)
    for _ in range(3):
        net.block(2 * width, 2 * width)
    net.block(2 * width, 4 * width, 2)
    for _ in range(4):
        net.block(4 * width, 4 * width)
    net.weights["sizes"] = np.array([1, 4 * width, 60, 80], np.int64)
    net.weights["none"] = np.zeros(0, np.float32)
    net.nodes.append(
        helper.make_node("Resize", [net.name, "none", "none", "sizes"], ["up"], mode="nearest")
    )
    net.name = "up"
    net.conv(4 * width, CLASSES, kernel=1)
    net.add("ArgMax", axis=1, keepdims=0)
    net.nodes.append(helper.make_node("Cast", [net.name], ["labels"], to=TensorProto.UINT8))
    shape = [1, 240, 320, 3] if dtype == "uint8" else [1, 3, 240, 320]
    kind = TensorProto.UINT8 if dtype == "uint8" else TensorProto.FLOAT
    output = ("labels", TensorProto.UINT8, [1, 60, 80])
    return tiny.onnx_bytes(net.nodes, [("x", kind, shape)], [output], net.weights)


def detector(dtype: str = "uint8", width: int = 32, seed: int = 2) -> bytes:
    """640 x 384 to (1, 5040, 5 + 11) rows like YOLOv5's, about as dear as a nano detector."""
    net = _Net(seed, dtype)
    net.block(3, width // 2, 2)
    net.block(width // 2, width, 2)
    net.block(width, 2 * width, 2)
    for _ in range(2):
        net.block(2 * width, 2 * width)
    rows = []
    given = 2 * width
    for level, cells in enumerate((80 * 48, 40 * 24, 20 * 12)):
        if level:
            net.block(given, 4 * width, 2)
            given = 4 * width
            net.block(given, given)
        trunk = net.name
        net.conv(given, 5 + CLASSES, kernel=1)
        net.add("Sigmoid")
        net.weights[f"shape{level}"] = np.array([1, 5 + CLASSES, cells], np.int64)
        net.add("Reshape", f"shape{level}")
        rows.append(net.add("Transpose", perm=[0, 2, 1]))
        net.name = trunk
    net.nodes.append(helper.make_node("Concat", rows, ["raw"], axis=1))
    # Sigmoids become boxes of up to 60 px spread over the picture.
    net.weights["spread"] = np.array([640, 384, 60, 60] + [1] * (1 + CLASSES), np.float32)
    net.nodes.append(helper.make_node("Mul", ["raw", "spread"], ["rows"]))
    shape = [1, 384, 640, 3] if dtype == "uint8" else [1, 3, 384, 640]
    kind = TensorProto.UINT8 if dtype == "uint8" else TensorProto.FLOAT
    output = ("rows", TensorProto.FLOAT, [1, 5040, 5 + CLASSES])
    return tiny.onnx_bytes(net.nodes, [("x", kind, shape)], [output], net.weights)


def bundle(kind: str, folder: Path, dtype: str = "uint8") -> Bundle:
    """A bundle of one of the two."""
    is_seg = kind == "segmenter"
    model = segmenter(dtype) if is_seg else detector(dtype)
    layout = "NHWC" if dtype == "uint8" else "NCHW"
    size = (320, 240) if is_seg else (640, 384)
    spec = Manifest(
        name=kind,
        version="1",
        task="segmentation" if is_seg else "detection",
        labels=tuple(f"c{i}" for i in range(CLASSES)),
        input=InputSpec(
            name="x",
            width=size[0],
            height=size[1],
            layout=layout,  # type: ignore[arg-type]
            dtype=dtype,  # type: ignore[arg-type]
        ),
        decoder=DecoderSpec(
            kind="argmax" if is_seg else "yolov5",
            outputs=("labels",) if is_seg else ("rows",),
            score_threshold=0.3,
        ),
        target=TargetSpec(opset=17),
    )
    return tiny.bundle(folder, model, spec if is_seg else _with_threshold(model, spec))


def _with_threshold(model: bytes, spec: Manifest) -> Manifest:
    """A threshold that about one cell in fifty passes: 100 candidates a frame."""
    rows = np.asarray(tiny.golden_of(model, spec, picture(1920, 1080)).outputs[0][0], np.float64)
    scores = rows[:, 4] * rows[:, 5:].max(axis=1)
    threshold = float(np.quantile(scores, 0.98))
    decoder = msgspec.structs.replace(spec.decoder, score_threshold=threshold)
    return msgspec.structs.replace(spec, decoder=decoder)


def picture(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Soft noise, a little like a picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), dtype=np.uint8)
