"""Execution providers that come as libraries: what is told of those that cannot work, how one is
chosen, and what is done when one fails. None needs a plug-in; `test_real_plugins.py` has them."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime
import pytest

from syncline.cli.doctor_checks import Machine, runtime
from syncline.cli.doctor_plugins import Plugin, Tried, try_package
from syncline.cli.providers import options_of, plugins_of
from syncline.edge import plugins
from syncline.edge.backend import Backend, BackendOptions, _runtime_name
from syncline.edge.cache import cache_key
from syncline.edge.engine import Engine
from syncline.edge.model_config import ModelSection
from syncline.edge.model_slots import model_slot
from syncline.edge.plugins import absences, choose_device, configured, identity, register_plugin
from syncline.edge.providers import Host, check_assignment, plan, provider_options
from syncline.edge.session import (
    RUNTIME,
    Chosen,
    Device,
    SessionSpec,
    Turns,
    open_session,
    turn_on,
)
from syncline.errors import ManifestError, ProviderError, UsageError

from . import tiny

CPU, WEBGPU, QNN = "CPUExecutionProvider", "WebGpuExecutionProvider", "QNNExecutionProvider"
CUDA, OPENVINO = "CUDAExecutionProvider", "OpenVINOExecutionProvider"
NO_PLUGIN = Path(onnxruntime.__file__).parent / "capi/libonnxruntime_providers_shared.so"
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

STUB = """
#include <stddef.h>
typedef struct { const void *(*get)(unsigned); const char *(*version)(void); } Base;
typedef void *(*Create)(int, const char *);
void *CreateEpFactories(const char *name, const Base *base, const void *log, void **factories,
                        size_t most, size_t *count) {
  %s
  *count = 0;
  return NULL;
}
void *ReleaseEpFactory(void *factory) { return NULL; }
"""
OTHER_ABI = 'if (!base->get(9999)) return (*(Create *)base->get(1))(1, "needs ORT API 9999");'
CARELESS = 'return ((Create *)base->get(9999))[0](1, "never said");'


def device(provider: str = WEBGPU, kind: str = "gpu", **changes: Any) -> Device:
    known = Device(
        provider=provider, kind=kind, vendor="Acme", hardware="1234:0001", version="1.0",
        library="/opt/ep.so", label="", is_virtual=False,
    )  # fmt: skip
    return dataclasses.replace(known, **changes)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """No library is registered yet, as far as our books go."""
    books: dict[str, Path] = {}
    monkeypatch.setattr(plugins, "_REGISTERED", books)
    return books


def offer(monkeypatch: pytest.MonkeyPatch, *offered: Device) -> None:
    monkeypatch.setattr(plugins, "devices", lambda: offered)


def compiled(folder: Path, body: str) -> Path:
    source, library = folder / "ep.c", folder / "libep.so"
    source.write_text(STUB % body)
    command = ["gcc", "-shared", "-fPIC", "-w", "-o", library, source]
    subprocess.run([*map(str, command)], check=True, timeout=60)
    return library


def program(folder: Path, line: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


# What a library may be instead of a plug-in that works here


def test_edge_23_a_library_that_is_not_there(tmp_path: Path, registered: dict[str, Path]) -> None:
    """edge-23: named, with a way to find the right one, and the exit code of a model error."""
    with pytest.raises(ProviderError, match=r"there is no provider library .*none\.so") as caught:
        register_plugin(WEBGPU, tmp_path / "none.so")
    assert caught.value.exit_code == 4
    assert "syncline doctor" in caught.value.remedy
    assert not registered


def test_edge_23_a_file_that_is_no_library(tmp_path: Path, registered: dict[str, Path]) -> None:
    """edge-23: a text with the right name."""
    (tmp_path / "ep.so").write_text("a text")
    with pytest.raises(ProviderError, match=r"cannot be loaded: .*file too short"):
        register_plugin(WEBGPU, tmp_path / "ep.so")
    assert not registered


def test_edge_23_a_library_that_is_no_plugin(registered: dict[str, Path]) -> None:
    """edge-23: a sound library without the plug-in's entry."""
    with pytest.raises(ProviderError, match="is no execution provider plug-in"):
        register_plugin(WEBGPU, NO_PLUGIN)
    assert not registered


