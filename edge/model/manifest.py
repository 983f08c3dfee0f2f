"""`manifest.toml`: what the runner may know of a model. Every key is in docs/model-bundle.md."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from syncline.errors import ManifestError

MANIFEST_NAME = "manifest.toml"
MAX_MANIFEST_BYTES = 1 << 20
MAX_SIDE_PX = 8192
MAX_LABELS = 65_536
MAX_SECURITY_VERSION = 2**31 - 1

Task = Literal["detection", "segmentation", "classification", "lanes"]
DecoderKind = Literal[
    "yolox", "yolov8", "yolov5", "fastestdet", "ssd", "boxes-nms", "argmax", "logits", "twinlite",
    "scores",
]  # fmt: skip
Precision = Literal["fp32", "fp16", "u8s8", "u8s7", "s8s8"]

Slug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,64}$")]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Sha256Hex = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE_PX)]
Unit = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Triple = tuple[float, float, float]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the manifest's tables: immutable, unknown keys refused."""


class InputSpec(_Part, frozen=True, kw_only=True):
    """How a frame becomes the input tensor.

    Attributes:
        name: Name of the graph's input.
        width: Input width, pixels.
        height: Input height, pixels.
        layout: NCHW, or NHWC (the frame as it lies in memory).
        dtype: float32, or uint8 when the normalisation is inside the graph.
        color: Channel order that the graph expects.
        resize: letterbox keeps the aspect ratio, top-left or centred; stretch does not.
        pad: Value of the letterbox border, 0..255.
        mean: Subtracted from 0..255 values, per channel in `color` order; not for uint8.
        std: Divisor after `mean`, per channel in `color` order; not for uint8.
    """

    name: Text
    width: Side
    height: Side
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "uint8"] = "float32"
    color: Literal["BGR", "RGB"] = "BGR"
    resize: Literal["letterbox-topleft", "letterbox-center", "stretch"] = "stretch"
    pad: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the input tensor."""
        if self.layout == "NCHW":
            return (1, 3, self.height, self.width)
        return (1, self.height, self.width, 3)


class DecoderSpec(_Part, frozen=True, kw_only=True):
    """How the graph's outputs become boxes, a label map or class scores.

    Attributes:
        kind: See docs/model-bundle.md for the tensors that each kind expects.
        outputs: Names of the graph's outputs, in the order the decoder takes them.
        strides: Grid strides of anchor-free heads, pixels.
        score_threshold: Boxes below it are dropped.
        nms_iou: Boxes of one class that overlap a better one by more are dropped.
        max_boxes: At most so many boxes leave the decoder, best first.
    """

    kind: DecoderKind
    outputs: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=16)]
    strides: tuple[Annotated[int, msgspec.Meta(ge=1, le=1024)], ...] = ()
    score_threshold: Unit = 0.3
    nms_iou: Unit = 0.45
    max_boxes: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 300


class TargetSpec(_Part, frozen=True, kw_only=True):
    """The device that this build of the model is for.

    Attributes:
        device_class: `any`, `x86-64`, `x86-64-vnni`, `arm64`, `tensorrt`, ...
        precision: Number format of activations and weights.
        opset: ONNX opset of the graph.
        providers: ONNX Runtime execution providers in order of preference.
        strict_provider: Refuse to run when the first provider is absent, instead of falling back.
        runtime: What computed the golden output and on what kind of processor, such as
            `onnxruntime 1.31.1 on x86_64 avx avx2 fma`.
    """

    device_class: Slug = "any"
    precision: Precision = "fp32"
    opset: Annotated[int, msgspec.Meta(ge=7, le=64)]
    providers: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=8)] = (
        "CPUExecutionProvider",
    )
    strict_provider: bool = False
    runtime: Text = ""


class GoldenSpec(_Part, frozen=True, kw_only=True):
    """How closely the golden output must be reproduced.

    Attributes:
        atol: Absolute tolerance of float outputs on `target.runtime`.
        rtol: Relative tolerance of float outputs on `target.runtime`.
        min_agreement: Share of results that must be equal on other runtimes and machines.
        provider: Execution provider that computed the golden output.
    """

    atol: Annotated[float, msgspec.Meta(ge=0.0)] = 1e-3
    rtol: Annotated[float, msgspec.Meta(ge=0.0)] = 1e-3
    min_agreement: Unit = 0.985
    provider: Text = "CPUExecutionProvider"


class Manifest(_Part, frozen=True, kw_only=True):
    """One build of one model for one target.

    Attributes:
        format: Version of this file's format.
        name: Name of the model, `[a-z0-9-]+`.
        version: Version of the model, free text.
        task: What the outputs mean.
        security_version: Only rises; a device refuses what is below its own minimum.
        license: SPDX expression of the weights' licence.
        labels: Class names by class id.
        files: SHA-256 of every other file of the bundle.
        input: See `InputSpec`.
        decoder: See `DecoderSpec`.
        target: See `TargetSpec`.
        lineage: Digests and tool versions that this build came from.
        metrics: Figures per slice.
        golden: See `GoldenSpec`.
    """

    format: Literal[1] = 1
    name: Slug
    version: Text
    task: Task
    security_version: Annotated[int, msgspec.Meta(ge=0, le=MAX_SECURITY_VERSION)] = 0
    license: Text = ""
    labels: Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_LABELS)] = ()
    files: dict[FileName, Sha256Hex] = {}
    input: InputSpec
    decoder: DecoderSpec
    target: TargetSpec
    lineage: dict[Text, Text] = {}
    metrics: dict[Text, dict[Text, float]] = {}
    golden: GoldenSpec = GoldenSpec()


_TASKS: Mapping[str, frozenset[str]] = {
    "detection": frozenset({"yolox", "yolov8", "yolov5", "fastestdet", "ssd", "boxes-nms"}),
    "segmentation": frozenset({"argmax", "logits"}),
    "lanes": frozenset({"twinlite", "argmax", "logits"}),
    "classification": frozenset({"scores"}),
}
_OUTPUTS: Mapping[str, int] = {"ssd": 2, "twinlite": 2}


def load_manifest(path: Path) -> Manifest:
    """Read `manifest.toml`, from the file itself or from its bundle folder.

    Raises:
        ManifestError: The file is absent, too large, not TOML, or a key is wrong.
    """
    return parse_manifest(read_manifest_bytes(path))


def read_manifest_bytes(path: Path) -> bytes:
    """The exact bytes of a manifest: what its digest and signature cover.

    Raises:
        ManifestError: The file is absent or too large.
    """
    file = path / MANIFEST_NAME if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(
            f"cannot read {file}: {error.strerror}", remedy="Give the folder of a model bundle"
        ) from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{file} is larger than {MAX_MANIFEST_BYTES} bytes")
    return data


def parse_manifest(data: bytes) -> Manifest:
    """Check the bytes of a manifest.

    Raises:
        ManifestError: Not TOML, or a key is wrong; the message names the key.
    """
    try:
        table = tomllib.loads(data.decode("utf-8"))
        manifest = msgspec.convert(table, Manifest, strict=True)
    except msgspec.ValidationError as error:
        raise ManifestError(
            f"manifest.toml: {error}", remedy="docs/model-bundle.md lists every key"
        ) from error
    except (ValueError, RecursionError) as error:  # TOML, UTF-8, a number of thousands of digits
        raise ManifestError(f"manifest.toml is not TOML: {error}") from error
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    """What the types alone cannot say."""
    decoder, given = manifest.decoder, manifest.input
    if decoder.kind not in _TASKS[manifest.task]:
        raise ManifestError(
            f"decoder.kind={decoder.kind!r} does not make a {manifest.task}",
            remedy=f"Use one of {', '.join(sorted(_TASKS[manifest.task]))}",
        )
    wanted = _OUTPUTS.get(decoder.kind, 1)
    if len(decoder.outputs) != wanted:
        raise ManifestError(
            f"decoder.outputs names {len(decoder.outputs)} outputs, {decoder.kind} takes {wanted}"
        )
    if decoder.kind == "yolox" and not decoder.strides:
        raise ManifestError("decoder.strides is empty", remedy="yolox needs it, e.g. [8, 16, 32]")
    if not all(math.isfinite(v) for v in (*given.mean, *given.std)) or 0.0 in given.std:
        raise ManifestError("input.mean and input.std must be finite and input.std not 0")
    if given.dtype == "uint8" and (given.mean != (0.0,) * 3 or given.std != (1.0,) * 3):
        raise ManifestError(
            "input.mean and input.std are set for dtype uint8",
            remedy="A uint8 graph normalises inside; leave both out",
        )


def encode_manifest(manifest: Manifest) -> bytes:
    """The TOML bytes of a manifest: equal manifests give equal bytes.

    Raises:
        ManifestError: The manifest would not be accepted by `load_manifest`.
    """
    data = "\n".join(_table_lines((), msgspec.to_builtins(manifest))).encode("utf-8") + b"\n"
    parse_manifest(data)
    return data


_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def _table_lines(path: tuple[str, ...], table: Mapping[str, object]) -> list[str]:
    """Lines of one TOML table: plain keys first, then its tables in order."""
    lines = [f"[{'.'.join(_key(part) for part in path)}]"] if path else []
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", *_table_lines((*path, key), value)]
    return lines


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    """A TOML basic string: JSON's escapes are a subset of it, but DEL must be escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item) for item in value)}]"
    return repr(value)
