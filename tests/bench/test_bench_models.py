"""What int8, denormals and folding do to speed, as ratios in one process and run.

CPU time of one thread, variants interleaved, the smallest of many. The figures of spec/edge.md
were taken on a CPU with VNNI; without it int8 convolutions gain less, and the limits say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from msgspec.structs import replace

from syncline.cloud.models.denormals import flush_and_prove
from syncline.cloud.models.fold import fold, fold_argmax, fold_input
from syncline.cloud.models.frames import Frame
from syncline.cloud.models.graph import load_model, serialise, to_opset
from syncline.cloud.models.importer import ImportOptions, import_model
from syncline.cloud.models.probe import Probe, feeds, synthetic_frame
from syncline.cloud.models.quantize import quantise_graph
from syncline.cloud.models.reference import edgeseg, hard_swish, mobseg, reference_manifest, relu
from syncline.cloud.models.runtime import GraphSession
from syncline.cloud.models.speed import compare_models, measure
from syncline.cloud.models.targets import TARGETS, has_vnni, this_machine

VNNI = has_vnni()


@pytest.fixture(autouse=True)
def _measured(benchmark: Any) -> Iterator[None]:
    """Only `make bench` runs these: ratios need more rounds than the suite has time for."""
    if benchmark.disabled:
        pytest.skip("a measurement: make bench")
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def ratios(benchmark: Any, models: dict[str, onnx.ModelProto], runs: int = 15) -> dict[str, float]:
    """Speed of each model over the first one's; printed with the milliseconds."""
    times = benchmark.pedantic(
        lambda: compare_models(models, time.thread_time_ns, runs=runs, budget_s=60.0),
        rounds=1,
    )
    first = next(iter(times.values())).best_ms
    found = {name: first / timing.best_ms for name, timing in times.items()}
    for name, timing in times.items():
        print(f"{name}: {timing.best_ms:.2f} ms, {found[name]:.2f}x")
    benchmark.extra_info.update({name: round(value, 3) for name, value in found.items()})
    return found


