"""The doctor names what keeps a model off devices, and runs nothing to do so that is not valid."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from syncline.cli import main
from syncline.cloud.models.builder import GraphBuilder
from syncline.cloud.models.denormals import count_denormals, flush_and_prove, flush_denormals
from syncline.cloud.models.doctor import Diagnosis, diagnose
from syncline.cloud.models.doctor_bundle import bundle_findings
from syncline.cloud.models.graph import copy_model, parse_model, serialise
from syncline.cloud.models.quantize import quantise_graph
from syncline.cloud.models.reference import edgeseg, mobseg
from syncline.cloud.models.runtime import max_ir_version, max_opset, placement
from syncline.cloud.models.targets import TARGETS
from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.edge.model.golden import Golden, pack_golden
from syncline.edge.session import Chosen
from syncline.errors import ModelError

W, H = 64, 32


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    return edgeseg(8, width=W, height=H)


def written(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(serialise(model))
    return path


def codes(found: Diagnosis) -> set[str]:
    return {finding.code for finding in found.findings}


def test_sound_model_has_no_error_and_is_measured(net: onnx.ModelProto, tmp_path: Path) -> None:
    found = diagnose(written(net, tmp_path), cpu_ns=time.thread_time_ns)
    assert not found.errors
    assert found.measured is not None
    assert found.measured.best_ms > 0
    assert found.macs > 100_000
    found.require()


def test_newer_opset_is_refused(net: onnx.ModelProto, tmp_path: Path) -> None:
    """edge-10: an opset beyond the runtime's is an error before deployment."""
    model = copy_model(net)
    model.opset_import[0].version = max_opset() + 1
    found = diagnose(written(model, tmp_path))
    assert [f.code for f in found.errors] == ["opset-too-new"]
    with pytest.raises(
        ModelError, match=rf"loads up to {max_opset()}.*Export the model with opset"
    ):
        found.require()


def test_newer_ir_is_refused(net: onnx.ModelProto, tmp_path: Path) -> None:
    """edge-10: so is a newer file format."""
    model = copy_model(net)
    model.ir_version = max_ir_version() + 1
    assert "ir-too-new" in codes(diagnose(written(model, tmp_path)))


def test_second_data_file_is_refused(net: onnx.ModelProto, tmp_path: Path) -> None:
    """edge-10: weights outside the model file."""
    model = copy_model(net)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.data")
    found = diagnose(written(model, tmp_path), cpu_ns=time.thread_time_ns)
    assert [f.code for f in found.errors] == ["external-data"]
    assert "weights.data" in found.errors[0].message
    assert found.measured is None


@pytest.mark.parametrize("damage", ["dangling input", "wrong attribute", "cycle"])
def test_invalid_graph_is_refused(net: onnx.ModelProto, tmp_path: Path, damage: str) -> None:
    """edge-10: graphs that the checker or shape inference rejects."""
    model = copy_model(net)
    node = model.graph.node[2]
    if damage == "dangling input":
        node.input[0] = "nowhere"
    elif damage == "wrong attribute":
        node.attribute.append(onnx.helper.make_attribute("nonsense", 3))
    else:
        node.input[0] = model.graph.node[-1].output[0]
    assert "invalid-graph" in codes(diagnose(written(model, tmp_path)))


def test_a_graph_the_runtime_refuses_is_an_error(tmp_path: Path, net: onnx.ModelProto) -> None:
    """edge-10: valid ONNX that the installed runtime has no kernel for."""
    model = copy_model(net)
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    found = diagnose(written(model, tmp_path), cpu_ns=time.thread_time_ns)
    assert "does-not-run" in codes(found)


@given(st.binary(max_size=400))
def test_random_bytes_get_a_typed_answer(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("junk") / "model.onnx"
    path.write_bytes(data)
    assert diagnose(path).errors


@given(st.data())
def test_cut_and_flipped_files_never_crash_the_doctor(
    tmp_path_factory: pytest.TempPathFactory, net: onnx.ModelProto, data: st.DataObject
) -> None:
    raw = bytearray(serialise(net))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, 200))
    path = tmp_path_factory.mktemp("damage") / "model.onnx"
    path.write_bytes(bytes(raw[: len(raw) - cut]))
    for finding in diagnose(path).findings:
        assert finding.message


def test_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the model"):
        diagnose(tmp_path / "none.onnx")


def test_activations_that_int8_hurts_are_named(tmp_path: Path) -> None:
    found = diagnose(written(mobseg(width=64, height=64), tmp_path))
    assert {"int8-activation", "int8-depthwise"} <= codes(found)
    assert not found.errors


