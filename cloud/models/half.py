"""float16 for accelerators: the body of the graph in half precision, what is around it as it was.

CPUs gain nothing from it: their kernels compute in float32 between casts. That makes the accuracy
of a build measurable here, and its speed only on the device.
"""

from __future__ import annotations

import warnings

import onnx

# The wrapper comes first: it switches the runtime's telemetry off before the runtime is imported.
from syncline.cloud.models.runtime import RUNTIME  # isort: skip

from syncline.cloud.models.graph import first_line, validate
from syncline.cloud.models.partition import partition
from syncline.cloud.models.quantize import optimised
from syncline.errors import ModelError


def halve_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its body in float16; inputs, outputs and decoding keep their types.

    Args:
        model: Left alone; fixed input shape.

    Raises:
        ModelError: Weights do not fit float16, or the converter fails.
    """
    # here, because it takes a second to import
    from onnxruntime.transformers.float16 import convert_float_to_float16

    parts = partition(optimised(model), keep_stem=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every weight that becomes zero
            body = convert_float_to_float16(parts.body_model(), keep_io_types=True)
    except Exception as error:
        raise ModelError(f"{RUNTIME} cannot make it float16: {first_line(error)}") from error
    merged = parts.with_body(_sorted(body))
    validate(merged)
    return merged


def _sorted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every node after what it reads: the converter appends its casts."""
    graph = model.graph
    made = {output for node in graph.node for output in node.output}
    waiting, ready, ordered = list(graph.node), set(), []
    while waiting:
        later = []
        for node in waiting:
            if all(name in ready or name not in made for name in node.input):
                ordered.append(node)
                ready.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ModelError("the converted graph has a cycle")
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)
    return model
