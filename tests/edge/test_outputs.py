"""What must never pass as a detection: not finite, impossible, stuck."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from syncline.edge.decode import Boxes, Decoded, LabelMap, Scores
from syncline.edge.outputs import StuckDetector, _step, implausible, not_finite
from syncline.edge.runner import ModelSlot, Runner

from . import tiny
from .harness import CLOCK, bright, frame


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(1, 4))
def test_edge_21_one_bad_value_anywhere_is_found(seed: int, bad: float, count: int) -> None:
    """edge-21: NaN or infinity in any element of any float output."""
    rng = np.random.default_rng(seed)
    outputs: list[NDArray[Any]] = [
        rng.normal(size=(1, 7, 11)).astype(np.float32),
        np.zeros(5, np.uint8),
    ]
    assert not_finite(outputs) == ""
    outputs[0].flat[rng.choice(77, count, replace=False)] = bad
    assert f"{count} values" in not_finite(outputs)


def test_edge_21_opposite_infinities_and_overflowing_sums() -> None:
    """edge-21: infinities that cancel are found; large finite values are no fault."""
    assert not_finite([np.array([np.inf, -np.inf], np.float32)])
    assert not not_finite([np.full(100, 3e38, np.float32)])
    assert not not_finite([np.empty(0, np.float32)])


def nan_when_bright() -> bytes:
    """Scores = sqrt(100 - mean of each channel): NaN for frames brighter than 100."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Sub", ["hundred", "f"], ["d"]),
        helper.make_node("Sqrt", ["d"], ["scores"]),
    ]
    given = ("x", 1, [1, 3, tiny.HEIGHT, tiny.WIDTH])
    weights = {"hundred": np.asarray(100.0, np.float32)}
    return tiny.onnx_bytes(nodes, [given], [("scores", 1, [1, 3])], weights)


def test_edge_21_such_a_result_is_never_valid(tmp_path: Path) -> None:
    """edge-21: the runner marks it invalid, publishes no output, degrades, and recovers."""
    model, spec = nan_when_bright(), tiny.scores_manifest()
    golden = tiny.golden_of(model, spec, np.full((24, 32, 3), 30, np.uint8))
    bundle = tiny.bundle(tmp_path / "nan", model, spec, golden)
    runner = Runner([ModelSlot(name="main", bundle=bundle)], clock=CLOCK)
    assert runner.process(bright(0, 50)).valid
    bad = runner.process(bright(1, 200))
    assert not bad.valid
    assert bad.output is None
    assert "NaN" in bad.invalid_reason
    health = runner.health()
    assert (health.state, health.slots[0].invalid) == ("degraded", 1)
    assert runner.process(bright(2, 60)).valid
    assert runner.health().state == "ok"


def boxes(xyxy: list[float], score: float = 0.5, class_id: int = 0) -> Boxes:
    return Boxes(np.array([xyxy], np.float32), np.array([score], np.float32), np.array([class_id]))


@pytest.mark.parametrize(
    ("output", "named"),
    [
        (boxes([5, 0, 1, 1]), "wrong way"),
        (boxes([0, 0, np.nan, 1]), "not finite"),
        (boxes([0, 0, 1, 1], score=1.5), "scores"),
        (boxes([0, 0, 1, 1], score=float("nan")), "scores"),
        (boxes([0, 0, 1, 1], class_id=3), "class 3 of 3"),
        (LabelMap(np.full((2, 2), 3, np.uint8), 2, 2), "label 3 of 3"),
        (Scores(np.array([np.inf], np.float32)), "not finite"),
    ],
)
def test_impossible_outputs_are_named(output: Boxes | LabelMap | Scores, named: str) -> None:
    assert named in implausible(output, 3)


def test_possible_outputs_pass() -> None:
    good: list[Decoded] = [
        boxes([0, 0, 1, 1], 1.0, 2),
        Boxes.none(),
        LabelMap(np.eye(3, dtype=np.uint8), 3, 3),
    ]
    assert [implausible(output, 3) for output in good] == ["", "", ""]


def test_edge_22_constant_output_over_30_changing_frames_degrades(tmp_path: Path) -> None:
    """edge-22: a model that says the same of 30 changing frames: health degraded; then recovers."""
    model, spec = tiny.scorer(scale=0.0), tiny.scores_manifest()
    bundle = tiny.bundle(tmp_path / "stuck", model, spec)
    runner = Runner([ModelSlot(name="main", bundle=bundle)], clock=CLOCK)
    for index in range(29):
        runner.process(frame(index))
        assert runner.health().state == "ok"
    runner.process(frame(29))
    health = runner.health()
    assert health.state == "degraded"
    assert "not changed for 30 frames" in health.slots[0].detail
    runner.swap(tiny.bundle(tmp_path / "fine", tiny.scorer(), spec))
    runner.process(frame(30))
    assert runner.health().state == "ok"


def test_edge_22_standing_still_is_no_fault(tmp_path: Path) -> None:
    """edge-22: equal frames may have equal outputs; the count does not move."""
    bundle = tiny.bundle(tmp_path / "seg")
    runner = Runner([ModelSlot(name="main", bundle=bundle)], clock=CLOCK)
    for index in range(50):
        runner.process(frame(index, bgr=tiny.frame(1)))
    assert runner.health().state == "ok"


def test_edge_22_empty_road_is_no_fault() -> None:
    """edge-22: in-graph suppression that finds nothing for a long time is not stuck."""
    detector = StuckDetector()
    rng = np.random.default_rng(1)
    for _ in range(100):
        tensor = rng.random((1, 3, 8, 8), np.float32)
        for nothing in (np.zeros((1, 100, 6), np.float32),):
            assert not detector.step(tensor, [nothing])


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((192, 320), np.uint8), ((384, 640), np.int64), ((1, 384, 640), np.uint8)],
    ids=str,
)
def test_edge_22_a_change_in_any_column_is_seen(
    shape: tuple[int, ...], kind: type[np.generic]
) -> None:
    """edge-22: a parked car, a noisy camera, somebody who walks where a sample might not look."""
    rng = np.random.default_rng(22)
    width = shape[-1]
    for left in range(0, width - 40, 40):
        detector = StuckDetector()
        for turn in range(35):
            labels = np.zeros(shape, kind)
            at = left + turn
            labels[..., shape[-2] // 4 : shape[-2] * 3 // 4, at : at + 8] = 1
            noise = rng.integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
            assert not detector.step(noise, [labels]), f"columns {left} to {at + 8}"


@given(st.integers(1, 16), st.integers(1, 720), st.integers(1, 1280), st.sampled_from([1, 4, 8]))
def test_edge_22_samples_wander_through_all_columns(
    planes: int, height: int, width: int, item: int
) -> None:
    """edge-22: every block of a row is looked at in some row, where there are rows enough."""
    row = width * item
    size = planes * height * row
    assume(size > 16 << 10)
    step = 16 * _step(size)
    starts = range(0, size - 15, step)
    assert len(starts) <= 1024, "no more is looked at than the cost allows"
    seen = {start % row for start in starts}
    assert len(seen) == min(len(starts), row // math.gcd(step, row))
    assert math.gcd(step, row) <= 16
