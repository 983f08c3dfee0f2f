"""A provider that dies in the middle of a drive: a slot comes back by itself, and says so."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.edge import recovery
from syncline.edge.backend import BackendOptions
from syncline.edge.health import SlotHealth
from syncline.edge.job import DropReason
from syncline.edge.model.bundle import Bundle
from syncline.edge.queue import QueuePolicy
from syncline.edge.recovery import FAILED_RUNS, LONGEST_DELAY_NS, REST, SETTLED_NS, Recovery
from syncline.edge.runner import ModelSlot, Runner
from syncline.timebase import NS_PER_S

from . import tiny
from .dying import CPU, CUDA, OPENVINO, Machine
from .harness import CLOCK, Told, frame

PROVIDERS = (CUDA, OPENVINO, CPU)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine.install(monkeypatch)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny.bundle(tmp_path / "a")


def slot(
    bundle: Bundle, *providers: str, strict: bool = False, cache: Path | None = None
) -> ModelSlot:
    options = BackendOptions(
        providers=providers or PROVIDERS, strict_provider=strict, cache_dir=cache
    )
    return ModelSlot(name="main", bundle=bundle, backend=options, policy=QueuePolicy.BLOCK, queue=4)


@contextmanager
def drive(model: ModelSlot, *, workers: int = 1) -> Iterator[tuple[Runner, Told, Drive]]:
    told = Told()
    runner = Runner([model], clock=CLOCK, callbacks=told.callbacks(), workers=workers)
    runner.start()
    try:
        yield runner, told, Drive(runner, told)
    finally:
        runner.stop()
    main = runner.health().slots[0]
    assert main.captured == main.processed + sum(main.dropped.values())
    assert main.processed == len(told.results)
    assert sum(main.dropped.values()) == len(told.drops)


class Drive:
    """Frames that come until something holds."""

    def __init__(self, runner: Runner, told: Told) -> None:
        self._runner, self._told, self._index = runner, told, 0

    def next(self) -> int:
        self._index += 1
        return self._index - 1

    def send(self, count: int) -> None:
        for _ in range(count):
            self._runner.submit(frame(self._index))
            self._index += 1
        self._told.wait(lambda: len(self._told.results) + len(self._told.drops) == self._index)

    def until(self, holds: Callable[[], bool], limit_s: float = 15.0) -> None:
        end_s = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < end_s, (self._runner.health().slots[0], self._told.drops[-1:])
            self.send(1)
            time.sleep(0.005)


def main_of(runner: Runner) -> SlotHealth:
    return runner.health().slots[0]


def actions(told: Told, action: str) -> list[tuple[str, str]]:
    return [(e.provider_before, e.provider) for e in told.events if e.action == action]


def test_a_session_that_died_is_made_anew_on_the_same_provider(
    bundle: Bundle, machine: Machine
) -> None:
    """The driver was reset: sessions from before are dead, a new one works."""
    with drive(slot(bundle)) as (runner, told, on):
        on.send(3)
        machine.reset(CUDA)
        on.until(lambda: actions(told, "reloaded") != [])
        assert actions(told, "reloaded") == [(CUDA, CUDA)]
        on.send(5)
        assert all(result.valid for result in told.results[-5:])
        health = runner.health()
        assert (health.state, main_of(runner).ep_actual) == ("ok", CUDA)
        assert health.counters["provider-lost"] == health.counters["reloaded"] == 1
        (event,) = [e for e in told.events if e.action == "reloaded"]
        assert "device lost" in event.reason
        assert event.digest == bundle.digest


@pytest.mark.parametrize("how", ["dead", "refusing", "wrong"])
def test_a_provider_that_stays_dead_gives_way_to_the_next(
    bundle: Bundle, machine: Machine, how: str
) -> None:
    """Its new session fails the golden run, cannot be made, or computes something else: the next
    provider of the plan serves, degraded, and health names both."""
    with drive(slot(bundle)) as (runner, told, on):
        on.send(3)
        machine.reset(CUDA)
        getattr(machine, how).add(CUDA)
        on.until(lambda: actions(told, "reloaded") == [(CUDA, OPENVINO)])
        served = len(told.results)
        on.send(5)
        assert len(told.results) == served + 5
        main = main_of(runner)
        assert (main.state, main.ep_requested, main.fault) == ("degraded", CUDA, "")
        assert main.detail.startswith(f"{CUDA} failed in service, {OPENVINO} runs")
        assert "device lost" in main.detail
        assert main.detail in runner.health().to_message().detail
        machine.dead.add(OPENVINO)
        on.until(lambda: len(actions(told, "reloaded")) == 2)
        assert f"{CPU} runs the model in its place" in main_of(runner).detail
        on.send(5)


def test_a_provider_that_works_again_is_taken_back(
    bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stands in gives way again, after a proof and beside the serving."""
    monkeypatch.setattr(recovery, "FIRST_DELAY_NS", NS_PER_S // 50)
    with drive(slot(bundle, CUDA, CPU)) as (runner, told, on):
        machine.dead.add(CUDA)
        on.until(lambda: runner.health().counters.get("provider-still-lost", 0) >= 2)
        assert main_of(runner).ep_actual == CPU
        lost = len(told.drops)
        machine.dead.clear()
        on.until(lambda: actions(told, "reloaded") == [(CUDA, CPU), (CPU, CUDA)])
        assert len(told.drops) == lost, "no frame is lost on the way back"
        assert "works again" in told.events[-1].reason
        assert runner.health().state == "ok"


def test_a_provider_is_taken_back_though_the_cpu_never_ends_in_time(
    bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stands in is so slow that every frame is late: the way back is tried all the same."""
    monkeypatch.setattr(recovery, "FIRST_DELAY_NS", NS_PER_S // 50)
    late = dataclasses.replace(slot(bundle, CUDA, CPU), deadline_ns=NS_PER_S)
    with drive(late) as (runner, told, on):
        machine.dead.add(CUDA)
        on.until(lambda: main_of(runner).ep_actual == CPU)
        machine.dead.clear()
        end_s = time.monotonic() + 10
        while main_of(runner).ep_actual != CUDA:
            assert time.monotonic() < end_s
            runner.submit(frame(on.next(), age_ns=2 * NS_PER_S))
            time.sleep(0.01)
        told.wait(lambda: DropReason.LATE in {drop.reason for drop in told.drops})


def test_strict_waits_for_its_provider_and_stays_degraded(
    bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "FIRST_DELAY_NS", NS_PER_S // 50)
    with drive(slot(bundle, strict=True)) as (runner, told, on):
        on.send(3)
        machine.dead.add(CUDA)
        on.until(lambda: runner.health().counters.get("reload-failed", 0) >= 2)
        main = main_of(runner)
        assert (main.state, main.ep_actual) == ("degraded", CUDA)
        assert "device lost; a new session fails too" in main.detail
        assert set(machine.opened) == {CUDA}, "nothing takes its place"
        on.send(40)
        assert main_of(runner).fault == "", "a dead provider sends no new model back"
        assert len(told.results) == 3
        assert {drop.reason for drop in told.drops} == {DropReason.FAILED}
        assert actions(told, "reload-failed")[0] == (CUDA, CUDA)
        machine.dead.clear()
        machine.reset(CUDA)
        on.until(lambda: actions(told, "reloaded") == [(CUDA, CUDA)])
        on.send(2)
        assert runner.health().state == "ok"


def test_frames_that_the_model_fails_on_do_not_condemn_its_provider(
    bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame fails, the golden frame still runs: nothing is loaded, and seldom asked again."""
    from syncline.edge.backend import Backend

    original = Backend.run

    def run(self: Backend, tensor: object, stop: object = None) -> object:
        if getattr(stop, "of_a_frame", False):
            raise _failure()
        return original(self, tensor, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(Backend, "run", run)
    with drive(slot(bundle)) as (runner, _told, on):
        for worker in runner._live._workers:
            worker.stop.of_a_frame = True  # type: ignore[attr-defined]
        on.until(lambda: "provider-alive" in runner.health().counters)
        opened = len(machine.opened)
        on.send(60)
        assert len(machine.opened) == opened == 1
        assert "reloaded" not in runner.health().counters
        assert "none of the last" in main_of(runner).detail


def _failure() -> Exception:
    from syncline.errors import InferenceError

    return InferenceError("the run of 'tiny' failed: Gather: indices out of bounds")


def test_a_bad_frame_between_good_ones_is_a_lost_frame_alone(
    bundle: Bundle, machine: Machine
) -> None:
    with drive(slot(bundle)) as (runner, _told, on):
        for _ in range(6):
            on.send(1)
            machine.dead.add(CUDA)
            on.send(FAILED_RUNS - 1)
            machine.dead.clear()
        on.send(1)
        assert machine.opened == [CUDA]
        assert runner.health().state == "ok"
        assert not {"provider-lost", "provider-alive"} & set(runner.health().counters)


def test_a_provider_that_dies_again_at_once_does_not_come_back_at_once(
    bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It proves itself and fails in service, again and again: the next one serves."""
    monkeypatch.setattr(recovery, "FIRST_DELAY_NS", NS_PER_S // 50)
    with drive(slot(bundle, CUDA, CPU)) as (_runner, told, on):
        machine.reset(CUDA)
        on.until(lambda: actions(told, "reloaded") == [(CUDA, CUDA)])
        machine.reset(CUDA)
        on.until(lambda: actions(told, "reloaded") == [(CUDA, CUDA), (CUDA, CPU)])


def test_a_swap_while_a_provider_is_lost_loads_on_the_one_that_stands_in(
    bundle: Bundle, machine: Machine, tmp_path: Path
) -> None:
    """A new model is not refused because the provider is dead."""
    other = tiny.bundle(tmp_path / "b", spec=tiny.manifest(version="2"))
    with drive(slot(bundle, CUDA, CPU)) as (runner, told, on):
        machine.dead.add(CUDA)
        on.until(lambda: main_of(runner).ep_actual == CPU)
        runner.swap(other.folder)
        on.send(3)
        assert told.results[-1].model_digest == other.digest
        main = main_of(runner)
        assert (main.ep_actual, main.state) == (CPU, "degraded")


def test_several_workers_and_a_shadow_recover_each_for_itself(
    bundle: Bundle, machine: Machine, tmp_path: Path
) -> None:
    other = tiny.bundle(tmp_path / "b", tiny.segmenter(3), tiny.manifest(version="2"))
    told = Told()
    backend = BackendOptions(providers=(CUDA, CPU))
    slots = [slot(bundle, CUDA, CPU)]
    slots.append(ModelSlot(name="next", bundle=other, shadow_of="main", backend=backend))
    runner = Runner(slots, clock=CLOCK, callbacks=told.callbacks(), workers=2)
    runner.start()
    try:
        machine.dead.add(CUDA)
        end_s = time.monotonic() + 20
        index = 0
        while {s.ep_actual for s in runner.health().slots} != {CPU}:
            assert time.monotonic() < end_s, runner.health().slots
            runner.submit(frame(index))
            index += 1
            time.sleep(0.02)
    finally:
        runner.stop()
    for one in runner.health().slots:
        assert one.captured == one.processed + sum(one.dropped.values())


# The rules alone.


@given(
    st.lists(st.integers(0, 40 * NS_PER_S), min_size=1, max_size=60),
    st.integers(0, 20 * NS_PER_S),
)
def test_attempts_never_take_more_than_a_twentieth(gaps: list[int], took_ns: int) -> None:
    """Whatever fails when: after an attempt rest follows, REST times as long as it took."""
    judged, now_ns = Recovery(), 0
    last_end_ns: int | None = None
    for gap_ns in gaps:
        now_ns += gap_ns
        for _ in range(FAILED_RUNS):
            if judged.failed(now_ns, "device lost"):
                if last_end_ns is not None:
                    assert now_ns - last_end_ns >= max(REST * took_ns, recovery.FIRST_DELAY_NS)
                judged.begin()
                assert not judged.failed(now_ns, "device lost"), "one at a time"
                judged.end(now_ns, now_ns + took_ns)
                now_ns = last_end_ns = now_ns + took_ns


def test_delays_double_to_five_minutes_and_start_over_once_it_serves() -> None:
    judged, now_ns, waited = Recovery(), 0, []
    for _ in range(12):
        begun_ns = now_ns
        while not judged.failed(now_ns, "lost"):
            now_ns += NS_PER_S // 10
        waited.append((now_ns - begun_ns) / NS_PER_S)
        judged.begin()
        judged.end(now_ns, now_ns)
    assert waited[1:8] == pytest.approx([1, 2, 4, 8, 16, 32, 64], abs=0.3)
    assert waited[-1] == pytest.approx(LONGEST_DELAY_NS / NS_PER_S, abs=0.3)
    now_ns += LONGEST_DELAY_NS + SETTLED_NS
    quiet = [judged.is_quiet, judged.worked(now_ns), judged.is_quiet]
    assert quiet == [False, False, True]
    assert [judged.failed(now_ns, "lost") for _ in range(FAILED_RUNS)] == [False, False, True]


def test_what_is_passed_over_in_which_order() -> None:
    judged = Recovery()
    assert judged.passed_over(PROVIDERS, 0, strict=False) == [(), (CUDA,), (CUDA, OPENVINO)]
    assert judged.passed_over(PROVIDERS, 0, strict=True) == [()]
    assert judged.passed_over((CPU,), 0, strict=False) == [()]
    judged.replaced(PROVIDERS, CUDA, 0)
    assert judged.passed_over(PROVIDERS, 1, strict=False) == [(CUDA,), (CUDA, OPENVINO)]
    assert judged.passed_over(PROVIDERS, 1, strict=True) == [()]
    judged.replaced(PROVIDERS, CPU, 0)
    assert judged.lost == (CUDA, OPENVINO)
    assert judged.to_come_back() == [(), (CUDA,)]
    judged.replaced((CPU,), OPENVINO, 0)
    assert list(judged.lost) == [CUDA]
    judged.replaced((OPENVINO, CPU), CUDA, 0)
    assert not judged.lost


def test_the_step_down_waits_for_no_delay() -> None:
    """After many vain attempts a provider comes back and dies at once: the next one takes over
    now, not when its delay of minutes is over; without a next one the delay holds."""
    judged, now_ns = Recovery(), 0
    for _ in range(10):
        judged.begin()
        judged.end(now_ns, now_ns)
    judged.begin()
    judged.replaced((CPU,), CUDA, now_ns)
    judged.end(now_ns, now_ns)
    failed = [judged.failed(now_ns, "lost", has_next=False) for _ in range(FAILED_RUNS)]
    assert not any(failed)
    assert judged.failed(now_ns, "lost", has_next=True)
    judged.begin()
    judged.end(now_ns, now_ns)
    failed = [judged.failed(now_ns, "lost", has_next=True) for _ in range(FAILED_RUNS + 1)]
    assert not any(failed), "one step for one load"
