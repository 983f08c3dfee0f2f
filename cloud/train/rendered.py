"""Training pictures from the synthetic drive: rendered, labelled, split by drive.

Every drive has a seed; the seeds of training, validation and test are disjoint, so no scene is in
two of them. Pictures are kept as the camera gives them; `at_input` makes the network's size of one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.sensors.synthetic.camera import sensor_mode
from syncline.sensors.synthetic.labels import TruthBox
from syncline.sensors.synthetic.light import Setting
from syncline.sensors.synthetic.optics import Pinhole
from syncline.sensors.synthetic.plan import Style, plan_scene
from syncline.sensors.synthetic.render import Rendered, Renderer
from syncline.sensors.synthetic.scene import Scene

FRAME_SIZE = (640, 384)
INPUT_SIZE = (480, 288)
"""The network's. At 320x192 boxes under 16 px were missed, larger ones found: size is the limit."""
TRAIN_SEEDS = range(100_000, 100_070)
VAL_SEEDS = range(200_000, 200_012)
TEST_SEEDS = range(300_000, 300_020)
FRAMES_PER_DRIVE = 24
DURATION_S = 40.0
SCORED_SIDE_PX = 8.0
"""Boxes with a smaller side, in frame pixels, count neither as missed nor as wrong."""
ASKED_SIDE_PX = 5.0
"""Training asks for boxes down to this side, so that those just large enough are not its edge."""
VISIBLE = (0.12, 0.35)
"""Below the first a box is no object; below the second it is neither asked for nor wrong."""

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture with its truth.

    Attributes:
        image: BGR (H, W, 3).
        boxes: (N, 4) xyxy in pixels of the image.
        labels: (N,) class ids.
        ignore: (N,) True where neither presence nor absence is asked for.
    """

    image: Image
    boxes: Floats
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]


def render_drive(
    seed: int, frames: int = FRAMES_PER_DRIVE, side_px: float = SCORED_SIDE_PX
) -> list[Sample]:
    """Frames of one drive at random times and imperfect exposures.

    Boxes with a side below `side_px` are marked `ignore`.
    """
    found = frames_of(seed, frames)
    return [_sample(shot.rendered.image, shot.rendered.boxes, side_px) for shot in found]


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame of a drive: true time, where the camera is along the road, and what it sees."""

    t_s: float
    s_m: float
    scene: Scene
    rendered: Rendered


def frames_of(
    seed: int, frames: int = FRAMES_PER_DRIVE, *, surfaces: bool = False
) -> Iterator[Shot]:
    """Frames of one drive at random times and imperfect exposures, with `surfaces` as asked."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, 9])
    scene = plan_scene(seed, DURATION_S, Style.random(rng))
    camera = Pinhole.for_size(*FRAME_SIZE, focal_share=float(rng.uniform(0.75, 1.1)))
    renderer = Renderer(scene, camera, sensor_mode(*FRAME_SIZE, fps=20.0), seed)
    for k, t_s in enumerate(np.sort(rng.uniform(0.5, DURATION_S - 0.5, frames))):
        s_m = float(scene.ego.distance(t_s))
        light = float(scene.light.at(s_m + 10.0, float(t_s)))
        wrong = float(np.exp(rng.normal(-0.1, 0.5)))
        setting = Setting.of_total(wrong * min(1.0, (light / 0.08) ** 0.25) / light)
        rendered = renderer.draw(float(t_s), setting, k, surfaces=surfaces)
        yield Shot(float(t_s), s_m, scene, rendered)


def _sample(image: Image, truth: Sequence[TruthBox], side_px: float) -> Sample:
    kept = [box for box in truth if box.visible >= VISIBLE[0]]
    boxes = np.array([box.xyxy_px for box in kept], np.float32).reshape(-1, 4)
    labels = np.array([int(box.label) for box in kept], np.int64)
    hidden = np.array([box.visible < VISIBLE[1] for box in kept], bool)
    return Sample(image, boxes, labels, hidden | _tiny(boxes, side_px))


def at_input(sample: Sample) -> Sample:
    """The sample at `INPUT_SIZE`, resized as the edge does it."""
    scale = INPUT_SIZE[0] / sample.image.shape[1]
    small = cv2.resize(sample.image, INPUT_SIZE, interpolation=cv2.INTER_LINEAR)
    return Sample(
        np.asarray(small, np.uint8), sample.boxes * scale, sample.labels, sample.ignore
    )  # fmt: skip


def _tiny(boxes: Floats, side_px: float) -> NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=1e9) < side_px)


def save_drive(folder: Path, seed: int) -> Path:
    """Render a drive into `folder/SEED.npz`, unless it is there."""
    path = folder / f"{seed}.npz"
    if path.exists():
        return path
    samples = render_drive(seed, side_px=0.0)  # whoever loads it says what is too small
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        images=np.stack([s.image for s in samples]),
        counts=np.array([len(s.labels) for s in samples]),
        boxes=np.concatenate([s.boxes for s in samples]),
        labels=np.concatenate([s.labels for s in samples]),
        ignore=np.concatenate([s.ignore for s in samples]),
    )
    part.rename(path)
    return path


def load_drive(path: Path, side_px: float = SCORED_SIDE_PX) -> list[Sample]:
    """The samples of a rendered drive; boxes with a side below `side_px` are marked `ignore`."""
    with np.load(path) as data:
        ends = np.cumsum(data["counts"])
        spans = zip(data["images"], ends - data["counts"], ends, strict=True)
        boxes, labels = data["boxes"], data["labels"]
        ignore = data["ignore"] | _tiny(boxes, side_px)
        return [Sample(image, boxes[a:b], labels[a:b], ignore[a:b]) for image, a, b in spans]


def render_all(folder: Path, seeds: Sequence[int], workers: int) -> list[Path]:
    """Render drives in worker processes; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(save_drive, [folder] * len(seeds), seeds))


def main() -> None:
    """Render everything ahead of training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/rendered"))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    for seeds in (TRAIN_SEEDS, VAL_SEEDS, TEST_SEEDS):
        render_all(given.folder, seeds, given.workers)


if __name__ == "__main__":
    main()
