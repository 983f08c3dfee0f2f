"""The segmenters' training: crops keep labels on their things, a seed gives one network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from syncline.cloud.train.pairs import Pairs, Task, at_centres

torch: Any = pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.train

TASK = Task(classes=3, crop=(96, 64), zoom=(0.6, 1.0), coarsen=at_centres)


def pairs(count: int) -> Pairs:
    """Bright boxes (class 1) and dark ones (class 2) on grey, with an unlabelled rim."""
    rng = np.random.default_rng(0)
    frames = rng.integers(100, 120, (count, 96, 144, 3)).astype(np.uint8)
    labels = np.zeros((count, 96, 144), np.uint8)
    labels[:, :4] = 255
    for frame, label in zip(frames, labels, strict=True):
        for value, luma in ((1, 240), (2, 10)):
            y, x = rng.integers(10, 56), rng.integers(4, 100)
            frame[y : y + 30, x : x + 36] = luma
            label[y : y + 30, x : x + 36] = value
    return Pairs(frames, labels)


def test_labels_stay_on_their_things_through_mirror_and_crop() -> None:
    from syncline.cloud.train.segmentation import augment

    rng, known = np.random.default_rng(1), pairs(1)
    for _ in range(30):
        frame, label = augment(known.frames[0], known.labels[0], rng, TASK)
        assert frame.shape == (64, 96, 3)
        luma = frame.mean(axis=2)
        if (label == 1).any():
            assert np.median(luma[label == 1]) > np.median(luma[label == 0]) + 30
        if (label == 2).any():
            assert np.median(luma[label == 2]) < np.median(luma[label == 0]) - 30


def test_it_learns_and_the_same_seed_gives_the_same_network() -> None:
    from syncline.cloud.train.segmentation import Recipe, evaluate, train

    torch.set_num_threads(1)
    known, recipe = pairs(16), Recipe(width=8, epochs=12, batch=4, seed=3)
    first, second = (train(known, recipe, TASK) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    whole = Pairs(known.frames[:, :96, :128], known.labels[:, :96, :128])
    assert evaluate(first, whole, TASK) > 0.7


def test_a_second_cycle_goes_on_from_what_the_first_learned() -> None:
    from syncline.cloud.train.segmentation import Recipe, Training, train

    torch.set_num_threads(1)
    known = pairs(16)
    first = train(known, Recipe(width=8, epochs=8, batch=4, seed=3), TASK)
    again = Recipe(width=8, epochs=1, batch=4, seed=4, rate=1e-4)
    losses = [Training(known, again, TASK, start).epoch() for start in (None, first.state_dict())]
    assert losses[1] < 0.7 * losses[0]


def test_rare_classes_weigh_more_and_what_is_not_labelled_nothing() -> None:
    from syncline.cloud.train.segmentation import class_weights

    labels = np.full((1, 10, 10), 255, np.uint8)
    labels[0, :5] = 0
    labels[0, 5, :2] = 1
    weights = class_weights(labels, 2)
    assert weights[1] / weights[0] == pytest.approx(5.0)