@needs_gcc
def test_edge_23_a_plugin_that_refuses_this_runtime(
    tmp_path: Path, registered: dict[str, Path]
) -> None:
    """edge-23: built against an interface that this runtime does not have, and it says so."""
    library = compiled(tmp_path, OTHER_ABI)
    with pytest.raises(ProviderError, match=rf"refuses {RUNTIME}: needs ORT API 9999"):
        register_plugin("OtherAbiExecutionProvider", library)
    assert not registered


@needs_gcc
def test_edge_23_a_plugin_that_crashes_takes_no_runner_with_it(
    tmp_path: Path, registered: dict[str, Path]
) -> None:
    """edge-23: built against another interface and careless of it: a typed error, no crash."""
    library = compiled(tmp_path, CARELESS)
    with pytest.raises(ProviderError, match=r"crashes when it is loaded \(signal 11\)"):
        register_plugin("CarelessExecutionProvider", library)
    assert not registered


@needs_gcc
def test_edge_23_a_plugin_without_a_device_falls_back_with_one_warning(
    tmp_path: Path, registered: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """edge-23: a real library that registers and offers nothing: error, or one warning."""
    name = "NoDeviceExecutionProvider"
    library = compiled(tmp_path, "")
    options = BackendOptions(providers=(name, CPU), plugins=((name, library),))
    bundle = tiny.bundle(tmp_path / "b")
    with caplog.at_level(logging.WARNING):
        backend = Backend.load(bundle, options)
    assert (backend.ep_requested, backend.ep_actual, backend.node_share) == (name, CPU, 0.0)
    assert backend.runtime == RUNTIME
    (warning,) = caplog.records
    assert "libep.so finds no device here: running on CPU" in warning.getMessage()
    with pytest.raises(ProviderError, match="finds no device here"):
        Backend.load(bundle, dataclasses.replace(options, strict_provider=True))
    assert registered == {name: library}


def test_edge_23_a_plugin_that_hangs_holds_nothing_up(
    tmp_path: Path, registered: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-23: it is tried in another process, which is given up."""
    monkeypatch.setattr(plugins, "_PROBE_LIMIT_S", 0.05)
    monkeypatch.setattr(sys, "executable", program(tmp_path, "exec sleep 5"))
    with pytest.raises(ProviderError, match=r"does not load within 0\.05 s"):
        register_plugin(WEBGPU, NO_PLUGIN)
    assert not registered


def test_a_library_cannot_be_replaced_while_it_runs(
    tmp_path: Path, registered: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    registered[WEBGPU] = tmp_path / "old.so"
    register_plugin(WEBGPU, tmp_path / "old.so")
    with pytest.raises(ProviderError, match=r"old\.so already, not from .*new\.so"):
        register_plugin(WEBGPU, tmp_path / "new.so")
    with caplog.at_level(logging.WARNING):
        register_plugin(CPU, tmp_path / "cpu.so")
        register_plugin(CPU, tmp_path / "cpu.so")
    assert caplog.text.count("brings CPUExecutionProvider itself") == 1


# Which device, which options


def test_edge_23_virtual_devices_run_nothing(
    monkeypatch: pytest.MonkeyPatch, registered: dict[str, Path]
) -> None:
    """edge-23: devices that a library only compiles for are none."""
    registered[WEBGPU] = Path("/opt/ep.so")
    offer(monkeypatch, device(is_virtual=True))
    assert choose_device(WEBGPU) is None
    assert "only to compile for" in absences([WEBGPU])[WEBGPU]
    offer(monkeypatch, device(is_virtual=True), device())
    assert choose_device(WEBGPU) == device()
    assert absences([WEBGPU]) == {}


def test_a_library_registered_under_another_name_is_told_its_own(
    monkeypatch: pytest.MonkeyPatch, registered: dict[str, Path]
) -> None:
    registered["webgpu"] = Path("/opt/ep.so")
    offer(monkeypatch, device())
    assert absences(["webgpu"]) == {
        "webgpu": "its library offers WebGpuExecutionProvider; name that one"
    }


def test_the_device_made_for_the_work_is_taken_and_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered = [device(OPENVINO, kind, label=kind.upper()) for kind in ("cpu", "gpu", "npu")]
    offer(monkeypatch, *offered, device())
    assert choose_device(OPENVINO) == offered[2]
    assert choose_device(OPENVINO, "GPU") == offered[1]
    assert choose_device(CPU) is None
    with pytest.raises(ProviderError, match="no device 'dsp' here, it has CPU, GPU, NPU") as caught:
        choose_device(OPENVINO, "dsp")
    assert f"provider_options.{OPENVINO}.device" in caught.value.remedy


def test_given_options_go_over_ours_and_the_device_is_not_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch, device(QNN, "npu"), device(QNN, "gpu"))
    assert configured(QNN).options == {"backend_type": "htp"}
    given = configured(QNN, {"device": "gpu", "profiling_level": "basic"})
    assert given.device == device(QNN, "gpu")
    assert given.options == {"backend_type": "gpu", "profiling_level": "basic"}
    assert configured(QNN, {"backend_type": "ir"}).options == {"backend_type": "ir"}
    with pytest.raises(ProviderError, match="is no plug-in here: it takes no device 'gpu'"):
        configured(CUDA, {"device": "gpu"})


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("TensorrtExecutionProvider", "s8s8", {"trt_int8_enable": "1", "trt_fp16_enable": "0",
         "trt_engine_cache_enable": "1", "trt_engine_cache_path": "/c",
         "trt_timing_cache_enable": "1", "trt_timing_cache_path": "/c"}),
        ("TensorrtExecutionProvider", "fp16", {"trt_int8_enable": "0", "trt_fp16_enable": "1",
         "trt_engine_cache_enable": "1", "trt_engine_cache_path": "/c",
         "trt_timing_cache_enable": "1", "trt_timing_cache_path": "/c"}),
        (CUDA, "fp16", {}),
        (OPENVINO, "u8s7", {"device_type": "CPU", "precision": "ACCURACY", "cache_dir": "/c"}),
        (QNN, "fp32", {"backend_type": "htp"}),
        ("CoreMLExecutionProvider", "fp32", {"ModelFormat": "MLProgram",
         "ModelCacheDirectory": "/c"}),
        ("MIGraphXExecutionProvider", "fp16", {"migraphx_model_cache_dir": "/c"}),
        ("XnnpackExecutionProvider", "fp32", {}),
        (CPU, "u8s7", {}),
    ],
)  # fmt: skip
def test_options_of_the_providers_that_the_runtime_brings(
    name: str, precision: str, expected: dict[str, str]
) -> None:
    """edge-24: TensorRT takes no int8 graph before it may make int8 layers."""
    assert provider_options(name, Path("/c"), precision) == expected


def test_options_of_plugins() -> None:
    assert provider_options(WEBGPU, Path("/c"), "fp32", ("gpu", "")) == {}
    (loaded,) = provider_options(OPENVINO, Path("/c"), "fp32", ("gpu", "GPU.1")).values()
    assert json.loads(loaded) == {"GPU": {"EXECUTION_MODE_HINT": "ACCURACY"}}
    assert provider_options(QNN, None, "fp32", ("gpu", "")) == {"backend_type": "gpu"}


def test_edge_31_the_key_holds_library_version_hardware_and_options(tmp_path: Path) -> None:
    """edge-31: another plug-in, its other version, another device or option: another entry."""
    library = tmp_path / "ep.so"
    library.write_bytes(b"one")
    host, here = Host("x86_64", frozenset()), device(library=str(library))

    def key(*chosen: Chosen) -> str:
        names = [one.name for one in chosen]
        return cache_key("a" * 64, "1.31.1", host, names, [identity(one) for one in chosen])

    base = key(Chosen(WEBGPU, {}, here))
    others = [
        key(Chosen(WEBGPU, {"preferredLayout": "NCHW"}, here)),
        *(
            key(Chosen(WEBGPU, {}, device(**{"library": str(library), name: "x"})))
            for name in ("version", "hardware", "vendor", "kind", "label")
        ),
        key(Chosen(CUDA, {"device_id": "1"})),
    ]
    assert base == key(Chosen(WEBGPU, {}, here))
    library.write_bytes(b"two, that says the same version")
    others.append(key(Chosen(WEBGPU, {}, here)))
    assert len({base, *others}) == len(others) + 1


class Compiling:
    """Stands in for the runtime with a provider that compiles: it writes what it made."""

    def __init__(self) -> None:
        self.loaded: list[bytes] = []
        self.refuses_to_compile = False

    def __call__(self, model: bytes, providers: Sequence[Chosen], spec: SessionSpec) -> Any:
        self.loaded.append(model)
        if spec.compile_to is not None:
            if self.refuses_to_compile:
                raise ManifestError("the runtime refuses the model: cannot be compiled")
            assert not spec.compile_to.exists()
            spec.compile_to.write_bytes(model + b"compiled")
        return open_session(model.removesuffix(b"compiled"), (), SessionSpec())


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Compiling:
    stand_in = Compiling()
    offer(monkeypatch, device())
    monkeypatch.setattr("syncline.edge.opener.open_session", stand_in)
    monkeypatch.setattr("syncline.edge.backend.available_providers", lambda: (WEBGPU, CPU))
    monkeypatch.setattr("syncline.edge.opener._node_counts", lambda _: {WEBGPU: 97, CPU: 3})
    return stand_in


def test_edge_31_what_a_plugin_compiled_is_kept_with_its_placement(
    compiling: Compiling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-31: the second load compiles nothing, and tells the node share of the graph as it was;
    a damaged entry, its note included, is made anew."""
    bundle, cache = tiny.bundle(tmp_path / "b"), tmp_path / "cache"
    options = BackendOptions(providers=(WEBGPU, CPU), strict_provider=True, cache_dir=cache)
    model = bundle.model_bytes()
    first = Backend.load(bundle, options)
    assert (first.from_cache, first.node_share, compiling.loaded) == (False, 0.97, [model])
    monkeypatch.setattr("syncline.edge.opener._node_counts", lambda _: {WEBGPU: 1, CPU: 3})
    again = Backend.load(bundle, options)
    assert (again.from_cache, again.node_share, again.ep_actual) == (True, 0.97, WEBGPU)
    assert compiling.loaded[1:] == [model + b"compiled"]
    monkeypatch.setattr("syncline.edge.opener._node_counts", lambda _: {WEBGPU: 97, CPU: 3})
    (beside,) = cache.glob("*.sha256")
    beside.write_text(beside.read_text().replace("97", "100"))
    assert not Backend.load(bundle, options).from_cache
    assert Backend.load(bundle, options).from_cache
    assert sorted(path.suffix for path in cache.iterdir()) == [".onnx", ".sha256"]


def test_a_plugin_that_cannot_compile_runs_all_the_same(
    compiling: Compiling, tmp_path: Path
) -> None:
    compiling.refuses_to_compile = True
    options = BackendOptions(providers=(WEBGPU,), strict_provider=True, cache_dir=tmp_path / "c")
    backend = Backend.load(tiny.bundle(tmp_path / "b"), options)
    assert (backend.ep_actual, backend.from_cache) == (WEBGPU, False)
    assert list((tmp_path / "c").iterdir()) == []


# What is told


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TensorrtExecutionProvider", "onnxruntime-gpu"),
        (CUDA, "onnxruntime-gpu"),
        (OPENVINO, "onnxruntime-ep-openvino"),
        (QNN, "onnxruntime-qnn"),
        (WEBGPU, "onnxruntime-ep-webgpu"),
        ("CoreMLExecutionProvider", "macOS"),
        ("MIGraphXExecutionProvider", "onnxruntime-migraphx"),
        ("ROCMExecutionProvider", "use MIGraphX"),
        ("XnnpackExecutionProvider", "--use_xnnpack"),
        ("CudaExecutionProvider", "Did you mean CUDAExecutionProvider?"),
        ("AcmeAiExecutionProvider", "model.plugins"),
    ],
)
def test_edge_23_every_absent_provider_is_told_with_what_to_do(name: str, said: str) -> None:
    """edge-23: what to install for each, what has gone, what was misspelt."""
    with pytest.raises(ProviderError, match=f"{name} was asked for; this runtime has") as caught:
        plan([name, CPU], [CPU], strict=True)
    assert said in caught.value.remedy


