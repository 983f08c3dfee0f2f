"""The shipped detector: small, verified, proved, and able to find what the drive shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from syncline.cloud.train.detector_score import score_class
from syncline.cloud.train.rendered import TEST_SEEDS, TRAIN_SEEDS, Sample, render_drive
from syncline.edge.backend import Backend
from syncline.edge.decode import decoder_for
from syncline.edge.decode.types import Boxes
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.golden import compare
from syncline.edge.preprocess import Preprocessor
from syncline.edge.shipped import resolve_bundle, shipped_bundles
from syncline.sensors.synthetic.scene import LABEL_NAMES, Label

MAX_BYTES = 2 << 20
MAX_GOLDEN_BYTES = 500_000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(resolve_bundle("road-detector"), trusted_keys=None)


@pytest.fixture(scope="module")
def found(bundle: Bundle) -> list[tuple[Sample, np.ndarray]]:
    """Pictures of a drive that the network never saw, and what it finds in them."""
    backend, decode = Backend.load(bundle), decoder_for(bundle.manifest)
    prepare = Preprocessor(bundle.manifest.input)
    results = []
    for sample in render_drive(TEST_SEEDS[-1] + 1, frames=24):
        tensor, geometry = prepare(sample.image)
        boxes = decode(backend.run(tensor), geometry)
        assert isinstance(boxes, Boxes)
        columns = (boxes.xyxy_px, boxes.score[:, None], boxes.class_id[:, None])
        results.append((sample, np.concatenate(columns, axis=1).astype(np.float32)))
    return results


def test_it_is_shipped_small_and_quantised(bundle: Bundle) -> None:
    """main-2: at most 2 MB, int8."""
    assert "road-detector" in shipped_bundles()
    assert len(bundle.model_bytes()) <= MAX_BYTES
    assert (bundle.folder / "golden.npz").stat().st_size <= MAX_GOLDEN_BYTES
    assert bundle.manifest.target.precision in ("u8s8", "u8s7")
    assert bundle.manifest.labels == LABEL_NAMES


def test_it_proves_its_golden_output(bundle: Bundle) -> None:
    golden = bundle.golden()
    backend = Backend.load(bundle)
    tensor, _ = Preprocessor(bundle.manifest.input)(golden.frame)
    outputs = backend.run(tensor)
    assert len(golden.outputs[0]) >= 3
    scores = np.asarray(golden.outputs[0])[:, 4].astype(float)
    assert np.diff(np.sort(scores)).min() > 0.01, "another CPU would order its boxes otherwise"
    assert (scores - bundle.manifest.decoder.score_threshold).min() > 0.05
    compare(golden, outputs, bundle.manifest.golden)


def test_its_figures_are_stated_for_both_precisions(bundle: Bundle) -> None:
    metrics = bundle.manifest.metrics
    for label in LABEL_NAMES:
        part = metrics[label.replace(" ", "-")]
        assert {"ap50", "f1", "ap50_fp32", "f1_fp32"} <= set(part)
        assert part["ap50"] >= part["ap50_fp32"] - 0.02
    text = (Path(bundle.folder).parent / "README.md").read_text(encoding="utf-8")
    assert f"{metrics['all']['map50']:.3f}" in text
    assert f"{metrics['all']['map50_fp32']:.3f}" in text


@pytest.mark.parametrize("label", [Label.CAR, Label.TRAFFIC_LIGHT])
def test_it_finds_what_a_drive_shows(
    found: list[tuple[Sample, np.ndarray]], bundle: Bundle, label: Label
) -> None:
    """On a drive outside all splits, within reach of the figures in the manifest."""
    samples, rows = [s for s, _ in found], [r for _, r in found]
    score = score_class(rows, samples, int(label), bundle.manifest.decoder.score_threshold)
    stated = bundle.manifest.metrics[LABEL_NAMES[label].replace(" ", "-")]["f1"]
    assert score.truths >= 10
    assert score.f1 > 0.6 * stated


def test_its_threshold_drive_is_of_no_split() -> None:
    assert TEST_SEEDS[-1] + 1 not in TRAIN_SEEDS
