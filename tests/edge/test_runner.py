"""The runner on tiny models: results, accounting, bad frames, deadlines, hangs."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.edge.job import DropReason, Frame
from syncline.edge.queue import QueuePolicy
from syncline.edge.runner import ModelSlot, Runner
from syncline.errors import HealthProofError, UsageError

from . import tiny
from .harness import CLOCK, MS, Told, bright, frame


def books_balance(runner: Runner, told: Told) -> None:
    """Captured = processed + dropped(reason), exactly, and every one of them was told."""
    for slot in runner.health().slots:
        assert slot.captured == slot.processed + sum(slot.dropped.values())
        told_drops = [d for d in told.drops if d.slot == slot.slot]
        assert sum(slot.dropped.values()) == len(told_drops)
        assert slot.processed == sum(r.slot == slot.slot for r in told.results)
        seen = [(r.frame.camera, r.frame.index) for r in told.results if r.slot == slot.slot]
        seen += [(d.camera, d.index) for d in told_drops]
        assert len(seen) == len(set(seen)) == slot.captured


@pytest.fixture
def segmenter(tmp_path: Path) -> ModelSlot:
    return ModelSlot(name="main", bundle=tiny.bundle(tmp_path / "segmenter"))


def slow_slot(tmp_path: Path, rounds: int = 3000, side: int = 256, **changes: object) -> ModelSlot:
    """A slot whose run takes as long as its frame is bright."""
    model, spec = tiny.slow(rounds, side), tiny.scores_manifest()
    golden = tiny.golden_of(model, spec, np.zeros((24, 32, 3), np.uint8))
    bundle = tiny.bundle(tmp_path / "slow", model, spec, golden)
    return ModelSlot(name="main", bundle=bundle, **changes)  # type: ignore[arg-type]


def test_process_is_the_plain_run(segmenter: ModelSlot) -> None:
    runner = Runner([segmenter], clock=CLOCK)
    for index in range(3):
        given = frame(index)
        result = runner.process(given)
        assert result.valid
        assert result.labels is not None
        assert result.boxes is None
        model, spec = tiny.segmenter(), tiny.manifest()
        want = tiny.golden_of(model, spec, tiny.frame(index)).outputs[0][0]
        np.testing.assert_array_equal(result.labels.labels, want)
        assert result.model_digest == segmenter.bundle.digest
        assert result.latencies.infer_ns > 0
    health = runner.health()
    assert health.slots[0].captured == health.slots[0].processed == 3
    assert health.state == "ok"


def test_live_results_equal_processed_ones_in_order(segmenter: ModelSlot) -> None:
    told = Told()
    slot = dataclasses.replace(segmenter, policy=QueuePolicy.BLOCK, queue=3)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks(), workers=2)
    runner.start()
    for index in range(60):
        assert runner.submit(frame(index, "left" if index % 2 else "right")) == 1
    runner.stop()
    assert runner.submit(frame(99)) == 0
    books_balance(runner, told)
    assert len(told.results) == 60
    plain = Runner([segmenter], clock=CLOCK)
    for camera in ("left", "right"):
        mine = [r for r in told.results if r.frame.camera == camera]
        assert [r.frame.index for r in mine] == sorted(r.frame.index for r in mine)
        for result in mine[:5]:
            again = plain.process(result.frame)
            assert result.labels is not None
            assert again.labels is not None
            np.testing.assert_array_equal(result.labels.labels, again.labels.labels)


@pytest.mark.parametrize("prefetch", [False, True])
def test_process_all_gives_the_same_with_and_without_prefetch(
    segmenter: ModelSlot, prefetch: bool
) -> None:
    runner = Runner([segmenter], clock=CLOCK)
    decoded: list[str] = []

    def lazy(index: int) -> Frame:
        def decode() -> NDArray[np.uint8]:
            decoded.append(threading.current_thread().name)
            return tiny.frame(index)

        return Frame("front", index, decode, None, 0)

    results = list(runner.process_all((lazy(i) for i in range(20)), prefetch=prefetch))
    assert [r.frame.index for r in results] == list(range(20))
    want = [Runner([segmenter], clock=CLOCK).process(frame(i)) for i in (0, 19)]
    for mine, other in ((results[0], want[0]), (results[19], want[1])):
        assert mine.labels is not None
        assert other.labels is not None
        np.testing.assert_array_equal(mine.labels.labels, other.labels.labels)
    assert all((name == "edge-prefetch") == prefetch for name in decoded)
    assert isinstance(results[3].frame.bgr, np.ndarray)  # decoded once, kept for the recorder


def test_prefetch_hands_an_error_of_the_source_over_in_its_place(segmenter: ModelSlot) -> None:
    def source() -> Iterator[Frame]:
        yield frame(0)
        raise OSError("the camera is gone")

    results = Runner([segmenter], clock=CLOCK).process_all(source(), prefetch=True)
    assert next(results).frame.index == 0
    with pytest.raises(OSError, match="camera is gone"):
        next(results)


BAD: dict[str, NDArray[Any]] = {
    "float": np.zeros((8, 8, 3), np.float32),
    "grey": np.zeros((8, 8), np.uint8),
    "empty": np.zeros((0, 0, 3), np.uint8),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_edge_20_bad_frame_is_an_error_result_and_the_next_is_good(
    segmenter: ModelSlot, bad: NDArray[Any]
) -> None:
    """edge-20: wrong shape or type: error result and counter; next frame good."""
    runner = Runner([segmenter], clock=CLOCK)
    result = runner.process(Frame("front", 0, bad, None, 0))
    assert not result.valid
    assert result.output is None
    assert "frame" in result.invalid_reason
    assert runner.process(frame(1)).valid
    slot = runner.health().slots[0]
    assert slot.dropped == {"bad-frame": 1}
    assert (slot.captured, slot.processed) == (2, 1)


def test_a_frame_that_memory_does_not_hold_is_counted(
    segmenter: ModelSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory while decoding, then while running: each frame in the books, the next good."""

    def too_large() -> NDArray[np.uint8]:
        raise MemoryError

    runner = Runner([segmenter], clock=CLOCK)
    result = runner.process(Frame("front", 0, too_large, None, 0))
    assert "no memory to decode" in result.invalid_reason
    with monkeypatch.context() as patch:
        patch.setattr("syncline.edge.engine.Engine.infer", lambda *_, **__: too_large())
        assert "no memory for its run" in runner.process(frame(1)).invalid_reason
    assert runner.process(frame(2)).valid
    slot = runner.health().slots[0]
    assert slot.dropped == {"bad-frame": 1, "failed": 1}
    assert (slot.captured, slot.processed) == (3, 1)


