"""Trains the shipped detector on rendered drives and writes its int8 bundle.

`make train` renders the drives, trains, exports, quantises and scores; the same seed and thread
count give the same network. Nothing is taken from elsewhere: no weights, no pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from syncline.cloud.models import fold, fold_boxes, graph, quantize, runtime, targets
from syncline.cloud.train.detector_data import MEAN, PAD, STD, batches
from syncline.cloud.train.detector_loss import Grid, detection_loss
from syncline.cloud.train.detector_readme import readme
from syncline.cloud.train.detector_score import ClassScore, score_class
from syncline.cloud.train.export import export_onnx
from syncline.cloud.train.networks import DETECTOR_STRIDES, EdgeDet, decode_maps
from syncline.cloud.train.rendered import (
    INPUT_SIZE,
    TEST_SEEDS,
    TRAIN_SEEDS,
    VAL_SEEDS,
    Sample,
    load_drive,
    render_all,
)
from syncline.edge.model.bundle import write_bundle
from syncline.edge.model.golden import Golden, pack_golden
from syncline.edge.model.manifest import DecoderSpec, GoldenSpec, InputSpec, Manifest, TargetSpec
from syncline.sensors.synthetic.scene import LABEL_NAMES

log = logging.getLogger(__name__)

RENDERER = "sensors/synthetic at 004454e"
"""Commit whose renderer made the pictures of the shipped weights."""
MAPS = ("map8", "map16", "map32")
THRESHOLDS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
FLOOR = 0.05
"""Lowest score kept while scoring, for average precision."""
CALIBRATION_FRAMES = 96
_CLEAR = 0.08
"""How far every score of the golden picture is from the threshold."""
BUNDLE = Path(__file__).resolve().parents[2] / "edge" / "bundles" / "road-detector"
DEVICE_CLASS = "x86-64"

Floats = NDArray[np.float32]
Detect = Callable[[NDArray[np.uint8]], Floats]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights.

    Attributes:
        seed: Of weights, order and augmentation.
        width: Channel multiplier of the network.
        steps: Optimiser steps that the rate is planned over.
        stop: Steps really taken; the averaged weights then are the result.
        batch: Pictures per step.
        rate: Highest learning rate.
        threads: Torch threads; sums depend on it.
    """

    seed: int = 1
    width: float = 0.5
    steps: int = 2000
    stop: int = 1000
    batch: int = 16
    rate: float = 2e-3
    threads: int = 1


