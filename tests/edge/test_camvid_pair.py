"""The serving and the shadow network of `spec`: EdgeSeg w32 in int8 beside w56, trained on CamVid.

Both are trained here, for about 20 minutes of an idle core: `make soak` where the train extra is
installed. CamVid is for research alone; nothing of what is trained is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.cloud.models.agreement import confusion, mean_iou
from syncline.cloud.models.build import QuantizeOptions, fp32_build, int8_build
from syncline.cloud.models.frames import Frame, FrameSource
from syncline.cloud.models.importer import ImportOptions, import_model
from syncline.cloud.models.probe import Probe
from syncline.cloud.models.targets import this_machine
from syncline.cloud.train.shadow_score import lift, rank_correlation, wrong_share
from syncline.edge.decode import LabelMap
from syncline.edge.shadow import compare_labels

Maps = list[NDArray[np.uint8]]
CALIBRATION = 48
MOST_LOST = 0.005
"""Of mean IoU, by int8."""


@dataclass(frozen=True)
class Net:
    """A trained network's labels of the frames that were held back, and its mean IoU."""

    maps: dict[str, Maps]
    miou: dict[str, float]


def trained(width: int, known: Any, folder: Path) -> Path:
    """Train one width by the recipe and export it."""
    from syncline.cloud.train import camvid
    from syncline.cloud.train.export import export_onnx
    from syncline.cloud.train.segmentation import Recipe, train

    net = train(known, Recipe(width=width), camvid.TASK)
    path = folder / f"w{width}.onnx"
    export_onnx(net, path, width=camvid.WIDTH, height=camvid.HEIGHT, outputs=("logits",))
    return path


def measured(path: Path, known: Any, held: Any, truth: Maps, folder: Path) -> Net:
    """fp32 and int8 builds of a network, run over the frames that were held back."""

    def calibration() -> Iterator[Frame]:
        for number in np.linspace(0, len(known) - 1, CALIBRATION).astype(int):
            yield Frame(f"{number}", "", known.frames[number])

    labels = tuple(f"class-{n}" for n in range(11))
    options = ImportOptions(preset="edgeseg", labels=labels)
    bundle = import_model(path, folder / path.stem, options).bundle
    fp32 = fp32_build(bundle, fold_graph=True)
    source = FrameSource(path, CALIBRATION, calibration)
    int8 = int8_build(fp32, source, QuantizeOptions(target=this_machine()))
    maps: dict[str, Maps] = {"fp32": [], "int8": []}
    for name, build in (("fp32", fp32), ("int8", int8)):
        probe = Probe(build.model, build.manifest)
        for frame in held.frames:
            found = probe(frame)
            assert isinstance(found, LabelMap)
            maps[name].append(found.labels)
    return Net(maps, {name: _miou(truth, found) for name, found in maps.items()})


def _miou(truth: Maps, found: Maps) -> float:
    return mean_iou(confusion(np.stack(truth), np.stack(found)))


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.timeout(5400)
def test_edge_36_the_wide_net_as_shadow_of_the_narrow_one(
    shared_data: Path, tmp_path: Path
) -> None:
    """edge-36, edge-4, edge-5: w32 in int8 serves, w56 is its shadow; frames held back.

    How much of the lift there is to be had depends on how unlike the frames are: `oracle` is the
    lift of a score that knows the errors. On one quarter of one drive it is below the 1.3 that the
    case asks for on 233 frames of other drives, so the share of it is told, and what holds is
    asserted: int8 costs nothing, and frames of more disagreement are frames of more errors.
    """
    pytest.importorskip("torch", reason="needs the train extra: make .venv/train.ok")
    from syncline.cloud.train import camvid

    folder = shared_data / "images/camvid"
    known, held = camvid.split_by_time(camvid.read_pairs(folder / "val", folder / "valannot"))
    truth = list(camvid.TASK.coarsen(held.labels))
    nets = {
        width: measured(trained(width, known, tmp_path), known, held, truth, tmp_path)
        for width in (32, 56)
    }
    wrong = wrong_share(truth, nets[32].maps["int8"])
    pairs = zip(nets[32].maps["int8"], nets[56].maps["int8"], strict=True)
    score = np.array([compare_labels(a, b).score for a, b in pairs])
    rank = rank_correlation(score, wrong)
    print(f"edge-36: lift {lift(score, wrong):.2f}, oracle {lift(wrong, wrong):.2f}, {rank=:.2f}")
    for width, net in nets.items():
        print(f"edge-36: w{width} mIoU {net.miou}")
        assert net.miou["fp32"] - net.miou["int8"] <= MOST_LOST
    assert rank > 0.0
