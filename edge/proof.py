"""The golden proof where the golden output was not computed: other runtime, processor, provider.

Two processors round float sums in different order; in an int8 graph such a difference may move an
activation by one step, and two boxes of nearly equal score may change places. Element by element
raw outputs then say little, and rows of boxes nothing. What the outputs mean is compared instead,
and of raw float outputs how far they are apart altogether. Limits: docs/model-bundle.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode import Boxes, Decoded, LabelMap, Scores
from syncline.edge.decode.match import pairs
from syncline.edge.model.golden import Golden, GoldenProof, check_kind
from syncline.edge.model.manifest import InputSpec, Manifest
from syncline.edge.preprocess import geometry_of
from syncline.edge.providers import CPU
from syncline.errors import HealthProofError

Outputs = Sequence[NDArray[np.generic]]

MIN_CLASS_SHARE = 0.01
"""Classes that fill less of a label map are counted among its pixels alone."""
MIN_CLASS_IOU = 0.7
"""Of every other class: a head that is dead may be less than 1.5 % of the pixels."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far results may be apart.

    Attributes:
        iou: Least overlap of a box with its partner.
        margin: Boxes that are less above the threshold may be there or not; first places by less
            may swap, counted in the range of the scores.
        score: Largest difference of a box's score.
        raw: Root mean square difference of a float output, in units of its standard deviation.
    """

    iou: float
    margin: float
    score: float
    raw: float


INT8 = Tolerance(iou=0.75, margin=0.05, score=0.1, raw=0.2)
FLOAT = Tolerance(iou=0.9, margin=0.02, score=0.05, raw=0.03)
"""float32 and float16 on any provider: TensorFloat-32 and float16 round at 1e-3."""
FLOAT_CPU = Tolerance(iou=0.95, margin=0.01, score=0.01, raw=1e-3)
"""float32 on two CPUs: sums in another order, some 1e-5."""


def tolerance_of(manifest: Manifest, provider: str, golden: Golden) -> Tolerance:
    """What a build may differ by on another machine.

    A golden frame that must be resized first is another picture there by a grey level here and
    there: OpenCV's resize rounds otherwise on Arm. That moves a network as much as int8 does.

    Args:
        manifest: Of the build.
        provider: That runs it here.
        golden: With the golden frame.
    """
    is_float = manifest.target.precision in ("fp32", "fp16")
    if not is_float or not is_at_input_size(golden.frame, manifest.input):
        return INT8
    both = provider == CPU == manifest.golden.provider
    return FLOAT_CPU if both and manifest.target.precision == "fp32" else FLOAT


def is_at_input_size(frame: NDArray[np.uint8], spec: InputSpec) -> bool:
    """Whether a frame goes into the input tensor pixel by pixel."""
    height, width = frame.shape[:2]
    at = geometry_of(spec, width, height)
    return (at.content_width, at.content_height) == (width, height)


def is_same_runtime(named: str, here: str, machine: str) -> bool:
    """Whether golden outputs must come out element by element.

    Args:
        named: `target.runtime`: a runtime, with ` on MACHINE` where it ran.
        here: The runtime that runs the model here.
        machine: Kind of processor here.
    """
    return named == f"{here} on {machine}"


def compare_meaning(
    golden: Golden,
    outputs: Outputs,
    manifest: Manifest,
    decode: Callable[[Outputs], Decoded],
    provider: str = CPU,
) -> GoldenProof:
    """Hold what the outputs mean against what the golden ones mean.

    Label maps: share of equal pixels, and the overlap of every class that fills a hundredth.
    Boxes: share of those clearly above the threshold, on either side, that the other side has with
    the same class, place and score. Scores: the same first place. Raw float outputs, but lists of
    boxes: altogether near.

    Args:
        golden: As the bundle brings it.
        outputs: Of the golden frame here.
        manifest: Of the bundle.
        decode: Makes sense of outputs of that frame.
        provider: That computed `outputs`.

    Raises:
        HealthProofError: Number or types of outputs differ, or they are too far apart.
        ManifestError: The outputs do not decode.
    """
    limits = tolerance_of(manifest, provider, golden)
    is_list = manifest.decoder.kind == "boxes-nms"
    check_kind(golden, outputs, shapes=not is_list)
    apart = 0.0 if is_list else raw_distance(golden.outputs, outputs)
    if not apart <= limits.raw:
        raise _refusal(manifest, f"differ by {apart:.2g} of their spread, limit {limits.raw:.2g}")
    want, got = decode(golden.outputs), decode(outputs)
    found = agreement(want, got, manifest.decoder.score_threshold, limits)
    needed = manifest.golden.min_agreement
    if found < needed:
        raise _refusal(manifest, f"agree on {found:.4%}, needs {needed:.4%}")
    least = least_class_iou(want, got)
    if least < MIN_CLASS_IOU:
        raise _refusal(manifest, f"have a class of IoU {least:.3f}, needs {MIN_CLASS_IOU}")
    return GoldenProof(_largest_difference(golden.outputs, outputs), found)


def _refusal(manifest: Manifest, what: str) -> HealthProofError:
    maker = manifest.target.runtime or "elsewhere"
    return HealthProofError(
        f"golden run: results {what}, held against those of {maker}",
        remedy="The model does not compute what it was released with; keep the old one",
    )


def raw_distance(want: Outputs, got: Outputs) -> float:
    """Largest of the float outputs' root mean square differences, each in units of its spread."""
    worst = 0.0
    for one, other in zip(want, got, strict=True):
        if not np.issubdtype(one.dtype, np.floating) or not one.size:
            continue
        first, second = one.astype(np.float64), other.astype(np.float64)
        apart = float(np.sqrt(np.mean((first - second) ** 2)))
        worst = max(worst, apart / max(float(first.std()), 1e-9) if apart else 0.0)
        if not np.isfinite(apart):
            return float("inf")
    return worst


