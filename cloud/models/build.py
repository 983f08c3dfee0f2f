"""From an fp32 bundle to the build for one target: fold, quantise, gate, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from syncline.cloud.models.fold import fold
from syncline.cloud.models.frames import FrameSource
from syncline.cloud.models.gate import Build, GateLimits, GateReport, run_gate
from syncline.cloud.models.golden_frame import GoldenChoice, choose_golden
from syncline.cloud.models.graph import opset, parse_model, serialise
from syncline.cloud.models.half import halve_graph
from syncline.cloud.models.nncf_body import quantise_with_nncf
from syncline.cloud.models.probe import feeds
from syncline.cloud.models.quantize import check_types, quantise_graph
from syncline.cloud.models.runtime import RUNTIME
from syncline.cloud.models.split import MIN_CALIBRATION, damaged_note, noting, without
from syncline.cloud.models.targets import Target, golden_runtime
from syncline.cloud.models.truth import Truth
from syncline.edge.model.bundle import MODEL_NAME, Bundle, check_new_folder, write_bundle
from syncline.edge.model.golden import GOLDEN_NAME, pack_golden
from syncline.edge.model.manifest import TargetSpec
from syncline.errors import MediaError, UsageError

Method = Literal["minmax", "nncf"]

LABELLED_TASKS = ("segmentation", "lanes")
MAX_TEXT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """How a build is made.

    Attributes:
        target: What it is for.
        method: `minmax`, or `nncf` for SiLU networks on OpenVINO.
        fold: Fold uint8 input and decoding into the graph.
        keep_stem: Leave the thin first convolution in float.
        keep_fp32: When the gate refuses, write the fp32 build with the reason in its lineage.
        limits: Of the gate.
        runs: Rounds of the speed measurement.
    """

    target: Target
    method: Method = "minmax"
    fold: bool = True
    keep_stem: bool = True
    keep_fp32: bool = False
    limits: GateLimits = field(default_factory=GateLimits)
    runs: int = 15


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What came out.

    Attributes:
        bundle: As written.
        gate: Figures and reasons.
        calibration_frames: How many were used.
    """

    bundle: Bundle
    gate: GateReport
    calibration_frames: int

    @property
    def shipped(self) -> str:
        """Precision of the bundle."""
        return self.bundle.manifest.target.precision


def quantize_bundle(
    source: Bundle,
    out: Path,
    calibration: FrameSource,
    judged: FrameSource,
    options: QuantizeOptions,
    *,
    cpu_ns: Callable[[], int],
    truth: Truth | None = None,
) -> QuantizeReport:
    """Quantise a verified fp32 bundle for a target and write the build if the gate lets it.

    Args:
        source: fp32 bundle.
        out: Folder of the new bundle; must be empty or absent.
        calibration: Frames to calibrate on.
        judged: Frames for the gate; those that were calibrated on are left out.
        options: See `QuantizeOptions`.
        cpu_ns: CPU time of this thread, nanoseconds.
        truth: Label map of a gate frame by its name.

    Raises:
        UsageError: The bundle is not fp32, method and target do not go together, or labels were
            given for a model without label maps.
        MediaError: Frames or label maps cannot be read, or are too few.
        ModelError: The graph cannot be quantised.
        GateError: The gate refused, and `keep_fp32` is not set.
    """
    if options.method == "nncf" and options.target.name != "openvino":
        raise UsageError(
            f"method nncf is for target openvino, not {options.target.name}",
            remedy="Its graphs run at half the speed elsewhere; use --method minmax",
        )
    _check_request(source, calibration, truth)
    check_new_folder(out)
    seen: set[bytes] = set()
    fp32 = fp32_build(source, fold_graph=options.fold)
    int8 = int8_build(fp32, noting(calibration, seen), options)
    others = without(judged, seen)
    report = run_gate(
        fp32, int8, others, options.target,
        cpu_ns=cpu_ns, limits=options.limits, truth=truth, runs=options.runs,
    )  # fmt: skip
    evidence = _evidence(report, calibration, judged)
    report = replace(report, notes=(*report.notes, *_notes(evidence, calibration, judged)))
    if not options.keep_fp32:
        report.require()
    chosen = int8 if report.passed else fp32
    bundle, golden = _write(chosen, out, source, report, evidence, calibration, others)
    report = replace(report, notes=(*report.notes, *golden.notes()))
    return QuantizeReport(bundle, report, int(evidence["calibration_frames"]))


def _check_request(source: Bundle, calibration: FrameSource, truth: Truth | None) -> None:
    if calibration.count < MIN_CALIBRATION:
        raise MediaError(
            f"{calibration.count} frames are too few to calibrate on, needs {MIN_CALIBRATION}",
            remedy="Give more frames",
        )
    if truth is not None and source.manifest.task not in LABELLED_TASKS:
        raise UsageError(
            f"label maps say nothing of a {source.manifest.task} model",
            remedy=f"Leave --truth out; it is for {' and '.join(LABELLED_TASKS)}",
        )


