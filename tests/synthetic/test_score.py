"""Average precision and F1 of the detector's scoring, against cases done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from syncline.cloud.train.detector_score import iou_matrix, match, score_class
from syncline.cloud.train.rendered import TEST_SEEDS, TRAIN_SEEDS, VAL_SEEDS, Sample

BLANK = np.zeros((8, 8, 3), np.uint8)


def sample(boxes: list[list[float]], ignore: list[bool] | None = None) -> Sample:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    hidden = np.array(ignore if ignore is not None else [False] * len(boxes), bool)
    return Sample(BLANK, array, np.zeros(len(boxes), np.int64), hidden)


def rows(*found: tuple[list[float], float]) -> np.ndarray:
    return np.array([[*box, score, 0.0] for box, score in found], np.float32).reshape(-1, 6)


def test_overlap_of_known_boxes() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    np.testing.assert_allclose(iou_matrix(a, b), [[1.0, 1 / 3, 0.0]], rtol=1e-6)


def test_a_truth_is_taken_once_and_the_second_is_wrong() -> None:
    truth = np.array([[0, 0, 10, 10]], np.float32)
    found = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], np.float32)
    assert match(found, truth, np.array([False])).tolist() == [1, 0]


def test_what_lies_on_an_ignored_thing_is_not_counted() -> None:
    truth = np.array([[0, 0, 10, 10], [20, 0, 40, 20]], np.float32)
    found = np.array([[22, 2, 30, 10], [60, 60, 70, 70]], np.float32)
    assert match(found, truth, np.array([False, True])).tolist() == [-1, 0]


def test_average_precision_by_hand() -> None:
    """Right, wrong, right of two truths: 1/2 at precision 1, 1/2 at precision 2/3."""
    samples = [sample([[0, 0, 10, 10], [30, 0, 40, 10]])]
    found = [
        rows(([0, 0, 10, 10], 0.9), ([60, 0, 70, 10], 0.8), ([30, 0, 40, 10], 0.7)),
    ]
    score = score_class(found, samples, 0, threshold=0.75)
    assert score.ap50 == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert score.precision == pytest.approx(0.5)
    assert score.recall == pytest.approx(0.5)
    assert score.f1 == pytest.approx(0.5)
    assert score.truths == 2


def test_nothing_found_and_nothing_there_score_zero_without_failing() -> None:
    empty = np.zeros((0, 6), np.float32)
    assert score_class([empty], [sample([[0, 0, 9, 9]])], 0, 0.3).ap50 == 0.0
    assert score_class([empty], [sample([])], 0, 0.3).f1 == 0.0


def test_no_drive_is_in_two_splits() -> None:
    splits = [set(TRAIN_SEEDS), set(VAL_SEEDS), set(TEST_SEEDS)]
    assert sum(map(len, splits)) == len(set.union(*splits))
