"""Disagreement scores, upload selection, and the shadow model's place: slack."""

from __future__ import annotations

import dataclasses
import re
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.edge.decode import Boxes, LabelMap, Scores
from syncline.edge.job import DropReason, Latencies, Result
from syncline.edge.model.manifest import Manifest
from syncline.edge.queue import QueuePolicy
from syncline.edge.runner import ModelSlot, Runner
from syncline.edge.select import Choice, SelectOptions, Selector, TokenBucket, draw
from syncline.edge.shadow import (
    Comparator,
    check_comparable,
    compare_boxes,
    compare_labels,
    compare_scores,
)
from syncline.errors import ManifestError, UsageError

from . import tiny
from .harness import CLOCK, MS, Told, bright, frame, slow_slot

S = 1_000_000_000


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Boxes:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Boxes(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.float32),
        table[:, 5].astype(np.int64),
    )


A = (0.0, 0.0, 10.0, 10.0, 0.9, 0)
B = (50.0, 0.0, 60.0, 10.0, 0.8, 1)


def test_label_maps() -> None:
    road = np.zeros((40, 40), np.uint8)
    half = road.copy()
    half[20:] = 2
    same, apart = compare_labels(road, road), compare_labels(road, half)
    assert (same.score, same.class_area_l1) == (0.0, 0.0)
    assert (apart.score, apart.class_area_l1) == (0.5, 1.0)
    swapped = compare_labels(half, half[::-1])
    assert (swapped.score, swapped.class_area_l1) == (1.0, 0.0)
    assert apart.worth == 1.5, "a pixel that goes with its class counts three times"
    assert swapped.worth == 1.0


def test_a_map_that_is_at_stride_4_already_is_compared_whole() -> None:
    """edge-36: the score is of stride 4 whatever size the network's map has."""
    fine = np.zeros((64, 80), np.uint8)
    fine[1::2, 1::2] = 1  # a quarter of the pixels, none of them on every fourth row
    assert compare_labels(np.zeros_like(fine), fine).score == 0.25
    full = np.kron(fine, np.ones((4, 4), np.uint8)).astype(np.uint8)
    assert compare_labels(np.zeros_like(full), full).score == 0.25


def test_boxes_of_the_same_things_agree() -> None:
    moved = (1.0, 0.0, 11.0, 10.0, 0.7, 0)
    assert compare_boxes(boxes(A, B), boxes(B, moved)).score == 0.0
    assert compare_boxes(boxes(), boxes()).score == 0.0


def test_boxes_one_missing_one_of_another_class() -> None:
    other_class = (*A[:5], 1)
    found = compare_boxes(boxes(A, B), boxes(other_class))
    assert found.score == 1.0
    assert found.unmatched == 3
    assert found.worth == 1.0 + 3 / 4
    half = compare_boxes(boxes(A, B), boxes(A))
    assert half.score == pytest.approx(1 - 2 / 3)
    assert half.unmatched == 1
    unsure = (50.0, 0.0, 60.0, 10.0, 0.4, 1)
    assert compare_boxes(boxes(A, unsure), boxes(A)).unmatched == 0
    assert compare_boxes(boxes(A, B), boxes(A, B), boxes(A)).flicker == pytest.approx(1 / 3)