def agreement(want: Decoded, got: Decoded, threshold: float, limits: Tolerance) -> float:
    """Share of what two results say that they say both; 0 when they are not of one kind."""
    if isinstance(want, Boxes) and isinstance(got, Boxes):
        return _box_agreement(want, got, threshold, limits)
    if isinstance(want, LabelMap) and isinstance(got, LabelMap):
        same_shape = want.labels.shape == got.labels.shape
        return float(np.mean(want.labels == got.labels)) if same_shape else 0.0
    if isinstance(want, Scores) and isinstance(got, Scores) and len(want.score) == len(got.score):
        level = limits.margin * float(np.ptp(want.score))
        return float(got.score[int(np.argmax(want.score))] >= got.score.max() - level)
    return 0.0


def _box_agreement(want: Boxes, got: Boxes, threshold: float, limits: Tolerance) -> float:
    of_want, of_got = (boxes.score >= threshold + limits.margin for boxes in (want, got))
    total = int(of_want.sum() + of_got.sum())
    for row, column in pairs(want, got, limits.iou):
        if abs(float(want.score[row]) - float(got.score[column])) <= limits.score:
            of_want[row] = of_got[column] = False
    alone = int(of_want.sum() + of_got.sum())
    return 1.0 - alone / total if total else 1.0


def least_class_iou(want: Decoded, got: Decoded) -> float:
    """Of label maps of one shape: least IoU of the classes that fill a hundredth; else 1."""
    if not (isinstance(want, LabelMap) and isinstance(got, LabelMap)):
        return 1.0
    least = 1.0
    for label in np.flatnonzero(np.bincount(want.labels.ravel()) >= _floor(want.labels.size)):
        one, other = want.labels == label, got.labels == label
        least = min(least, float((one & other).sum() / (one | other).sum()))
    return least


def _floor(pixels: int) -> float:
    return max(MIN_CLASS_SHARE * pixels, 1.0)


def _largest_difference(want: Outputs, got: Outputs) -> float:
    """Of float outputs of equal shape; rows of boxes may stand in another order."""
    worst = 0.0
    for one, other in zip(want, got, strict=True):
        if one.shape == other.shape and np.issubdtype(one.dtype, np.floating):
            difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
            worst = max(worst, float(difference.max(initial=0.0)))
    return worst