def train(
    recipe: Recipe, samples: Sequence[Sample], classes: int, snapshot: Path | None = None
) -> torch.nn.Module:
    """Train from nothing; returns the averaged network in eval mode.

    Args:
        recipe: See `Recipe`.
        samples: Training pictures.
        classes: Number of classes.
        snapshot: Where the averaged weights are kept every 100 steps.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    cv2.setNumThreads(1)
    net = EdgeDet(recipe.width, classes).to(memory_format=torch.channels_last)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=recipe.steps, pct_start=0.1, final_div_factor=100.0
    )
    grid = Grid.of(*INPUT_SIZE)
    rng = np.random.default_rng(recipe.seed)
    recent: list[float] = []
    for step, batch in enumerate(batches(samples, grid, rng, recipe.batch, recipe.stop)):
        boxes, logits = decode_maps(net(batch[0]))
        loss = detection_loss(boxes, logits, *batch[1:])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(net)
        recent.append(float(loss.detach()))
        if (step + 1) % 50 == 0:
            log.info("step=%d of=%d loss=%.3f", step + 1, recipe.stop, np.mean(recent[-50:]))
        if snapshot is not None and (step + 1) % 100 == 0:
            _save(average.module, snapshot)
    return average.module.eval()


def _save(net: torch.nn.Module, path: Path) -> None:
    """Write weights whole or not at all: a run may be stopped at any moment."""
    part = path.with_suffix(".part")
    torch.save(net.state_dict(), part)
    part.replace(path)


@dataclass(frozen=True, slots=True)
class Graphs:
    """Exported graphs, frame in, boxes out.

    Attributes:
        scoring: `fp32` and `int8` that keep boxes down to `FLOOR`.
        final: The same with `threshold`.
        threshold: Score with the best mean F1 of int8 on the validation drives.
    """

    scoring: dict[str, bytes]
    final: dict[str, bytes]
    threshold: float


def build_graphs(net: torch.nn.Module, samples: Sequence[Sample], work: Path) -> Graphs:
    """Export, quantise, choose the threshold; all on the validation pictures `samples`."""
    width, height = INPUT_SIZE
    raw_path = work / "raw.onnx"
    export_onnx(net, raw_path, width=width, height=height, outputs=MAPS)
    raw = graph.load_model(raw_path)
    folded, given = fold.fold_input(raw, _input_spec())
    body = quantize.quantise_graph(
        folded, _feeds(samples, given.name), targets.TARGETS[DEVICE_CLASS]
    )

    def whole(threshold: float) -> dict[str, bytes]:
        folds = {
            name: fold_boxes.fold_edgedet(source, MAPS, _decoder(threshold), given)[0]
            for name, source in (("fp32", folded), ("int8", body))
        }
        return {name: graph.serialise(model) for name, model in folds.items()}

    scoring = whole(FLOOR)
    threshold = best_threshold(detections(scoring["int8"], samples), samples)
    return Graphs(scoring, whole(threshold), threshold)


def best_threshold(found: Sequence[Floats], samples: Sequence[Sample]) -> float:
    """The threshold with the best mean F1 over the classes."""

    def mean_f1(threshold: float) -> float:
        classes = range(len(LABEL_NAMES))
        return float(np.mean([score_class(found, samples, k, threshold).f1 for k in classes]))

    return max(THRESHOLDS, key=mean_f1)


def _feeds(samples: Sequence[Sample], name: str) -> Iterator[dict[str, NDArray[np.generic]]]:
    step = max(len(samples) // CALIBRATION_FRAMES, 1)
    for sample in samples[::step]:
        yield {name: sample.image[None]}


def _input_spec() -> InputSpec:
    width, height = INPUT_SIZE
    return InputSpec(
        name="images", width=width, height=height, layout="NCHW", dtype="float32", color="BGR",
        resize="letterbox-topleft", pad=PAD, mean=(MEAN,) * 3, std=(STD,) * 3,
    )  # fmt: skip


def _decoder(threshold: float) -> DecoderSpec:
    return DecoderSpec(
        kind="boxes-nms", outputs=("boxes",), strides=DETECTOR_STRIDES,
        score_threshold=threshold, nms_iou=0.5, max_boxes=100,
    )  # fmt: skip


def detector_of(data: bytes) -> Detect:
    """A function from a picture at input size to rows (N, 6) xyxy, score, class."""
    session = runtime.GraphSession(data)
    name = session.inputs[0].name

    def detect(image: NDArray[np.uint8]) -> Floats:
        return np.asarray(session.run({name: image[None]})[0], np.float32)

    return detect


def detections(data: bytes, samples: Sequence[Sample]) -> list[Floats]:
    """Rows of every picture."""
    detect = detector_of(data)
    return [detect(sample.image) for sample in samples]


def evaluate(data: bytes, samples: Sequence[Sample], threshold: float) -> dict[str, ClassScore]:
    """Scores per class name."""
    found = detections(data, samples)
    return {
        name: score_class(found, samples, label, threshold)
        for label, name in enumerate(LABEL_NAMES)
    }


def report(name: str, scores: dict[str, ClassScore]) -> dict[str, float]:
    """Log the scores of one graph and return its averages."""
    for label, score in scores.items():
        log.info(
            "graph=%s class=%r ap50=%.3f f1=%.3f precision=%.3f recall=%.3f truths=%d",
            name, label, score.ap50, score.f1, score.precision, score.recall, score.truths,
        )  # fmt: skip
    means = {
        "map50": float(np.mean([s.ap50 for s in scores.values()])),
        "f1": float(np.mean([s.f1 for s in scores.values()])),
    }
    log.info("graph=%s map50=%.4f f1=%.4f", name, means["map50"], means["f1"])
    return means


def metrics_table(scores: dict[str, dict[str, ClassScore]]) -> dict[str, dict[str, float]]:
    """The manifest's metrics: int8 under `all` and per class, fp32 beside it."""
    table: dict[str, dict[str, float]] = {"all": {}}
    for build, classes in scores.items():
        suffix = "" if build == "int8" else f"_{build}"
        for key, value in report(build, classes).items():
            table["all"][key + suffix] = round(value, 4)
        for label, score in classes.items():
            part = table.setdefault(label.replace(" ", "-"), {})
            part["ap50" + suffix], part["f1" + suffix] = round(score.ap50, 4), round(score.f1, 4)
    return table