def test_real_models_get_their_diagnosis(shared_data: Path) -> None:
    folder = shared_data / "models"
    wanted = {
        "yolox_nano": {"opset-old", "int8-activation", "int8-depthwise", "float-input"},
        "twinlitenet": {"opset-old", "denormals"},
        "version-RFB-320": {"opset-old", "weights-as-inputs", "int8-depthwise"},
    }
    for name, expected in wanted.items():
        found = codes(diagnose(folder / f"{name}.onnx"))
        assert expected <= found, name
        assert "int8-no-vnni" not in found, "promised where int8 does not gain"


def test_wrong_activation_type_for_the_target(net: onnx.ModelProto, tmp_path: Path) -> None:
    """edge-8: the doctor refuses int8-typed activations in an x86 build."""
    feed = {"images": np.zeros((1, 3, H, W), np.float32)}
    arm = quantise_graph(net, iter([feed]), TARGETS["arm64"])
    path = written(arm, tmp_path)
    assert "activation-type" not in codes(diagnose(path, device_class="arm64"))
    found = diagnose(path, device_class="x86-64")
    assert [f.code for f in found.errors] == ["activation-type"]


def test_eight_bit_weights_are_kept_off_cpus_that_saturate(
    net: onnx.ModelProto, tmp_path: Path
) -> None:
    """edge-8: u8s8 gives wrong numbers on AVX2; a build for any machine may not hold it."""
    feed = {"images": np.zeros((1, 3, H, W), np.float32)}
    path = written(quantise_graph(net, iter([feed]), TARGETS["x86-64-vnni"]), tmp_path)
    for device_class in ("x86-64", "any"):
        errors = diagnose(path, device_class=device_class).errors
        assert [f.code for f in errors] == ["int8-saturates"]
        assert "-127 to 127" in errors[0].message
    assert not diagnose(path, device_class="x86-64-vnni").errors
    path = written(quantise_graph(net, iter([feed]), TARGETS["x86-64"]), tmp_path)
    assert not diagnose(path, device_class="any").errors


