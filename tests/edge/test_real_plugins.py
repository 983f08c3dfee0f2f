"""Cases 23, 24, 31 and 35 with execution providers that come as libraries.

They need an environment of their own, made by `make peers`. No machine of the tests has a GPU or
NPU, so both run on stand-ins, in software, and show the way through our code and nothing of speed:

- WebGPU on a Vulkan driver that computes on the CPU: SwiftShader of Debian's `chromium` package
  (`SYNCLINE_VULKAN_ICD` names another; Mesa 22.3's lavapipe lacks what the provider needs);
- QNN on the emulator of Qualcomm's Hexagon NPU that its x86-64 wheel brings.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from syncline.edge.model.bundle import write_bundle
from syncline.edge.model.golden import pack_golden
from syncline.edge.session import RUNTIME
from syncline.edge.shipped import resolve_bundle

from . import real, tiny
from .test_second_provider import split_graph

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("SYNCLINE_PLUGINS_PYTHON", ROOT / ".venv-plugins/bin/python"))
ICD = Path(os.environ.get("SYNCLINE_VULKAN_ICD", "/usr/lib/chromium/vk_swiftshader_icd.json"))
CPU, WEBGPU, QNN = "CPUExecutionProvider", "WebGpuExecutionProvider", "QNNExecutionProvider"
CUDA, OPENVINO = "CUDAExecutionProvider", "OpenVINOExecutionProvider"
V79 = {"htp_arch": "79", "soc_model": "69"}
"""Hexagon of the Snapdragon 8 Elite; the emulator's default holds no network of real size."""

pytestmark = [
    pytest.mark.soak,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-plugins: make peers"),
]
needs_vulkan = pytest.mark.skipif(
    not ICD.exists(), reason=f"needs a Vulkan driver in software at {ICD}: apt install chromium"
)


def library(package: str) -> Path:
    (found,) = PYTHON.parents[1].glob(f"lib/*/site-packages/{package}/libonnxruntime_*.so")
    return found


def run(command: list[Any], *, software_gpu: bool = False, **changes: str) -> Any:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    if software_gpu:
        env |= {"VK_DRIVER_FILES": str(ICD), "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1"}
    return subprocess.run(
        [str(PYTHON), *map(str, command)],
        capture_output=True, text=True, timeout=800, check=False, env=env,
    )  # fmt: skip