def _evidence(
    report: GateReport, calibration: FrameSource, judged: FrameSource
) -> dict[str, float]:
    """What the verdict rests on."""
    frames = report.metrics.get("all", {}).get("frames", 0.0)
    return {
        "calibration_frames": float(calibration.count - len(calibration.damaged)),
        "judged_frames": frames,
        "shared_frames_left_out": judged.count - len(judged.damaged) - frames,
    }


def _notes(
    evidence: Mapping[str, float], calibration: FrameSource, judged: FrameSource
) -> list[str]:
    shared = int(evidence["shared_frames_left_out"])
    notes = damaged_note((calibration, judged))
    if shared:
        notes.append(
            f"{shared} of {judged.count - len(judged.damaged)} frames to judge on were calibrated "
            "on as well and are left out"
        )
    return notes


def fp32_build(source: Bundle, *, fold_graph: bool) -> Build:
    """The graph of a bundle, folded when wanted: what int8 is held against.

    Raises:
        UsageError: The bundle is quantised already.
    """
    manifest = source.manifest
    if manifest.target.precision != "fp32":
        raise UsageError(
            f"{source.folder} is {manifest.target.precision}",
            remedy="Give the fp32 bundle that it was made from",
        )
    model = parse_model(source.model_bytes())
    if fold_graph:
        model, manifest = fold(model, manifest)
    spec = msgspec.structs.replace(
        manifest.target, opset=opset(model), runtime=golden_runtime(RUNTIME, "fp32")
    )
    return Build(model, msgspec.structs.replace(manifest, target=spec))


def int8_build(fp32: Build, calibration: FrameSource, options: QuantizeOptions) -> Build:
    """Quantise a build (or halve it); its activations are checked to be of the target's type."""
    target, given = options.target, fp32.manifest.input
    if not target.quantised:
        model = halve_graph(fp32.model)
    elif options.method == "nncf":
        model = quantise_with_nncf(
            fp32.model,
            lambda: feeds(given, calibration.read()),
            frames=calibration.count,
            keep_stem=options.keep_stem,
        )
    else:
        tensors = feeds(given, calibration.read())
        model = quantise_graph(fp32.model, tensors, target, keep_stem=options.keep_stem)
        check_types(model, target)
    spec = TargetSpec(
        device_class=target.name,
        precision=target.precision,
        opset=opset(model),
        providers=target.providers,
        runtime=golden_runtime(RUNTIME, target.precision),
    )
    return Build(model, msgspec.structs.replace(fp32.manifest, target=spec))


def _write(
    build: Build,
    out: Path,
    source: Bundle,
    report: GateReport,
    evidence: dict[str, float],
    calibration: FrameSource,
    judged: FrameSource,
) -> tuple[Bundle, GoldenChoice]:
    lineage = {
        **source.manifest.lineage,
        "parent": source.digest,
        "tool": RUNTIME,
        "calibration": f"{evidence['calibration_frames']:.0f} frames of {calibration.path.name}",
        "judged": f"{evidence['judged_frames']:.0f} other frames of {judged.path.name}",
        "gate": "passed"
        if report.passed
        else f"{report.precision} refused: {'; '.join(report.reasons)}",
    }
    manifest = msgspec.structs.replace(
        build.manifest,
        files={},
        lineage={key: text[:MAX_TEXT] for key, text in lineage.items()},
        metrics={**_metrics(report), "evidence": evidence},
    )
    chosen = choose_golden(build.model, manifest, judged.read())
    manifest = msgspec.structs.replace(manifest, golden=chosen.spec(manifest.golden))
    files = {MODEL_NAME: serialise(build.model), GOLDEN_NAME: pack_golden(chosen.golden)}
    return write_bundle(out, manifest, files), chosen


def _metrics(report: GateReport) -> dict[str, dict[str, float]]:
    """The gate's figures; those of a refused build say so in their slices' names."""
    prefix = "" if report.passed else f"{report.precision}-refused-"
    slices = {**report.metrics, **report.classes}
    found = {f"{prefix}{name}"[:MAX_TEXT]: figures for name, figures in slices.items()}
    if report.fp32 is not None and report.int8 is not None and report.speedup is not None:
        found[f"{prefix}speed"] = {
            "fp32_cpu_ms": report.fp32.best_ms,
            "int8_cpu_ms": report.int8.best_ms,
            "speedup": report.speedup,
        }
    return {
        name: {key: round(value, 5) for key, value in figures.items()}
        for name, figures in found.items()
    }
