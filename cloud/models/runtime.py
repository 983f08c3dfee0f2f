"""ONNX Runtime as the tooling uses it: one thread, no spinning, no telemetry, typed errors.

The device's runner has its own wrapper (`syncline.edge.backend`) that loads verified bundles
only; this one runs graphs that are still being worked on.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: the runtime reports home by default

import onnxruntime as ort

from syncline.cloud.models.graph import first_line
from syncline.edge.session import (
    Chosen,
    SessionSpec,
    open_session,
    operators_by_provider,
    reason,
)
from syncline.errors import ManifestError, ModelError

Array = NDArray[np.generic]

RUNTIME = f"onnxruntime {ort.__version__}"
CPU = "CPUExecutionProvider"
_NEWEST_TO_TRY = 40
_FATAL_ONLY = 4
ort.set_default_logger_severity(_FATAL_ONLY)  # sessions that the quantiser makes, too


@dataclass(frozen=True, slots=True)
class RunInput:
    """Name, numpy type name and shape of a session's input; -1 is a free dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class GraphSession:
    """One graph, ready to run on the CPU with one thread.

    Args:
        data: Bytes of the model.
        optimise: False runs the graph as it is written, for proofs about the graph itself.
        exact: Quantised operators are computed in float between their steps: sums never overflow.

    Raises:
        ModelError: The runtime refuses the model.
    """

    def __init__(self, data: bytes, *, optimise: bool = True, exact: bool = False) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_quant_qdq", "1" if exact else "0")
        if not optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = ort.InferenceSession(data, options, providers=[CPU])
        except Exception as error:
            raise ModelError(
                f"{RUNTIME} refuses the model: {first_line(error)}",
                remedy="Run `syncline model check` on it",
            ) from error
        self.output_names: list[str] = [value.name for value in self._session.get_outputs()]

    @property
    def inputs(self) -> list[RunInput]:
        """The inputs that a run needs."""
        return [
            RunInput(
                value.name,
                value.type.removeprefix("tensor(").removesuffix(")"),
                tuple(d if isinstance(d, int) else -1 for d in value.shape),
            )
            for value in self._session.get_inputs()
        ]

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """All outputs for one set of inputs.

        Raises:
            ModelError: The runtime failed, for instance on a wrong shape.
        """
        try:
            return [np.asarray(out) for out in self._session.run(None, dict(feeds))]
        except Exception as error:
            raise ModelError(f"{RUNTIME} cannot run the model: {first_line(error)}") from error


def random_feeds(session: GraphSession, seed: int = 0) -> dict[str, Array]:
    """Image-like random inputs for a session: 0..255 for integers, 0..1 floats otherwise."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in session.inputs:
        shape = tuple(max(d, 1) for d in value.shape)
        if value.dtype == "float":
            feeds[value.name] = rng.random(shape, dtype=np.float32)
        else:
            feeds[value.name] = rng.integers(0, 256, shape).astype(_NUMPY[value.dtype])
    return feeds


_NUMPY: dict[str, type[np.generic]] = {
    "uint8": np.uint8,
    "int8": np.int8,
    "int32": np.int32,
    "int64": np.int64,
    "float16": np.float16,
    "double": np.float64,
    "bool": np.bool_,
}


@functools.cache
def max_opset() -> int:
    """Newest opset that the installed runtime loads, found by trying."""
    newest = onnx.defs.onnx_opset_version()
    return next(v for v in range(min(newest, _NEWEST_TO_TRY), 6, -1) if _loads(v, ir_version=10))


@functools.cache
def max_ir_version() -> int:
    """Newest IR version that the installed runtime loads, found by trying."""
    return next(v for v in range(_NEWEST_TO_TRY, 2, -1) if _loads(17, ir_version=v))


def _loads(opset: int, ir_version: int) -> bool:
    value = functools.partial(onnx.helper.make_tensor_value_info, elem_type=1, shape=[1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "probe", [value("x")], [value("y")])
    imports = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    try:
        GraphSession(model.SerializeToString())
    except ModelError:
        return False
    return True


def known_providers() -> Sequence[str]:
    """Every execution provider that the runtime has a name for, whatever this build of it holds."""
    return list(ort.get_all_providers())


def placement(data: bytes, provider: Chosen) -> dict[str, dict[str, int]]:
    """How many nodes of each operator a provider of this machine takes, and what the CPU gets.

    The runtime itself is asked: printed tables age, and hold for other versions.

    Args:
        data: The model.
        provider: With its device and options.

    Raises:
        ModelError: The runtime refuses the model with this provider.
    """
    try:
        return operators_by_provider(open_session(data, [provider], SessionSpec()))
    except ManifestError as error:
        why = reason(error.__cause__ or error)
        raise ModelError(f"{provider.name} refuses the model: {why}") from error