@given(st.integers(0, 2**32 - 1))
def test_disagreement_is_symmetric_and_bounded(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def some() -> Boxes:
        count = rng.integers(0, 12)
        corner = rng.uniform(0, 50, (count, 2))
        return Boxes(
            np.concatenate([corner, corner + rng.uniform(5, 30, (count, 2))], 1).astype(np.float32),
            rng.uniform(0, 1, count).astype(np.float32),
            rng.integers(0, 2, count),
        )

    ours, theirs = some(), some()
    forth, back = compare_boxes(ours, theirs), compare_boxes(theirs, ours)
    assert forth.score == pytest.approx(back.score)
    assert forth.unmatched == back.unmatched
    assert 0.0 <= forth.score <= 1.0
    assert forth.score <= forth.worth < 2.5
    assert compare_boxes(ours, ours).score == 0.0


def test_class_scores() -> None:
    one, other = Scores(np.array([1, 0], np.float32)), Scores(np.array([0, 2], np.float32))
    assert compare_scores(one, one).score == 0.0
    assert compare_scores(one, other).score == 1.0


def result(output: Boxes | LabelMap | None, index: int = 0, valid: bool = True) -> Result:
    return Result(frame(index), "m", "d", output, valid, "", Latencies())


def test_comparator_remembers_the_frame_before_and_skips_what_cannot_be_compared() -> None:
    compare = Comparator()
    one, two = result(boxes(A)), result(boxes(A, B), 1)
    compare.note(one)
    first = compare.step(one, result(boxes(A)))
    compare.note(two)
    second = compare.step(two, result(boxes(A), 1))
    assert first is not None
    assert second is not None
    assert first.flicker == 0.0
    assert second.flicker == pytest.approx(1 / 3)
    assert compare.step(result(None, valid=False), result(boxes(A))) is None
    fine = LabelMap(np.repeat(np.repeat(np.eye(8, dtype=np.uint8), 4, 0), 4, 1), 64, 64)
    coarse = LabelMap(np.eye(8, dtype=np.uint8), 64, 64)
    both = compare.step(result(fine), result(coarse))
    assert both is not None
    assert both.score == 0.0
    assert compare.step(result(fine), result(boxes(A))) is None


def test_flicker_is_against_the_frame_before_whether_the_shadow_saw_it_or_not() -> None:
    compare = Comparator()
    seen = [result(boxes(A), 0), result(boxes(A, B), 1), result(boxes(A, B), 2)]
    for one in seen:
        compare.note(one)
    found = compare.step(seen[2], result(boxes(A, B), 2))
    assert found is not None
    assert found.flicker == 0.0, "not against frame 0, the last that was compared"
    late = compare.step(seen[1], result(boxes(A, B), 1))
    assert late is not None
    assert late.flicker == pytest.approx(1 / 3), "nor against a frame after it"
    other = dataclasses.replace(seen[2], slot="another")
    alone = compare.step(other, result(boxes(A, B), 2))
    assert alone is not None
    assert alone.flicker == 0.0


def test_models_whose_classes_mean_other_things_are_not_compared() -> None:
    ours, theirs = tiny.manifest(), tiny.manifest(labels=("road", "sky", "car"))
    road = LabelMap(np.zeros((8, 8), np.uint8), 64, 64)

    def by(manifest: Manifest) -> Result:
        return dataclasses.replace(result(road), manifest=manifest)

    assert Comparator().step(by(ours), by(tiny.manifest(version="2"))) is not None
    assert Comparator().step(by(ours), by(theirs)) is None


@pytest.mark.parametrize(
    ("shadow", "said"),
    [
        (tiny.scores_manifest(), "task is 'classification', not 'segmentation'"),
        (tiny.manifest(labels=("road", "car")), "2 labels, not 3"),
        (tiny.manifest(labels=("road", "sky", "car")), "label 1 is 'sky', not 'car'"),
        (tiny.manifest(kind="scores"), "it gives class scores (scores), not label map"),
    ],
)
def test_a_shadow_that_cannot_be_compared_is_refused(shadow: Manifest, said: str) -> None:
    with pytest.raises(ManifestError, match=re.escape(said)):
        check_comparable(tiny.manifest(), shadow)


def test_the_runner_refuses_such_a_shadow(tmp_path: Path) -> None:
    main = ModelSlot(name="main", bundle=tiny.bundle(tmp_path / "a"))
    other = tiny.bundle(tmp_path / "b", tiny.scorer(), tiny.scores_manifest())
    shadow = ModelSlot(name="next", bundle=other, shadow_of="main")
    with pytest.raises(ManifestError, match="cannot be compared"):
        Runner([main, shadow], clock=CLOCK)


def test_edge_36_score_costs_little() -> None:
    """edge-36: a segmentation score takes at most 0.1 ms at 320x240 (stride 4), CPU."""
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 11, (240, 320), dtype=np.uint8) for _ in range(2))
    cost = []
    for _ in range(20):
        start = time.thread_time_ns()
        compare_labels(a, b)
        cost.append(time.thread_time_ns() - start)
    assert min(cost) < 0.1e6