def test_a_cpu_without_vnni_is_told_what_int8_gains(
    net: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-4: what to expect here, said only of networks that int8 suits."""
    monkeypatch.setattr("syncline.cloud.models.doctor.this_machine", lambda: TARGETS["x86-64"])
    found = diagnose(written(net, tmp_path))
    said = {f.code: f.message for f in found.findings}
    assert "1.4 to 1.7x" in said["int8-no-vnni"]
    assert "int8-no-vnni" not in codes(diagnose(written(mobseg(width=64, height=64), tmp_path)))
    vnni = TARGETS["x86-64-vnni"]
    monkeypatch.setattr("syncline.cloud.models.doctor.this_machine", lambda: vnni)
    assert "int8-no-vnni" not in codes(diagnose(written(net, tmp_path)))


def test_a_name_that_is_no_provider_is_a_slip(
    net_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "check", str(net_file), "--provider", "CudaExecutionProvider"]) == 2
    assert "Did you mean CUDAExecutionProvider?" in capsys.readouterr().err
    assert main(["model", "check", str(net_file), "--runs", "0"]) == 2
    assert "--runs 0 is too few" in capsys.readouterr().err


def rewritten(bundle: Bundle, folder: Path, files: dict[str, bytes], **changes: object) -> Bundle:
    """A bundle with other files or keys, its digests right."""
    whole = {name: bundle.read(name) for name in bundle.manifest.files}
    manifest = msgspec.structs.replace(bundle.manifest, files={}, **changes)
    return write_bundle(folder, manifest, {**whole, **files})


def test_a_bundle_is_loaded_and_proven_as_the_runner_does_it(
    bundle: Bundle, tmp_path: Path
) -> None:
    """edge-10: what the runner would refuse is told before it is deployed."""
    given, target, decoder = bundle.manifest.input, bundle.manifest.target, bundle.manifest.decoder
    replace = msgspec.structs.replace
    assert [f for f in bundle_findings(bundle) if f.severity == "error"] == []
    golden = bundle.golden()
    wrong = Golden(golden.frame, tuple(np.zeros_like(out) for out in golden.outputs))
    torn = bytearray(bundle.read("golden.npz"))
    torn[len(torn) // 2] ^= 0xFF
    cases: dict[str, tuple[dict[str, bytes], dict[str, object]]] = {
        "does-not-load": ({}, {"input": replace(given, width=given.width + 32)}),
        "does-not-load ": ({}, {"decoder": replace(decoder, kind="argmax")}),
        "does-not-load  ": ({"golden.npz": bytes(torn)}, {}),
        "golden-differs": ({"golden.npz": pack_golden(wrong)}, {}),
        "provider-absent": (
            {},
            {"target": replace(target, providers=("CUDAExecutionProvider",), strict_provider=True)},
        ),
        "provider-fallback": ({}, {"target": replace(target, providers=("FooProvider",))}),
        "other-device": (
            {},
            {"target": replace(target, device_class="tensorrt", strict_provider=True)},
        ),
    }
    for number, (code, (files, changes)) in enumerate(cases.items()):
        made = rewritten(bundle, tmp_path / str(number), files, **changes)
        found = {f.code: f.severity for f in bundle_findings(made)}
        assert code.strip() in found, (code, found)
        assert ("error" in found.values()) == (number < 5), found


def test_a_bundle_that_cannot_load_is_exit_code_4(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = msgspec.structs.replace(bundle.manifest.input, width=W + 32)
    made = rewritten(bundle, tmp_path / "b", {}, input=given)
    assert main(["model", "check", str(made.folder), "--no-measure"]) == 4
    assert "error [does-not-load] the graph takes shape" in capsys.readouterr().out
    assert main(["model", "check", str(bundle.folder), "--no-measure"]) == 0


def test_absent_provider_is_said_to_be_unchecked(net: onnx.ModelProto, tmp_path: Path) -> None:
    found = diagnose(written(net, tmp_path), providers=["QNNExecutionProvider"])
    assert "provider-not-checked" in codes(found)
    placed = placement(serialise(net), Chosen("CPUExecutionProvider"))
    assert set(placed) == {"CPUExecutionProvider"}


def tiny_weights(net: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """A copy with a share of every weight tensor's values made denormal."""
    model, rng = copy_model(net), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            values = np.array(numpy_helper.to_array(tensor))
            mask = rng.random(values.shape) < share
            values[mask] = rng.uniform(1e-42, 1e-39, int(mask.sum()))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def test_denormals_are_counted_flushed_and_proved() -> None:
    """edge-9: zeroed denormals leave every output bit as it was."""
    model = tiny_weights(edgeseg(32, width=W, height=H), 0.1)
    before = count_denormals(model)
    assert 0.08 < before.share < 0.12
    proof = flush_and_prove(model)
    assert proof.identical
    assert proof.frames == 2
    assert count_denormals(proof.model).denormal == 0
    assert count_denormals(model).denormal == before.denormal, "the argument is left alone"


def test_flush_that_changes_an_output_is_refused() -> None:
    """A model whose denormals matter: it multiplies them up again."""
    b = GraphBuilder("t")
    grown = b.node("Mul", [b.node("Mul", ["x", b.const(1e-39)]), b.const(1e38)])
    b.node("Mul", [grown, b.const(1e10)], out="y")
    with pytest.raises(ModelError, match="changes an output"):
        flush_and_prove(b.model([("x", 1, [4])], [("y", 1, [4])]))


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_flush_touches_denormals_only(values: list[float]) -> None:
    array = np.array(values, np.float32)
    tensor = numpy_helper.from_array(array, "w")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    model = onnx.helper.make_model(graph)
    flush_denormals(model)
    after = numpy_helper.to_array(model.graph.initializer[0])
    tiny = np.finfo(np.float32).tiny
    expected = np.where((np.abs(array) < tiny) & (array != 0), np.float32(0), array)
    np.testing.assert_array_equal(after, expected)


def test_command_line_exit_codes(
    net: onnx.ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(net, tmp_path)
    assert main(["model", "check", str(path), "--json", "--runs", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["usable"]
    assert found["operators"]["Conv"] > 10
    path.write_bytes(path.read_bytes()[:200])
    assert main(["model", "check", str(path)]) == 4
    assert "error [" in capsys.readouterr().out


def test_parse_refuses_an_empty_graph() -> None:
    with pytest.raises(ModelError, match="holds no graph"):
        parse_model(onnx.ModelProto(ir_version=8).SerializeToString())


_WITHOUT_ONNX = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "onnx" else real(name, *rest)
from syncline.cli import main
sys.exit(main(["model", "check", "x.onnx"]))
"""


def test_missing_onnx_is_one_line_with_the_remedy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ONNX], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "syncline: the model tooling needs onnx, which is not installed. "
        "pip install 'syncline[cloud]'"
    ]