def test_edge_20_bad_frame_live(segmenter: ModelSlot) -> None:
    """edge-20: the same through the live queue, and for a decoder that fails."""
    told = Told()
    slot = dataclasses.replace(segmenter, policy=QueuePolicy.BLOCK)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()

    def broken() -> NDArray[np.uint8]:
        raise ValueError("not a JPEG")

    runner.submit(Frame("front", 0, np.zeros((4, 4), np.uint8), None, CLOCK.raw_ns()))
    runner.submit(Frame("front", 1, broken, None, CLOCK.raw_ns()))
    runner.submit(frame(2))
    runner.stop()
    assert told.dropped(DropReason.BAD_FRAME) == [0, 1]
    assert "not a JPEG" in told.drops[1].detail
    assert [r.frame.index for r in told.results] == [2]
    books_balance(runner, told)


def test_edge_27_late_frame_is_not_run(tmp_path: Path) -> None:
    """edge-27: a frame past its deadline before inference is not run."""
    told = Told()
    slot = slow_slot(tmp_path, deadline_ns=300 * MS)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    runner.submit(bright(0, 255, age_ns=400 * MS))  # would run for seconds
    told.wait(lambda: len(told.drops) == 1)
    runner.submit(bright(1, 0))
    told.wait(lambda: len(told.results) == 1)
    runner.stop()
    assert told.dropped(DropReason.LATE) == [0]
    books_balance(runner, told)


def test_edge_27_run_past_its_deadline_is_ended_and_the_next_frame_is_good(
    tmp_path: Path,
) -> None:
    """edge-27: a run past its deadline ends soon after; the next frame is good.

    10 ms is the limit on an idle box (tests/bench); here, on a shared one, 150 ms once in three
    runs, and always long before the run's own end.
    """
    told = Told()
    slot = slow_slot(tmp_path, rounds=20_000, deadline_ns=100 * MS, hang_ns=20_000 * MS)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    over_ns: list[int] = []
    for turn in range(3):
        given = bright(2 * turn, 255)
        runner.submit(given)
        told.wait(lambda: len(told.drops) == turn + 1)  # noqa: B023 - waits in this turn
        over_ns.append(told.drops[-1].raw_ns - given.raw_ns - 100 * MS)
        runner.submit(bright(2 * turn + 1, 0))
        told.wait(lambda: len(told.results) == turn + 1)  # noqa: B023
    runner.stop()
    assert told.dropped(DropReason.TIMEOUT) == [0, 2, 4]
    assert 0 <= min(over_ns) < 150 * MS
    assert max(over_ns) < 1000 * MS
    assert all(result.valid for result in told.results)
    books_balance(runner, told)


