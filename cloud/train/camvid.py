"""Research recipe: EdgeSeg on CamVid (Brostow et al. 2009), 11 classes.

CamVid is CC-BY-NC-4.0: weights that come out of this are for research and are never shipped.

    python -m syncline.cloud.train.camvid --images DIR --labels DIR --out edgeseg.onnx

Give the official `train` folders, and `--val-images/--val-labels` for its `test` ones. With only
one drive at hand leave the latter out: the last quarter in time is then held back, after a gap, so
that no test frame is a neighbour of a training frame.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from syncline.cloud.models.agreement import confusion, mean_iou
from syncline.cloud.train.export import export_onnx
from syncline.cloud.train.networks import SEGMENTER_STRIDE, EdgeSeg

CLASSES = 11
VOID = 11
IGNORE = 255
WIDTH, HEIGHT = 320, 256
HELD_BACK = 0.25
GAP_FRAMES = 5
LABELS = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip

Images = NDArray[np.uint8]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Frames uint8 (N, H, W, 3) BGR and labels uint8 (N, H, W), 255 = ignore."""

    frames: Images
    labels: Images

    def __len__(self) -> int:
        return len(self.frames)

    def part(self, start: int, stop: int) -> Pairs:
        """Frames start..stop in time."""
        return Pairs(self.frames[start:stop], self.labels[start:stop])


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        width: Of EdgeSeg: 32 or 56.
        epochs: Passes over the frames.
        batch: Frames per step.
        rate: Peak learning rate of AdamW, one cycle.
        seed: Of weights, order and augmentation.
    """

    width: int = 32
    epochs: int = 50
    batch: int = 8
    rate: float = 3e-3
    seed: int = 0


def read_pairs(images: Path, labels: Path) -> Pairs:
    """Read a CamVid folder pair, resized to the network's input; names in order of time."""
    frames, maps = [], []
    for file in sorted(images.glob("*.png")):
        frame, label = cv2.imread(str(file)), cv2.imread(str(labels / file.name), 0)
        if frame is None or label is None:
            raise FileNotFoundError(f"{file.name} has no readable frame and label")
        frames.append(cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR))
        maps.append(cv2.resize(label, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST))
    stacked = np.stack(maps)
    stacked[stacked >= VOID] = IGNORE
    return Pairs(np.stack(frames).astype(np.uint8), stacked.astype(np.uint8))


def split_by_time(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Train and test parts of one drive, with a gap between them."""
    cut = int(len(pairs) * (1 - HELD_BACK))
    return pairs.part(0, cut - GAP_FRAMES), pairs.part(cut, len(pairs))


def augment(
    frame: Images, label: Images, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Images]:
    """Mirror, zoom into a random crop, and change light: what a camera does on another day."""
    if rng.random() < 0.5:
        frame, label = frame[:, ::-1], label[:, ::-1]
    zoom = rng.uniform(0.6, 1.0)
    rows, columns = int(HEIGHT * zoom), int(WIDTH * zoom)
    top, left = rng.integers(0, HEIGHT - rows + 1), rng.integers(0, WIDTH - columns + 1)
    box = np.s_[top : top + rows, left : left + columns]
    size = (WIDTH, HEIGHT)
    frame = np.asarray(cv2.resize(np.ascontiguousarray(frame[box]), size), np.uint8)
    label = np.asarray(
        cv2.resize(np.ascontiguousarray(label[box]), size, interpolation=cv2.INTER_NEAREST),
        np.uint8,
    )
    gain, offset = rng.uniform(0.7, 1.3, 3), rng.uniform(-20, 20)
    bright = np.clip(frame * gain + offset, 0, 255).astype(np.float32)
    return bright, label


def to_tensor(frames: NDArray[np.float32]) -> torch.Tensor:
    """(N, H, W, 3) on 0..255 to the network's input."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))) / 255.0


def coarse(labels: Images) -> Images:
    """Labels at the network's stride, taken at the cells' centres."""
    half = SEGMENTER_STRIDE // 2
    return labels[:, half::SEGMENTER_STRIDE, half::SEGMENTER_STRIDE]


def class_weights(labels: Images) -> torch.Tensor:
    """Inverse square root of frequency: rare classes count more, within reason."""
    counts = np.bincount(labels[labels != IGNORE].ravel(), minlength=CLASSES).astype(np.float64)
    weights = 1.0 / np.sqrt(np.maximum(counts / counts.sum(), 1e-4))
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def train(pairs: Pairs, recipe: Recipe) -> nn.Module:
    """Train EdgeSeg; deterministic for a seed on one thread."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    net = EdgeSeg(recipe.width, CLASSES)
    loss = nn.CrossEntropyLoss(class_weights(pairs.labels), ignore_index=IGNORE)
    steps = max(len(pairs) // recipe.batch, 1) * recipe.epochs
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps)
    for epoch in range(recipe.epochs):
        total = _epoch(net, pairs, recipe, rng, loss, optimiser, schedule)
        _log.info("epoch=%d loss=%.4f", epoch + 1, total)
    return net.eval()


def _epoch(
    net: nn.Module,
    pairs: Pairs,
    recipe: Recipe,
    rng: np.random.Generator,
    loss: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    net.train()
    order, total, steps = rng.permutation(len(pairs)), 0.0, max(len(pairs) // recipe.batch, 1)
    for step in range(steps):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        made = [augment(pairs.frames[i], pairs.labels[i], rng) for i in chosen]
        frames = to_tensor(np.stack([frame for frame, _ in made]))
        labels = torch.from_numpy(coarse(np.stack([label for _, label in made])).astype(np.int64))
        optimiser.zero_grad(set_to_none=True)
        value = loss(net(frames), labels)
        value.backward()
        optimiser.step()
        schedule.step()
        total += float(value.detach())
    return total / steps


def evaluate(net: nn.Module, pairs: Pairs) -> float:
    """Mean IoU at the network's stride over the classes that occur."""
    table = np.zeros((256, 256), np.int64)
    with torch.no_grad():
        for frame, label in zip(pairs.frames, pairs.labels, strict=True):
            logits = net(to_tensor(frame[None].astype(np.float32)))
            found = logits.argmax(1)[0].numpy().astype(np.uint8)
            table += confusion(coarse(label[None])[0], found)
    return mean_iou(table)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("images", "labels", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--val-images", type=Path)
    parser.add_argument("--val-labels", type=Path)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    torch.set_num_threads(args.threads)
    pairs = read_pairs(args.images, args.labels)
    known, held = (
        (pairs, read_pairs(args.val_images, args.val_labels))
        if args.val_images
        else split_by_time(pairs)
    )
    net = train(known, Recipe(width=args.width, epochs=args.epochs, seed=args.seed))
    _log.info("frames=%d held_back=%d miou_fp32=%.4f", len(known), len(held), evaluate(net, held))
    export_onnx(net, args.out, width=WIDTH, height=HEIGHT, outputs=("logits",))


if __name__ == "__main__":
    main()