def test_a_misspelt_provider_is_told_its_right_name(caplog: pytest.LogCaptureFixture) -> None:
    assert plan(["CudaExecutionProvider"], [CPU], strict=False).providers == (CPU,)
    assert plan([CUDA], [CPU], strict=False).providers == (CPU,)
    misspelt, absent = (record.getMessage() for record in caplog.records)
    assert "(did you mean CUDAExecutionProvider?): running on CPU" in misspelt
    assert "did you mean" not in absent


class Refusing:
    """Stands in for the runtime: sessions on accelerators fail, as when a driver is missing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, model: bytes, providers: Sequence[Chosen], spec: SessionSpec) -> Any:
        self.asked.append(tuple(one.name for one in providers))
        if any(one.name != CPU for one in providers):
            raise ManifestError("the runtime refuses the model: no adapter") from OSError(
                "[ONNXRuntimeError] : 11 : EP_FAIL : /src/webgpu_context.cc:136 Init() "
                "status == Success was false. no adapter"
            )
        return open_session(model, providers, spec)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Refusing:
    stand_in = Refusing()
    offer(monkeypatch, device())
    monkeypatch.setattr("syncline.edge.opener.open_session", stand_in)
    monkeypatch.setattr("syncline.edge.backend.available_providers", lambda: (WEBGPU, CUDA, CPU))
    return stand_in


def test_edge_23_a_provider_that_cannot_start_falls_back_with_one_warning(
    refusing: Refusing, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """edge-23: listed, with a device, and it fails when the session is made."""
    bundle = tiny.bundle(tmp_path / "b")
    with caplog.at_level(logging.WARNING):
        backend = Backend.load(bundle, BackendOptions(providers=(WEBGPU, CUDA, CPU)))
    assert refusing.asked == [(WEBGPU, CUDA, CPU), (CUDA, CPU), ()]
    assert (backend.ep_requested, backend.ep_actual, backend.node_share) == (WEBGPU, CPU, 0.0)
    (warning,) = caplog.records
    assert "WebGpuExecutionProvider cannot run 'tiny': no adapter" in warning.getMessage()
    assert "running on CPUExecutionProvider instead" in warning.getMessage()
    with pytest.raises(ProviderError, match="cannot run 'tiny': no adapter") as caught:
        Backend.load(bundle, BackendOptions(providers=(WEBGPU, CPU), strict_provider=True))
    assert caught.value.exit_code == 4


def test_a_graph_that_the_cpu_refuses_too_is_no_fault_of_the_provider(
    refusing: Refusing, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    golden = tiny.golden_of(tiny.segmenter(), tiny.manifest(), tiny.frame(7))
    bundle = tiny.bundle(tmp_path / "b", b"this is no model", golden=golden)
    for strict in (False, True):
        options = BackendOptions(providers=(WEBGPU, CPU), strict_provider=strict)
        with pytest.raises(ManifestError, match="refuses the model"):
            Backend.load(bundle, options)
    assert not caplog.records


def test_the_runtime_may_not_fall_back_by_itself(tmp_path: Path) -> None:
    """edge-23: left on, it goes on on the CPU in the middle of a drive, and prints two lines."""
    backend = Backend.load(tiny.bundle(tmp_path / "b"))
    assert backend._session._enable_fallback is False


def test_edge_35_a_golden_output_is_of_its_runtime_and_provider(tmp_path: Path) -> None:
    """edge-35: what another provider computes is held to agreement, not to the last digit."""
    assert _runtime_name({CPU: 3}, ()) == RUNTIME
    assert _runtime_name({WEBGPU: 3, CPU: 1}, [Chosen(WEBGPU, {}, device())]) == (
        f"{RUNTIME}, WebGpuExecutionProvider 1.0"
    )
    assert _runtime_name({CUDA: 3}, [Chosen(CUDA)]) == f"{RUNTIME}, {CUDA}"
    engine = Engine.load(tiny.bundle(tmp_path / "b"))
    assert engine.backend.runtime == engine.bundle.manifest.target.runtime == RUNTIME


def test_edge_24_a_provider_that_was_passed_over_is_not_warned_about_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = plan([WEBGPU, CPU], [CPU], strict=False, absent={WEBGPU: "it finds no device"})
    assert check_assignment({CPU: 7}, chosen, strict=False) == 0.0
    (warning,) = caplog.records
    assert "it finds no device: running on CPU" in warning.getMessage()


# Sessions that share a device


def test_turns_are_one_at_a_time_and_nobody_is_passed_over() -> None:
    """One thread asks again at once, the other after every one of its turns: both come in."""
    turns, end = Turns(), time.monotonic() + 0.5
    inside, most, counts = 0, 0, [0, 0]

    def work(index: int) -> None:
        nonlocal inside, most
        while time.monotonic() < end:
            with turns:
                inside += 1
                most = max(most, inside)
                time.sleep(0.002)
                inside -= 1
                counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert min(counts) > 5
    assert 2 * min(counts) > max(counts)


def test_a_turn_is_given_back_by_whoever_fails() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="failed"), turns:
        raise ValueError("failed")
    with turns:
        pass


def test_webgpu_sessions_take_turns_and_others_need_none() -> None:
    turn = turn_on([CUDA, WEBGPU, CPU])
    assert isinstance(turn, Turns)
    assert turn_on([WEBGPU]) is turn
    assert not isinstance(turn_on([QNN, CPU]), Turns)


# As a user names them


def test_the_configuration_names_providers_libraries_and_options(tmp_path: Path) -> None:
    text = msgspec.json.encode(
        {
            "plugins": {QNN: "/opt/qnn.so"},
            "providers": [QNN, CPU],
            "strict_provider": True,
            "provider_options": {QNN: {"htp_performance_mode": "burst"}},
        }
    )
    section = msgspec.json.decode(text, type=ModelSection)
    backend = model_slot(section, tiny.bundle(tmp_path / "b"), tmp_path).backend
    assert backend.plugins == ((QNN, Path("/opt/qnn.so")),)
    assert (backend.providers, backend.strict_provider) == ((QNN, CPU), True)
    assert backend.provider_options == {QNN: {"htp_performance_mode": "burst"}}
    plain = model_slot(ModelSection(), tiny.bundle(tmp_path / "c"), tmp_path).backend
    assert (plain.providers, plain.strict_provider) == (None, None)


def test_options_of_the_commands() -> None:
    assert plugins_of(["A=/x=y.so"]) == (("A", Path("/x=y.so")),)
    assert options_of(["A.k=v", "A.l=", "B.m=a.b=c"]) == {"A": {"k": "v", "l": ""},
                                                          "B": {"m": "a.b=c"}}  # fmt: skip
    for wrong in ("A", "=x", "A="):
        with pytest.raises(UsageError, match="NAME=LIBRARY"):
            plugins_of([wrong])
    for wrong in ("A.k", "k=v", ".k=v", "A.=v"):
        with pytest.raises(UsageError, match=r"NAME\.KEY=VALUE"):
            options_of([wrong])


def test_doctor_names_installed_plugins_and_how_to_use_them() -> None:
    works = Tried(provider=QNN, library="/opt/qnn.so", devices=("npu Qualcomm",))
    idle = Tried(provider=WEBGPU, problem="its library finds no device here", remedy="Check it")
    found = [Plugin("onnxruntime-qnn", "2.7.0", works), Plugin("onnxruntime-x", "1", idle)]
    machine = Machine(Path(), providers=lambda: (CPU,), plugins=lambda: found)
    said = {finding.what: finding for finding in runtime(machine)}
    assert said["onnxruntime-qnn 2.7.0"].state == "ok"
    assert f'plugins = {{ {QNN} = "/opt/qnn.so" }}' in said["onnxruntime-qnn 2.7.0"].remedy
    assert said["onnxruntime-x 1"].state == "note"
    assert "finds no device" in said["onnxruntime-x 1"].detail


def test_a_package_that_does_not_keep_the_agreement_is_told() -> None:
    assert "does not name its library" in try_package("json").problem
    assert "does not name its library" in try_package("no_such_package").problem