def told(folder: Path, provider: str, package: str, **given: Any) -> Any:
    software_gpu = given.pop("software_gpu", False)
    small = tiny.bundle(folder / "tiny", tiny.scorer(), tiny.scores_manifest())
    request = {
        "provider": provider, "library": str(library(package)), "options": {},
        "cache": str(folder / "cache"), "tiny": str(small.folder), **given,
    }  # fmt: skip
    command = [ROOT / "tests/edge/real_plugin.py", json.dumps(request)]
    done = run(command, software_gpu=software_gpu)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def webgpu(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("webgpu")
    split = tiny.bundle(folder / "split", split_graph(), spec=tiny.scores_manifest())
    whole = str(resolve_bundle("road-detector"))
    return told(folder, WEBGPU, "onnxruntime_ep_webgpu", split=str(split.folder), whole=whole,
                software_gpu=True)  # fmt: skip


@pytest.fixture(scope="module")
def qnn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("qnn")
    split = tiny.bundle(folder / "split", split_graph(), spec=tiny.scores_manifest())
    return told(folder, QNN, "onnxruntime_qnn", split=str(split.folder))


def held(answers: Any, provider: str, version: str) -> None:
    """What holds for every provider that runs a model: health and warnings, and that two sessions
    serve side by side while a third is loaded (edge-16, edge-36)."""
    strict = answers["strict"]
    assert (strict["requested"], strict["actual"], strict["share"]) == (provider, provider, 1.0)
    assert strict["runtime"] == f"{RUNTIME}, {provider} {version}"
    (warning,) = strict["warnings"]
    assert "runs in software here" in warning
    assert answers["health"] == [[provider, provider, 1.0]] * 5
    assert answers["absent-strict"]["error"] == "ProviderError"
    assert answers["absent-strict"]["code"] == 4
    absent = answers["absent"]
    assert (absent["requested"], absent["actual"], absent["share"]) == (CUDA, provider, 0.0)
    assert len([line for line in absent["warnings"] if CUDA in line]) == 1
    beside = answers["beside"]
    print(provider, beside)
    assert beside["wrong"] == [0, 0]
    assert min(beside["runs"]) > 5
    assert 2 * min(beside["runs"]) > max(beside["runs"])
    assert beside["loads"] > 1


@needs_vulkan
def test_edge_23_webgpu_runs_the_model_and_health_says_so(webgpu: Any) -> None:
    """edge-23, edge-24: strict, five health messages, and as the next best behind CUDA."""
    held(webgpu, WEBGPU, "0.4.0")
    assert [one["cached"] for one in webgpu["compiled"]] == [False] * 3
    assert webgpu["files"] == [], "it compiles nothing that could be kept"


@needs_vulkan
def test_edge_24_webgpu_leaves_what_it_lacks_to_the_cpu(webgpu: Any) -> None:
    """edge-24: the shipped int8 detector: four fifths of the nodes, and a warning."""
    whole = webgpu["whole"]
    assert whole["actual"] == WEBGPU
    assert 0.5 < whole["share"] < 0.95
    assert any(f"{100 * whole['share']:.0f} %" in line for line in whole["warnings"])
    assert 0.0 < webgpu["split"]["share"] < 0.95


@needs_vulkan
def test_edge_35_webgpu_finds_the_same_boxes(webgpu: Any) -> None:
    """edge-35: the shipped int8 detector proves its golden output on another provider."""
    assert webgpu["whole"]["agreement"] >= 0.985
    assert webgpu["whole-cpu"]["agreement"] == 1.0
    print({key: webgpu[key] for key in ("whole", "whole-cpu")})


def test_edge_23_qnn_runs_the_model_and_health_says_so(qnn: Any) -> None:
    """edge-23, edge-24: on the emulated NPU."""
    held(qnn, QNN, "0.1.0")
    assert 0.0 < qnn["split"]["share"] < 0.95


def test_edge_31_what_qnn_compiled_is_kept_with_its_placement(qnn: Any) -> None:
    """edge-31: the second load takes what the first compiled: faster, the same output, and the
    node share of the graph as it was, not of the one node that is left of it."""
    first, *later = qnn["compiled"]
    assert qnn["files"] == [".onnx", ".sha256"]
    assert not first["cached"]
    for again in later:
        assert again["cached"]
        assert (again["share"], again["diff"]) == (first["share"], first["diff"])
        assert again["cpu_ms"] < 0.5 * first["cpu_ms"]
    print("load, CPU ms:", [round(one["cpu_ms"], 1) for one in qnn["compiled"]])


def test_edge_35_a_provider_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    """edge-35, edge-18: the emulated NPU takes the shipped int8 detector without an error and finds
    none of the boxes: only the golden proof notices."""
    whole = str(resolve_bundle("road-detector"))
    answer = told(tmp_path, QNN, "onnxruntime_qnn", options=V79, whole=whole)["whole"]
    assert answer["error"] == "HealthProofError"
    assert answer["code"] == 4


def test_edge_23_a_network_that_the_npu_cannot_hold_runs_on_the_cpu(tmp_path: Path) -> None:
    """edge-23: refused when the session is made: one warning, the CPU, and the golden proof."""
    whole = str(resolve_bundle("road-detector"))
    answer = told(tmp_path, QNN, "onnxruntime_qnn", whole=whole)["whole"]
    assert (answer["requested"], answer["actual"], answer["share"]) == (QNN, CPU, 0.0)
    assert answer["agreement"] == 1.0
    (warning,) = answer["warnings"]
    assert "cannot run 'road-detector'" in warning


def test_edge_35_a_real_network_agrees_on_the_emulated_npu(
    tmp_path: Path, shared_data: Path
) -> None:
    """edge-35: float16 arithmetic against float32: the share of outputs within 1e-3."""
    file, spec = real.MANIFESTS["ssd"]
    spec = msgspec.structs.replace(
        spec, target=msgspec.structs.replace(spec.target, runtime=RUNTIME)
    )
    model = (shared_data / "models" / file).read_bytes()
    frame = np.ascontiguousarray(real.kitti(shared_data)[0])
    golden = tiny.golden_of(model, spec, frame)
    files = {"model.onnx": model, "golden.npz": pack_golden(golden)}
    folder = write_bundle(tmp_path / "faces", spec, files).folder
    answer = told(tmp_path, QNN, "onnxruntime_qnn", options=V79, whole=str(folder))
    assert answer["whole"]["actual"] == QNN
    assert answer["whole"]["share"] > 0.5
    assert answer["whole"]["agreement"] >= 0.985
    print({key: answer["whole"][key] for key in ("share", "agreement", "diff")})


@pytest.mark.parametrize(
    ("provider", "package"),
    [(WEBGPU, "onnxruntime_ep_webgpu"), (OPENVINO, "onnxruntime_ep_openvino")],
)
def test_edge_23_a_plugin_without_a_device(provider: str, package: str, tmp_path: Path) -> None:
    """edge-23: no GPU, and no CPU of Intel's: an error that says so."""
    if provider == OPENVINO and "GenuineIntel" in Path("/proc/cpuinfo").read_text():
        pytest.skip("OpenVINO has a device here: this CPU")
    answer = told(tmp_path, provider, package)["strict"]
    assert answer["error"] == "ProviderError"
    assert "finds no device here" in answer["says"]


def pictures(folder: Path, count: int) -> Path:
    import cv2

    folder.mkdir()
    frame = np.load(resolve_bundle("road-detector") / "golden.npz")["frame"]
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), np.roll(frame, 8 * index, axis=1))
    return folder


