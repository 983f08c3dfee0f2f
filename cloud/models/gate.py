"""The gate: an int8 build ships only when it is as good as fp32 on every slice, and faster.

Both are measured here, on frames that calibration did not see and in CPU time of one thread with
the two models taking turns. What cannot be measured does not pass by default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from syncline.cloud.models.agreement import Agreement, Kind, Tally, best_constant_iou, mean_iou
from syncline.cloud.models.frames import Frame, FrameSource
from syncline.cloud.models.probe import Probe, feeds
from syncline.cloud.models.speed import Timing, compare_models
from syncline.cloud.models.split import MIN_JUDGED
from syncline.cloud.models.targets import Target, has_vnni, measurable_here
from syncline.cloud.models.truth import Labels, Truth, check_shape, known_labels
from syncline.edge.model.manifest import Manifest
from syncline.errors import GateError, MediaError

DARK_LUMA = 60.0
NO_VNNI = (
    "this CPU has no VNNI: speed here is a lower bound; results are those of sums that do not "
    "overflow, as on the target"
)
_NO_TRUTH = Tally()


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """What an int8 build must reach.

    Attributes:
        min_f1: Detections: agreement with fp32.
        min_pixels: Label maps: share of equal pixels.
        min_miou: Label maps: mean IoU with fp32's map.
        min_top1: Classification: share of equal first places.
        max_drop: With labels: loss of mean IoU, 0..1; replaces the two label-map limits.
        min_speedup: fp32 time / int8 time.
        min_frames: Slices with fewer frames are reported, not judged; with labels, fewer labels.
        min_judged: With labels: share of their pixels that must be of a class of the model.
        min_boxes: Reference boxes needed to judge a detector at all.
        unmeasured_speed: Let a build pass whose target is not this kind of machine.
    """

    min_f1: float = 0.97
    min_pixels: float = 0.97
    min_miou: float = 0.90
    min_top1: float = 0.985
    max_drop: float = 0.005
    min_speedup: float = 1.2
    min_frames: int = MIN_JUDGED
    min_judged: float = 0.1
    min_boxes: int = 20
    unmeasured_speed: bool = False


@dataclass(frozen=True, slots=True)
class Build:
    """A graph and its manifest."""

    model: onnx.ModelProto
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate found.

    Attributes:
        metrics: Figures per slice.
        fp32: Speed of the fp32 build; None when not measured.
        int8: Speed of the int8 build; None when not measured.
        reasons: Why it is refused; empty = passed.
        notes: What else the reader must know.
        precision: Of the candidate: int8 or fp16.
        classes: With labels: frames and pixels judged and the figures per class.
    """

    metrics: Mapping[str, dict[str, float]]
    fp32: Timing | None
    int8: Timing | None
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    precision: str = "int8"
    classes: Mapping[str, dict[str, float]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the build may ship."""
        return not self.reasons

    @property
    def speedup(self) -> float | None:
        """fp32 time / int8 time, best of N."""
        if self.fp32 is None or self.int8 is None:
            return None
        return self.fp32.best_ms / self.int8.best_ms

    def require(self) -> None:
        """Raise when refused.

        Raises:
            GateError: With every reason.
        """
        if self.reasons:
            raise GateError(
                f"{self.precision} refused: {'; '.join(self.reasons)}",
                remedy="Ship fp32 (--keep-fp32 writes it), or train a dense ReLU network",
            )


def run_gate(
    fp32: Build,
    int8: Build,
    frames: FrameSource,
    target: Target,
    *,
    cpu_ns: Callable[[], int],
    limits: GateLimits | None = None,
    truth: Truth | None = None,
    runs: int = 15,
) -> GateReport:
    """Hold an int8 build against the fp32 one.

    Args:
        fp32: The reference.
        int8: The candidate.
        frames: Frames to judge on.
        target: Of the candidate.
        cpu_ns: CPU time of this thread, nanoseconds.
        limits: What must be reached.
        truth: Label map of a frame by its name, or None.
        runs: Rounds of the speed measurement.

    Raises:
        MediaError: Labels were given and no frame has any, or they cannot be read.
    """
    limits = limits or GateLimits()
    found = compare_results(fp32, int8, frames, truth)
    whole = found.slices.get("all", _NO_TRUTH)
    reasons = judge_accuracy(found.metrics(), found.kind, limits)
    if truth is not None:
        reasons += judge_labels(whole, limits)
    notes: list[str] = []
    times: dict[str, Timing] = {}
    if measurable_here(target):
        times = measure_builds({"fp32": fp32, "int8": int8}, frames, cpu_ns, runs)
        reasons += _judge_speed(times, target, limits)
        notes += _machine_notes(target)
    elif limits.unmeasured_speed:
        notes.append(f"speed on {target.name} was not measured: run `syncline model bench` there")
    else:
        reasons.append(
            f"speed on {target.name} cannot be measured on this machine "
            "(--allow-unmeasured-speed ships it all the same)"
        )
    return GateReport(
        found.metrics(), times.get("fp32"), times.get("int8"), tuple(reasons), tuple(notes),
        "int8" if target.quantised else target.precision,
        whole.by_class(fp32.manifest.labels),
    )  # fmt: skip


def measure_builds(
    builds: Mapping[str, Build], frames: FrameSource, cpu_ns: Callable[[], int], runs: int
) -> dict[str, Timing]:
    """Time builds in turns on the first of the frames."""
    first = next(iter(frames.read()))
    inputs = {name: next(feeds(b.manifest.input, [first])) for name, b in builds.items()}
    models = {name: b.model for name, b in builds.items()}
    return compare_models(models, cpu_ns, feeds=inputs, runs=runs)


def compare_results(
    fp32: Build, int8: Build, frames: FrameSource, truth: Truth | None = None
) -> Agreement:
    """Run both builds over the frames, one frame at a time.

    Raises:
        MediaError: Labels were given and no frame has any, or they cannot be read.
    """
    reference = Probe(fp32.model, fp32.manifest)
    candidate = Probe(int8.model, int8.manifest)
    found = Agreement()
    name = ""
    for frame in frames.read():
        name = name or frame.name
        labels = _labels_of(frame, truth, len(fp32.manifest.labels))
        found.add(reference(frame.bgr), candidate(frame.bgr), slices_of(frame), labels)
    if truth is not None and name and not found.slices["all"].truth_frames:
        raise MediaError(
            f"none of the {found.slices['all'].frames} frames has a label map; "
            f"the first is named {name!r}",
            remedy="Name each label map like its picture, as PNG, in the same sub-folders",
        )
    return found


def _labels_of(frame: Frame, truth: Truth | None, classes: int) -> Labels | None:
    labels = truth(frame.name) if truth is not None else None
    if labels is None:
        return None
    check_shape(labels, frame)
    return known_labels(labels, classes)


def slices_of(frame: Frame) -> tuple[str, ...]:
    """Slices of a frame: its group, and `dark` below a mean luma of 60."""
    luma = float(frame.bgr[::8, ::8].mean())
    groups = (frame.group, "dark" if luma < DARK_LUMA else "")
    return tuple(name for name in groups if name)


def judge_accuracy(
    metrics: Mapping[str, dict[str, float]], kind: Kind, limits: GateLimits
) -> list[str]:
    """Reasons against a build, from its figures."""
    whole = metrics.get("all", {})
    if whole.get("frames", 0.0) < limits.min_frames:
        return [f"{whole.get('frames', 0.0):.0f} frames are too few to judge on"]
    if kind == "boxes" and whole["reference_boxes"] < limits.min_boxes:
        found = f"fp32 finds {whole['reference_boxes']:.0f} boxes in the frames"
        return [f"{found}, too few to judge on (needs {limits.min_boxes})"]
    reasons = []
    for name, figures in metrics.items():
        if figures["frames"] >= limits.min_frames:
            reasons += [f"{name}: {text}" for text in _judge_slice(figures, limits)]
    return reasons


def judge_labels(whole: Tally, limits: GateLimits) -> list[str]:
    """Whether the labels can bear a verdict: enough of them, and of this model's classes."""
    if whole.truth is None or whole.truth_frames < limits.min_frames:
        return [
            f"labels for {whole.truth_frames} frames are too few to judge on "
            f"(needs {limits.min_frames})"
        ]
    share = whole.judged_pixels / max(whole.truth_pixels, 1)
    if share < limits.min_judged:
        return [
            f"{share:.1%} of the labels are of a class of the model, needs {limits.min_judged:.0%}"
        ]
    reached, least = mean_iou(whole.truth[0]), best_constant_iou(whole.truth[0])
    if not reached > least:
        return [
            f"fp32 has mean IoU {reached:.4f} on these labels, one label for every pixel would "
            f"have {least:.4f}: they are not what the model was made for"
        ]
    return []


def _judge_slice(figures: Mapping[str, float], limits: GateLimits) -> list[str]:
    if figures.get("truth_frames", 0.0) >= limits.min_frames:
        drop = figures["miou_drop"]
        limit = limits.max_drop
        return [] if drop <= limit else [f"mIoU falls by {drop:.4f}, limit {limit:.4f}"]
    needed = {
        "f1": limits.min_f1,
        "pixel_agreement": limits.min_pixels,
        "miou_agreement": limits.min_miou,
        "top1_agreement": limits.min_top1,
    }
    return [
        f"{key} with fp32 is {figures[key]:.3f}, needs {limit:.3f}"
        for key, limit in needed.items()
        if key in figures and not figures[key] >= limit
    ]


def _judge_speed(times: Mapping[str, Timing], target: Target, limits: GateLimits) -> list[str]:
    ratio = times["fp32"].best_ms / times["int8"].best_ms
    if ratio >= limits.min_speedup:
        return []
    word = "slower" if ratio < 1.0 else "hardly faster"
    spent = f"{times['int8'].best_ms:.2f} ms against {times['fp32'].best_ms:.2f} ms"
    needed = f"{ratio:.2f}x on {target.name}, needs {limits.min_speedup:.2f}x"
    return [f"int8 is {word}: {spent}, {needed}"]


def _machine_notes(target: Target) -> list[str]:
    if target.name == "x86-64-vnni" and not has_vnni():
        return [NO_VNNI]
    return []
