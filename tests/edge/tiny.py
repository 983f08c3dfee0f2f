"""Tiny ONNX models and bundles, made on the spot, for tests that need no recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.edge.model.golden import Golden, pack_golden
from syncline.edge.model.manifest import DecoderSpec, InputSpec, Manifest, TargetSpec

WIDTH, HEIGHT = 32, 24
CLASSES = 3


def onnx_bytes(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[int | str]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str] | None]],
    weights: Mapping[str, NDArray[np.generic]],
) -> bytes:
    """Bytes of a checked opset-17 model."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def segmenter(seed: int = 0, *, dtype: str = "float32", argmax: bool = True) -> bytes:
    """A 3x3 convolution to `CLASSES` logits, then (optionally) an ArgMax to uint8 labels."""
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.generic]] = {
        "w": (rng.normal(size=(CLASSES, 3, 3, 3)) / 255.0).astype(np.float32),
        "b": rng.normal(size=CLASSES).astype(np.float32),
    }
    nodes = []
    name = "x"
    if dtype == "uint8":
        nodes.append(helper.make_node("Transpose", [name], ["xt"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Cast", ["xt"], ["xf"], to=TensorProto.FLOAT))
        name = "xf"
    nodes.append(helper.make_node("Conv", [name, "w", "b"], ["logits"], pads=[1, 1, 1, 1]))
    output: tuple[str, int, list[int | str]]
    output = ("logits", TensorProto.FLOAT, [1, CLASSES, HEIGHT, WIDTH])
    if argmax:
        nodes.append(helper.make_node("ArgMax", ["logits"], ["am"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Cast", ["am"], ["labels"], to=TensorProto.UINT8))
        output = ("labels", TensorProto.UINT8, [1, HEIGHT, WIDTH])
    if dtype == "uint8":
        given = ("x", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])
    else:
        given = ("x", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
    return onnx_bytes(nodes, [given], [output], weights)


def scorer(scale: float = 0.01, bias: Sequence[float] = (0.1, 0.2, 0.3)) -> bytes:
    """Mean of each channel times `scale` plus `bias`: three class scores."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Mul", ["f", "s"], ["g"]),
        helper.make_node("Add", ["g", "b"], ["scores"]),
    ]
    weights: dict[str, NDArray[np.generic]] = {
        "s": np.float32(scale) * np.ones(3, np.float32),
        "b": np.asarray(bias, np.float32),
    }
    given = ("x", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
    return onnx_bytes(nodes, [given], [("scores", TensorProto.FLOAT, [1, 3])], weights)


def slow(rounds: int = 2000, side: int = 512) -> bytes:
    """A model whose run takes seconds: a loop of matrix products, so that it can be terminated.

    The trip count depends on the input, so that nothing is folded at load time.
    """
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m_in", "w"], ["m_mul"]),
            helper.make_node("Clip", ["m_mul", "lo", "hi"], ["m_out"]),
            helper.make_node("Identity", ["keep_in"], ["keep_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_in", TensorProto.FLOAT, [side, side]),
        ],
        [
            helper.make_tensor_value_info("keep_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_out", TensorProto.FLOAT, [side, side]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["brightest", "per_unit"], ["trips_f"]),
        helper.make_node("Cast", ["trips_f"], ["trips"], to=TensorProto.INT64),
        helper.make_node("Loop", ["trips", "keep", "m0"], ["m"], body=body),
        helper.make_node("ReduceMean", ["m"], ["mean"], keepdims=0),
        helper.make_node("GlobalAveragePool", ["x"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["flat", "nothing"], ["scores"]),
    ]
    weights: dict[str, NDArray[np.generic]] = {
        "w": np.full((side, side), 1.0 / side, np.float32),
        "m0": np.ones((side, side), np.float32),
        "keep": np.asarray(True),
        "per_unit": np.asarray(rounds / 255.0, np.float32),
        "zero": np.asarray(0.0, np.float32),
        "lo": np.asarray(-1.0, np.float32),
        "hi": np.asarray(1.0, np.float32),
    }
    given = ("x", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
    return onnx_bytes(nodes, [given], [("scores", TensorProto.FLOAT, [1, 3])], weights)


def manifest(
    *,
    name: str = "tiny",
    version: str = "1",
    task: str = "segmentation",
    kind: str = "argmax",
    outputs: Sequence[str] = ("labels",),
    labels: Sequence[str] = ("road", "car", "sky"),
    given: InputSpec | None = None,
    target: TargetSpec | None = None,
    security_version: int = 0,
) -> Manifest:
    """A manifest of a tiny model."""
    return Manifest(
        name=name,
        version=version,
        task=task,  # type: ignore[arg-type]
        labels=tuple(labels),
        input=given or InputSpec(name="x", width=WIDTH, height=HEIGHT),
        decoder=DecoderSpec(kind=kind, outputs=tuple(outputs)),  # type: ignore[arg-type]
        target=target or TargetSpec(opset=17, runtime=_runtime()),
        security_version=security_version,
    )


def _runtime() -> str:
    from syncline.edge.session import RUNTIME

    return RUNTIME


def frame(seed: int = 0, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A random frame, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def golden_of(model: bytes, spec: Manifest, image: NDArray[np.uint8]) -> Golden:
    """The golden output of a model, by plain onnxruntime."""
    import onnxruntime

    from syncline.edge.preprocess import Preprocessor

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    tensor, _ = Preprocessor(spec.input)(image)
    outputs = session.run(list(spec.decoder.outputs), {spec.input.name: tensor})
    return Golden(image, tuple(outputs))


def bundle(
    folder: Path,
    model: bytes | None = None,
    spec: Manifest | None = None,
    golden: Golden | None = None,
) -> Bundle:
    """Write a bundle of a tiny model, by default the float segmenter."""
    model = segmenter() if model is None else model
    spec = spec or manifest()
    golden = golden or golden_of(model, spec, frame(7))
    return write_bundle(folder, spec, {"model.onnx": model, "golden.npz": pack_golden(golden)})


def scores_manifest(**changes: object) -> Manifest:
    """A manifest of `scorer` and `slow`."""
    return manifest(task="classification", kind="scores", outputs=["scores"], **changes)  # type: ignore[arg-type]
