"""The shipped segmenter: small, verified, proved, and right about what the drive shows."""

from __future__ import annotations

import numpy as np
import pytest

from syncline.cloud.train.rendered import TEST_SEEDS, TRAIN_SEEDS, VAL_SEEDS
from syncline.cloud.train.rendered_maps import SLICES, render_maps
from syncline.cloud.train.segmenter_score import Score, truth_of
from syncline.edge.backend import Backend
from syncline.edge.decode import decoder_for
from syncline.edge.decode.types import LabelMap
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.golden import compare
from syncline.edge.preprocess import Preprocessor
from syncline.edge.shipped import resolve_bundle, shipped_bundles
from syncline.sensors.synthetic.surfaces import SURFACE_NAMES

MAX_BYTES = 3 << 20
UNSEEN = TEST_SEEDS[-1] + 1
MOST_LOST = 0.005
"""Of mean IoU, by int8: half a point, as the gate allows."""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(resolve_bundle("road-segmenter"), trusted_keys=None)


@pytest.fixture(scope="module")
def found(bundle: Bundle) -> Score:
    """Of a drive that is in no split, run as the edge runs it."""
    assert UNSEEN not in {*TRAIN_SEEDS, *VAL_SEEDS, *TEST_SEEDS}
    backend, decode = Backend.load(bundle), decoder_for(bundle.manifest)
    prepare, total = Preprocessor(bundle.manifest.input), Score()
    drive = render_maps(UNSEEN, frames=12)
    rows = zip(drive.pairs.frames, truth_of(drive), drive.slices, strict=True)
    for frame, truth, part in rows:
        tensor, geometry = prepare(frame)
        result = decode(backend.run(tensor), geometry)
        assert isinstance(result, LabelMap)
        assert (result.source_height, result.source_width) == frame.shape[:2]
        total.add(truth, result.labels, SLICES[int(part)])
    return total


def test_it_is_shipped_small_quantised_and_takes_the_cameras_bytes(bundle: Bundle) -> None:
    """edge-12: uint8 NHWC in, labels out; one build for any x86."""
    manifest = bundle.manifest
    assert "road-segmenter" in shipped_bundles()
    assert sum(file.stat().st_size for file in bundle.folder.iterdir()) <= MAX_BYTES
    assert (manifest.target.precision, manifest.target.device_class) == ("u8s7", "any")
    assert (manifest.input.dtype, manifest.input.layout) == ("uint8", "NHWC")
    assert manifest.decoder.kind == "argmax"
    assert manifest.labels == SURFACE_NAMES
    assert manifest.license == "Apache-2.0"
    assert "rendered drives" in manifest.lineage["dataset"]


def test_it_proves_its_golden_output(bundle: Bundle) -> None:
    golden = bundle.golden()
    tensor, _ = Preprocessor(bundle.manifest.input)(golden.frame)
    assert len(np.unique(golden.outputs[0])) >= 8, "little is proved by a picture of little"
    compare(golden, Backend.load(bundle).run(tensor), bundle.manifest.golden)


def test_edge_4_int8_costs_no_accuracy_in_any_light(bundle: Bundle) -> None:
    """edge-4: on unseen drives, whole and in every light; the page tells the same figures."""
    metrics = bundle.manifest.metrics
    for name in ("all", *SLICES):
        assert metrics[name]["miou"] >= metrics[name]["miou_fp32"] - MOST_LOST, name
    assert metrics["speed"]["speedup"] >= 1.2
    assert bundle.manifest.lineage["gate"] == "passed"
    page = (bundle.folder.parent / "README.md").read_text(encoding="utf-8")
    section = page.split("## road-segmenter")[1].split("\n## ")[0]
    for label in SURFACE_NAMES:
        part = metrics[label.replace(" ", "-")]
        assert f"| {label} | {part['iou']:.3f} | {part['iou_fp32']:.3f} |" in section
    assert "not fit for real roads" in section


def test_it_is_right_about_what_a_drive_shows(found: Score, bundle: Bundle) -> None:
    """On a drive outside all splits, within reach of the figures in the manifest."""
    metrics, ious = bundle.manifest.metrics, found.ious()
    assert found.miou > 0.8 * metrics["all"]["miou"]
    for label in ("sky", "road", "structure", "vegetation", "vehicle"):
        assert ious[label] > 0.75 * metrics[label]["iou"], label
    assert ious["road"] > 0.85
