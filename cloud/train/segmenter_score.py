"""How good label maps are: intersection over union per class, and per light of the drive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from syncline.cloud.models.agreement import accuracy, confusion, mean_iou
from syncline.cloud.models.probe import Probe
from syncline.cloud.train.pairs import Images
from syncline.cloud.train.rendered_maps import SLICES, Drive, at_input, by_share
from syncline.edge.decode import LabelMap
from syncline.sensors.synthetic.surfaces import SURFACE_NAMES

Counts = NDArray[np.int64]


@dataclass
class Score:
    """Counts of cells by (true class, class found), (256, 256), in all frames and per slice.

    Attributes:
        whole: Of all frames.
        parts: Per name of `SLICES`.
        frames: Frames per slice.
    """

    whole: Counts = field(default_factory=lambda: np.zeros((256, 256), np.int64))
    parts: dict[str, Counts] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)

    def add(self, truth: Images, found: Images, part: str) -> None:
        """Count one frame."""
        table = confusion(truth, found)
        self.whole = self.whole + table
        self.parts[part] = self.parts[part] + table if part in self.parts else table
        self.frames[part] = self.frames.get(part, 0) + 1

    def ious(self) -> dict[str, float]:
        """Intersection over union of every class that occurs."""
        hits = np.diag(self.whole).astype(np.float64)
        union = self.whole.sum(axis=0) + self.whole.sum(axis=1) - hits
        return {
            name: float(hits[k] / union[k])
            for k, name in enumerate(SURFACE_NAMES)
            if self.whole[k].any()
        }

    @property
    def miou(self) -> float:
        """Mean over the classes that occur."""
        return mean_iou(self.whole)


def truth_of(drive: Drive) -> Images:
    """What is asked for, (N, h, w), 255 = nothing."""
    return by_share(at_input(drive.pairs).labels)


def found_in(probe: Probe, drive: Drive) -> Images:
    """What a network finds in every frame, (N, h, w)."""
    maps = []
    for frame in drive.pairs.frames:
        result = probe(frame)
        assert isinstance(result, LabelMap)
        maps.append(result.labels)
    return np.stack(maps)


def score(probe: Probe, drives: Sequence[Drive]) -> Score:
    """Score a network on drives."""
    total = Score()
    for drive in drives:
        rows = zip(truth_of(drive), found_in(probe, drive), drive.slices, strict=True)
        for truth, found, part in rows:
            total.add(truth, found, SLICES[int(part)])
    return total


def metrics_table(scores: Mapping[str, Score]) -> dict[str, dict[str, float]]:
    """The manifest's metrics: int8 under `all`, per class and per light, fp32 beside it."""
    table: dict[str, dict[str, float]] = {"all": {}}
    for build, found in scores.items():
        suffix = "" if build == "int8" else f"_{build}"
        table["all"][f"miou{suffix}"] = found.miou
        table["all"][f"pixel_accuracy{suffix}"] = accuracy(found.whole)
        for name, value in found.ious().items():
            table.setdefault(name.replace(" ", "-"), {})[f"iou{suffix}"] = value
        for name in SLICES:
            part = table.setdefault(name, {"frames": float(found.frames.get(name, 0))})
            part[f"miou{suffix}"] = mean_iou(found.parts[name]) if name in found.parts else 0.0
    return {
        name: {key: round(value, 4) for key, value in part.items()} for name, part in table.items()
    }
