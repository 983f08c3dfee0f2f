"""The gate end to end: bundles in, an int8 build or a refusal with its reason out."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from syncline.cli import main
from syncline.cloud.models.build import (
    QuantizeOptions,
    QuantizeReport,
    fp32_build,
    int8_build,
    quantize_bundle,
)
from syncline.cloud.models.doctor import diagnose
from syncline.cloud.models.frames import FrameSource, open_frames
from syncline.cloud.models.gate import Build, GateLimits, run_gate
from syncline.cloud.models.graph import copy_model, inputs, parse_model, serialise
from syncline.cloud.models.importer import ImportOptions, import_model
from syncline.cloud.models.probe import Probe
from syncline.cloud.models.reference import mobseg
from syncline.cloud.models.targets import TARGETS, this_machine
from syncline.cloud.models.truth import known_labels, truth_folder
from syncline.edge.decode import LabelMap
from syncline.edge.model.bundle import Bundle
from syncline.errors import GateError, UsageError

from .conftest import made_frames

LOOSE = GateLimits(min_pixels=0.5, min_miou=0.0, min_speedup=0.01)


def quantise(bundle: Bundle, out: Path, frames: FrameSource, **options: object) -> QuantizeReport:
    chosen = {"target": this_machine(), "runs": 5, "limits": LOOSE, **options}
    return quantize_bundle(
        bundle, out, frames, made_frames(8, first=100),
        QuantizeOptions(**chosen),  # type: ignore[arg-type]
        cpu_ns=time.thread_time_ns,
    )  # fmt: skip


def test_a_build_that_passes_is_written_with_its_figures(
    bundle: Bundle, frames: FrameSource, tmp_path: Path
) -> None:
    report = quantise(bundle, tmp_path / "int8", frames)
    manifest = Bundle.open(tmp_path / "int8", trusted_keys=None).manifest
    assert manifest.target.precision == this_machine().precision
    assert manifest.target.device_class == this_machine().name
    assert manifest.lineage["parent"] == bundle.digest
    assert manifest.lineage["gate"] == "passed"
    assert manifest.metrics["all"]["frames"] == frames.count
    assert manifest.metrics["speed"]["speedup"] > 0
    assert manifest.input.dtype == "uint8"
    assert manifest.decoder.kind == "argmax"
    assert report.gate.passed


def test_slow_int8_is_refused_and_nothing_is_written(
    bundle: Bundle, frames: FrameSource, tmp_path: Path
) -> None:
    limits = replace_limits(min_speedup=50.0)
    with pytest.raises(GateError, match=r"hardly faster|slower"):
        quantise(bundle, tmp_path / "int8", frames, limits=limits)
    assert not (tmp_path / "int8").exists()


def replace_limits(**changes: float) -> GateLimits:
    return GateLimits(**{"min_pixels": 0.5, "min_miou": 0.0, "min_speedup": 0.01, **changes})  # type: ignore[arg-type]


def test_refused_with_keep_fp32_ships_fp32_and_says_why(
    bundle: Bundle, frames: FrameSource, tmp_path: Path
) -> None:
    limits = replace_limits(min_speedup=50.0)
    report = quantise(bundle, tmp_path / "fp32", frames, limits=limits, keep_fp32=True)
    manifest = Bundle.open(tmp_path / "fp32", trusted_keys=None).manifest
    assert report.shipped == manifest.target.precision == "fp32"
    assert manifest.target.device_class == "any"
    assert manifest.lineage["gate"].startswith("int8 refused: int8 is")
    assert "int8-refused-all" in manifest.metrics


def test_int8_that_sees_other_things_is_refused(
    bundle: Bundle, frames: FrameSource, tmp_path: Path
) -> None:
    """A build with a damaged weight: the speed is the same, the labels are not."""
    fp32 = fp32_build(bundle, fold_graph=True)
    options = QuantizeOptions(target=this_machine())
    int8 = int8_build(fp32, frames, options)
    model = copy_model(int8.model)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4:
            values = onnx.numpy_helper.to_array(tensor)
            flipped = onnx.numpy_helper.from_array(np.ascontiguousarray(values[::-1]), tensor.name)
            tensor.CopyFrom(flipped)
    report = run_gate(
        fp32, Build(model, int8.manifest), frames, this_machine(),
        cpu_ns=time.thread_time_ns, runs=5, limits=GateLimits(min_speedup=0.01),
    )  # fmt: skip
    assert any("pixel_agreement" in reason for reason in report.reasons)
    with pytest.raises(GateError, match="int8 refused: all: pixel_agreement"):
        report.require()


def test_foreign_hardware_does_not_pass_unmeasured(
    bundle: Bundle, frames: FrameSource, tmp_path: Path
) -> None:
    target = TARGETS["tensorrt"]
    with pytest.raises(GateError, match="cannot be measured on this machine"):
        quantise(bundle, tmp_path / "a", frames, target=target)
    limits = GateLimits(min_pixels=0.5, min_miou=0.0, unmeasured_speed=True)
    report = quantise(bundle, tmp_path / "a", frames, target=target, limits=limits)
    assert report.gate.speedup is None
    assert "was not measured" in report.gate.notes[0]


def test_quantised_bundle_cannot_be_quantised_again(
    bundle: Bundle, frames: FrameSource, tmp_path: Path
) -> None:
    first = quantise(bundle, tmp_path / "a", frames).bundle
    with pytest.raises(UsageError, match="Give the fp32 bundle"):
        quantise(first, tmp_path / "b", frames)


def test_labels_beyond_the_classes_are_ignored() -> None:
    found = known_labels(np.array([[0, 10, 11, 255]], np.uint8), 11)
    np.testing.assert_array_equal(found, [[0, 10, 255, 255]])


def test_truth_turns_agreement_into_loss(
    bundle: Bundle, picture_folder: Path, tmp_path: Path
) -> None:
    """edge-4, the accuracy: with labels the gate holds the loss of mean IoU, not agreement."""
    labels = tmp_path / "labels"
    (labels / "night").mkdir(parents=True)
    source = open_frames(picture_folder, 12)
    probe = Probe(fp32_build(bundle, fold_graph=False).model, bundle.manifest)
    for frame in source.read():
        result = probe(frame.bgr)
        assert isinstance(result, LabelMap)
        assert cv2.imwrite(str(labels / frame.name), result.upsampled())
    options = QuantizeOptions(target=this_machine(), runs=3, limits=GateLimits(max_drop=1.0))
    fp32 = fp32_build(bundle, fold_graph=True)
    int8 = int8_build(fp32, source, options)
    report = run_gate(
        fp32, int8, source, this_machine(), cpu_ns=time.thread_time_ns, runs=3,
        truth=truth_folder(labels), limits=GateLimits(min_speedup=0.01),
    )  # fmt: skip
    whole = report.metrics["all"]
    assert whole["miou_fp32"] == 1.0, "the labels are what fp32 says"
    assert 0.0 < whole["miou_drop"] < 0.9
    assert report.reasons
    assert all("mIoU falls by" in reason for reason in report.reasons)


def test_hardswish_mobile_net_is_refused(tmp_path: Path, frames: FrameSource) -> None:
    """edge-6: depthwise HardSwish runs slower in int8; fp32 ships with the reason."""
    path = tmp_path / "mob.onnx"
    path.write_bytes(serialise(mobseg(width=320, height=192)))
    source = import_model(path, tmp_path / "fp32", ImportOptions(preset="edgeseg")).bundle
    limits = GateLimits(min_pixels=0.0, min_miou=0.0)
    report = quantise(
        source, tmp_path / "out", frames, limits=limits, keep_fp32=True, runs=9
    )  # fmt: skip
    assert report.shipped == "fp32"
    assert report.gate.speedup is not None
    assert report.gate.speedup < 1.0
    assert [r.split(":")[0] for r in report.gate.reasons] == ["int8 is slower"]


def test_yolox_nano_is_refused(shared_data: Path, tmp_path: Path) -> None:
    """edge-7: post-training int8 of a SiLU network loses its boxes (F1 against fp32 < 0.97)."""
    path = shared_data / "models" / "yolox_nano.onnx"
    source = import_model(path, tmp_path / "fp32", ImportOptions()).bundle
    folder = shared_data / "images" / "camvid" / "val"
    options = QuantizeOptions(target=this_machine(), runs=3)
    with pytest.raises(GateError, match=r"int8 refused: all: f1 with fp32 is 0\.[0-8]"):
        quantize_bundle(
            source, tmp_path / "int8", open_frames(folder, 5),
            open_frames(folder, 5, phase=0.5), options, cpu_ns=time.thread_time_ns,
        )  # fmt: skip


def test_command_line(
    bundle: Bundle, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8"
    args = ["model", "quantize", str(bundle.folder), "--calibration", str(picture_folder)]
    easy = ["--min-pixels", "0.3", "--min-miou", "0", "--min-speedup", "0.01", "--runs", "3"]
    assert main([*args, "--out", str(out), *easy, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shipped"] == this_machine().precision
    assert found["metrics"]["night"]["frames"] == 3
    assert found["metrics"]["dark"]["frames"] == 3
    assert found["evidence"] == {
        "calibration_frames": 6, "judged_frames": 6, "shared_frames_left_out": 0
    }  # fmt: skip
    assert main([*args, "--out", str(tmp_path / "b"), "--min-speedup", "99", "--runs", "3"]) == 4
    assert "int8 refused" in capsys.readouterr().err
    assert main(["model", "bench", str(bundle.folder), str(out), "--runs", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 2
    assert rows[0]["ratio"] == 1.0
    assert main([*args, "--out", str(tmp_path / "c"), "--target", "amiga"]) == 2


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--frames", "0"], "--frames 0 is too few. Give 5 or more"),
        (["--judge", "4"], "--judge 4 is too few. Give 5 or more"),
        (["--runs", "0"], "--runs 0 is too few. Give 1 or more"),
    ],
)
def test_counts_that_measure_nothing(
    bundle: Bundle,
    picture_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    told: str,
) -> None:
    args = ["model", "quantize", str(bundle.folder), "--calibration", str(picture_folder)]
    assert main([*args, "--out", str(tmp_path / "a"), *flags]) == 2
    assert told in capsys.readouterr().err


def test_mistakes_are_told_before_the_work(
    bundle: Bundle,
    net_file: Path,
    picture_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A used folder, an ONNX file for a bundle, pictures that are none, values no device takes."""
    used = tmp_path / "used"
    used.mkdir()
    (used / "a.txt").touch()
    args = ["model", "quantize", str(bundle.folder), "--calibration", str(picture_folder)]
    assert main([*args, "--out", str(used)]) == 4
    assert "is not empty" in capsys.readouterr().err
    args[2] = str(net_file)
    assert main([*args, "--out", str(tmp_path / "a")]) == 2
    assert "make one with: syncline model import" in capsys.readouterr().err
    assert main(["model", "bench", str(net_file)]) == 2
    assert main(["model", "bench", str(bundle.folder), "--runs", "0"]) == 2
    capsys.readouterr()
    bad = tmp_path / "bad"
    bad.mkdir()
    for i in range(12):
        (bad / f"{i}.png").write_bytes(b"not a picture")
    args[2:5] = [str(bundle.folder), "--calibration", str(bad)]
    assert main([*args, "--out", str(tmp_path / "b")]) == 3
    assert "cannot be decoded" in capsys.readouterr().err
    imported = ["model", "import", str(net_file), "--preset", "edgeseg", "--out"]
    assert main([*imported, str(tmp_path / "c"), "--std", "0,0,0"]) == 2
    assert "cannot normalise" in capsys.readouterr().err
    assert main([*imported, str(tmp_path / "c"), "--mean", "nan,0,0"]) == 2
    assert main([*imported, str(tmp_path / "c"), "--security-version", "9" * 20]) == 4
    assert "security_version" in capsys.readouterr().err
    assert not any((tmp_path / name).exists() for name in "abc")


def test_half_precision_for_accelerators(
    bundle: Bundle, frames: FrameSource, tmp_path: Path
) -> None:
    """An fp16 build: body in float16, types of input and output kept, judged like int8."""
    with pytest.raises(GateError, match="fp16 refused: speed on cuda cannot be measured"):
        quantise(bundle, tmp_path / "a", frames, target=TARGETS["cuda"])
    limits = GateLimits(unmeasured_speed=True)
    made = quantise(bundle, tmp_path / "b", frames, target=TARGETS["cuda"], limits=limits)
    target = made.bundle.manifest.target
    assert (target.precision, target.device_class) == ("fp16", "cuda")
    assert target.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert made.gate.metrics["all"]["pixel_agreement"] > 0.99
    model = parse_model(made.bundle.model_bytes())
    kinds = {t.data_type for t in model.graph.initializer if len(t.dims) == 4}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert [i.dtype for i in inputs(model)] == ["uint8"]
    assert not diagnose(made.bundle.folder / "model.onnx", device_class="cuda").errors


def test_nncf_goes_with_openvino_only(bundle: Bundle, frames: FrameSource, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="method nncf is for target openvino"):
        quantise(bundle, tmp_path / "a", frames, method="nncf")
