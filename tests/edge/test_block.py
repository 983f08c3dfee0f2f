"""The BLOCK policy holds a camera back, and lets it go whatever becomes of the worker."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from syncline.edge import dispatch
from syncline.edge.backend import Backend
from syncline.edge.engine import Engine
from syncline.edge.job import DropReason
from syncline.edge.queue import QueuePolicy
from syncline.edge.runner import ModelSlot, Runner
from syncline.edge.watchdog import Watch
from syncline.errors import ModelError

from . import tiny
from .harness import CLOCK, MS, Told, books_balance, bright, frame

PATIENCE_S = 10.0
"""Far more than any of this takes; a camera held longer is held for ever."""
_HANGS = 66
_OLD_NS = 60_000 * MS


class Hangs:
    """Runs of frames of one grey level hang until released, whatever their stop switch says.

    So do all runs of the model version that `version` names.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.version = ""
        self.release, self.entered = threading.Event(), threading.Event()
        original = Backend.run

        def run(backend: Backend, tensor: NDArray[Any], stop: Any = None) -> list[NDArray[Any]]:
            if tensor.flat[-1] == _HANGS or backend.manifest.version == self.version:
                self.entered.set()
                self.release.wait(30)
            return original(backend, tensor, stop)

        monkeypatch.setattr(Backend, "run", run)

    def begun(self) -> None:
        """Wait until a run hangs."""
        assert self.entered.wait(PATIENCE_S)


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hangs]:
    hangs = Hangs(monkeypatch)
    yield hangs
    hangs.release.set()


@pytest.fixture
def camera() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="camera") as pool:
        yield pool


def blocking(folder: Path, **changes: Any) -> ModelSlot:
    bundle = tiny.bundle(folder, spec=tiny.manifest(version=folder.name))
    slot = ModelSlot(
        name="main", bundle=bundle, policy=QueuePolicy.BLOCK, queue=3, hang_ns=150 * MS
    )
    return dataclasses.replace(slot, **changes)


def fill(runner: Runner, hangs: Hangs, age_ns: int = 0) -> None:
    """One frame hangs, three wait behind it: the next is held back."""
    runner.submit(bright(0, _HANGS))
    hangs.begun()
    for index in (1, 2, 3):
        assert runner.submit(frame(index, age_ns=age_ns)) == 1


def test_frames_that_all_came_too_late_behind_a_hang_let_the_camera_go(
    tmp_path: Path, hangs: Hangs, camera: ThreadPoolExecutor
) -> None:
    """edge-34: the new worker drops the whole queue and runs nothing: that is space too."""
    told = Told()
    slot = blocking(tmp_path / "a", deadline_ns=5_000 * MS)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    fill(runner, hangs, _OLD_NS)
    held = camera.submit(runner.submit, frame(4))
    try:
        assert held.result(PATIENCE_S) == 1
        told.wait(lambda: [r.frame.index for r in told.results] == [4])
    finally:
        runner.stop()
    assert told.dropped(DropReason.HANG) == [0]
    assert told.dropped(DropReason.LATE) == [1, 2, 3]
    books_balance(runner, told)


def test_a_drain_ends_when_all_that_waited_came_too_late(tmp_path: Path, hangs: Hangs) -> None:
    told = Told()
    slot = blocking(tmp_path / "a", deadline_ns=5_000 * MS)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    fill(runner, hangs, _OLD_NS)
    begun_ns = CLOCK.raw_ns()
    runner.stop(timeout_s=PATIENCE_S)
    assert CLOCK.raw_ns() - begun_ns < PATIENCE_S / 2 * 1_000 * MS
    assert told.dropped(DropReason.LATE) == [1, 2, 3]
    books_balance(runner, told)


