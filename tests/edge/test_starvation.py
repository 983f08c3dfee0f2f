"""Cameras of which nothing is processed: by count and by time, and whose fault it is."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from syncline.edge.job import DropReason, Frame
from syncline.edge.model.golden import Golden
from syncline.edge.model.manifest import Manifest
from syncline.edge.runner import ModelSlot, Runner
from syncline.edge.slot import SlotState
from syncline.edge.starvation import LEAST_FRAMES, STARVED_FRAMES, STARVED_NS, Starvation
from syncline.timebase import NS_PER_S

from . import tiny
from .harness import CLOCK, MS, Told, bright, frame


def drop_all(book: Starvation, reason: DropReason, count: int, step_ns: int) -> None:
    for index in range(count):
        book.unserved("front", index * step_ns, reason)


def test_a_drought_is_seen_after_so_many_frames_however_fast_they_come() -> None:
    book = Starvation(NS_PER_S)
    drop_all(book, DropReason.LATE, STARVED_FRAMES - 1, 1)
    assert book.trouble() == ""
    book.unserved("front", 0, DropReason.LATE)
    assert book.trouble() == "none of the last 30 frames of front was processed: late"


def test_timeouts_of_half_a_second_are_seen_after_three_not_after_thirty() -> None:
    """Between two timeouts latest-wins replaces frames, which alone say nothing."""
    book = Starvation(NS_PER_S)
    for at in range(60):
        assert book.trouble() == ""
        reason = DropReason.TIMEOUT if at % 10 == 9 else DropReason.REPLACED
        book.unserved("front", at * NS_PER_S // 20, reason)
    book.unserved("front", STARVED_NS, DropReason.TIMEOUT)
    assert book.trouble() == "none of the frames of 3 s of front was processed: timeout"
    assert book.fault().endswith("timeout")
    book.served("front")
    assert book.trouble() == book.fault() == ""


def test_a_model_that_never_gets_its_turn_is_seen_and_not_blamed() -> None:
    """A slot of low priority beside one that takes every core: all its frames are replaced."""
    book = Starvation(NS_PER_S)
    drop_all(book, DropReason.REPLACED, 100, NS_PER_S // 20)
    assert "of front was processed: replaced" in book.trouble()
    assert book.fault() == ""


@pytest.mark.parametrize("reason", [DropReason.RATE, DropReason.SHED, DropReason.STOPPED])
def test_frames_that_nobody_asked_for_starve_nobody(reason: DropReason) -> None:
    book = Starvation(NS_PER_S)
    drop_all(book, reason, 1000, NS_PER_S)
    assert book.trouble() == ""


def test_a_slow_model_is_given_its_patience() -> None:
    """Runs of 9 s, each of which ends in a result: overload, no drought."""
    book = Starvation(20 * NS_PER_S)
    for at in range(9 * 20 * 4):
        book.unserved("front", at * NS_PER_S // 20, DropReason.REPLACED)
        assert book.trouble() == ""
        if at % (9 * 20) == 0:
            book.served("front")


def test_two_lost_frames_of_a_slow_camera_are_no_drought() -> None:
    book = Starvation(NS_PER_S)
    drop_all(book, DropReason.FAILED, LEAST_FRAMES - 1, 60 * NS_PER_S)
    assert book.trouble() == ""


def test_a_broken_camera_is_trouble_and_not_the_models_fault(tmp_path: Path) -> None:
    runner = Runner([ModelSlot(name="main", bundle=tiny.bundle(tmp_path / "b"))], clock=CLOCK)
    for index in range(STARVED_FRAMES):
        runner.process(Frame("rear", index, np.zeros((2, 2), np.uint8), None, 0))
        runner.process(frame(index))
    slot = runner.health().slots[0]
    assert slot.state == "degraded"
    assert "bad-frame" in slot.detail
    assert slot.fault == ""
    assert slot.judged == STARVED_FRAMES


def test_a_model_whose_every_run_is_ended_is_degraded_within_seconds(tmp_path: Path) -> None:
    spec = tiny.scores_manifest()
    bundle = tiny.bundle(tmp_path / "b", tiny.slow(rounds=20_000), spec, _dark_golden(spec))
    told = Told()
    slot = ModelSlot(name="main", bundle=bundle, deadline_ns=300 * MS)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    begun_ns = CLOCK.raw_ns()
    index = 0
    while runner.health().state == "ok" and CLOCK.raw_ns() - begun_ns < 15 * NS_PER_S:
        runner.submit(bright(index, 255))
        index += 1
        threading.Event().wait(0.05)
    health = runner.health()
    runner.stop(drain=False)
    assert health.slots[0].processed == 0
    assert health.state == "degraded"
    assert health.slots[0].fault
    assert 0 < len(told.dropped(DropReason.TIMEOUT)) < STARVED_FRAMES


def _dark_golden(spec: Manifest) -> Golden:
    dark = np.zeros((tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)
    return tiny.golden_of(tiny.slow(rounds=20_000), spec, dark)


def test_a_health_report_while_a_new_camera_begins(tmp_path: Path) -> None:
    """A worker asks for the detector of a camera that was never seen, amid the report."""
    state = SlotState(ModelSlot(name="main", bundle=tiny.bundle(tmp_path / "b")))
    added = threading.Event()

    def add() -> None:
        state.detector("new")
        added.set()

    class Nosy:
        limit = 30

        @property
        def run_length(self) -> int:
            threading.Thread(target=add, daemon=True).start()
            added.wait(0.2)
            return 0

    state.detectors["old"] = state.detectors["older"] = Nosy()  # type: ignore[assignment]
    assert state.trouble() == ""
    assert added.wait(5)
    assert set(state.detectors) == {"old", "older", "new"}
