"""Trains the shipped segmenter on rendered drives and writes its int8 bundle.

`make train NET=segmenter` renders the drives, trains, exports, quantises, holds int8 against fp32
and scores both on drives that neither training nor calibration saw. `--shadow` trains the wide
network too and tells what it is worth as a shadow of the narrow one. Nothing is taken from
elsewhere: no weights, no pictures. The same seed and thread count give the same network.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from syncline.cloud.models.build import QuantizeOptions, fp32_build, quantize_bundle
from syncline.cloud.models.frames import Frame, FrameSource
from syncline.cloud.models.gate import GateLimits, GateReport
from syncline.cloud.models.graph import parse_model
from syncline.cloud.models.importer import ImportOptions, import_model
from syncline.cloud.models.probe import Probe
from syncline.cloud.models.targets import TARGETS
from syncline.cloud.train import camvid
from syncline.cloud.train.camvid_transfer import fixed_iou, road_iou
from syncline.cloud.train.export import export_onnx
from syncline.cloud.train.networks import EdgeSeg
from syncline.cloud.train.pairs import Pairs
from syncline.cloud.train.rendered import TEST_SEEDS, TRAIN_SEEDS, VAL_SEEDS
from syncline.cloud.train.rendered_maps import (
    INPUT_SIZE,
    SLICES,
    TASK,
    Drive,
    at_input,
    by_share,
    gather,
    joined,
)
from syncline.cloud.train.segmentation import Recipe, Weights, train
from syncline.cloud.train.segmenter_readme import readme
from syncline.cloud.train.segmenter_score import found_in, metrics_table, score, truth_of
from syncline.cloud.train.shadow_score import Verdicts, judge, told
from syncline.cloud.train.shipped_readme import put_section
from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.sensors.synthetic.surfaces import SURFACE_NAMES

log = logging.getLogger(__name__)

VERSION = "1.0.0"
RENDERER = "sensors/synthetic at 62920d6"
"""Commit whose renderer made the pictures of the shipped weights."""
SERVING = (Recipe(width=32, epochs=10, seed=1),)
SHADOW = (
    Recipe(width=56, epochs=6, seed=1),
    Recipe(width=56, epochs=3, rate=1e-3, seed=2),
)
"""Each goes on from what the one before has learned."""
DEVICE_CLASS = "x86-64"
CALIBRATION_FRAMES = 96
LIMITS = GateLimits()
BUNDLE = Path(__file__).resolve().parents[2] / "edge" / "bundles" / "road-segmenter"


@dataclass(frozen=True, slots=True)
class Nets:
    """The two builds of one width, and what the gate said.

    Attributes:
        fp32: Folded float graph.
        int8: Its int8 build.
        bundle: Of the int8 build.
        gate: Verdict on validation drives.
    """

    fp32: Probe
    int8: Probe
    bundle: Bundle
    gate: GateReport


def trained(recipes: Sequence[Recipe], given: argparse.Namespace) -> torch.nn.Module:
    """The network of some recipes: from `WORK/wWIDTH.pt` if it is there, else trained into it."""
    width = recipes[0].width
    path = given.work / f"w{width}.pt"
    if not path.exists():
        pairs = joined(gather(given.rendered, TRAIN_SEEDS, given.workers))
        log.info("width=%d training pictures=%d", width, len(pairs))
        weights: Weights | None = None
        for recipe in recipes:
            weights = train(pairs, recipe, TASK, weights).state_dict()
        torch.save(weights, path)
    net = EdgeSeg(width, TASK.classes)
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval()


def quantised(net: torch.nn.Module, val: Sequence[Drive], work: Path) -> Nets:
    """Export, import, quantise and gate, as `syncline model` does, on the validation drives."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    width, height = INPUT_SIZE
    export_onnx(net, work / "raw.onnx", width=width, height=height, outputs=("logits",))
    options = ImportOptions(preset="edgeseg", labels=SURFACE_NAMES, name="road-segmenter",
                            security_version=1)  # fmt: skip
    source = import_model(work / "raw.onnx", work / "fp32", options).bundle
    calibration, judged, truth = halves(val)
    report = quantize_bundle(
        source, work / "int8", calibration, judged,
        QuantizeOptions(target=TARGETS[DEVICE_CLASS], limits=LIMITS),
        cpu_ns=time.thread_time_ns, truth=truth.get,
    )  # fmt: skip
    fp32 = fp32_build(source, fold_graph=True)
    int8 = report.bundle
    return Nets(
        Probe(fp32.model, fp32.manifest),
        Probe(parse_model(int8.model_bytes()), int8.manifest),
        int8,
        report.gate,
    )