# Selection.


def test_bucket_fills_with_time_and_never_backwards() -> None:
    bucket = TokenBucket(per_s=1.0, size=2.0)
    assert [bucket.take(0) for _ in range(3)] == [True, True, False]
    assert not bucket.take(S // 2)
    assert bucket.take(S + 1)
    assert not bucket.take(0)
    assert not bucket.take(S + 2)
    assert [bucket.take(100 * S) for _ in range(3)] == [True, True, False]


def test_the_lot_is_unbiased_and_the_same_everywhere() -> None:
    picked = [i for i in range(50_000) if draw("device-1", "front", i * 33 * MS) < 0.01]
    assert 430 < len(picked) < 570  # 500 +- 3.1 sigma
    gaps = np.diff(picked)
    assert gaps.min() < 10  # the least gap of scored frames does not touch the lot
    assert abs(np.mean(np.array(picked) % 30) - 14.5) < 1.2
    long = "d" * 64
    others = [("device-2", "front"), ("device-1", "rear"), (f"{long}1", "front")]
    lots = [draw(seed, camera, 7) for seed, camera in [("device-1", "front"), *others]]
    assert len({*lots, draw(f"{long}2", "front", 7)}) == 5, "the whole seed counts"
    one, selector = SelectOptions(seed="device-1"), Selector(SelectOptions(seed="device-1"))
    chosen = [i for i in range(5000) if selector.lot("front", i * 33 * MS)]
    assert chosen == [i for i in picked if i < 5000]
    assert (selector.frames, selector.counts[Choice.RANDOM]) == (5000, len(chosen))
    # Whether the shadow saw a frame, and what it found, changes nothing.
    judged = Selector(one)
    again = [judged.step("front", i * 33 * MS, i % 7 / 7.0) for i in range(5000)]
    assert [i for i, choice in enumerate(again) if choice is Choice.RANDOM] == chosen
    assert judged.counts[Choice.RANDOM] == 0, "counted where it is drawn"


def test_high_scores_are_chosen_within_gap_and_budget() -> None:
    rng = np.random.default_rng(4)
    selector = Selector(
        SelectOptions(random_share=0.0, top_share=0.05, rate_per_hour=3600.0, burst=5)
    )
    times = []
    for i in range(3000):
        hard = i % 100 < 10
        score = rng.uniform(0.5, 0.9) if hard else rng.uniform(0.0, 0.2)
        if selector.step("front", i * 33 * MS, score) is Choice.SCORE:
            times.append(i)
    assert np.diff(times).min() * 33 >= 2000
    assert np.mean([i % 100 < 10 for i in times]) > 0.9
    assert 20 <= len(times) <= 30
    assert sum(selector.counts.values()) == 3000
    assert selector.counts[Choice.GAP] > 0


def test_budget_bounds_uploads_whatever_the_scores() -> None:
    options = SelectOptions(random_share=0.0, rate_per_hour=60.0, burst=3, top_share=1.0)
    selector = Selector(options)
    chosen = 0
    for i in range(20_000):
        chosen += selector.step(f"c{i % 4}", i * 33 * MS, 0.5 + i * 1e-6) is Choice.SCORE
    minutes = 20_000 * 0.033 / 60
    assert chosen <= 3 + minutes + 1
    assert selector.counts[Choice.BUDGET] > 0


@pytest.mark.parametrize("bad", [{"random_share": 2.0}, {"top_share": -0.1}, {"window": 0}])
def test_options_that_cannot_be(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        SelectOptions(**bad)  # type: ignore[arg-type]


# In the runner.


def test_shadow_sees_the_same_frames_and_the_pairs_are_told(tmp_path: Path) -> None:
    told = Told()
    main = ModelSlot(name="main", bundle=tiny.bundle(tmp_path / "a"), policy=QueuePolicy.BLOCK)
    twin = tiny.bundle(tmp_path / "b", tiny.segmenter(1), tiny.manifest(version="2"))
    shadow = ModelSlot(name="next", bundle=twin, shadow_of="main")
    runner = Runner([main, shadow], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    for index in range(5):
        runner.submit(frame(index))
        told.wait(partial(lambda n: len(told.shadows) == n + 1, index))
    runner.stop()
    assert [s.frame.index for _, s in told.shadows] == list(range(5))
    for primary, other in told.shadows:
        assert primary.frame.index == other.frame.index
        assert (primary.shadow, other.shadow) == (False, True)
        assert primary.model_digest != other.model_digest
        found = Comparator().step(primary, other)
        assert found is not None
        assert 0.0 < found.score < 1.0


def test_edge_36_shadow_is_ended_when_a_primary_frame_comes(tmp_path: Path) -> None:
    """edge-36: a slow shadow run gives way at once and is counted as shed."""
    told = Told()
    slow = slow_slot(tmp_path, rounds=20_000)
    main = ModelSlot(
        name="main",
        bundle=tiny.bundle(tmp_path / "fast", tiny.scorer(), tiny.scores_manifest()),
        policy=QueuePolicy.BLOCK,
    )
    shadow = dataclasses.replace(slow, name="shadow", shadow_of="main")
    runner = Runner([main, shadow], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    for index in range(6):
        runner.submit(bright(index, 255))
        told.wait(partial(lambda n: sum(r.slot == "main" for r in told.results) == n + 1, index))
        time.sleep(0.08)  # the shadow takes the frame and would run for seconds
    runner.stop(drain=False)
    waits = [r.latencies.wait_ns for r in told.results if r.slot == "main"]
    assert np.median(waits) < 40 * MS
    assert not [r for r in told.results if r.shadow]
    slots = {s.slot: s for s in runner.health().slots}
    assert slots["main"].processed == 6
    lost = slots["shadow"].dropped
    assert set(lost) <= {DropReason.SHED.value, DropReason.STOPPED.value}
    assert slots["shadow"].captured == sum(lost.values()) == 6


def test_a_rate_never_pairs_different_frames(tmp_path: Path) -> None:
    """The frame that waits for the shadow keeps its own serving result, whatever comes after."""
    told = Told()
    bundle = tiny.bundle(tmp_path / "a")
    main = ModelSlot(name="main", bundle=bundle, policy=QueuePolicy.BLOCK)
    shadow = ModelSlot(name="next", bundle=bundle, shadow_of="main", max_rate_hz=25.0)
    runner = Runner([main, shadow], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    for index in range(40):  # in bursts, so that refused frames follow one that waits
        runner.submit(frame(index))
        time.sleep(0.03 if index % 4 == 3 else 0.002)
    told.wait(lambda: len([r for r in told.results if r.slot == "main"]) == 40)
    time.sleep(0.1)
    runner.stop()
    assert len(told.shadows) >= 3
    assert [p.frame.index for p, _ in told.shadows] == [s.frame.index for _, s in told.shadows]
    assert told.dropped(DropReason.RATE) or told.dropped(DropReason.SHED)


def test_an_idle_worker_does_not_keep_a_shadow_alive(tmp_path: Path) -> None:
    """With two workers too the shadow is ended when a primary frame comes: only slack is its."""
    told = Told()
    main = ModelSlot(
        name="main",
        bundle=tiny.bundle(tmp_path / "fast", tiny.scorer(), tiny.scores_manifest()),
        policy=QueuePolicy.BLOCK,
    )
    shadow = dataclasses.replace(
        slow_slot(tmp_path, rounds=20_000), name="shadow", shadow_of="main"
    )
    runner = Runner([main, shadow], clock=CLOCK, callbacks=told.callbacks(), workers=2)
    runner.start()
    runner.submit(bright(0, 255))
    told.wait(lambda: len(told.results) == 1)
    time.sleep(0.08)  # the shadow runs now, and would for seconds
    runner.submit(bright(1, 255))
    told.wait(lambda: told.dropped(DropReason.SHED) == [0], timeout_s=2.0)
    runner.stop(drain=False)
    assert not [r for r in told.results if r.shadow]
