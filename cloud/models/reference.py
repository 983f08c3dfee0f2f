"""Reference graphs with random weights: they tell what int8 gains on a machine, not what it sees.

EdgeSeg is the architecture of `cloud.train.networks` written without torch, so that a device
without a training stack can measure itself. MobSeg is the kind of network that int8 does not help:
depthwise convolutions and HardSwish.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from syncline.cloud.models.builder import GraphBuilder
from syncline.edge.model.manifest import DecoderSpec, InputSpec, Manifest, TargetSpec

CLASSES = 11
_Activation = Callable[[GraphBuilder, str], str]


def relu(b: GraphBuilder, x: str) -> str:
    """max(x, 0)."""
    return b.node("Relu", [x])


def hard_swish(b: GraphBuilder, x: str) -> str:
    """X * relu6(x + 3) / 6."""
    return b.node("HardSwish", [x])


class _Net:
    """Layers with He-initialised random weights, which keep activations in a natural range."""

    def __init__(self, seed: int) -> None:
        self.b = GraphBuilder("net")
        self._rng = np.random.default_rng(seed)

    def weight(
        self, outputs: int, inputs: int, side: int
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        scale = np.sqrt(2.0 / (inputs * side * side))
        values = self._rng.standard_normal((outputs, inputs, side, side)) * scale
        return np.asarray(values, dtype=np.float32)

    def conv(self, x: str, inputs: int, outputs: int, side: int = 3, stride: int = 1) -> str:
        patch = side == stride
        weight = self.weight(outputs, inputs, side)
        return self.b.conv(x, weight, stride=stride, padded=not patch)

    def unit(self, x: str, inputs: int, outputs: int, side: int = 3, stride: int = 1) -> str:
        return relu(self.b, self.conv(x, inputs, outputs, side, stride))

    def residual(self, x: str, width: int) -> str:
        inner = self.conv(self.unit(x, width, width), width, width)
        return relu(self.b, self.b.node("Add", [x, inner]))

    def stage(self, x: str, inputs: int, outputs: int, stride: int, blocks: int) -> str:
        x = self.unit(x, inputs, outputs, stride=stride)
        for _ in range(blocks):
            x = self.residual(x, outputs)
        return x

    def up(self, x: str) -> str:
        scales = self.b.const([1, 1, 2, 2])
        return self.b.node(
            "Resize",
            [x, "", scales],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def model(self, logits: str, width: int, height: int) -> onnx.ModelProto:
        """One image in, logits at stride 4 out."""
        self.b.node("Identity", [logits], out="logits")
        return self.b.model(
            [("images", TensorProto.FLOAT, [1, 3, height, width])],
            [("logits", TensorProto.FLOAT, [1, CLASSES, height // 4, width // 4])],
        )


def edgeseg(
    channels: int = 32, *, width: int = 640, height: int = 384, seed: int = 0
) -> onnx.ModelProto:
    """EdgeSeg with random weights; see `cloud.train.networks.EdgeSeg`.

    Args:
        channels: Channels at stride 4: 32 small, 56 wide.
        width: Input width, a multiple of 32.
        height: Input height, a multiple of 32.
        seed: Of the weights.
    """
    net, w = _Net(seed), channels
    s4 = net.stage(net.unit("images", 3, w, side=4, stride=4), w, w, 1, 1)
    s8 = net.stage(s4, w, 2 * w, 2, 2)
    s16 = net.stage(s8, 2 * w, 3 * w, 2, 2)
    s32 = net.stage(s16, 3 * w, 4 * w, 2, 1)
    d16 = net.b.node("Add", [s16, net.up(net.unit(s32, 4 * w, 3 * w, side=1))])
    d8 = net.b.node("Add", [s8, net.up(net.unit(d16, 3 * w, 2 * w))])
    d4 = net.b.node("Add", [s4, net.up(net.unit(d8, 2 * w, w))])
    refined = net.unit(d4, w, w)
    return net.model(net.conv(refined, w, CLASSES, side=1), width, height)


_MOBSEG = ((24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 80, 2), (80, 80, 1))
"""Inverted residuals: channels in, channels out, stride."""


def mobseg(
    *,
    activation: _Activation = hard_swish,
    width: int = 640,
    height: int = 384,
    seed: int = 0,
) -> onnx.ModelProto:
    """A MobileNet-style segmenter: inverted residuals with depthwise 3x3 convolutions."""
    net = _Net(seed)
    x = activation(net.b, net.conv("images", 3, 16, stride=2))
    x, fine = _inverted(net, x, 16, 24, 2, activation), ""
    for inputs, outputs, stride in _MOBSEG:
        fine = fine or x
        x = _inverted(net, x, inputs, outputs, stride, activation)
    x = activation(net.b, net.conv(x, 80, 24, side=1))
    x = net.b.node("Add", [net.up(net.up(x)), fine])
    return net.model(net.conv(x, 24, CLASSES, side=1), width, height)


def _inverted(
    net: _Net, x: str, inputs: int, outputs: int, stride: int, activation: _Activation
) -> str:
    wide = 4 * inputs
    y = activation(net.b, net.conv(x, inputs, wide, side=1))
    depthwise = net.weight(wide, 1, 3)
    y = activation(net.b, net.b.conv(y, depthwise, stride=stride, groups=wide))
    y = net.conv(y, wide, outputs, side=1)
    return net.b.node("Add", [x, y]) if stride == 1 and inputs == outputs else y


def reference_manifest(model: onnx.ModelProto, name: str) -> Manifest:
    """Manifest of a reference graph: BGR / 255, logits at stride 4."""
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return Manifest(
        name=name,
        version="0",
        task="segmentation",
        labels=tuple(f"class-{i}" for i in range(CLASSES)),
        input=InputSpec(name="images", width=dims[3], height=dims[2], std=(255.0,) * 3),
        decoder=DecoderSpec(kind="logits", outputs=("logits",)),
        target=TargetSpec(opset=17),
    )
