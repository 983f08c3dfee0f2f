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

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from syncline.cloud.models import (
    fold,
    fold_boxes,
    golden_frame,
    graph,
    quantize,
    runtime,
    targets,
)
from syncline.cloud.models.frames import Frame
from syncline.cloud.train.detector_data import MEAN, PAD, STD
from syncline.cloud.train.detector_loop import Recipe, train
from syncline.cloud.train.detector_readme import readme
from syncline.cloud.train.detector_score import ClassScore, score_class
from syncline.cloud.train.export import export_onnx
from syncline.cloud.train.networks import DETECTOR_STRIDES
from syncline.cloud.train.rendered import (
    ASKED_SIDE_PX,
    INPUT_SIZE,
    SCORED_SIDE_PX,
    TEST_SEEDS,
    TRAIN_SEEDS,
    VAL_SEEDS,
    Sample,
    at_input,
    load_drive,
    render_all,
)
from syncline.cloud.train.shipped_readme import put_section
from syncline.edge.model.bundle import write_bundle
from syncline.edge.model.golden import pack_golden
from syncline.edge.model.manifest import DecoderSpec, InputSpec, Manifest, TargetSpec
from syncline.sensors.synthetic.scene import LABEL_NAMES

log = logging.getLogger(__name__)

VERSION = "1.1.0"
START = "the weights of road-detector 1.0.0: 1000 steps from nothing at 320x192"
"""What `--start` was given for the shipped weights."""
RENDERER = "sensors/synthetic at 4720dc1"
"""Commit whose renderer made the pictures of the shipped weights."""
MAPS = ("map8", "map16", "map32")
THRESHOLDS = tuple(k / 20 for k in range(3, 17))
FLOOR = 0.05
"""Lowest score kept while scoring, for average precision."""
CALIBRATION_FRAMES = 96
BUNDLE = Path(__file__).resolve().parents[2] / "edge" / "bundles" / "road-detector"
DEVICE_CLASS = "x86-64"

Floats = NDArray[np.float32]
Detect = Callable[[NDArray[np.uint8]], Floats]


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
    pictures: Sequence[Sample],
) -> None:
    """Write the int8 bundle in place of the old one, its golden picture one of `pictures`."""
    width, height = INPUT_SIZE
    int8 = graphs.final["int8"]
    model = graph.parse_model(int8)
    name = graph.inputs(model)[0].name
    target = targets.TARGETS[DEVICE_CLASS]
    manifest = Manifest(
        name="road-detector", version=VERSION, task="detection", security_version=1,
        license="Apache-2.0", labels=LABEL_NAMES,
        input=InputSpec(name=name, width=width, height=height, layout="NHWC", dtype="uint8",
                        color="BGR", resize="letterbox-topleft", pad=PAD),
        decoder=DecoderSpec(kind="boxes-nms", outputs=(fold_boxes.BOXES_OUTPUT,),
                            score_threshold=graphs.threshold, nms_iou=0.5, max_boxes=100),
        target=TargetSpec(device_class="any", precision=target.precision,
                          opset=graph.opset(model),
                          runtime=targets.golden_runtime(runtime.RUNTIME, target.precision)),
        lineage={
            "parent": "fp32 sha256 " + hashlib.sha256(graphs.final["fp32"]).hexdigest(),
            "dataset": f"rendered drives {TRAIN_SEEDS.start}..{TRAIN_SEEDS.stop - 1}",
            "test": f"rendered drives {TEST_SEEDS.start}..{TEST_SEEDS.stop - 1}",
            "renderer": RENDERER,
            "recipe": msgspec.json.encode(recipe).decode(),
            **({"start": START} if recipe.parent else {}),
        },
        metrics=metrics,
    )  # fmt: skip
    step = max(len(pictures) // golden_frame.TRIES, 1)
    frames = (Frame(str(i), "", s.image) for i, s in enumerate(pictures[::step]))
    chosen = golden_frame.choose_golden(model, manifest, frames)
    manifest = msgspec.structs.replace(manifest, golden=chosen.spec(manifest.golden))
    if folder.exists():
        shutil.rmtree(folder)
    files = {
        "model.onnx": int8,
        "golden.npz": pack_golden(chosen.golden),
    }
    write_bundle(folder, manifest, files)
    put_section(folder.parent / "README.md", manifest.name, readme(manifest, len(int8)))


def gather(
    folder: Path, seeds: Sequence[int], workers: int, side_px: float = SCORED_SIDE_PX
) -> list[Sample]:
    """Samples of drives, rendered when absent; sides below `side_px` are not asked for."""
    return [s for path in render_all(folder, seeds, workers) for s in load_drive(path, side_px)]


def main() -> None:
    """Render, train, quantise, score on held-out drives, write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/detector"))
    parser.add_argument("--rendered", type=Path, default=Path("build/rendered"))
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--fall", type=int, default=Recipe().fall, help="steps of falling rate")
    parser.add_argument("--rate", type=float, default=Recipe().rate)
    parser.add_argument("--start", type=Path, help="weights to start from")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("onnx_ir").setLevel(logging.WARNING)
    parent = hashlib.sha256(given.start.read_bytes()).hexdigest() if given.start else ""
    recipe = Recipe(steps=given.steps, fall=given.fall, rate=given.rate, parent=parent)
    given.work.mkdir(parents=True, exist_ok=True)
    samples = gather(given.rendered, TRAIN_SEEDS, given.workers, ASKED_SIDE_PX)
    log.info("training pictures=%d", len(samples))
    net = train(recipe, samples, len(LABEL_NAMES), given.work / "checkpoint.pt", given.start)
    del samples
    finish(net, recipe, given)


def finish(net: torch.nn.Module, recipe: Recipe, given: argparse.Namespace) -> None:
    """Export, quantise, score and ship a trained network."""
    val, test = (
        [at_input(sample) for sample in gather(given.rendered, seeds, given.workers)]
        for seeds in (VAL_SEEDS, TEST_SEEDS)
    )
    graphs = build_graphs(net, val, given.work)
    (given.work / "fp32.onnx").write_bytes(graphs.final["fp32"])
    log.info("threshold=%.2f", graphs.threshold)
    scores = {n: evaluate(graphs.scoring[n], test, graphs.threshold) for n in ("int8", "fp32")}
    ship(given.bundle, graphs, metrics_table(scores), recipe, test)
    log.info("bundle=%s bytes=%d", given.bundle, len(graphs.final["int8"]))


if __name__ == "__main__":
    main()
