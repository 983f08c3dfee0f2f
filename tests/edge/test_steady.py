"""Over time: memory, overload, idling, and the same bits again."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from syncline.edge.backend import BackendOptions
from syncline.edge.health import rss_bytes
from syncline.edge.job import DropReason, Frame, Result
from syncline.edge.model.manifest import InputSpec
from syncline.edge.queue import FrameQueue, Lane, QueuePolicy, Schedule
from syncline.edge.runner import ModelSlot, Runner

from . import nets, real, tiny
from .harness import CLOCK, Told, books_balance, frame, slow_slot


def test_edge_12_uint8_path_and_float_path_say_the_same(tmp_path: Path) -> None:
    """edge-12: uint8 NHWC straight into the graph against the float path: 100 % equal labels."""
    given = InputSpec(name="x", width=32, height=24, layout="NHWC", dtype="uint8")
    bundles = [
        tiny.bundle(tmp_path / "float", tiny.segmenter(3)),
        tiny.bundle(tmp_path / "u8", tiny.segmenter(3, dtype="uint8"), tiny.manifest(given=given)),
    ]
    runners = [Runner([ModelSlot(name="m", bundle=b)], clock=CLOCK) for b in bundles]
    for index in range(50):
        image = nets.picture(160, 120, seed=index)
        labels = [r.process(frame(index, bgr=image)).labels for r in runners]
        assert labels[0] is not None
        assert labels[1] is not None
        np.testing.assert_array_equal(labels[0].labels, labels[1].labels)


def test_edge_14_ten_thousand_frames_do_not_grow_memory(tmp_path: Path) -> None:
    """edge-14: 10 000 random frames: RSS growth <= 2 MB after 200 of warm-up."""
    runner = Runner([ModelSlot(name="main", bundle=tiny.bundle(tmp_path / "b"))], clock=CLOCK)
    images = [tiny.frame(seed) for seed in range(50)]
    rng = np.random.default_rng(1)
    before = 0
    for index in range(10_200):
        if index == 200:
            before = rss_bytes()
        image = images[index % 50]
        image[rng.integers(0, 48)] ^= np.uint8(index % 256)
        runner.process(Frame("front", index, image, None, 0))
    assert rss_bytes() - before <= 2 << 20
    assert runner.health().slots[0].processed == 10_200


@pytest.mark.parametrize("load", [2.5, 10.0])
def test_edge_25_overload_simulated(load: float) -> None:
    """edge-25: latest-wins under overload on a simulated clock: p99 age <= 2.5 service times."""
    service, ages, dropped, index = 1000, [], [], 0
    schedule = Schedule()
    schedule.lanes["m", "c"] = Lane("m", "c", FrameQueue(QueuePolicy.LATEST))
    pixels = np.zeros((2, 2, 3), np.uint8)
    arrivals = [round(i * service / load) for i in range(5000)]
    now, at = 0, 0
    while at < len(arrivals) or schedule.pending:
        if not schedule.pending and at < len(arrivals):
            now = max(now, arrivals[at])
        while at < len(arrivals) and arrivals[at] <= now:
            given = Frame("c", at, pixels, None, arrivals[at])
            dropped += schedule.lanes["m", "c"].offer(given)
            at += 1
        lane, late = schedule.next(now)
        assert not late
        if lane is None:
            continue
        taken = lane.queue.take()
        assert taken.index >= index
        index, lane.busy, now = taken.index, False, now + service
        ages.append(now - taken.raw_ns)
    assert len(ages) + len(dropped) == len(arrivals)
    assert all(reason is DropReason.REPLACED for _, reason in dropped)
    assert np.quantile(ages, 0.99) <= (1 + 1 / load) * service <= 2.5 * service
    assert len(ages) >= len(arrivals) / load - 1  # it never idles


def test_edge_25_overload_live_accounts_for_every_frame(tmp_path: Path) -> None:
    """edge-25: a burst far above what can be served, three policies: exact accounting."""
    for policy in (QueuePolicy.LATEST, QueuePolicy.FIFO):
        told = Told()
        slot = slow_slot(tmp_path / policy.value, rounds=400, side=64, policy=policy, queue=3)
        runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks(), workers=2)
        runner.start()
        for index in range(300):
            runner.submit(frame(index, "left" if index % 2 else "right"))
            time.sleep(0.0005)
        runner.stop()
        books_balance(runner, told)
        health = runner.health().slots[0]
        assert health.captured == 300
        assert health.processed < 300
        reason = "replaced" if policy is QueuePolicy.LATEST else "queue-full"
        assert set(health.dropped) == {reason}


def test_edge_29_idle_runner_uses_no_cpu(tmp_path: Path) -> None:
    """edge-29: an idle runner, two workers and a watchdog: <= 1 % CPU."""
    told = Told()
    slot = ModelSlot(name="main", bundle=tiny.bundle(tmp_path / "b"), deadline_ns=50_000_000)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks(), workers=2)
    runner.start()
    runner.submit(frame(0))
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(1.0)
    used = time.process_time() - before
    runner.stop()
    assert used <= 0.01


@pytest.mark.parametrize("kind", ["segmenter", "detector"])
def test_edge_35_twice_and_with_two_threads_the_same_bits(tmp_path: Path, kind: str) -> None:
    """edge-35: same frames, bundle and runtime, twice, 1 or 2 threads, live or not: same bits."""
    bundle = nets.bundle(kind, tmp_path / kind)

    frames = [frame(i, bgr=nets.picture(960, 540, seed=i)) for i in range(4)]

    def slot(threads: int) -> ModelSlot:
        options = BackendOptions(intra_op_threads=threads)
        return ModelSlot(name="main", bundle=bundle, backend=options, policy=QueuePolicy.BLOCK)

    def outputs(threads: int, prefetch: bool) -> list[bytes]:
        runner = Runner([slot(threads)], clock=CLOCK)
        return [bits_of(result) for result in runner.process_all(frames, prefetch=prefetch)]

    def live(threads: int) -> list[bytes]:
        told = Told()
        runner = Runner([slot(threads)], clock=CLOCK, callbacks=told.callbacks())
        runner.start()
        for given in frames:
            runner.submit(given)
        runner.stop()
        return [bits_of(result) for result in told.results]

    first = outputs(1, prefetch=False)
    assert len(set(first)) == 4
    for threads, prefetch in ((1, False), (1, True), (2, False)):
        assert outputs(threads, prefetch) == first
    assert live(1) == live(2) == first


def bits_of(result: Result) -> bytes:
    """Every bit of what a model said."""
    if result.labels is not None:
        return result.labels.labels.tobytes()
    assert result.boxes is not None
    assert len(result.boxes) > 5
    return result.boxes.xyxy_px.tobytes() + result.boxes.score.tobytes()


def test_edge_35_real_model_twice(shared_data: Path, tmp_path: Path) -> None:
    """edge-35: YOLOX-nano on KITTI, twice, 1 and 2 threads: bit-identical boxes."""
    bundle = real.bundle("yolox", shared_data, tmp_path / "yolox")
    seen = set()
    for threads in (1, 1, 2):
        options = BackendOptions(intra_op_threads=threads, cache_dir=tmp_path / "cache")
        runner = Runner([ModelSlot(name="m", bundle=bundle, backend=options)], clock=CLOCK)
        bits, found = b"", 0
        for index, image in enumerate(real.kitti(shared_data)):
            boxes = runner.process(frame(index, bgr=image)).boxes
            assert boxes is not None
            found += len(boxes)
            bits += boxes.xyxy_px.tobytes() + boxes.score.tobytes() + boxes.class_id.tobytes()
        assert found >= 2
        seen.add(bits)
    assert len(seen) == 1