def ship(
    folder: Path,
    graphs: Graphs,
    metrics: dict[str, dict[str, float]],
    recipe: Recipe,
    golden: Sample,
) -> None:
    """Write the int8 bundle in place of the old one."""
    width, height = INPUT_SIZE
    int8 = graphs.final["int8"]
    session = runtime.GraphSession(int8)
    name = session.inputs[0].name
    outputs = session.run({name: golden.image[None]})
    target = targets.TARGETS[DEVICE_CLASS]
    manifest = Manifest(
        name="road-detector", version="1.0.0", task="detection", security_version=1,
        license="Apache-2.0", labels=LABEL_NAMES,
        input=InputSpec(name=name, width=width, height=height, layout="NHWC", dtype="uint8",
                        color="BGR", resize="letterbox-topleft", pad=PAD),
        decoder=DecoderSpec(kind="boxes-nms", outputs=(fold_boxes.BOXES_OUTPUT,),
                            score_threshold=graphs.threshold, nms_iou=0.5, max_boxes=100),
        target=TargetSpec(device_class="any", precision=target.precision,
                          opset=graph.opset(graph.parse_model(int8)),
                          runtime=runtime.RUNTIME),
        lineage={
            "parent": "fp32 sha256 " + hashlib.sha256(graphs.final["fp32"]).hexdigest(),
            "dataset": f"rendered drives {TRAIN_SEEDS.start}..{TRAIN_SEEDS.stop - 1}",
            "test": f"rendered drives {TEST_SEEDS.start}..{TEST_SEEDS.stop - 1}",
            "renderer": RENDERER,
            "recipe": msgspec.json.encode(recipe).decode(),
        },
        metrics=metrics,
        golden=GoldenSpec(atol=0.5, rtol=0.02),
    )  # fmt: skip
    if folder.exists():
        shutil.rmtree(folder)
    files = {
        "model.onnx": int8,
        "golden.npz": pack_golden(Golden(golden.image, tuple(outputs))),
    }
    write_bundle(folder, manifest, files)
    (folder.parent / "README.md").write_text(readme(manifest, len(int8)), encoding="utf-8")


def golden_sample(detect: Detect, samples: Sequence[Sample], threshold: float) -> Sample:
    """The picture with most boxes, none of them near the threshold: another CPU finds the same."""

    def clear(sample: Sample) -> int:
        scores = detect(sample.image)[:, 4]
        unsure = np.abs(scores - threshold) < _CLEAR
        return -1 if unsure.any() else int((scores > threshold).sum())

    return max(samples, key=clear)


def gather(folder: Path, seeds: Sequence[int], workers: int) -> list[Sample]:
    """Samples of drives, rendered when absent."""
    return [s for path in render_all(folder, seeds, workers) for s in load_drive(path)]


def main() -> None:
    """Render, train, quantise, score on held-out drives, write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/detector"))
    parser.add_argument("--rendered", type=Path, default=Path("build/rendered"))
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="export these instead of training")
    parser.add_argument("--stop", type=int, default=Recipe().stop, help="steps taken")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = Recipe(stop=given.stop)
    given.work.mkdir(parents=True, exist_ok=True)
    logging.getLogger("onnx_ir").setLevel(logging.WARNING)
    weights = given.work / "weights.pt"
    if given.weights is None:
        samples = gather(given.rendered, TRAIN_SEEDS, given.workers)
        log.info("training pictures=%d", len(samples))
        net = train(recipe, samples, len(LABEL_NAMES), weights)
        _save(net, weights)
    else:
        net = EdgeDet(recipe.width, len(LABEL_NAMES)).eval()
        net.load_state_dict(torch.load(given.weights, weights_only=True))
    finish(net, recipe, given)


def finish(net: torch.nn.Module, recipe: Recipe, given: argparse.Namespace) -> None:
    """Export, quantise, score and ship a trained network."""
    val = gather(given.rendered, VAL_SEEDS, given.workers)
    test = gather(given.rendered, TEST_SEEDS, given.workers)
    graphs = build_graphs(net, val, given.work)
    (given.work / "fp32.onnx").write_bytes(graphs.final["fp32"])
    log.info("threshold=%.2f", graphs.threshold)
    scores = {n: evaluate(graphs.scoring[n], test, graphs.threshold) for n in ("int8", "fp32")}
    golden = golden_sample(detector_of(graphs.scoring["int8"]), test, graphs.threshold)
    ship(given.bundle, graphs, metrics_table(scores), recipe, golden)
    log.info("bundle=%s bytes=%d", given.bundle, len(graphs.final["int8"]))


if __name__ == "__main__":
    main()
