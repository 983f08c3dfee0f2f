"""The thread that follows a channel outlives every error and says what is wrong."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from syncline.edge import model_service
from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.model_config import ModelSection
from syncline.edge.model_service import PROBATION_FRAMES, PROBATION_NS, ModelService
from syncline.edge.runner import ModelSlot, Runner
from syncline.edge.swap import SwapEvent
from syncline.edge.updater import UpdateEvent
from syncline.errors import ModelError, StorageError
from syncline.timebase import ManualClock
from tests.edge import tiny
from tests.edge.harness import CLOCK

from .test_updater import PUBLIC, Fleet


class FakeRunner:
    """Serves nothing; tells what it is told to tell."""

    def __init__(self) -> None:
        self.fault = ""
        self.judged = PROBATION_FRAMES
        self.digests = ["0" * 64]
        self.in_swap: Callable[[], None] = lambda: None

    def health(self) -> Any:
        other = SimpleNamespace(slot="other", fault="not this one", model_digest="f" * 64)
        slot = SimpleNamespace(
            slot="primary",
            model_name="det",
            model_digest=self.digests[-1],
            fault=self.fault,
            judged=self.judged,
        )
        return SimpleNamespace(slots=[other, slot])

    def swap_in_background(self, bundle: Bundle, slot: str) -> Future[None]:
        self.digests.append(bundle.digest)
        self.in_swap()
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def rollback(self, slot: str) -> SwapEvent:
        self.digests.pop()
        self.fault = ""
        return SwapEvent(0, slot, "rolled-back", "det", "", self.digests[-1])


class Bench:
    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model_service, "trusted_keys", lambda _: (PUBLIC,))
        monkeypatch.setattr(model_service, "RETRY_S", 0.01)
        self.fleet = Fleet(tmp_path)
        self.runner = FakeRunner()
        self.clock = ManualClock(1)
        self.events: list[UpdateEvent] = []
        self.service = ModelService(
            ModelSection(channel="production", trusted_keys=("x",)),
            self.fleet.store,
            cast(Runner, self.runner),
            self.fleet.fetch,
            self.clock,
            self.events.append,
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    yield bench
    bench.service.close()


def until(test: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not test():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("error", [ValueError("odd"), StorageError("disk is full")])
def test_an_unforeseen_error_is_told_and_the_thread_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bench.fleet.publish("1.0.0")
    honest = bench.service._updater._fetch

    def broken(*_: object, **__: object) -> None:
        raise error

    bench.service._updater._fetch = broken
    bench.service.start()
    until(lambda: str(error) in bench.service.problem)
    bench.service._updater._fetch = honest
    until(lambda: [e.action for e in bench.events] == ["fetched", "swapped"])
    until(lambda: bench.service.problem == "")


@pytest.mark.skipif(sys.platform != "linux", reason="niceness by thread is Linux's")
def test_edge_16_a_new_model_is_loaded_behind_the_serving_one(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-16: the p99 during a swap is that of a load which gives way: the daemon's does, too."""
    niceness: list[int] = []
    honest = Engine.load

    def load(*given: Any, **named: Any) -> Engine:
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return honest(*given, **named)

    runner = Runner([ModelSlot(name="primary", bundle=tiny.bundle(tmp_path / "a"))], clock=CLOCK)
    runner.load()
    monkeypatch.setattr(Engine, "load", load)
    monkeypatch.setattr(bench.service, "_runner", runner)
    new = tiny.bundle(tmp_path / "b", spec=msgspec.structs.replace(tiny.manifest(), version="2"))
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    bench.service._swap(new)
    assert runner.health().slots[0].model_digest == new.digest
    assert niceness == [10]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    with pytest.raises(ModelError):
        bench.service._swap(tiny.bundle(tmp_path / "c", tiny.scorer(), tiny.scores_manifest()))
    assert runner.health().slots[0].model_digest == new.digest


def test_a_degraded_model_is_taken_back_within_its_probation_only(bench: Bench) -> None:
    bench.fleet.publish("1.0.0")
    assert bench.service._try_update()
    bench.service.check()
    assert len(bench.runner.digests) == 2
    bench.runner.fault = "flat"
    bench.service.check()
    assert bench.events[-1].action == "rolled-back"
    assert bench.runner.digests == ["0" * 64]
    bench.fleet.publish("1.1.0")
    assert bench.service._try_update()
    bench.clock.advance(PROBATION_NS + 1)
    bench.service.check()
    bench.runner.fault = "flat"
    bench.service.check()
    assert len(bench.runner.digests) == 2


def test_the_probation_of_a_slow_camera_lasts_as_long_as_a_verdict_takes(bench: Bench) -> None:
    """At 0.5 fps thirty equal outputs take a minute: after 30 s nobody could have told."""
    bench.fleet.publish("1.0.0")
    assert bench.service._try_update()
    bench.runner.judged = PROBATION_FRAMES // 2
    bench.clock.advance(2 * PROBATION_NS)
    bench.service.check()
    bench.runner.fault = "output has not changed for 30 frames"
    bench.service.check()
    assert bench.events[-1].action == "rolled-back"
    assert bench.events[-1].reason == "output has not changed for 30 frames"


def test_a_check_during_a_swap_neither_waits_nor_condemns_the_wrong_model(bench: Bench) -> None:
    bench.fleet.publish("1.0.0")
    assert bench.service._try_update()
    second = bench.fleet.publish("1.1.0")
    inside, go = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert go.wait(20)

    bench.runner.in_swap = slow
    thread = threading.Thread(target=bench.service._try_update)
    thread.start()
    assert inside.wait(20)
    bench.runner.fault = "flat"
    bench.service.check()
    assert bench.runner.digests[-1] == second.digest
    bench.runner.fault = ""
    go.set()
    thread.join()
    assert bench.service._updater.running_digest == second.digest
    bench.runner.fault = "flat"
    bench.service.check()
    assert bench.events[-1].action == "rolled-back"
    assert bench.service._updater.running_digest == bench.runner.digests[-1]
    assert second.digest in bench.service._updater._refused
