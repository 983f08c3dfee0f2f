"""What was claimed against what was true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.demo.edge_side import DriveRun, FrameScore
from syncline.edge.decode.types import Boxes
from syncline.sensors.synthetic.labels import TruthBox

SETTLE_FRAMES = 20
MATCH_IOU = 0.5
MIN_VISIBLE = 0.5
MIN_HEIGHT_PX = 16.0


@dataclass(frozen=True, slots=True)
class FrameTimeScore:
    """Error of the middle of exposure, microseconds, and how honest sigma was."""

    p50_us: float
    p99_us: float
    max_us: float
    within_2_sigma: float
    arrival_p50_us: float


@dataclass(frozen=True, slots=True)
class UtcScore:
    """Error of UTC, microseconds, with the bounds that were claimed beside it."""

    known_share: float
    p50_us: float
    p99_us: float
    max_us: float
    bound_p50_us: float
    inside_bound: float
    dark_s: float
    dark_max_us: float
    lying_s: float
    lying_max_us: float


@dataclass(frozen=True, slots=True)
class DetectionScore:
    """Boxes against the rendered truth, at IoU 0.5 and the model's own threshold."""

    true: int
    found: int
    wrong: int

    @property
    def precision(self) -> float:
        """Share of the boxes that are right."""
        return self.found / max(self.found + self.wrong, 1)

    @property
    def recall(self) -> float:
        """Share of the things that were found."""
        return self.found / max(self.true, 1)


def score_frame_times(frames: Sequence[FrameScore]) -> FrameTimeScore:
    """Frame times against the truth, after the first second."""
    late = frames[SETTLE_FRAMES:] or frames
    error_us = np.array([f.timing.mid_ns - f.truth.mid_raw_ns for f in late]) / 1e3
    sigma_us = np.array([f.timing.sigma_ns for f in late]) / 1e3
    low_us = np.array([f.timing.bias_ns[0] for f in late]) / 1e3
    high_us = np.array([f.timing.bias_ns[1] for f in late]) / 1e3
    # The claim: truth lies in [mid + low - 2 sigma, mid + high + 2 sigma].
    inside = (-error_us >= low_us - 2 * sigma_us) & (-error_us <= high_us + 2 * sigma_us)
    naive = np.array([f.result.frame.raw_ns - f.truth.mid_raw_ns for f in late]) / 1e3
    size = np.abs(error_us)
    return FrameTimeScore(
        float(np.median(size)),
        float(np.percentile(size, 99)),
        float(size.max()),
        float(inside.mean()),
        float(np.median(np.abs(naive))),
    )


def score_utc(run: DriveRun) -> UtcScore:
    """The clock against the truth, over the whole drive."""
    known = [c for c in run.clock if c.error_ns is not None]
    error_us = np.array([abs(c.error_ns or 0) for c in known]) / 1e3
    bound_us = np.array([c.bound_ns for c in known]) / 1e3
    dark = np.array([not c.has_fix for c in known], dtype=bool)
    lying = np.array([c.lying for c in known], dtype=bool)
    return UtcScore(
        len(known) / max(len(run.clock), 1),
        _quantile(error_us, 50),
        _quantile(error_us, 99),
        _quantile(error_us, 100),
        _quantile(bound_us, 50),
        float((error_us <= bound_us).mean()) if len(known) else 0.0,
        float(dark.sum()) / 10,
        _quantile(error_us[dark], 100),
        float(lying.sum()) / 10,
        _quantile(error_us[lying], 100),
    )


def _quantile(values: NDArray[np.float64], percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else 0.0


def score_detections(frames: Sequence[FrameScore]) -> DetectionScore:
    """Greedy matching per class; things too small or hidden count neither way."""
    true = found = wrong = 0
    for frame in frames:
        boxes = frame.result.boxes or Boxes.none()
        wanted = [b for b in frame.truth.boxes if _is_fair(b)]
        ignored = [b for b in frame.truth.boxes if not _is_fair(b)]
        hits, misses = _match(boxes, wanted, ignored)
        true, found, wrong = true + len(wanted), found + hits, wrong + misses
    return DetectionScore(true, found, wrong)


def _is_fair(box: TruthBox) -> bool:
    height = box.xyxy_px[3] - box.xyxy_px[1]
    return box.visible >= MIN_VISIBLE and height >= MIN_HEIGHT_PX


def _match(
    boxes: Boxes, wanted: Sequence[TruthBox], ignored: Sequence[TruthBox]
) -> tuple[int, int]:
    free = list(wanted)
    hits = misses = 0
    for xyxy, class_id in zip(boxes.xyxy_px, boxes.class_id, strict=True):
        same = [b for b in free if int(b.label) == int(class_id)]
        best = max(same, key=lambda b: _iou(xyxy, b), default=None)
        if best is not None and _iou(xyxy, best) >= MATCH_IOU:
            free.remove(best)
            hits += 1
        elif not any(_iou(xyxy, b) >= MATCH_IOU for b in ignored):
            misses += 1
    return hits, misses


def _iou(a: NDArray[np.float32], box: TruthBox) -> float:
    b = box.xyxy_px
    width = min(float(a[2]), b[2]) - max(float(a[0]), b[0])
    height = min(float(a[3]), b[3]) - max(float(a[1]), b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    area = float((a[2] - a[0]) * (a[3] - a[1])) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (area - both)
