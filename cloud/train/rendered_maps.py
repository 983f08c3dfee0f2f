"""Training pictures with label maps: the same drives as the detector's, split the same way.

A pixel that shows nothing is not asked for: one so over- or underexposed that whatever is there
looks the same. A cell at the network's stride is what fills it most; thin things need less of it,
and a cell that nothing fills is not asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.cloud.models.agreement import IGNORE
from syncline.cloud.train.pairs import SEGMENTER_STRIDE, Images, Pairs, Task
from syncline.cloud.train.rendered import DURATION_S, FRAMES_PER_DRIVE, Shot, frames_of
from syncline.sensors.synthetic.plan import DUSK_AT
from syncline.sensors.synthetic.surfaces import SURFACE_NAMES, Surface

INPUT_SIZE = (320, 192)
SLICES = ("day", "dusk", "night", "tunnel")
_CLIPPED = (2, 253)
_BRIGHT = (Surface.SKY, Surface.MARKING)
"""What is what it is when it is clipped."""
_THIN = {Surface.MARKING: 2.0, Surface.POST: 2.0, Surface.PERSON: 1.5}
"""Weight of a share, for what would be lost between its neighbours."""
_CLEAR = 0.4
"""Least weighted share of the cell."""


@dataclass(frozen=True, slots=True)
class Drive:
    """Frames of one drive, their label maps, and for each its index in `SLICES`."""

    pairs: Pairs
    slices: NDArray[np.uint8]


def render_maps(seed: int, frames: int = FRAMES_PER_DRIVE) -> Drive:
    """Frames of one drive with their label maps, at the camera's size."""
    shots = list(frames_of(seed, frames, surfaces=True))
    return Drive(
        Pairs(np.stack([s.rendered.image for s in shots]), np.stack([_asked(s) for s in shots])),
        np.array([slice_of(s) for s in shots], np.uint8),
    )


def _asked(shot: Shot) -> Images:
    shown, image = shot.rendered.surfaces, shot.rendered.image
    assert shown is not None
    dark, bright = image.max(axis=2) <= _CLIPPED[0], image.min(axis=2) >= _CLIPPED[1]
    unclear = dark | (bright & ~np.isin(shown, _BRIGHT))
    return np.where(unclear, np.uint8(IGNORE), shown)


def slice_of(shot: Shot) -> int:
    """Where and when a frame is, as an index of `SLICES`."""
    if float(shot.scene.light.cover(shot.s_m)) > 0.5:
        return SLICES.index("tunnel")
    share = shot.t_s / DURATION_S
    return int(share >= DUSK_AT[0]) + int(share >= DUSK_AT[1])


def by_share(labels: Images) -> Images:
    """Labels (N, H, W) to the network's stride: what fills each cell, or 255."""
    count, height, width = labels.shape
    step = SEGMENTER_STRIDE
    cells = labels.reshape(count, height // step, step, width // step, step)
    shares = np.stack(
        [(cells == k).sum(axis=(2, 4)) * _THIN.get(Surface(k), 1.0) for k in range(len(Surface))]
    )
    found = shares.argmax(axis=0).astype(np.uint8)
    return np.where(shares.max(axis=0) >= _CLEAR * step**2, found, np.uint8(IGNORE))


TASK = Task(classes=len(SURFACE_NAMES), crop=(224, 128), zoom=(0.5, 0.9), coarsen=by_share)
"""Crops at 0.8 to 1.4 times the scale that the network works at, at half the cost of frames."""


def at_input(pairs: Pairs) -> Pairs:
    """The pairs at `INPUT_SIZE`, frames resized as the edge does it."""
    frames = [cv2.resize(f, INPUT_SIZE, interpolation=cv2.INTER_LINEAR) for f in pairs.frames]
    maps = [cv2.resize(m, INPUT_SIZE, interpolation=cv2.INTER_NEAREST) for m in pairs.labels]
    return Pairs(np.stack(frames).astype(np.uint8), np.stack(maps).astype(np.uint8))


def joined(drives: Sequence[Drive]) -> Pairs:
    """All frames of some drives."""
    return Pairs(
        np.concatenate([d.pairs.frames for d in drives]),
        np.concatenate([d.pairs.labels for d in drives]),
    )


def gather(folder: Path, seeds: Sequence[int], workers: int) -> list[Drive]:
    """Drives by their seeds, rendered in worker processes where `folder` has them not."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        paths = list(pool.map(partial(_save, folder), seeds))
    return [_load(path) for path in paths]


def _save(folder: Path, seed: int) -> Path:
    path = folder / f"maps-{seed}.npz"
    if not path.exists():
        drive, part = render_maps(seed), path.with_suffix(".part.npz")
        frames, labels = drive.pairs.frames, drive.pairs.labels
        np.savez(part, frames=frames, labels=labels, slices=drive.slices)
        part.rename(path)
    return path


def _load(path: Path) -> Drive:
    with np.load(path) as data:
        return Drive(Pairs(data["frames"], data["labels"]), data["slices"])
