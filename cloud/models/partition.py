"""Splitting a graph into what int8 helps and what it hurts.

    head   frame to the first features: conversion, normalisation and the stem. An int8 kernel on
           three input channels runs nearly empty (2.2 ms against 0.8 in float).
    body   the dense work: quantised.
    tail   everything after the last inner convolution: the last 1x1 projection, activations,
           box decoding, ArgMax, suppression. Cheap in float, and rounding here is what costs
           accuracy.

The body is cut out, quantised alone and put back, so that quantisation cannot touch the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from syncline.cloud.models.graph import Shape, copy_model, tensor_shapes
from syncline.errors import ModelError

WEIGHTED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "BatchNormalization"})
MAX_STEM_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class Partition:
    """A graph as three lists of node indices, in topological order.

    Attributes:
        model: The whole graph.
        head: Nodes before the body.
        body: Nodes to quantise.
        tail: Nodes after it.
    """

    model: onnx.ModelProto
    head: tuple[int, ...]
    body: tuple[int, ...]
    tail: tuple[int, ...]

    @property
    def body_inputs(self) -> list[str]:
        """Tensors that the body takes from the head or from the graph's inputs."""
        return self._inputs_of(self.body)

    @property
    def body_outputs(self) -> list[str]:
        """Tensors that leave the body."""
        graph = self.model.graph
        used = {name for i in (*self.head, *self.tail) for name in graph.node[i].input}
        used |= {value.name for value in graph.output}
        return [name for i in self.body for name in graph.node[i].output if name in used]

    def head_model(self) -> onnx.ModelProto | None:
        """The graph from the true inputs to the body's inputs; None when they are the same."""
        if not self.head:
            return None
        return self._cut(self.head, [v.name for v in self.model.graph.input], self.body_inputs)

    def body_model(self) -> onnx.ModelProto:
        """The body as a model of its own."""
        return self._cut(self.body, self.body_inputs, self.body_outputs)

    def with_body(self, body: onnx.ModelProto) -> onnx.ModelProto:
        """The whole graph with another body that has the same inputs and outputs."""
        merged = copy_model(self.model)
        graph, old = merged.graph, self.model.graph
        outer = [old.node[i] for i in (*self.head, *self.tail)]
        keep = {name for node in outer for name in node.input}
        weights = [t for t in old.initializer if t.name in keep]
        own = {t.name for t in body.graph.initializer}
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(old.node[i] for i in self.head)
        graph.node.extend(body.graph.node)
        graph.node.extend(old.node[i] for i in self.tail)
        graph.initializer.extend(t for t in weights if t.name not in own)
        graph.initializer.extend(body.graph.initializer)
        _merge_opsets(merged, body)
        return merged

    def _inputs_of(self, part: Sequence[int]) -> list[str]:
        graph = self.model.graph
        made = {name for i in part for name in graph.node[i].output}
        fixed = {t.name for t in graph.initializer} | made | {""}
        names = [name for i in part for name in graph.node[i].input if name not in fixed]
        return list(dict.fromkeys(names))

    def _cut(self, part: Sequence[int], sources: list[str], results: list[str]) -> onnx.ModelProto:
        graph = self.model.graph
        nodes = [graph.node[i] for i in part]
        used = {name for node in nodes for name in node.input}
        shapes, types = tensor_shapes(self.model), _element_types(self.model)
        made = helper.make_graph(
            nodes,
            "part",
            [_value(name, types, shapes) for name in sources],
            [_value(name, types, shapes) for name in results],
            [t for t in graph.initializer if t.name in used],
        )
        return helper.make_model(
            made, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )


def partition(model: onnx.ModelProto, *, keep_stem: bool = True) -> Partition:
    """Split a graph.

    Args:
        model: Optimised: batch norms folded, constants as initializers.
        keep_stem: Leave the stem in float.

    Raises:
        ModelError: Nothing is left to quantise.
    """
    nodes = model.graph.node
    tail = _tail(nodes)
    head = _head(model, tail, keep_stem)
    body = tuple(i for i in range(len(nodes)) if i not in tail and i not in head)
    if not any(nodes[i].op_type in WEIGHTED for i in body):
        raise ModelError(
            "the graph has no inner convolution or matrix product to quantise",
            remedy="Ship it as fp32",
        )
    owned = copy_model(model)
    _own_constants(owned, body)
    return Partition(owned, tuple(sorted(head)), body, tuple(sorted(tail)))


