"""Families of foreign models: how their exporters expect to be fed and read.

A preset recognises a graph by the shapes of its inputs and outputs and says what no graph says of
itself: colour order, normalisation, how frames are fitted, what the outputs mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from syncline.cloud.models.graph import TensorInfo
from syncline.edge.model.manifest import DecoderKind, DecoderSpec, InputSpec, Task
from syncline.errors import ModelError, UsageError

_STRIDES = (8, 16, 32)
_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)

Outputs = Sequence[TensorInfo]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Preset:
    """One family.

    Attributes:
        name: As given to `--preset`.
        about: One line for the user.
        task: Of the manifest.
        kind: Decoder of the manifest; our own detector is folded into `boxes-nms` on import.
        matches: Whether a graph looks like the family: (outputs, (width, height)).
        classes: Number of classes that the shapes speak of.
        order: Output names in the decoder's order.
        color: Channel order of the input.
        resize: How frames are fitted.
        mean: Subtracted from 0..255 values.
        std: Divisor.
        strides: Grid strides of the head.
        score_threshold: Usual threshold of the family.
        nms_iou: Usual overlap limit of the family.
        guess: Whether a match is convincing enough to be guessed.
    """

    name: str
    about: str
    task: Task
    kind: DecoderKind
    matches: Callable[[Outputs, Size], bool]
    classes: Callable[[Outputs], int]
    order: Callable[[Outputs], tuple[str, ...]]
    color: Literal["BGR", "RGB"] = "BGR"
    resize: Literal["letterbox-topleft", "letterbox-center", "stretch"] = "stretch"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    strides: tuple[int, ...] = ()
    score_threshold: float = 0.3
    nms_iou: float = 0.45
    guess: bool = True

    def input_spec(self, info: TensorInfo) -> InputSpec:
        """The manifest's input for a graph's (1, 3, H, W) input."""
        _, _, height, width = info.dims
        return InputSpec(
            name=info.name,
            width=width,
            height=height,
            color=self.color,
            resize=self.resize,
            mean=self.mean,
            std=self.std,
        )

    def decoder_spec(self, outputs: Outputs) -> DecoderSpec:
        """The manifest's decoder for a graph's outputs."""
        return DecoderSpec(
            kind=self.kind,
            outputs=self.order(outputs),
            strides=self.strides,
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
        )


def _in_order(outputs: Outputs) -> tuple[str, ...]:
    return tuple(info.name for info in outputs)


def _cells(size: Size, per_cell: int = 1) -> int:
    width, height = size
    return per_cell * sum((width // s) * (height // s) for s in _STRIDES)


def _ranks(outputs: Outputs) -> list[int]:
    return [len(info.shape) for info in outputs]


def _is_yolox(outputs: Outputs, size: Size) -> bool:
    return _ranks(outputs) == [3] and outputs[0].shape[1] == _cells(size)


def _is_yolov5(outputs: Outputs, size: Size) -> bool:
    return _ranks(outputs) == [3] and outputs[0].shape[1] == _cells(size, per_cell=3)


def _is_yolov8(outputs: Outputs, size: Size) -> bool:
    return _ranks(outputs) == [3] and outputs[0].shape[2] == _cells(size)


def _is_fastestdet(outputs: Outputs, size: Size) -> bool:
    if _ranks(outputs) != [4]:
        return False
    _, channels, rows, columns = outputs[0].dims
    return (rows, columns) == (size[1] // 16, size[0] // 16) and channels > 5


def _is_twinlite(outputs: Outputs, size: Size) -> bool:
    return len(outputs) == 2 and all(o.shape == (1, 2, size[1], size[0]) for o in outputs)


def _is_ssd(outputs: Outputs, _size: Size) -> bool:
    if _ranks(outputs) != [3, 3]:
        return False
    widths = [o.shape[2] for o in outputs]
    return outputs[0].shape[1] == outputs[1].shape[1] and 4 in widths


def _ssd_order(outputs: Outputs) -> tuple[str, ...]:
    """Scores, then boxes; boxes are the output four wide, the second when both are."""
    boxes = outputs[0] if outputs[1].shape[2] != 4 else outputs[1]
    scores = outputs[0] if boxes is outputs[1] else outputs[1]
    return (scores.name, boxes.name)


def _ssd_classes(outputs: Outputs) -> int:
    scores = _ssd_order(outputs)[0]
    return next(o.dims[2] for o in outputs if o.name == scores) - 1


def _is_edgedet(outputs: Outputs, size: Size) -> bool:
    if _ranks(outputs) != [4, 4, 4] or len({o.shape[1] for o in outputs}) != 1:
        return False
    wanted = {(size[1] // s, size[0] // s) for s in _STRIDES}
    return {o.shape[2:] for o in outputs} == wanted


def _finest_first(outputs: Outputs) -> tuple[str, ...]:
    return tuple(o.name for o in sorted(outputs, key=lambda o: -o.dims[2]))


def _is_logits(outputs: Outputs, size: Size) -> bool:
    if _ranks(outputs) != [4]:
        return False
    _, channels, rows, columns = outputs[0].dims
    return 1 < channels <= 256 and size[1] * columns == size[0] * rows and rows >= size[1] // 8


def _is_nms(outputs: Outputs, _size: Size) -> bool:
    return len(outputs) == 1 and len(outputs[0].shape) in (2, 3) and outputs[0].shape[-1] == 6


def _is_scores(outputs: Outputs, _size: Size) -> bool:
    return _ranks(outputs) == [2] and outputs[0].shape[-1] != 6


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "yolox", "YOLOX (BGR 0..255, grid offsets)", "detection", "yolox", _is_yolox,
            lambda o: o[0].dims[2] - 5, _in_order, resize="letterbox-topleft", strides=_STRIDES,
        ),
        Preset(
            "yolov5", "YOLOv5/v7 export with decoded boxes", "detection", "yolov5", _is_yolov5,
            lambda o: o[0].dims[2] - 5, _in_order, color="RGB", resize="letterbox-center",
            std=(255.0,) * 3,
        ),
        Preset(
            "yolov8", "YOLOv8/11 style export, (4 + classes) x cells", "detection", "yolov8",
            _is_yolov8, lambda o: o[0].dims[1] - 4, _in_order, color="RGB",
            resize="letterbox-center", std=(255.0,) * 3,
        ),
        Preset(
            "fastestdet", "FastestDet, one stride-16 grid", "detection", "fastestdet",
            _is_fastestdet, lambda o: o[0].dims[1] - 5, _in_order, std=(255.0,) * 3,
        ),
        Preset(
            "ultraface", "Ultra-Light face detector (RFB, slim): scores and boxes in 0..1",
            "detection", "ssd", _is_ssd, _ssd_classes, _ssd_order, color="RGB",
            mean=(127.0,) * 3, std=(128.0,) * 3, score_threshold=0.7, nms_iou=0.3,
        ),
        Preset(
            "twinlite", "TwinLiteNet: drivable area and lane lines", "lanes", "twinlite",
            _is_twinlite, lambda _: 4, _in_order, color="RGB", std=(255.0,) * 3,
        ),
        Preset(
            "edgedet", "our detector's raw maps; boxes and suppression are folded in on import",
            "detection", "boxes-nms", _is_edgedet, lambda o: o[0].dims[1] - 4, _finest_first,
            resize="letterbox-topleft", std=(255.0,) * 3, strides=_STRIDES,
        ),
        Preset(
            "edgeseg", "our segmenter, logits at stride 4", "segmentation", "logits", _is_logits,
            lambda o: o[0].dims[1], _in_order, std=(255.0,) * 3, guess=False,
        ),
        Preset(
            "logits", "any segmenter with logits (RGB, ImageNet normalisation)", "segmentation",
            "logits", _is_logits, lambda o: o[0].dims[1], _in_order, color="RGB",
            mean=_IMAGENET_MEAN, std=_IMAGENET_STD,
        ),
        Preset(
            "boxes-nms", "a detector with suppression in its graph, (N, 6)", "detection",
            "boxes-nms", _is_nms, lambda _: 0, _in_order, color="RGB",
            resize="letterbox-center", std=(255.0,) * 3,
        ),
        Preset(
            "scores", "a classifier (RGB, ImageNet normalisation)", "classification", "scores",
            _is_scores, lambda o: o[0].dims[-1], _in_order, color="RGB", mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
        ),
    )
}  # fmt: skip


def preset_named(name: str, given: TensorInfo, outputs: Outputs) -> Preset:
    """A preset by name, checked against the graph.

    Raises:
        UsageError: There is no such preset.
        ModelError: The graph's outputs are not those of the family.
    """
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}", remedy=f"Use one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    if not _fits(preset, given, outputs):
        raise ModelError(
            f"the graph does not look like {name}: {describe(given, outputs)}",
            remedy="Leave --preset out to have it guessed, or give --size",
        )
    return preset


def guess_preset(given: TensorInfo, outputs: Outputs) -> Preset:
    """The first preset that the graph's shapes fit.

    Raises:
        ModelError: None fits.
    """
    for preset in PRESETS.values():
        if preset.guess and _fits(preset, given, outputs):
            return preset
    raise ModelError(
        f"no preset fits the graph: {describe(given, outputs)}",
        remedy=f"Name the family with --preset ({', '.join(PRESETS)})",
    )


def _fits(preset: Preset, given: TensorInfo, outputs: Outputs) -> bool:
    _, _, height, width = given.dims
    try:
        return bool(outputs) and preset.matches(outputs, (width, height))
    except ModelError:  # a free dimension where the family has a number
        return False


def describe(given: TensorInfo, outputs: Outputs) -> str:
    """Input and output shapes in one line."""
    shown = ", ".join(f"{o.name} {list(o.shape)}" for o in outputs)
    return f"input {given.name} {list(given.shape)}, outputs {shown}"
