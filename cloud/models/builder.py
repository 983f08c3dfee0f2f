"""A small writer of ONNX graphs: constants by value, nodes by operator, names by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

from syncline.cloud.models.graph import IR_VERSION, PREFERRED_OPSET, TensorInfo, outputs
from syncline.errors import ModelError


class GraphBuilder:
    """Collects nodes and initializers; every method that adds one returns its tensor's name.

    Args:
        prefix: Begins every generated name, so that grafted nodes cannot clash with a graph's own.
        opset: Of the graph that the nodes go to.
    """

    def __init__(self, prefix: str = "n", opset: int = PREFERRED_OPSET) -> None:
        self.prefix = prefix
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._count = 0

    def name(self, kind: str) -> str:
        """A fresh name."""
        self._count += 1
        return f"{self.prefix}_{kind}_{self._count}"

    def const(self, value: ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        """A constant tensor."""
        name = self.name("const")
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(
        self, operator: str, sources: Sequence[str], *, out: str | None = None, **attributes: Any
    ) -> str:
        """A node with one output."""
        output = out or self.name(operator.lower())
        made = helper.make_node(
            operator, list(sources), [output], name=self.name("node"), **attributes
        )
        self.nodes.append(made)
        return output

    def reduce_max(self, x: str, axis: int) -> str:
        """Maximum along an axis, which stays with length 1; opset 18 moved the axes."""
        if self.opset >= 18:
            return self.node("ReduceMax", [x, self.const([axis], np.int64)], keepdims=1)
        return self.node("ReduceMax", [x], axes=[axis], keepdims=1)

    def conv(
        self,
        x: str,
        weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
        *,
        stride: int = 1,
        groups: int = 1,
        padded: bool = True,
    ) -> str:
        """A square convolution with zero bias; weight is (out, in / groups, k, k)."""
        side = weight.shape[2]
        pad = side // 2 if padded else 0
        bias = self.const(np.zeros(weight.shape[0], np.float32))
        return self.node(
            "Conv",
            [x, self.const(weight), bias],
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=groups,
        )

    def model(
        self,
        inputs: Sequence[tuple[str, int, Sequence[int | str]]],
        outputs: Sequence[tuple[str, int, Sequence[int | str]]],
    ) -> onnx.ModelProto:
        """The finished model; inputs and outputs as (name, ONNX element type, shape)."""
        graph = helper.make_graph(
            self.nodes,
            self.prefix,
            [helper.make_tensor_value_info(*value) for value in inputs],
            [helper.make_tensor_value_info(*value) for value in outputs],
            self.initializers,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=IR_VERSION,
            producer_name="syncline",
        )


def output_info(model: onnx.ModelProto, name: str) -> TensorInfo:
    """Name, type and shape of an output.

    Raises:
        ModelError: The graph has no such output.
    """
    info = next((value for value in outputs(model) if value.name == name), None)
    if info is None:
        raise ModelError(
            f"the graph has no output {name!r}",
            remedy=f"It has {[value.name for value in outputs(model)]}",
        )
    return info


def set_outputs(model: onnx.ModelProto, *values: tuple[str, int, list[int | str]]) -> None:
    """Replace a graph's outputs, in place."""
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(*value) for value in values)


def graft(model: onnx.ModelProto, builder: GraphBuilder, *, first: bool) -> None:
    """Put a builder's nodes before or after a graph's own, keeping topological order."""
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*builder.nodes, *nodes] if first else [*nodes, *builder.nodes])
    model.graph.initializer.extend(builder.initializers)


def rename_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Make every node that takes `old` take `new`, in place."""
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def all_names(model: onnx.ModelProto) -> set[str]:
    """Every tensor name of a graph."""
    graph = model.graph
    named = {t.name for t in (*graph.initializer, *graph.input, *graph.output)}
    return named | {name for node in graph.node for name in (*node.input, *node.output)}


def free_name(model: onnx.ModelProto, wanted: str) -> str:
    """`wanted`, or `wanted_folded` when the graph has a tensor of that name."""
    return wanted if wanted not in all_names(model) else f"{wanted}_folded"