def int8_pair(net: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """The folded net in fp32 and in int8 for this machine."""
    model, manifest = fold(net, reference_manifest(net, "net"))
    size = (manifest.input.width, manifest.input.height)
    frames = (Frame("", "", synthetic_frame(*size, seed=i)) for i in range(4))
    int8 = quantise_graph(model, feeds(manifest.input, frames), this_machine())
    return {"fp32": model, "int8": int8}


@pytest.mark.parametrize(
    ("case", "channels", "limit"),
    [
        # measured without VNNI (AMD Zen 3): 1.43 and 1.68
        ("edge-4", 32, 2.0 if VNNI else 1.25),
        ("edge-5", 56, 2.7 if VNNI else 1.4),
    ],
)
def test_int8_speed_of_the_reference_nets(
    benchmark: Any, case: str, channels: int, limit: float
) -> None:
    assert ratios(benchmark, int8_pair(edgeseg(channels)))["int8"] >= limit, case


@pytest.mark.parametrize("activation", [hard_swish, relu])
def test_int8_does_not_help_mobile_nets(benchmark: Any, activation: Any) -> None:
    """edge-6: why the gate refuses them; ReLU alone does not save a depthwise net."""
    pair = int8_pair(mobseg(activation=activation))
    assert ratios(benchmark, pair)["int8"] < 1.2


def test_wrong_types_for_x86(benchmark: Any) -> None:
    """Why targets have types: int8 activations on x86 lose what uint8 ones gain."""
    net = edgeseg(32)
    model, manifest = fold(net, reference_manifest(net, "net"))
    frame = [Frame("", "", synthetic_frame(640, 384))]
    models = {"fp32": model}
    for name in ("x86-64", "arm64"):
        models[name] = quantise_graph(model, feeds(manifest.input, frame), TARGETS[name])
    found = ratios(benchmark, models)
    assert found["x86-64"] > 1.3 * found["arm64"]


def test_twinlite_after_the_doctor(benchmark: Any, shared_data: Path) -> None:
    """edge-9: >= 4x where denormals are slow (Intel); never slower, and bit-identical."""
    model = to_opset(load_model(shared_data / "models" / "twinlitenet.onnx"))
    proof = flush_and_prove(model)
    assert proof.identical
    found = ratios(benchmark, {"as it came": model, "flushed": proof.model}, runs=6)
    slow_denormals = "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="ascii")
    assert found["flushed"] >= (4.0 if slow_denormals else 0.9)


def test_uint8_in_and_labels_out_cost_next_to_nothing(benchmark: Any) -> None:
    """The folded graph, frame to labels, against the bare run and the usual float script."""
    net = edgeseg(32, width=320, height=256)
    manifest = reference_manifest(net, "net")
    image = synthetic_frame(1280, 960)
    inner, spec = fold_input(net, manifest.input)
    inner, decoder = fold_argmax(inner, manifest.decoder)
    folded = Probe(inner, replace(manifest, input=spec, decoder=decoder))
    bare = GraphSession(serialise(net))
    tensor = {"images": np.random.default_rng(0).random((1, 3, 256, 320), dtype=np.float32)}

    def script() -> object:
        small = cv2.resize(image, (320, 256)).astype(np.float32) / 255.0
        planar = np.ascontiguousarray(small.transpose(2, 0, 1)[None], np.float32)
        return bare.run({"images": planar})[0].argmax(axis=1).astype(np.uint8)

    jobs: dict[str, Callable[[], object]] = {
        "bare run": lambda: bare.run(tensor),
        "folded": lambda: folded(image),
        "script": script,
    }
    times = benchmark.pedantic(lambda: measure(jobs, time.thread_time_ns, runs=25), rounds=1)
    best = {name: timing.best_ms for name, timing in times.items()}
    print({name: f"{value:.2f} ms" for name, value in best.items()})
    assert best["folded"] <= 1.15 * best["bare run"]
    assert best["folded"] <= best["script"]


def test_suppression_in_the_graph(benchmark: Any, shared_data: Path, tmp_path: Path) -> None:
    """YOLOX decoded and suppressed in the graph costs less than 2 ms on top of the bare run."""
    path = shared_data / "models" / "yolox_nano.onnx"
    models = {}
    for name, folded in (("bare", False), ("folded", True)):
        bundle = import_model(path, tmp_path / name, ImportOptions(fold=folded)).bundle
        models[name] = load_model(bundle.folder / "model.onnx")
    times = benchmark.pedantic(
        lambda: compare_models(models, time.thread_time_ns, runs=15), rounds=1
    )
    print({name: f"{timing.best_ms:.2f} ms" for name, timing in times.items()})
    assert times["folded"].best_ms - times["bare"].best_ms <= 2.0


def test_opencv_dnn_as_a_peer(benchmark: Any) -> None:
    """cv2.dnn on the same fp32 net, one thread each: measured, and slower."""
    net = edgeseg(32, width=320, height=256)
    data = serialise(net)
    ours, theirs = GraphSession(data), cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    tensor = np.random.default_rng(0).random((1, 3, 256, 320), dtype=np.float32)

    def peer() -> object:
        theirs.setInput(tensor)
        return theirs.forward()

    np.testing.assert_allclose(
        np.asarray(peer()), np.asarray(ours.run({"images": tensor})[0]), rtol=1e-2, atol=1e-3
    )
    jobs: dict[str, Callable[[], object]] = {
        "onnxruntime": lambda: ours.run({"images": tensor}),
        "cv2.dnn": peer,
    }
    times = benchmark.pedantic(lambda: measure(jobs, time.thread_time_ns, runs=15), rounds=1)
    print({name: f"{timing.best_ms:.2f} ms" for name, timing in times.items()})
    assert times["onnxruntime"].best_ms <= times["cv2.dnn"].best_ms


def test_openvino_as_a_peer(benchmark: Any) -> None:
    """The same fp32 and int8 files through OpenVINO, one thread, f32 kept: measured, not held."""
    openvino = pytest.importorskip("openvino", reason="needs the openvino extra")
    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    pair = int8_pair(edgeseg(32))
    feed = synthetic_frame(640, 384)[None]
    jobs: dict[str, Callable[[], object]] = {}
    core = openvino.Core()
    for name, model in pair.items():
        compiled = core.compile_model(core.read_model(serialise(model)), "CPU", config)
        jobs[f"openvino {name}"] = caller(compiled.create_infer_request().infer, {0: feed})
        jobs[f"onnxruntime {name}"] = caller(GraphSession(serialise(model)).run, {"frame": feed})
    # OpenVINO runs in a thread of its own, so the whole process is measured
    times = benchmark.pedantic(lambda: measure(jobs, time.process_time_ns, runs=15), rounds=1)
    print({name: f"{timing.best_ms:.2f} ms" for name, timing in times.items()})
    assert times["openvino int8"].best_ms < times["openvino fp32"].best_ms


def caller(function: Callable[[Any], object], argument: object) -> Callable[[], object]:
    return lambda: function(argument)