@needs_vulkan
def test_the_commands_show_and_use_a_plugin(tmp_path: Path) -> None:
    """edge-23, edge-24, as a user: `doctor` finds it, `model check` asks it, `replay` uses it."""
    named = f"{WEBGPU}={library('onnxruntime_ep_webgpu')}"
    command = ["-m", "syncline"]
    found = json.loads(run([*command, "doctor", "--json"], software_gpu=True).stdout)["findings"]
    (plugin,) = [one for one in found if one["what"].startswith("onnxruntime-ep-webgpu")]
    assert plugin["state"] == "ok"
    assert "in software" in plugin["detail"]
    assert named.partition("=")[2] in plugin["remedy"]

    bundle = resolve_bundle("road-detector")
    check = [*command, "model", "check", bundle, "--no-measure", "--json", "--plugin", named]
    done = run(check, software_gpu=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = {one["code"]: one["message"] for one in json.loads(done.stdout)["findings"]}
    assert "NonMaxSuppression" in said["unsupported-operator"]

    clip = pictures(tmp_path / "clip", 2)
    replay = [*command, "replay", clip, "--json"]
    plain = json.loads(run(replay).stdout)
    given = ["--plugin", named, "--provider", WEBGPU, "--strict-provider"]
    ours = json.loads(run([*replay, *given], software_gpu=True).stdout)
    assert (ours["provider"], ours["boxes"]) == (WEBGPU, plain["boxes"])
    refused = run([*replay, *given])
    assert refused.returncode == 4
    assert "finds no device here" in refused.stderr


def test_the_daemon_serves_on_a_plugin(tmp_path: Path) -> None:
    """edge-23, edge-24, as a user: `[model]` names it, every health message says what runs."""
    small = tiny.bundle(tmp_path / "tiny", tiny.scorer(), tiny.scores_manifest()).folder
    config = tmp_path / "edge.toml"
    config.write_text(f"""
[device]
name = "bench"
data = "{tmp_path / "data"}"
[[camera]]
name = "front"
kind = "synthetic"
fps = 5.0
[model]
bundle = "{small}"
deadline_ms = 5000.0
plugins = {{ {QNN} = "{library("onnxruntime_qnn")}" }}
providers = ["{QNN}", "{CPU}"]
strict_provider = true
[time]
page = ""
status = ""
""")
    checked = run(["-m", "syncline", "run", "--config", config, "--check"])
    assert checked.returncode == 0, checked.stderr[-2000:]
    command = ["-m", "syncline", "run", "--config", str(config), "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    daemon = subprocess.Popen(
        [str(PYTHON), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    try:
        assert daemon.stdout is not None
        said: list[Any] = []
        for line in daemon.stdout:
            if line.startswith("{"):
                said.append(json.loads(line))
            if len(said) == 4:
                break
    finally:
        daemon.terminate()
        _, errors = daemon.communicate(timeout=60)
    assert daemon.returncode == 0, errors[-2000:]
    assert len(said) == 4, errors[-2000:]
    for message in said:
        assert (message["epRequested"], message["epActual"]) == (QNN, QNN)
        assert message["epNodeShare"] == 1.0