def halves(
    drives: Sequence[Drive],
) -> tuple[FrameSource, FrameSource, dict[str, NDArray[np.uint8]]]:
    """Frames to calibrate on, others to judge on with the light as their slice, and their truth."""
    calibration: list[Frame] = []
    judged: list[Frame] = []
    truth = {}
    for number, drive in enumerate(drives):
        pairs = at_input(drive.pairs)
        labels = by_share(pairs.labels)
        for k, frame in enumerate(pairs.frames):
            name = f"{number}-{k}"
            truth[name] = labels[k]
            made = Frame(name, SLICES[int(drive.slices[k])], frame)
            (judged if k % 2 else calibration).append(made)
    kept = calibration[:: max(len(calibration) // CALIBRATION_FRAMES, 1)]
    return _source(kept), _source(judged), truth


def _source(frames: Sequence[Frame]) -> FrameSource:
    def read() -> Iterator[Frame]:
        return iter(frames)

    return FrameSource(Path("rendered drives"), len(frames), read)


def ship(folder: Path, nets: Nets, metrics: dict[str, dict[str, float]]) -> Bundle:
    """Write the int8 bundle in place of the old one, and its page."""
    built = nets.bundle.manifest
    manifest = msgspec.structs.replace(
        built,
        version=VERSION, license="Apache-2.0", metrics=metrics, files={},
        target=msgspec.structs.replace(built.target, device_class="any"),
        lineage={
            "parent": built.lineage["parent"],
            "dataset": f"rendered drives {TRAIN_SEEDS.start}..{TRAIN_SEEDS.stop - 1}",
            "calibration": f"rendered drives {VAL_SEEDS.start}..{VAL_SEEDS.stop - 1}",
            "test": f"rendered drives {TEST_SEEDS.start}..{TEST_SEEDS.stop - 1}",
            "renderer": RENDERER,
            "recipe": msgspec.json.encode(SERVING[0]).decode(),
            "gate": built.lineage["gate"],
        },
    )  # fmt: skip
    files = {name: nets.bundle.read(name) for name in built.files}
    if folder.exists():
        shutil.rmtree(folder)
    bundle = write_bundle(folder, manifest, files)
    page = readme(bundle.manifest, len(bundle.model_bytes()))
    put_section(folder.parent / "README.md", manifest.name, page)
    return bundle


def measured(nets: Nets, test: Sequence[Drive], given: argparse.Namespace) -> dict[
    str, dict[str, float]
]:  # fmt: skip
    """Figures of the manifest."""
    table = metrics_table({"int8": score(nets.int8, test), "fp32": score(nets.fp32, test)})
    gate = nets.gate
    assert gate.fp32 is not None
    assert gate.int8 is not None
    table["speed"] = {
        "fp32_cpu_ms": round(gate.fp32.best_ms, 2), "int8_cpu_ms": round(gate.int8.best_ms, 2),
        "speedup": round(gate.fp32.best_ms / gate.int8.best_ms, 2),
    }  # fmt: skip
    if given.camvid:
        pairs: Pairs = camvid.read_pairs(*given.camvid)
        found = {"iou": road_iou(nets.int8, pairs), "iou_fp32": road_iou(nets.fp32, pairs),
                 "iou_fixed": fixed_iou(pairs)}  # fmt: skip
        table["camvid-road"] = {"frames": float(len(pairs))} | {
            key: round(value, 4) for key, value in found.items()
        }
    for name, part in table.items():
        log.info("%s %s", name, " ".join(f"{key}={value}" for key, value in part.items()))
    return table


def compared(serving: Nets, shadow: Nets, test: Sequence[Drive]) -> list[Verdicts]:
    """How two widths, both in int8, differ on every test drive."""
    return [
        judge(found_in(serving.int8, drive), found_in(shadow.int8, drive), truth_of(drive))
        for drive in test
    ]


def main() -> None:
    """Render, train, quantise, score on held-out drives, write the bundle; tell of the shadow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/segmenter"))
    parser.add_argument("--rendered", type=Path, default=Path("build/rendered"))
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shadow", action="store_true", help="train the wide network, compare")
    parser.add_argument("--camvid", type=Path, nargs=2, metavar=("IMAGES", "LABELS"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("onnx_ir").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    net = trained(SERVING, given)
    val, test = (gather(given.rendered, seeds, given.workers) for seeds in (VAL_SEEDS, TEST_SEEDS))
    serving = quantised(net, val, given.work / "w32")
    bundle = ship(given.bundle, serving, measured(serving, test, given))
    log.info("bundle=%s bytes=%d", given.bundle, len(bundle.model_bytes()))
    if given.shadow:
        shadow = quantised(trained(SHADOW, given), val, given.work / "w56")
        measured(shadow, test, given)
        log.info("%s", told(compared(serving, shadow, test)))


if __name__ == "__main__":
    main()
