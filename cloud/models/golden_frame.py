"""The frame that a model proves itself on: one whose result no rounding decides.

On another processor sums are rounded otherwise. A box that is just above the threshold here may be
gone there, and a label map full of close calls agrees less: such a frame would refuse a good build.
So each candidate is run again with other kernels and with a trace of noise, and the one whose
result stays is taken, of several the one with most to see.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from syncline.cloud.models.frames import Frame
from syncline.cloud.models.probe import Probe, synthetic_frame
from syncline.edge.decode import Boxes, Decoded, LabelMap
from syncline.edge.model.golden import Golden
from syncline.edge.model.manifest import GoldenSpec, InputSpec, Manifest
from syncline.edge.preprocess import geometry_of
from syncline.edge.proof import (
    INT8,
    MIN_CLASS_IOU,
    MIN_CLASS_SHARE,
    Tolerance,
    agreement,
    least_class_iou,
)

TRIES = 16
"""Candidates that are looked at."""
_DRAWN = 3
_HALF = Tolerance(iou=(1.0 + INT8.iou) / 2, margin=0.0, score=INT8.score / 2, raw=INT8.raw / 2)
"""What a trial may move: half of what a device tolerates, and nothing at the threshold."""
_NOISE_LEVELS = 2
_NOISE_SEEDS = (1, 2)
LEAST_AGREEMENT = {"classes": 0.95, "boxes": 0.8, "scores": 0.985}
"""`golden.min_agreement` is never set below this, by what the result is counted in."""


@dataclass(frozen=True, slots=True)
class GoldenChoice:
    """A golden frame and what is known of it.

    Attributes:
        golden: Frame and outputs.
        steadiness: Least agreement of its result with those of the trials, 0..1.
        content: Boxes, or classes, that it shows.
        kind: What the content is counted in: `boxes`, `classes` or `scores`.
        is_list: The outputs are a list of boxes: where it is empty, nothing is left to compare.
    """

    golden: Golden
    steadiness: float
    content: int
    kind: str
    is_list: bool = False

    def spec(self, given: GoldenSpec) -> GoldenSpec:
        """The limits for other machines: twice what the trials moved must pass there.

        A network of close calls has no frame that agrees on 98.5 % (edge-35); what it does agree
        on is written down instead of a limit that refuses it.
        """
        allowed = math.floor(1000.0 * (2.0 * self.steadiness - 1.0)) / 1000.0
        needed = max(allowed, LEAST_AGREEMENT[self.kind])
        if needed >= given.min_agreement:
            return given
        return msgspec.structs.replace(given, min_agreement=needed)

    def notes(self) -> list[str]:
        """What to tell of a frame that proves little."""
        found = []
        if self.is_list and not self.content:
            found.append(
                "the golden frame shows no box: a build that finds nothing would pass its proof "
                "on other processors; give a picture with things in it"
            )
        if not _is_steady(self.steadiness):
            found.append(
                f"rounding decides part of the golden frame's result (it keeps "
                f"{self.steadiness:.1%} of it), so other processors are held to "
                f"{self.spec(GoldenSpec()).min_agreement:.1%} alone; give pictures that are clear"
            )
        return found


def choose_golden(
    model: onnx.ModelProto, manifest: Manifest, frames: Iterable[Frame] = ()
) -> GoldenChoice:
    """The steadiest frame, and of the steady ones that with most in it.

    Args:
        model: The graph.
        manifest: How it is fed and read.
        frames: Candidates; the first `TRIES` are looked at. None = synthetic pictures, on which a
            detector may find nothing.
    """
    probes = _probes(model, manifest)
    threshold = manifest.decoder.score_threshold
    best: GoldenChoice | None = None
    for bgr, is_drawn in _candidates(manifest, frames):
        outputs, want = probes[0].run(bgr)
        steady = min(_steadiness(want, got, threshold) for got in _trials(probes, bgr))
        shown, kind = content(want)
        if best is None or _rank(steady, shown) > _rank(best.steadiness, best.content):
            golden = Golden(bgr.copy(), tuple(np.array(out) for out in outputs))
            best = GoldenChoice(golden, steady, shown, kind, manifest.decoder.kind == "boxes-nms")
        if is_drawn and _is_steady(best.steadiness) and best.content:
            break  # one drawn picture is as good as another
    assert best is not None, "there is a synthetic frame at least"
    return best


def _probes(model: onnx.ModelProto, manifest: Manifest) -> Sequence[Probe]:
    """The one that makes the golden output, then others that round otherwise."""
    return (
        Probe(model, manifest),
        Probe(model, manifest, as_written=True),
    )


def _candidates(
    manifest: Manifest, frames: Iterable[Frame]
) -> Iterator[tuple[NDArray[np.uint8], bool]]:
    """Frames, or drawn pictures where there is none; whether it is drawn."""
    given = False
    for frame, _ in zip(frames, range(TRIES), strict=False):
        given = True
        yield at_input_size(frame.bgr, manifest.input), False
    if not given:
        for seed in range(_DRAWN):
            yield synthetic_frame(manifest.input.width, manifest.input.height, seed), True


def at_input_size(bgr: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """A frame as large as the input takes it: OpenCV resizes otherwise on other processors."""
    at = geometry_of(spec, bgr.shape[1], bgr.shape[0])
    size = (at.content_width, at.content_height)
    if bgr.shape[1::-1] == size:
        return bgr
    return np.asarray(cv2.resize(bgr, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _trials(probes: Sequence[Probe], bgr: NDArray[np.uint8]) -> Iterator[Decoded]:
    """The result by other kernels, and with noise of two grey levels."""
    for probe in probes[1:]:
        yield probe(bgr)
    for seed in _NOISE_SEEDS:
        rng = np.random.default_rng(seed)
        noise = rng.integers(-_NOISE_LEVELS, _NOISE_LEVELS + 1, bgr.shape, dtype=np.int16)
        yield probes[0](np.clip(bgr + noise, 0, 255).astype(np.uint8))


def _steadiness(want: Decoded, got: Decoded, threshold: float) -> float:
    """1 when a trial stays within half of what a device tolerates; the mean of half and whole."""
    found = sum(agreement(want, got, threshold, limits) for limits in (_HALF, INT8)) / 2.0
    return found if least_class_iou(want, got) >= (1.0 + MIN_CLASS_IOU) / 2 else min(found, 0.9)


def _is_steady(steadiness: float) -> bool:
    return steadiness >= 1.0 - (1.0 - GoldenSpec().min_agreement) / 2


def _rank(steadiness: float, shown: int) -> tuple[bool, float, int]:
    """Steady frames that show something, by what they show; then the others by steadiness."""
    good = _is_steady(steadiness) and shown > 0
    return (good, 0.0 if good else steadiness, shown)


def content(result: Decoded) -> tuple[int, str]:
    """How much there is to see in a result, and what it is counted in."""
    if isinstance(result, Boxes):
        return len(result), "boxes"
    if isinstance(result, LabelMap):
        pixels = np.bincount(result.labels.ravel())
        return int(np.count_nonzero(pixels >= MIN_CLASS_SHARE * result.labels.size)), "classes"
    return 1, "scores"
