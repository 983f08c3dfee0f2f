"""Matching, IoU and the verdicts drawn from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from syncline.cloud.models.agreement import (
    Agreement,
    accuracy,
    confusion,
    mean_iou,
    nearest,
)
from syncline.cloud.models.gate import GateLimits, judge_accuracy
from syncline.edge.decode import Boxes, LabelMap, Scores
from syncline.edge.decode.match import match, pairwise_iou
from syncline.errors import ModelError


def boxes(rows: list[tuple[float, float, float, float]], classes: list[int] | None = None) -> Boxes:
    n = len(rows)
    return Boxes(
        np.array(rows, np.float32).reshape(n, 4),
        np.linspace(0.9, 0.5, n).astype(np.float32),
        np.array(classes or [0] * n, np.int64),
    )


def count_matches(one: Boxes, other: Boxes) -> int:
    mine, theirs = match(one, other)
    assert mine.sum() == theirs.sum()
    return int(mine.sum())


def test_iou_of_known_boxes() -> None:
    one = np.array([[0, 0, 2, 2]], np.float32)
    other = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6], [3, 3, 1, 1]], np.float32)
    np.testing.assert_allclose(pairwise_iou(one, other), [[1 / 7, 1, 0, 0]])


def test_matches_are_one_to_one_and_of_one_class() -> None:
    ref = boxes([(0, 0, 10, 10), (20, 0, 30, 10)])
    assert count_matches(ref, boxes([(0, 0, 10, 10), (1, 0, 10, 10)])) == 1
    assert count_matches(ref, boxes([(20, 0, 30, 10), (0, 0, 10, 10)])) == 2
    assert count_matches(ref, boxes([(0, 0, 10, 10)], [1])) == 0
    assert count_matches(ref, Boxes.none()) == 0


coordinates = st.lists(
    st.tuples(*[st.floats(0, 100, width=32)] * 2, *[st.floats(1, 50, width=32)] * 2), max_size=8
)


@given(coordinates)
def test_a_result_agrees_with_itself(rows: list[tuple[float, float, float, float]]) -> None:
    made = boxes([(x, y, x + w, y + h) for x, y, w, h in rows])
    assert count_matches(made, made) == len(made)


@given(coordinates, coordinates)
def test_matches_never_exceed_either_side(
    first: list[tuple[float, float, float, float]], second: list[tuple[float, float, float, float]]
) -> None:
    one, other = (boxes([(x, y, x + w, y + h) for x, y, w, h in r]) for r in (first, second))
    assert 0 <= count_matches(one, other) <= min(len(one), len(other))


@given(hnp.arrays(np.uint8, (6, 7), elements=st.integers(0, 4)))
def test_equal_maps_have_iou_one(labels: np.ndarray) -> None:
    table = confusion(labels, labels)
    assert accuracy(table) == mean_iou(table) == 1.0


def test_mean_iou_by_hand_and_ignored_pixels() -> None:
    truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    found = np.array([[0, 1, 1, 1, 7]], np.uint8)
    assert mean_iou(confusion(truth, found)) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_nearest_takes_cell_centres() -> None:
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    np.testing.assert_array_equal(nearest(labels, (2, 2)), [[5, 7], [13, 15]])
    np.testing.assert_array_equal(nearest(labels, (4, 4)), labels)


def test_kinds_must_be_the_same() -> None:
    with pytest.raises(ModelError, match="one kind"):
        Agreement().add(Boxes.none(), Scores(np.zeros(2, np.float32)), ())


def filled(frames: int, wrong: int) -> Agreement:
    """Ten boxes a frame; in `wrong` frames the candidate sees none."""
    ref = boxes([(20.0 * i, 0, 20.0 * i + 10, 10) for i in range(10)])
    found = Agreement()
    for i in range(frames):
        found.add(ref, Boxes.none() if i < wrong else ref, ("bad",) if i < wrong else ())
    return found


def test_gate_judges_the_whole_and_each_slice() -> None:
    limits = GateLimits()
    good = filled(100, 0)
    assert judge_accuracy(good.metrics(), good.kind, limits) == []
    # 5 of 100 frames lost: F1 of all is 0.974 and passes, the slice they are in does not
    found = filled(100, 5)
    reasons = judge_accuracy(found.metrics(), found.kind, limits)
    assert reasons == ["bad: f1 with fp32 is 0.000, needs 0.970"]
    found = filled(100, 4)
    assert judge_accuracy(found.metrics(), found.kind, limits) == [], "4 frames are reported only"


def test_gate_wants_enough_to_judge_on() -> None:
    empty = Agreement()
    for _ in range(50):
        empty.add(Boxes.none(), Boxes.none(), ())
    assert "too few" in judge_accuracy(empty.metrics(), empty.kind, GateLimits())[0]
    assert "too few" in judge_accuracy(filled(2, 0).metrics(), "boxes", GateLimits())[0]


def test_gate_on_label_maps_with_and_without_truth(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, (40, 40)).astype(np.uint8)
    worse = truth.copy()
    worse[:4] = (worse[:4] + 1) % 3
    for with_truth, word in ((False, "agreement"), (True, "mIoU falls by 0.1")):
        found = Agreement()
        for _ in range(6):
            pair = (LabelMap(truth, 40, 40), LabelMap(worse, 40, 40))
            found.add(*pair, (), truth if with_truth else None)
        reasons = judge_accuracy(found.metrics(), found.kind, GateLimits())
        assert any(word in reason for reason in reasons), reasons


def test_gate_on_classification() -> None:
    found = Agreement()
    for i in range(100):
        ref, cand = np.eye(3, dtype=np.float32)[[0, 1 if i < 2 else 0]]
        found.add(Scores(ref), Scores(cand), ())
    reasons = judge_accuracy(found.metrics(), found.kind, GateLimits())
    assert reasons == ["all: top1_agreement with fp32 is 0.980, needs 0.985"]
