"""What a detector's shadow is worth: whether the frames it chooses are those with errors."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.edge.decode.match import match
from syncline.edge.decode.types import Boxes
from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.shadow import Disagreement, compare_boxes
from syncline.edge.shipped import resolve_bundle
from syncline.sensors.synthetic.camera import sensor_mode
from syncline.sensors.synthetic.labels import TruthBox
from syncline.sensors.synthetic.light import Setting
from syncline.sensors.synthetic.optics import Pinhole
from syncline.sensors.synthetic.plan import Style, plan_scene
from syncline.sensors.synthetic.render import Rendered, Renderer

pytestmark = [pytest.mark.soak, pytest.mark.long, pytest.mark.timeout(600)]

SIZE = (640, 384)
STEP_S = 0.05
Image = NDArray[np.uint8]


def pairs_of(seed: int, count: int) -> Iterator[tuple[Rendered, Rendered]]:
    """Frames of a drive at random times, each with the one before."""
    rng = np.random.default_rng([seed, 9])
    scene = plan_scene(seed, 40.0, Style.random(rng))
    camera = Pinhole.for_size(*SIZE, focal_share=float(rng.uniform(0.75, 1.1)))
    renderer = Renderer(scene, camera, sensor_mode(*SIZE, fps=1 / STEP_S), seed)
    for k, t_s in enumerate(np.sort(rng.uniform(1.0, 39.0, count))):
        ahead_m = float(scene.ego.distance(t_s)) + 10.0
        light = float(scene.light.at(ahead_m, float(t_s)))
        setting = Setting.of_total(min(1.0, (light / 0.08) ** 0.25) / light)
        before, now = (
            renderer.draw(float(t_s) - dt_s, setting, 2 * k + at)
            for at, dt_s in enumerate((STEP_S, 0.0))
        )
        yield before, now


def truth_of(boxes: list[TruthBox]) -> Boxes:
    """What a detector should find, as training has it: seen by a third, at least 8 px wide."""
    kept = [
        box
        for box in boxes
        if box.visible >= 0.35
        and min(box.xyxy_px[2] - box.xyxy_px[0], box.xyxy_px[3] - box.xyxy_px[1]) >= 8
    ]
    return Boxes(
        np.array([box.xyxy_px for box in kept], np.float32).reshape(-1, 4),
        np.ones(len(kept), np.float32),
        np.array([int(box.label) for box in kept], np.int64),
    )


class Detector:
    """The shipped detector; with `shrink` it sees pictures of so small a size only."""

    def __init__(self, shrink: float = 1.0) -> None:
        self._engine = Engine.load(Bundle.open(resolve_bundle("road-detector"), trusted_keys=None))
        self._pre, self._shrink = self._engine.preprocessor(), shrink

    def __call__(self, image: Image) -> Boxes:
        size = (round(SIZE[0] * self._shrink), round(SIZE[1] * self._shrink))
        small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        tensor, geometry = self._pre(small)
        found = self._engine.decoder(self._engine.backend.run(tensor), geometry)
        assert isinstance(found, Boxes)
        return Boxes(found.xyxy_px / np.float32(self._shrink), found.score, found.class_id)


def lift(by: list[float], errors: NDArray[np.float64]) -> float:
    """Mean error of the tenth with the highest value, against all."""
    return float(errors[np.argsort(by)[-len(by) // 10 :]].mean() / errors.mean())


def test_edge_36_worth_finds_relative_and_absolute_errors_of_a_weaker_detector() -> None:
    """edge-36: the shipped detector on small pictures serves, on whole ones it is the shadow."""
    serving, shadow = Detector(0.4), Detector()
    found: list[Disagreement] = []
    share, number = [], []
    for seed in range(700_000, 700_012):
        for before, now in pairs_of(seed, 10):
            ours = serving(now.image)
            found.append(compare_boxes(ours, shadow(now.image), serving(before.image)))
            mine, theirs = match(ours, truth_of(list(now.boxes)))
            number.append(int((~mine).sum() + (~theirs).sum()))
            share.append(number[-1] / max(len(mine) + len(theirs), 1))
    for name, errors in (("1 - F1", np.array(share)), ("wrong", np.array(number, np.float64))):
        best = lift(list(errors), errors)
        got = lift([d.worth for d in found], errors)
        plain = lift([d.score + d.unmatched + d.flicker for d in found], errors)
        alone = lift([d.score for d in found], errors)
        print(f"edge-36: {name}: {got:.2f} of {best:.2f}; plain {plain:.2f}, alone {alone:.2f}")
        assert got >= 1.1
