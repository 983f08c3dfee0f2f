"""What surrounds the segmenter's training and needs no torch: labels, scores, the shipped page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from syncline.cloud.train.rendered import TEST_SEEDS, TRAIN_SEEDS, VAL_SEEDS
from syncline.cloud.train.rendered_maps import SLICES, Drive, at_input, by_share, render_maps
from syncline.cloud.train.segmenter_score import Score, metrics_table
from syncline.cloud.train.shadow_score import (
    Verdicts,
    judge,
    lift,
    over_drives,
    rank_correlation,
    told,
)
from syncline.cloud.train.shipped_readme import put_section
from syncline.sensors.synthetic.surfaces import Surface

UNSEEN = TEST_SEEDS[-1] + 2


@pytest.fixture(scope="module")
def drive() -> Drive:
    return render_maps(UNSEEN, frames=7)


def cell(**parts: int) -> int:
    """What a cell of 4x4 pixels is called that holds so many pixels of each surface."""
    values = [int(Surface[name]) for name, count in parts.items() for _ in range(count)]
    values += [255] * (16 - len(values))
    return int(by_share(np.array(values, np.uint8).reshape(1, 4, 4))[0, 0, 0])


def test_a_cell_is_what_fills_it_and_thin_things_need_less_of_it() -> None:
    assert cell(ROAD=16) == Surface.ROAD
    assert cell(ROAD=10, MARKING=6) == Surface.MARKING
    assert cell(ROAD=12, MARKING=4) == Surface.ROAD
    assert cell(SKY=10, POST=6) == Surface.POST
    assert cell(VERGE=9, PAVEMENT=7) == Surface.VERGE


def test_a_cell_that_nothing_fills_is_not_asked_for() -> None:
    assert cell() == 255
    assert cell(ROAD=6) == 255
    assert cell(ROAD=3, SKY=3, VERGE=4, PAVEMENT=3, STRUCTURE=3) == 255


def test_no_drive_is_in_two_parts() -> None:
    parts = [set(TRAIN_SEEDS), set(VAL_SEEDS), set(TEST_SEEDS)]
    assert len(set.union(*parts)) == sum(len(part) for part in parts)


def test_a_drive_has_every_light_and_hardly_a_cell_without_a_label(drive: Drive) -> None:
    assert set(drive.slices.tolist()) <= set(range(len(SLICES)))
    assert np.count_nonzero(drive.slices == SLICES.index("day")) >= 2
    assert SLICES.index("night") in drive.slices
    lumas = drive.pairs.frames.reshape(len(drive.pairs), -1).mean(axis=1)
    assert lumas.min() > 5.0
    labels = by_share(at_input(drive.pairs).labels)
    assert labels.shape == (7, 48, 80)
    assert np.mean(labels == 255) < 0.1


def test_what_is_clipped_is_not_asked_for(drive: Drive) -> None:
    asked = drive.pairs.labels != 255
    white = drive.pairs.frames.min(axis=3) >= 253
    named = np.isin(drive.pairs.labels, (Surface.SKY, Surface.MARKING))
    assert not (asked & white & ~named).any()


def test_scores_add_up_over_classes_and_lights() -> None:
    found = Score()
    truth = np.array([[0, 1], [1, 255]], np.uint8)
    found.add(truth, np.array([[0, 1], [2, 5]], np.uint8), "day")
    found.add(truth, truth, "night")
    assert found.ious()["sky"] == 1.0
    assert found.ious()["road"] == pytest.approx(3 / 4)
    assert found.miou == pytest.approx(7 / 8)
    table = metrics_table({"int8": found, "fp32": found})
    assert table["night"] == {"frames": 1.0, "miou": 1.0, "miou_fp32": 1.0}
    assert table["day"]["miou"] == pytest.approx(0.75)
    assert table["all"]["pixel_accuracy"] == pytest.approx(5 / 6, abs=1e-4)


def test_edge_36_a_shadow_that_knows_the_truth_is_the_oracle() -> None:
    """edge-36: disagreement with the truth itself is the error, so lift reaches the oracle's."""
    rng = np.random.default_rng(0)
    drives = []
    for _ in range(6):
        truth = rng.integers(0, 4, (20, 24, 40), dtype=np.uint8)
        rates = rng.uniform(0.0, 0.3, (20, 1, 1))
        serving = np.where(rng.random(truth.shape) < rates, np.uint8(9), truth)
        drives.append(judge(serving, truth, truth))
    whole = np.concatenate([drive.wrong for drive in drives])
    score = np.concatenate([drive.score for drive in drives])
    assert rank_correlation(score, whole) == pytest.approx(1.0)
    assert lift(score, whole) == pytest.approx(lift(whole, whole))
    figure = over_drives(lift, drives, draws=200)
    assert figure.low <= figure.value <= figure.high
    assert "120 frames of 6 drives" in told(drives)


def test_edge_36_a_score_of_chance_lifts_nothing() -> None:
    """edge-36: what the figures say of a score that knows nothing."""
    rng = np.random.default_rng(1)
    drives = [Verdicts(*rng.uniform(0.05, 0.15, (4, 100))) for _ in range(20)]
    figure = over_drives(lift, drives, draws=200)
    assert figure.low < 1.0 < figure.high
    assert abs(over_drives(rank_correlation, drives, draws=20).value) < 0.1


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    put_section(page, "b-net", "Second.\n\n| a |\n")
    put_section(page, "a-net", "First.")
    put_section(page, "b-net", "Better.\n")
    assert page.read_text() == "# Shipped bundles\n\n## a-net\n\nFirst.\n\n## b-net\n\nBetter.\n"
