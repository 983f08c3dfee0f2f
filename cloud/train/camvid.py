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
from pathlib import Path

import cv2
import numpy as np
import torch

from syncline.cloud.models.agreement import IGNORE
from syncline.cloud.train.export import export_onnx
from syncline.cloud.train.pairs import Pairs, Task, at_centres
from syncline.cloud.train.segmentation import Recipe, evaluate, train

VOID = 11
WIDTH, HEIGHT = 320, 256
HELD_BACK = 0.25
GAP_FRAMES = 5
LABELS = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip
TASK = Task(classes=VOID, crop=(WIDTH, HEIGHT), zoom=(0.6, 1.0), coarsen=at_centres)
_log = logging.getLogger(__name__)


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
    logging.getLogger("syncline.cloud.train").setLevel(logging.INFO)
    _log.setLevel(logging.INFO)
    torch.set_num_threads(args.threads)
    pairs = read_pairs(args.images, args.labels)
    known, held = (
        (pairs, read_pairs(args.val_images, args.val_labels))
        if args.val_images
        else split_by_time(pairs)
    )
    net = train(known, Recipe(width=args.width, epochs=args.epochs, seed=args.seed), TASK)
    miou = evaluate(net, held, TASK)
    _log.info("frames=%d held_back=%d miou_fp32=%.4f", len(known), len(held), miou)
    export_onnx(net, args.out, width=WIDTH, height=HEIGHT, outputs=("logits",))


if __name__ == "__main__":
    main()