def test_a_reload_that_fails_after_a_hang_lets_the_camera_go(
    tmp_path: Path, hangs: Hangs, camera: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    runner = Runner([blocking(tmp_path / "a")], clock=CLOCK, callbacks=told.callbacks())
    runner.start()

    def load(*_: object) -> Engine:
        raise ModelError("the device has no memory left")

    monkeypatch.setattr(Engine, "load", load)
    fill(runner, hangs)
    held = camera.submit(runner.submit, frame(4))
    try:
        assert held.result(PATIENCE_S) == 1
        told.wait(lambda: [r.frame.index for r in told.results] == [1, 2, 3, 4])
    finally:
        runner.stop()
    until_ns = CLOCK.raw_ns() + int(PATIENCE_S * 1_000 * MS)
    while "reload-failed" not in runner.health().counters and CLOCK.raw_ns() < until_ns:
        time.sleep(0.01)  # the reload runs beside the workers: it may end after them
    assert runner.health().counters["reload-failed"] == 1
    books_balance(runner, told)


@pytest.mark.parametrize("drain", [True, False])
def test_a_stop_lets_the_camera_go(
    tmp_path: Path, hangs: Hangs, camera: ThreadPoolExecutor, drain: bool
) -> None:
    told = Told()
    slot = blocking(tmp_path / "a", hang_ns=60_000 * MS)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    fill(runner, hangs)
    held = camera.submit(runner.submit, frame(4))
    runner.stop(drain=drain, timeout_s=0.2)
    assert held.result(PATIENCE_S) == 0
    assert told.dropped(DropReason.STOPPED) == [1, 2, 3]


def test_no_camera_waits_for_workers_that_are_all_given_up(
    tmp_path: Path, hangs: Hangs, camera: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody will ever make space: the frame is refused and counted, the state says restart."""
    monkeypatch.setattr(dispatch, "MAX_ABANDONED", 0)
    told = Told()
    runner = Runner([blocking(tmp_path / "a")], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    fill(runner, hangs)
    held = camera.submit(runner.submit, frame(4))
    try:
        assert held.result(PATIENCE_S) == 0
        assert told.dropped(DropReason.QUEUE_FULL) == [4]
        assert "hang" in runner.health().failure
    finally:
        begun_ns = CLOCK.raw_ns()
        runner.stop(timeout_s=PATIENCE_S)
    assert CLOCK.raw_ns() - begun_ns < PATIENCE_S / 2 * 1_000 * MS
    assert told.dropped(DropReason.STOPPED) == [1, 2, 3]
    books_balance(runner, told)


def test_a_model_that_is_full_does_not_hold_up_another_models_frame(
    tmp_path: Path, hangs: Hangs, camera: ThreadPoolExecutor
) -> None:
    """Two models, two workers: one hangs and holds the camera back, the other one runs on."""
    told = Told()
    slots = [
        blocking(tmp_path / "free", name="free", hang_ns=60_000 * MS),
        blocking(tmp_path / "full", name="full", hang_ns=60_000 * MS, queue=1, priority=1),
    ]
    runner = Runner(slots, clock=CLOCK, callbacks=told.callbacks(), workers=2)
    runner.start()
    hangs.version = "full"
    try:
        for index in (0, 1):
            assert runner.submit(frame(index)) == 2
            told.wait(lambda: [r.frame.index for r in told.results] == list(range(index + 1)))  # noqa: B023
        held = camera.submit(runner.submit, frame(2))
        told.wait(lambda: [r.frame.index for r in told.results] == [0, 1, 2])
        assert {result.slot for result in told.results} == {"free"}
        assert not held.done()
        hangs.release.set()
        assert held.result(PATIENCE_S) == 2
    finally:
        hangs.release.set()
        runner.stop()
    assert [r.frame.index for r in told.results if r.slot == "full"] == [0, 1, 2]
    books_balance(runner, told)


def test_a_hang_that_comes_before_the_deadline_is_looked_for_in_time() -> None:
    """edge-34: the watchdog sleeps until whichever is first."""
    assert Watch(stop_ns=5_000, hang_ns=150).next_ns == 150
    assert Watch(stop_ns=100, hang_ns=150).next_ns == 100
    assert Watch(stop_ns=100, hang_ns=150, stopped=True).next_ns == 150
    assert Watch(stop_ns=None, hang_ns=150).next_ns == 150
