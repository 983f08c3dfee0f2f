"""`syncline model quantize`: an fp32 bundle becomes the int8 build for one target, if it may."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from syncline.cli.model_files import check_runs, open_bundle
from syncline.cloud.models.build import (
    Method,
    QuantizeOptions,
    QuantizeReport,
    quantize_bundle,
)
from syncline.cloud.models.frames import FrameSource, open_frames
from syncline.cloud.models.gate import GateLimits
from syncline.cloud.models.split import MIN_CALIBRATION, MIN_JUDGED, split_frames
from syncline.cloud.models.targets import target_named
from syncline.cloud.models.truth import truth_folder
from syncline.errors import UsageError

_DEFAULTS = GateLimits()


def quantize(
    bundle: Path,
    *,
    calibration: Path,
    out: Path,
    target: str = "auto",
    method: Method = "minmax",
    gate_frames: Path | None = None,
    truth: Path | None = None,
    frames: int = 48,
    judge: int = 48,
    fold: bool = True,
    keep_stem: bool = True,
    keep_fp32: bool = False,
    allow_unmeasured_speed: bool = False,
    min_f1: float = _DEFAULTS.min_f1,
    min_pixels: float = _DEFAULTS.min_pixels,
    min_miou: float = _DEFAULTS.min_miou,
    max_drop: float = _DEFAULTS.max_drop,
    min_speedup: float = _DEFAULTS.min_speedup,
    runs: int = 15,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Quantise an fp32 bundle for a target and write the build if it passes the gate.

    Exit code 0: the bundle in OUT is ready (int8, or fp32 with --keep-fp32). Exit code 4: refused.

    Args:
        bundle: fp32 bundle, as `syncline model import` writes it.
        calibration: Folder of pictures, video, or log to calibrate on.
        out: Folder for the build; must be new or empty.
        target: x86-64-vnni, x86-64, arm64, tensorrt, openvino, cuda (fp16), or auto.
        method: minmax, or nncf (extra openvino) for SiLU networks on OpenVINO.
        gate_frames: Frames for the gate; default: other stretches of the calibration source.
        truth: Folder of label maps (grey or palette PNG) named like the gate's frames, for
            segmenters.
        frames: Calibration frames, at most.
        judge: Frames for the gate, at most.
        fold: Fold the uint8 input and the decoding into the graph.
        keep_stem: Leave a first convolution of up to 4 channels in float.
        keep_fp32: When refused, write the fp32 build with the reason in its lineage.
        allow_unmeasured_speed: Let a build pass whose target is not this kind of machine.
        min_f1: Detectors: agreement with fp32 that is needed.
        min_pixels: Segmenters: share of equal pixels that is needed.
        min_miou: Segmenters: mean IoU with fp32's map that is needed.
        max_drop: With --truth: mean IoU that may be lost, 0..1.
        min_speedup: fp32 time / int8 time that is needed.
        runs: Rounds of the speed measurement.
        as_json: Print one JSON object.
    """
    limits = GateLimits(
        min_f1=min_f1,
        min_pixels=min_pixels,
        min_miou=min_miou,
        max_drop=max_drop,
        min_speedup=min_speedup,
        unmeasured_speed=allow_unmeasured_speed,
    )
    options = QuantizeOptions(
        target=target_named(target),
        method=method,
        fold=fold,
        keep_stem=keep_stem,
        keep_fp32=keep_fp32,
        limits=limits,
        runs=runs,
    )
    _check_counts(frames, judge, runs)
    source = open_bundle(bundle)
    labels = truth_folder(truth) if truth is not None else None
    calibrating, judging = _frames(calibration, gate_frames, frames, judge)
    if not as_json:
        print(f"calibration: {calibrating.told()}")
        print(f"gate: {judging.told()}", flush=True)
    report = quantize_bundle(
        source, out, calibrating, judging, options, cpu_ns=time.thread_time_ns, truth=labels
    )
    taken = {"calibration": calibrating.told(), "gate": judging.told()}
    print(json.dumps({**_as_dict(report), "frames": taken}) if as_json else _as_text(report))
    return 0


def _check_counts(frames: int, judge: int, runs: int) -> None:
    check_runs(runs)
    least = (("frames", frames, MIN_CALIBRATION), ("judge", judge, MIN_JUDGED))
    for flag, value, limit in least:
        if value < limit:
            raise UsageError(f"--{flag} {value} is too few", remedy=f"Give {limit} or more")


def _frames(
    calibration: Path, gate_frames: Path | None, frames: int, judge: int
) -> tuple[FrameSource, FrameSource]:
    """(to calibrate on, to judge on)."""
    if gate_frames is None:
        return split_frames(calibration, frames, judge)
    return open_frames(calibration, frames), open_frames(gate_frames, judge, phase=0.5)


def _as_dict(report: QuantizeReport) -> dict[str, object]:
    gate = report.gate
    return {
        "bundle": str(report.bundle.folder),
        "digest": report.bundle.digest,
        "shipped": report.shipped,
        "target": report.bundle.manifest.target.device_class,
        "passed": gate.passed,
        "reasons": list(gate.reasons),
        "notes": list(gate.notes),
        "speedup": gate.speedup,
        "calibration_frames": report.calibration_frames,
        "metrics": dict(gate.metrics),
        "classes": dict(gate.classes),
        "evidence": dict(report.bundle.manifest.metrics["evidence"]),
    }


def _as_text(report: QuantizeReport) -> str:
    gate = report.gate
    lines = [f"note: {note}" for note in gate.notes]
    for name, figures in {**gate.metrics, **gate.classes}.items():
        shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        lines.append(f"{name}: {shown}")
    if gate.fp32 is not None and gate.int8 is not None and gate.speedup is not None:
        lines.append(
            f"speed: fp32 {gate.fp32.best_ms:.2f} ms, int8 {gate.int8.best_ms:.2f} ms CPU, "
            f"{gate.speedup:.2f}x"
        )
    lines += [f"refused: {reason}" for reason in gate.reasons]
    lines.append(
        f"{report.shipped} build for {report.bundle.manifest.target.device_class}: "
        f"{report.bundle.folder} (digest {report.bundle.digest[:16]})"
    )
    return "\n".join(lines)
