"""`syncline model import`: a foreign ONNX file becomes a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from syncline.cloud.models.importer import ImportOptions, ImportReport, import_model, read_labels
from syncline.errors import UsageError

Resize = Literal["letterbox-topleft", "letterbox-center", "stretch"]


def import_(
    model: Path,
    *,
    out: Path,
    preset: str | None = None,
    labels: str = "",
    name: str | None = None,
    version: str = "1.0.0",
    license: str = "",
    size: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    color: Literal["BGR", "RGB"] | None = None,
    resize: Resize | None = None,
    score_threshold: float | None = None,
    fold: bool = False,
    golden: Path | None = None,
    security_version: int = 0,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Bring a foreign ONNX model in: repair it, describe it, prove it, write it as a bundle.

    Args:
        model: ONNX file.
        out: Folder for the bundle; must be new or empty.
        preset: Family: yolox, yolov5, yolov8, fastestdet, ultraface, twinlite, edgedet, edgeseg,
            logits, boxes-nms, scores. Guessed from the graph's shapes when left out.
        labels: File with one class name per line, or a comma-separated list.
        name: Name of the model in the manifest; default: from the file name.
        version: Version of the model.
        license: SPDX expression of the weights' licence.
        size: WIDTHxHEIGHT for graphs with a free input shape.
        mean: Three numbers to subtract from 0..255 values, comma-separated; default: the family's.
        std: Three numbers to divide by; default: the family's.
        color: Channel order; default: the family's.
        resize: How frames are fitted; default: the family's.
        score_threshold: Boxes below it are dropped; default: the family's.
        fold: Fold the uint8 input and the decoding into the graph.
        golden: Picture for the golden proof, or a folder, video or log to choose it from;
            default: a synthetic one, on which a detector may find nothing.
        security_version: Devices refuse models below their own minimum.
        as_json: Print one JSON object.
    """
    options = ImportOptions(
        preset=preset,
        labels=read_labels(labels) if labels else (),
        name=name,
        version=version,
        license=license,
        size=_size(size),
        mean=_triple("--mean", mean),
        std=_triple("--std", std),
        color=color,
        resize=resize,
        score_threshold=score_threshold,
        fold=fold,
        golden=golden,
        security_version=security_version,
    )
    report = import_model(model, out, options)
    print(json.dumps(_as_dict(report)) if as_json else _as_text(report))
    return 0


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UsageError(f"--size={text!r} is not WIDTHxHEIGHT", remedy="For instance 640x384")
    return int(width), int(height)


def _triple(flag: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{flag}={text!r} is not three numbers", remedy="For instance 123.7,116.3,103.5"
        ) from error
    return first, second, third


def _as_dict(report: ImportReport) -> dict[str, object]:
    return {
        "bundle": str(report.bundle.folder),
        "digest": report.bundle.digest,
        "preset": report.preset,
        "notes": list(report.notes),
    }


def _as_text(report: ImportReport) -> str:
    manifest = report.bundle.manifest
    given = manifest.input
    lines = [f"note: {note}" for note in report.notes]
    lines.append(
        f"{manifest.name} {manifest.version}: {manifest.task}, {given.width}x{given.height} "
        f"{given.dtype} {given.color}, decoder {manifest.decoder.kind}, "
        f"{len(manifest.labels)} labels"
    )
    lines.append(f"bundle {report.bundle.folder} (digest {report.bundle.digest[:16]})")
    return "\n".join(lines)
