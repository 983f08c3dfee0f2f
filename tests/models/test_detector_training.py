"""The detector's training: crops keep boxes on their things, a stopped run goes on unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from syncline.cloud.train.rendered import FRAME_SIZE, INPUT_SIZE, Sample, at_input

torch: Any = pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.train

WIDTH, HEIGHT = FRAME_SIZE


def picture(rng: np.random.Generator, boxes: int = 4) -> Sample:
    """White boxes on black."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    found = []
    for column in range(boxes):
        x = column * WIDTH // boxes + int(rng.integers(5, 60))
        y, side = int(rng.integers(40, 300)), int(rng.integers(30, 60))
        cv2.rectangle(image, (x, y), (x + side - 1, y + side - 1), (255, 255, 255), -1)
        found.append([x, y, x + side, y + side])
    array = np.array(found, np.float32)
    return Sample(image, array, np.arange(boxes) % 4, np.zeros(boxes, bool))


def test_boxes_stay_on_their_things_through_flip_zoom_and_crop() -> None:
    from syncline.cloud.train.detector_data import CROP, augment

    rng, checked = np.random.default_rng(0), 0
    for _ in range(60):
        made = augment(rng, picture(rng))
        assert made.image.shape == (CROP[1], CROP[0], 3)
        grey = made.image.max(axis=2)
        for x0, y0, x1, y1 in made.boxes[~made.ignore]:
            inside = grey[int(y0 + 3) : int(y1 - 3), int(x0 + 3) : int(x1 - 3)]
            if inside.size > 60:
                assert np.median(inside) > 110
                checked += 1
    assert checked > 80


def test_most_crops_hold_something() -> None:
    from syncline.cloud.train.detector_data import augment

    rng = np.random.default_rng(1)
    held = [bool((~augment(rng, picture(rng, 1)).ignore).any()) for _ in range(80)]
    assert np.mean(held) > 0.75


def test_the_network_sees_what_the_edge_resizes() -> None:
    sample = picture(np.random.default_rng(2))
    small = at_input(sample)
    assert small.image.shape == (INPUT_SIZE[1], INPUT_SIZE[0], 3)
    np.testing.assert_allclose(small.boxes, sample.boxes * INPUT_SIZE[0] / WIDTH)


def test_every_picture_is_seen_once_before_any_is_seen_again() -> None:
    from syncline.cloud.train.detector_data import _drawn

    drawn = [_drawn(7, 1, place) for place in range(21)]
    for epoch in range(3):
        assert sorted(drawn[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert drawn[:7] != drawn[7:14]


def test_the_rate_rises_holds_and_falls() -> None:
    from syncline.cloud.train.detector_loop import Recipe

    recipe = Recipe(steps=1000, rate=1.0, warm=100, fall=200)
    rates = [recipe.rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert set(rates[100:800]) == {1.0}
    assert rates[900] == pytest.approx(0.505)
    assert rates[-1] == pytest.approx(0.01495)


def test_a_run_that_was_stopped_ends_with_the_same_network(tmp_path: Path) -> None:
    from syncline.cloud.train.detector_data import CROP
    from syncline.cloud.train.detector_loop import Recipe, Training, train
    from syncline.cloud.train.detector_loss import Grid

    rng = np.random.default_rng(3)
    samples = [picture(rng) for _ in range(3)]
    recipe = Recipe(steps=4, warm=1, fall=2, batch=2, width=0.25)
    whole = train(recipe, samples, 4, tmp_path / "a.pt")
    begun = Training(recipe, 4)
    for _ in range(2):
        begun.advance(samples, Grid.of(*CROP))
    begun.save(tmp_path / "b.pt")
    again = train(recipe, samples, 4, tmp_path / "b.pt")
    for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    child = Training(recipe, 4)
    torch.save(whole.state_dict(), tmp_path / "parent.pt")
    child.inherit(tmp_path / "parent.pt")
    for one, other in zip(
        whole.state_dict().values(), child.net.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
