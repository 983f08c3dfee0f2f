"""Histograms, the health message, Prometheus text."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.edge.health import EDGES_NS, Histogram, rss_bytes, temperature_c
from syncline.edge.job import Frame
from syncline.edge.runner import ModelSlot, Runner
from syncline.edge.starvation import STARVED_FRAMES

from . import tiny
from .harness import CLOCK, MS, Told, frame


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_quantiles_lie_in_the_right_bucket(durations: list[int], share: float) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    got = histogram.quantile_ns(share)
    assert got >= exact
    lower = max((edge for edge in EDGES_NS if edge < exact), default=0)
    upper = min((edge for edge in EDGES_NS if edge >= exact), default=max(durations))
    assert lower < max(got, 1) <= max(upper, 1)
    assert sum(histogram.counts) == histogram.count == len(durations)


def test_buckets_are_fine_enough_for_ratios() -> None:
    assert all(b / a <= 1.55 for a, b in pairwise(EDGES_NS))


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    runner = Runner([ModelSlot(name="main", bundle=tiny.bundle(tmp_path / "b"))], clock=CLOCK)
    for index in range(3):
        runner.process(frame(index))
    runner.process(Frame("front", 3, np.zeros((2, 2), np.uint8), None, 0))
    return runner


def test_health_message_carries_the_books(runner: Runner) -> None:
    message = runner.health().to_message()
    assert (message.frames_captured, message.frames_processed) == (4, 3)
    assert dict(message.dropped) == {"bad-frame": 1}
    assert message.model_sha256 == runner.health().slots[0].model_digest
    assert message.model_name == "tiny"
    assert message.boot_id == CLOCK.boot_id
    assert message.rss_bytes > 10 << 20
    latency = {h.name: h for h in message.latency}
    assert sum(latency["main.infer"].counts) == 3
    assert len(latency["main.infer"].counts) == len(latency["main.infer"].edges_ns) + 1
    assert type(message)().FromString(message.SerializeToString()) == message


def test_a_camera_of_which_nothing_is_processed_makes_the_slot_degraded(tmp_path: Path) -> None:
    """Books that balance are not enough: 30 frames in a row that all came too late are a fault."""
    told = Told()
    slot = ModelSlot(name="main", bundle=tiny.bundle(tmp_path / "b"), deadline_ns=100 * MS)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    for index in range(STARVED_FRAMES):
        assert runner.health().state == "ok"
        runner.submit(frame(index, age_ns=200 * MS))
        told.wait(lambda: len(told.drops) == index + 1)  # noqa: B023
    state = runner.health()
    assert state.state == "degraded"
    assert "none of the last 30 frames of front was processed: late" in state.slots[0].detail
    runner.submit(frame(99))
    told.wait(lambda: len(told.results) == 1)
    assert runner.health().state == "ok"
    runner.stop()


def test_one_dead_camera_is_seen_beside_a_live_one(runner: Runner) -> None:
    broken = np.zeros((2, 2), np.uint8)
    for index in range(STARVED_FRAMES):
        runner.process(Frame("rear", index, broken, None, 0))
        runner.process(frame(index))
    assert "of rear was processed: bad-frame" in runner.health().slots[0].detail


def test_memory_and_temperature_of_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert rss_bytes(tmp_path / "none") == 0
    assert math.isnan(temperature_c(tmp_path))
    for zone, value in (("thermal_zone0", "41500"), ("thermal_zone1", "63000")):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "temp").write_text(value)
    assert temperature_c(tmp_path) == 63.0
