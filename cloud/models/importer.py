"""Bringing a foreign ONNX file in: repaired, described, proved, and written as a bundle."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx

from syncline.cloud.models.denormals import count_denormals, flush_and_prove
from syncline.cloud.models.external import embed_external
from syncline.cloud.models.fold import fold
from syncline.cloud.models.fold_boxes import fold_edgedet
from syncline.cloud.models.frames import PICTURES, Frame, open_frames, read_picture
from syncline.cloud.models.golden_frame import TRIES, choose_golden
from syncline.cloud.models.graph import (
    MIN_OPSET,
    TensorInfo,
    clean_inputs,
    drop_unused,
    inputs,
    opset,
    outputs,
    parse_model,
    read_model_bytes,
    serialise,
    set_input_size,
    to_opset,
    validate,
)
from syncline.cloud.models.presets import Preset, guess_preset, preset_named
from syncline.cloud.models.runtime import RUNTIME, GraphSession, max_opset, random_feeds
from syncline.cloud.models.targets import golden_runtime
from syncline.edge.model.bundle import MODEL_NAME, Bundle, check_new_folder, write_bundle
from syncline.edge.model.golden import GOLDEN_NAME, pack_golden
from syncline.edge.model.manifest import Manifest, TargetSpec, encode_manifest
from syncline.errors import ModelError, UsageError

MAX_LABEL_FILE_BYTES = 1 << 20
SAME_OUTPUT = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the graph cannot tell, or what the user knows better.

    Attributes:
        preset: Family; None = guessed from the shapes.
        labels: Class names; empty = class-0, class-1, ...
        name: Name of the model; None = from the file name.
        version: Version of the model.
        license: SPDX expression of the weights' licence.
        size: Width and height for graphs with a free input shape.
        mean: Instead of the preset's.
        std: Instead of the preset's.
        color: Instead of the preset's.
        resize: Instead of the preset's.
        score_threshold: Instead of the preset's.
        fold: Fold uint8 input and decoding into the graph.
        golden: Picture for the golden proof, or a folder, video or log to choose from; None = a
            synthetic one.
        security_version: Of the manifest.
    """

    preset: str | None = None
    labels: Sequence[str] = ()
    name: str | None = None
    version: str = "1.0.0"
    license: str = ""
    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    color: Literal["BGR", "RGB"] | None = None
    resize: Literal["letterbox-topleft", "letterbox-center", "stretch"] | None = None
    score_threshold: float | None = None
    fold: bool = False
    golden: Path | None = None
    security_version: int = 0


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What was done.

    Attributes:
        bundle: As written.
        preset: Family that was used.
        notes: One line per repair or assumption.
    """

    bundle: Bundle
    preset: str
    notes: tuple[str, ...]


@dataclass
class _Work:
    model: onnx.ModelProto
    notes: list[str] = field(default_factory=list)


def import_model(path: Path, out: Path, options: ImportOptions) -> ImportReport:
    """Repair a foreign model and write it as a bundle.

    Args:
        path: ONNX file; second data files beside it are taken in.
        out: Folder of the bundle; must be empty or absent.
        options: See `ImportOptions`.

    Raises:
        ModelError: The file cannot be used; the message says why.
        UsageError: Options and graph contradict each other, or options cannot be.
    """
    check_new_folder(out)
    _check_numbers(options)
    data = read_model_bytes(path)
    work = _Work(parse_model(data, path.name))
    _repair(work, path.parent, options.size)
    given, found = _single_image_input(work.model), outputs(work.model)
    preset = (
        preset_named(options.preset, given, found) if options.preset else guess_preset(given, found)
    )
    if not options.preset:
        work.notes.append(f"preset guessed: {preset.name} ({preset.about})")
    manifest = _manifest(path, preset, work, options)
    manifest = msgspec.structs.replace(
        manifest, lineage={"parent": hashlib.sha256(data).hexdigest(), "tool": RUNTIME}
    )
    model, manifest = _fold(work.model, manifest, preset, options)
    encode_manifest(manifest)  # refuses what no device would take
    validate(model)
    chosen = choose_golden(model, manifest, _golden_frames(options.golden))
    manifest = msgspec.structs.replace(manifest, golden=chosen.spec(manifest.golden))
    work.notes += chosen.notes()
    files = {MODEL_NAME: serialise(model), GOLDEN_NAME: pack_golden(chosen.golden)}
    return ImportReport(write_bundle(out, manifest, files), preset.name, tuple(work.notes))


def _check_numbers(options: ImportOptions) -> None:
    for flag, values in (("mean", options.mean), ("std", options.std)):
        good = values is None or all(map(math.isfinite, values))
        if not good or (flag == "std" and values is not None and 0.0 in values):
            raise UsageError(
                f"--{flag} {values} cannot normalise",
                remedy="Give three finite numbers, for std none of them 0",
            )


def _repair(work: _Work, folder: Path, size: tuple[int, int] | None) -> None:
    """Make the graph one that every later step and every device can take."""
    if opset(work.model) > max_opset():
        raise ModelError(
            f"opset {opset(work.model)} is newer than {RUNTIME} loads ({max_opset()})",
            remedy=f"Export the model with opset {max_opset()} or lower",
        )
    if count := embed_external(work.model, folder):
        work.notes.append(f"{count} tensors taken in from a second data file")
    if count := clean_inputs(work.model):
        work.notes.append(f"{count} weights were listed as inputs; no longer")
    if count := drop_unused(work.model):
        work.notes.append(f"{count} unused weights removed")
    if size is not None:
        set_input_size(work.model, *size)
    _raise_opset(work)
    _flush(work)
    validate(work.model)


def _raise_opset(work: _Work) -> None:
    """Raise to an opset that per-channel int8 is valid in, and prove that nothing changed."""
    before = opset(work.model)
    if before >= MIN_OPSET:
        return
    raised = to_opset(work.model)
    one, other = GraphSession(serialise(work.model)), GraphSession(serialise(raised))
    feed = random_feeds(one)
    for a, b in zip(one.run(feed), other.run(feed), strict=True):
        gap = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))
        if not gap <= SAME_OUTPUT * max(1.0, float(np.abs(a).max(initial=0.0))):
            raise ModelError(
                f"raising opset {before} to {opset(raised)} changes an output by {gap:.3g}",
                remedy=f"Export the model with opset {opset(raised)}",
            )
    work.notes.append(f"opset {before} raised to {opset(raised)}, same outputs")
    work.model = raised


def _flush(work: _Work) -> None:
    if count_denormals(work.model).denormal:
        proof = flush_and_prove(work.model)
        work.model = proof.model
        work.notes.append(
            f"{proof.count.denormal} denormal weights ({proof.count.share:.1%}) set to zero, "
            f"outputs bit-identical on {proof.frames} inputs"
        )


def _single_image_input(model: onnx.ModelProto) -> TensorInfo:
    found = inputs(model)
    if len(found) != 1 or len(found[0].shape) != 4 or found[0].shape[1] != 3:
        shown = ", ".join(f"{info.name} {list(info.shape)}" for info in found)
        raise ModelError(
            f"the graph's inputs are {shown}; one image (1, 3, H, W) is needed",
            remedy="Export the model with a single NCHW image input",
        )
    if found[0].dtype != "float32":
        raise ModelError(
            f"input {found[0].name!r} is {found[0].dtype}, must be float32",
            remedy="Export the model in float32; precision is chosen by `syncline model quantize`",
        )
    if found[0].dims[0] != 1:
        raise ModelError(
            f"the batch size is {found[0].dims[0]}", remedy="Export the model with batch size 1"
        )
    return found[0]


def _manifest(path: Path, preset: Preset, work: _Work, options: ImportOptions) -> Manifest:
    given = preset.input_spec(_single_image_input(work.model))
    decoder = preset.decoder_spec(outputs(work.model))
    changes = {
        key: value
        for key in ("mean", "std", "color", "resize")
        if (value := getattr(options, key)) is not None
    }
    if options.score_threshold is not None:
        decoder = msgspec.structs.replace(decoder, score_threshold=options.score_threshold)
    return Manifest(
        name=options.name or _slug(path.stem),
        version=options.version,
        task=preset.task,
        security_version=options.security_version,
        license=options.license,
        labels=_labels(preset, outputs(work.model), options.labels),
        input=msgspec.structs.replace(given, **changes),
        decoder=decoder,
        target=TargetSpec(opset=opset(work.model), runtime=golden_runtime(RUNTIME, "fp32")),
    )


def _fold(
    model: onnx.ModelProto, manifest: Manifest, preset: Preset, options: ImportOptions
) -> tuple[onnx.ModelProto, Manifest]:
    if preset.name == "edgedet":
        decoder = manifest.decoder
        model, decoder = fold_edgedet(model, decoder.outputs, decoder, manifest.input)
        manifest = msgspec.structs.replace(manifest, decoder=decoder)
    return fold(model, manifest) if options.fold else (model, manifest)


def _golden_frames(given: Path | None) -> Iterable[Frame]:
    """A picture, or those of a folder, video or log to choose from."""
    if given is None:
        return []
    if given.is_file() and given.suffix.lower() in PICTURES:
        return [Frame(given.name, "", read_picture(given))]
    return open_frames(given, TRIES).read()


def _labels(preset: Preset, found: Sequence[TensorInfo], given: Sequence[str]) -> tuple[str, ...]:
    count = preset.classes(found)
    if preset.name == "twinlite" and not given:
        return ("background", "drivable", "lane", "lane-on-drivable")
    if given and count and len(given) != count:
        raise UsageError(
            f"{len(given)} labels were given, the graph has {count} classes",
            remedy="Give one label per class, in the order of the graph",
        )
    return tuple(given) or tuple(f"class-{i}" for i in range(count))


def read_labels(text: str) -> list[str]:
    """Labels from a file with one per line, or from a comma-separated list.

    Raises:
        UsageError: The file is too large or not text.
    """
    path = Path(text)
    if not path.is_file():
        if path.suffix in (".names", ".txt"):
            raise UsageError(f"there is no label file {text}")
        return [part.strip() for part in text.split(",") if part.strip()]
    if path.stat().st_size > MAX_LABEL_FILE_BYTES:
        raise UsageError(f"{text} is larger than {MAX_LABEL_FILE_BYTES} bytes")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{text} is not a text file") from error
    return [line.strip() for line in lines if line.strip()]


def _slug(stem: str) -> str:
    """A name for the manifest from a file name."""
    letters = (c if c.isascii() and c.isalnum() else "-" for c in stem.lower())
    return "-".join(part for part in "".join(letters).split("-") if part)[:64] or "model"
