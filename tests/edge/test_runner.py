"""The runner on tiny models: results, accounting, bad frames, readiness, several models."""

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
from .harness import CLOCK, Told, books_balance, bright, frame, slow_slot


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