def test_edge_28_a_step_of_the_wall_clock_misses_no_deadline(
    segmenter: ModelSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-28: the wall clock jumps by an hour between frames, both ways: no deadline missed."""
    real_time, real_ns = time.time, time.time_ns  # noqa: TID251 - stepped here on purpose
    told = Told()
    slot = dataclasses.replace(segmenter, deadline_ns=20_000 * MS, policy=QueuePolicy.BLOCK)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    for index in range(40):
        step_s = (0, 3600, -3600)[index % 3]
        monkeypatch.setattr(time, "time", lambda s=step_s: real_time() + s)
        monkeypatch.setattr(time, "time_ns", lambda s=step_s: real_ns() + s * 1_000_000_000)
        runner.submit(frame(index))
    runner.stop()
    assert len(told.results) == 40
    assert told.drops == []


def hung_engine(runner: Runner, release: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the next run of the loaded model hang until released, whatever its stop switch says."""
    from syncline.edge.backend import Backend

    original, hung = Backend.run, threading.Event()

    def run(self: Backend, tensor: NDArray[Any], stop: Any = None) -> list[NDArray[Any]]:
        if not hung.is_set() and tensor.flat[0] == 66.0:
            hung.set()
            release.wait(30)
        return original(self, tensor, stop)

    monkeypatch.setattr(Backend, "run", run)


def test_edge_34_hung_worker_is_replaced_and_the_queue_is_intact(
    segmenter: ModelSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-34: detected within 2 deadlines, worker back within 2 s, loss counted, queue intact."""
    told, release = Told(), threading.Event()
    slot = dataclasses.replace(
        segmenter, policy=QueuePolicy.FIFO, queue=8, deadline_ns=400 * MS, hang_ns=None
    )
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    hung_engine(runner, release, monkeypatch)
    started = CLOCK.raw_ns()
    runner.submit(bright(0, 66))
    time.sleep(0.55)
    for index in range(1, 6):  # they wait behind the hung one
        runner.submit(frame(index))
    told.wait(lambda: len(told.results) == 5 and len(told.drops) == 1)
    assert told.dropped(DropReason.HANG) == [0]
    detected_ns = told.drops[0].raw_ns - started
    assert 800 * MS <= detected_ns <= 800 * MS + 300 * MS
    assert told.arrived_ns[0] - told.drops[0].raw_ns < 2000 * MS
    told.wait(lambda: "reloaded" in [event.action for event in told.events])
    assert [r.frame.index for r in told.results] == [1, 2, 3, 4, 5]
    assert runner.health().counters["worker-restarts"] == 1
    release.set()  # the zombie comes back: nothing may change
    time.sleep(0.1)
    runner.stop()
    assert len(told.results) == 5
    books_balance(runner, told)


def test_too_many_hung_workers_end_in_a_state_that_asks_for_a_restart(
    segmenter: ModelSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncline.edge import dispatch

    told, release = Told(), threading.Event()
    slot = dataclasses.replace(segmenter, policy=QueuePolicy.FIFO, hang_ns=60 * MS)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.load()
    monkeypatch.setattr(dispatch, "MAX_ABANDONED", 2)

    def hang(*_: object) -> list[NDArray[Any]]:
        release.wait(30)
        return []

    monkeypatch.setattr("syncline.edge.backend.Backend.run", hang)
    runner.start()
    for index in range(5):
        runner.submit(frame(index))
    told.wait(lambda: len(told.dropped(DropReason.HANG)) == 3)
    assert runner.health().state == "failed"
    assert "hang" in runner.health().to_message().detail
    runner.stop(drain=False, timeout_s=0.2)
    assert sorted(told.dropped(DropReason.STOPPED)) == [3, 4]
    books_balance(runner, told)
    release.set()


def test_cameras_without_number_are_refused(segmenter: ModelSlot) -> None:
    from syncline.edge.queue import MAX_LANES

    runner = Runner([segmenter], clock=CLOCK)
    runner.start()
    for index in range(MAX_LANES):
        runner.submit(frame(index, f"camera-{index}"))
    with pytest.raises(UsageError, match="lanes"):
        runner.submit(frame(0, "one too many"))
    runner.stop()


def test_leaving_a_prefetched_replay_early_ends_its_thread(segmenter: ModelSlot) -> None:
    runner = Runner([segmenter], clock=CLOCK)
    results = runner.process_all((frame(i) for i in range(1000)), prefetch=True)
    next(results)
    assert "edge-prefetch" in [t.name for t in threading.enumerate()]
    results.close()  # type: ignore[attr-defined]
    assert "edge-prefetch" not in [t.name for t in threading.enumerate()]


def test_a_failing_callback_does_not_take_the_worker_with_it(
    segmenter: ModelSlot, caplog: pytest.LogCaptureFixture
) -> None:
    from syncline.edge.runner import Callbacks

    seen: list[int] = []

    def on_result(result: object) -> None:
        seen.append(1)
        raise RuntimeError("consumer bug")

    slot = dataclasses.replace(segmenter, policy=QueuePolicy.BLOCK)
    runner = Runner([slot], clock=CLOCK, callbacks=Callbacks(on_result=on_result))
    runner.start()
    for index in range(5):
        runner.submit(frame(index))
    runner.stop()
    assert len(seen) == 5
    assert runner.health().counters["callback-failed"] == 5
    assert "consumer bug" in caplog.text


def test_stop_without_drain_drops_and_says_so(tmp_path: Path) -> None:
    told = Told()
    slot = slow_slot(tmp_path, rounds=20_000, policy=QueuePolicy.FIFO, queue=8)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    for index in range(4):
        runner.submit(bright(index, 255))
    time.sleep(0.1)
    begin = time.monotonic()
    runner.stop(drain=False)
    assert time.monotonic() - begin < 2.0
    assert sorted(told.dropped(DropReason.STOPPED)) == [0, 1, 2, 3]
    books_balance(runner, told)


def test_edge_32_not_ready_before_the_golden_run(tmp_path: Path) -> None:
    """edge-32: a model whose golden output is wrong never becomes ready and serves no frame."""
    golden = tiny.golden_of(tiny.segmenter(1), tiny.manifest(), tiny.frame(7))
    bundle = tiny.bundle(tmp_path / "b", tiny.segmenter(0), golden=golden)
    runner = Runner([ModelSlot(name="main", bundle=bundle)], clock=CLOCK)
    assert runner.health().state == "starting"
    with pytest.raises(HealthProofError, match="golden run"):
        runner.start()
    assert not runner.is_ready
    assert runner.submit(frame(0)) == 0


def test_two_models_and_two_cameras(tmp_path: Path) -> None:
    told = Told()
    block = QueuePolicy.BLOCK
    scorer = tiny.bundle(tmp_path / "scores", tiny.scorer(), tiny.scores_manifest())
    slots = [
        ModelSlot(name="seg", bundle=tiny.bundle(tmp_path / "seg"), policy=block, priority=1),
        ModelSlot(name="class", bundle=scorer, policy=block, cameras=("rear",)),
    ]
    runner = Runner(slots, clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    held = [runner.submit(frame(i, camera)) for i in range(10) for camera in ("front", "rear")]
    runner.stop()
    assert held == [1, 2] * 10
    counts = {s.slot: s.processed for s in runner.health().slots}
    assert counts == {"seg": 20, "class": 10}
    books_balance(runner, told)


def test_slots_that_contradict_each_other(segmenter: ModelSlot) -> None:
    with pytest.raises(UsageError, match="no primary"):
        Runner([], clock=CLOCK)
    with pytest.raises(UsageError, match="share a name"):
        Runner([segmenter, segmenter], clock=CLOCK)
    shadow = dataclasses.replace(segmenter, name="s", shadow_of="nobody")
    with pytest.raises(UsageError, match="no primary slot"):
        Runner([segmenter, shadow], clock=CLOCK)
    with pytest.raises(UsageError, match="max_rate_hz"):
        dataclasses.replace(segmenter, max_rate_hz=0)
    with pytest.raises(UsageError, match="no model slot"):
        Runner([segmenter], clock=CLOCK).process(frame(0), "other")