def _own_constants(model: onnx.ModelProto, body: Sequence[int]) -> None:
    """Give the body its own copy of constants that it shares with the rest, in place.

    The quantiser replaces a constant by a node that gives a tensor of the same name, which the
    rest of the graph must not see.
    """
    graph, inner = model.graph, set(body)
    outside = {n for i, node in enumerate(graph.node) if i not in inner for n in node.input}
    inside = {n for i in body for n in graph.node[i].input}
    shared = [t for t in graph.initializer if t.name in outside & inside]
    renamed = {t.name: f"{t.name}_body" for t in shared}
    for tensor in shared:
        graph.initializer.add().CopyFrom(tensor)
        graph.initializer[-1].name = renamed[tensor.name]
    for i in body:
        for k, name in enumerate(graph.node[i].input):
            graph.node[i].input[k] = renamed.get(name, name)


def _tail(nodes: Sequence[onnx.NodeProto]) -> set[int]:
    """Nodes that no later weighted node depends on, but for activations of inner ones."""
    consumers = _consumers(nodes)
    below: dict[int, bool] = {}
    for i in reversed(range(len(nodes))):
        later = (j for name in nodes[i].output for j in consumers.get(name, ()))
        below[i] = any(below[j] or nodes[j].op_type in WEIGHTED for j in later)
    last = {i for i in below if not below[i]}
    inner = {i for i in last if nodes[i].op_type in WEIGHTED and not _is_projection(nodes[i])}
    producers = {name: i for i, node in enumerate(nodes) for name in node.output}
    fused = {
        i
        for i in last
        if nodes[i].op_type in ACTIVATIONS and producers.get(nodes[i].input[0]) in inner
    }
    return last - inner - fused


def _is_projection(node: onnx.NodeProto) -> bool:
    """A 1x1 convolution or a matrix product: the last layer of a head."""
    kernel = next((list(a.ints) for a in node.attribute if a.name == "kernel_shape"), [1])
    return all(side == 1 for side in kernel)


def _head(model: onnx.ModelProto, tail: set[int], keep_stem: bool) -> set[int]:
    """Ancestors of the first weighted nodes and, when wanted, thin stems with their activation."""
    nodes = model.graph.node
    producers = {name: i for i, node in enumerate(nodes) for name in node.output}
    consumers = _consumers(nodes)
    after: set[int] = set()  # nodes that have a weighted ancestor
    for i, node in enumerate(nodes):
        parents = (producers[name] for name in node.input if name in producers)
        if any(p in after or nodes[p].op_type in WEIGHTED for p in parents):
            after.add(i)
    first = [i for i in range(len(nodes)) if i not in after and i not in tail]
    head = {i for i in first if nodes[i].op_type not in WEIGHTED}
    thin = {t.name for t in model.graph.initializer if len(t.dims) == 4 and _thin(t)}
    for i in first:
        if keep_stem and nodes[i].op_type == "Conv" and nodes[i].input[1] in thin:
            head |= {i, *_activation_chain(nodes, consumers, i)}
    return head


def _thin(weight: onnx.TensorProto) -> bool:
    return int(weight.dims[1]) <= MAX_STEM_CHANNELS


def _activation_chain(
    nodes: Sequence[onnx.NodeProto], consumers: dict[str, list[int]], start: int
) -> Iterable[int]:
    """Activations that alone consume a node's output, one after the other."""
    current = start
    while True:
        following = consumers.get(nodes[current].output[0], [])
        if len(following) != 1 or nodes[following[0]].op_type not in ACTIVATIONS:
            return
        current = following[0]
        yield current


def _consumers(nodes: Sequence[onnx.NodeProto]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        for name in node.input:
            found.setdefault(name, []).append(i)
    return found


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _value(name: str, types: dict[str, int], shapes: dict[str, Shape]) -> onnx.ValueInfoProto:
    if name not in types:
        raise ModelError(
            f"the type of tensor {name!r} cannot be inferred",
            remedy="Export the model with fixed shapes",
        )
    return helper.make_tensor_value_info(name, types[name], shapes.get(name) or None)


def _merge_opsets(model: onnx.ModelProto, other: onnx.ModelProto) -> None:
    known = {o.domain for o in model.opset_import}
    model.opset_import.extend(o for o in other.opset_import if o.domain not in known)
