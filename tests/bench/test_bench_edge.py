"""What the runner costs, as ratios to bare `session.run` in the same process and run.

CPU time of this process, variants interleaved, the smallest of many: holds on a shared machine.
Cases that need an idle machine (3, 16, 25, 33) say so, are only run by `make bench`, and are
skipped where other programs work; SYNCLINE_BENCH_BUSY=1 runs them all the same.
"""

from __future__ import annotations

import queue
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.edge.backend import Backend, BackendOptions
from syncline.edge.engine import Engine
from syncline.edge.job import Frame
from syncline.edge.outputs import StuckDetector, not_finite
from syncline.edge.pipeline import encode_jpeg
from syncline.edge.queue import QueuePolicy
from syncline.edge.runner import ModelSlot, Runner
from syncline.sensors.jpeg import JpegPicture
from syncline.timebase import OsClock
from tests.bench.idle import wait_until_idle
from tests.edge import nets, tiny
from tests.edge.harness import CLOCK, MS, Told, bright, frame
from tests.edge.test_runner import slow_slot

S = 1_000_000_000


@pytest.fixture(autouse=True)
def _one_opencv_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.fixture
def idle(request: pytest.FixtureRequest) -> None:
    """Skips, before there is a benchmark that would complain of not being used."""
    if request.config.getoption("benchmark_disable"):
        pytest.skip("needs an idle machine: make bench")
    wait_until_idle()


@pytest.fixture
def quiet(idle: None, benchmark: Any) -> Any:
    """The benchmark fixture, for cases that mean nothing beside other load."""
    return benchmark


def cpu_ns(work: Callable[[], object]) -> int:
    start = time.process_time_ns()
    work()
    return time.process_time_ns() - start


def interleaved(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Smallest CPU milliseconds of each variant, taken in turns."""
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(rounds):
        for name, work in variants.items():
            best[name] = min(best[name], cpu_ns(work) / 1e6)
    return best


def loaded(folder: Path, kind: str, size: tuple[int, int]) -> tuple[Runner, Engine, Frame]:
    bundle = nets.bundle(kind, folder / kind)
    runner = Runner([ModelSlot(name="main", bundle=bundle)], clock=CLOCK)
    given = Frame("front", 0, nets.picture(*size), None, CLOCK.raw_ns())
    assert runner.process(given).valid
    engine = runner._serving.slots["main"].engine
    assert engine is not None
    return runner, engine, given


@pytest.mark.parametrize(
    ("case", "kind", "size", "limit"),
    [
        ("edge-1", "segmenter", (1280, 960), 1.10),
        ("edge-2", "detector", (1920, 1080), 1.20),
    ],
    ids=["edge-1", "edge-2"],
)
def test_cpu_per_frame_against_bare_run(
    benchmark: Any, tmp_path: Path, case: str, kind: str, size: tuple[int, int], limit: float
) -> None:
    """edge-1, edge-2: CPU per frame of the whole runner against `session.run` alone."""
    runner, engine, given = loaded(tmp_path, kind, size)
    tensor, _ = engine.preprocessor()(nets.picture(*size))
    bare, ours = (lambda: engine.backend.run(tensor)), (lambda: runner.process(given))
    pre, detector = engine.preprocessor(), StuckDetector()
    prepared, outputs = engine.prepare(given, pre, CLOCK), engine.backend.run(tensor)
    best = interleaved(
        {
            "bare": bare,
            "ours": ours,
            "prepare": lambda: engine.prepare(given, pre, CLOCK),
            "conclude": lambda: engine.conclude(prepared, outputs, detector),
        },
        12 if benchmark.disabled else 60,
    )
    benchmark.extra_info.update(best, ratio=best["ours"] / best["bare"])
    benchmark(ours)
    assert best["ours"] <= 1.5 * best["bare"]
    if not benchmark.disabled:
        assert best["ours"] <= limit * best["bare"]
        assert best["prepare"] + best["conclude"] <= 1.5


def by_hand(backend: Backend, frames: Iterator[Frame], size: tuple[int, int]) -> None:
    """Two stages as one writes them at once: no checks, no decoding of outputs, no books."""
    made: queue.Queue[NDArray[np.uint8] | None] = queue.Queue(1)

    def first_stage() -> None:
        for given in frames:
            small = cv2.resize(given.pixels(2 if _is_reducible(given) else 1), size)
            made.put(np.asarray(small, np.uint8)[None])
        made.put(None)

    thread = threading.Thread(target=first_stage)
    thread.start()
    while (tensor := made.get()) is not None:
        backend.run(tensor)
    thread.join()


def _is_reducible(given: Frame) -> bool:
    return isinstance(given.bgr, JpegPicture) and given.bgr.reducible


def wall(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.parametrize("source", ["raw", "jpeg", "jpeg reduced"])
def test_edge_3_two_stages_keep_the_pace_of_bare_runs(
    quiet: Any, tmp_path: Path, source: str
) -> None:
    """edge-3: two stages, idle 2-core box: >= 0.90 of bare runs from raw and JPEG 1080p.

    Two stages written by hand, which check no output, are the peer of the same run. Where not even
    they reach it (two processors that are halves of one core: what decodes on one slows inference
    on the other) the figure cannot be shown, and the bench says so.
    """
    runner, engine, _ = loaded(tmp_path, "detector", (1920, 1080))
    image = nets.picture(1920, 1080)
    encoded = cv2.imencode(".jpg", image)[1].tobytes()
    tensor, _ = engine.preprocessor()(image)
    spec = engine.bundle.manifest.input
    size = spec.width, spec.height

    def frames(count: int = 40) -> Iterator[Frame]:
        for index in range(count):
            jpeg = JpegPicture(encoded, reducible=source == "jpeg reduced")
            pixels = image if source == "raw" else jpeg
            yield Frame("front", index, pixels, None, CLOCK.raw_ns())

    def two_stages() -> None:
        for _ in runner.process_all(frames(), prefetch=True):
            pass  # as live: results are used and let go; kept, each holds its decoded picture

    ours: list[float] = []
    plain: list[float] = []
    for _ in range(5):
        bare = wall(lambda: [engine.backend.run(tensor) for _ in range(40)])
        ours.append(bare / wall(two_stages))
        plain.append(bare / wall(lambda: by_hand(engine.backend, frames(), size)))
    quiet.extra_info.update(ratios=ours, by_hand=plain)
    quiet.pedantic(two_stages, rounds=1)
    reached, peer = float(np.median(ours)), float(np.median(plain))
    print(f"\ntwo stages, {source}: {reached:.2f} of bare runs, {peer:.2f} when written by hand")
    assert reached >= 0.90 * peer
    if reached < 0.90 and peer < 0.90:
        pytest.skip(f"two stages written by hand reach {peer:.2f} of bare runs on this machine")
    assert reached >= 0.90


def test_edge_3_a_reduced_decode_costs_less(benchmark: Any, tmp_path: Path) -> None:
    """edge-3: making the input from a JPEG 1080p: whole and reduced."""
    _, engine, _ = loaded(tmp_path, "detector", (1920, 1080))
    image = nets.picture(1920, 1080)
    encoded = cv2.imencode(".jpg", image)[1].tobytes()
    pre = engine.preprocessor()

    def prepare(*, reducible: bool) -> None:
        jpeg = JpegPicture(encoded, reducible=reducible)
        engine.prepare(Frame("front", 0, jpeg, None, 0), pre, CLOCK)

    best = interleaved(
        {
            "whole": lambda: prepare(reducible=False),
            "reduced": lambda: prepare(reducible=True),
            "encoded again": lambda: encode_jpeg(image, 80),
        },
        3 if benchmark.disabled else 25,
    )
    benchmark.extra_info.update(best)
    benchmark(lambda: prepare(reducible=True))
    assert best["reduced"] <= 0.95 * best["whole"]  # at quality 95, where entropy decoding leads


def test_edge_3_hand_over_costs_at_most_a_millisecond(benchmark: Any, tmp_path: Path) -> None:
    """edge-3: the second stage adds at most 1 ms CPU per frame."""
    runner, _, given = loaded(tmp_path, "segmenter", (1280, 960))
    frames = [given] * 8
    best = interleaved(
        {
            "one stage": lambda: list(runner.process_all(frames)),
            "two stages": lambda: list(runner.process_all(frames, prefetch=True)),
        },
        3 if benchmark.disabled else 25,
    )
    added_ms = (best["two stages"] - best["one stage"]) / len(frames)
    benchmark.extra_info.update(added_ms=added_ms)
    benchmark(lambda: list(runner.process_all(frames, prefetch=True)))
    assert added_ms <= 1.0


def test_edge_29_waiting_costs_nothing(benchmark: Any, tmp_path: Path) -> None:
    """edge-29: idle <= 1 % CPU; a 20 ms gap costs <= 0.2 ms more than none (spinning: 20)."""
    bundle = nets.bundle("segmenter", tmp_path / "b")
    slot = ModelSlot(name="m", bundle=bundle, backend=BackendOptions(intra_op_threads=2))
    runner = Runner([slot], clock=CLOCK)
    runner.start()
    idle_ns = cpu_ns(lambda: time.sleep(1.0))
    runner.stop()
    tensor = np.zeros((1, 240, 320, 3), np.uint8)
    spin = BackendOptions(intra_op_threads=2, spinning=True)
    sessions = {"off": Backend.load(bundle, slot.backend), "on": Backend.load(bundle, spin)}
    gap: dict[str, float] = {}
    for name, backend in sessions.items():

        def run(backend: Backend = backend) -> None:
            backend.run(tensor)

        def run_and_wait(run: Callable[[], None] = run) -> None:
            run()
            time.sleep(0.02)

        best = interleaved({"run": run, "gap": run_and_wait}, 15)
        gap[name] = best["gap"] - best["run"]
        del backend
    del sessions
    benchmark.extra_info.update(idle_percent=idle_ns / 1e7, gap_ms=gap)
    benchmark(lambda: None)
    assert idle_ns <= 0.01 * S
    assert gap["off"] <= max(0.2, 0.05 * gap["on"])


def test_edge_31_load_from_cache(benchmark: Any, tmp_path: Path) -> None:
    """edge-31: session load from the cache, CPU, against a load without it."""
    bundle = nets.bundle("detector", tmp_path / "b")
    options = BackendOptions(cache_dir=tmp_path / "cache")
    Backend.load(bundle, options)
    best = interleaved(
        {"cached": lambda: Backend.load(bundle, options), "plain": lambda: Backend.load(bundle)},
        4 if benchmark.disabled else 15,
    )
    benchmark.extra_info.update(best)
    benchmark(lambda: Backend.load(bundle, options))
    assert best["cached"] <= 40.0
    assert best["cached"] <= 1.2 * best["plain"]


def test_edge_21_checks_cost_little(benchmark: Any) -> None:
    """edge-21: the check for NaN and infinity on a 5040 x 16 head: at most 0.1 ms."""
    head = [np.random.default_rng(1).random((1, 5040, 16), np.float32)]
    best = interleaved({"check": lambda: not_finite(head)}, 30)
    benchmark.extra_info.update(best)
    benchmark(lambda: not_finite(head))
    assert best["check"] <= 0.1


def test_edge_25_overload_keeps_frames_young(quiet: Any, tmp_path: Path) -> None:
    """edge-25: 2.5x overload for 6 s: p99 age <= 2.5 x service time, every frame accounted for."""
    told = Told()
    bundle = nets.bundle("detector", tmp_path / "b")
    runner = Runner([ModelSlot(name="m", bundle=bundle)], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    image = nets.picture(1920, 1080)
    for index in range(10):
        runner.submit(Frame("front", index, image, None, CLOCK.raw_ns()))
        told.wait(lambda: len(told.results) > index)  # noqa: B023 - awaited at once
    service_ns = float(np.median([r.latencies.service_ns for r in told.results]))
    period_ns, begin = round(service_ns / 2.5), CLOCK.raw_ns()
    sent = 10
    while CLOCK.raw_ns() - begin < 6 * S:
        OsClock().sleep_until(begin + (sent - 10) * period_ns)
        runner.submit(Frame("front", sent, image, None, CLOCK.raw_ns()))
        sent += 1
    runner.stop()
    ages = np.array([r.latencies.total_ns for r in told.results[10:]])
    slot = runner.health().slots[0]
    ratio = float(np.quantile(ages, 0.99)) / service_ns
    quiet.extra_info.update(p99_over_service=ratio, captured=slot.captured, dropped=slot.dropped)
    quiet.pedantic(lambda: None, rounds=1)
    assert slot.captured == sent == slot.processed + sum(slot.dropped.values())
    assert set(slot.dropped) == {"replaced"}
    assert ratio <= 2.5


def test_edge_27_run_is_ended_within_10_ms(quiet: Any, tmp_path: Path) -> None:
    """edge-27: how long after its deadline a run ends, on an idle machine: <= 10 ms."""
    told = Told()
    slot = slow_slot(tmp_path, rounds=40_000, side=128, deadline_ns=50 * MS, hang_ns=5 * S)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    over = []
    for index in range(20):
        given = bright(index, 255)
        runner.submit(given)
        told.wait(lambda: len(told.drops) > index)  # noqa: B023 - awaited at once
        over.append((told.drops[-1].raw_ns - given.raw_ns - 50 * MS) / 1e6)
    runner.stop()
    quiet.extra_info.update(over_ms_median=float(np.median(over)), over_ms_max=max(over))
    quiet.pedantic(lambda: None, rounds=1)
    assert float(np.median(over)) <= 10.0


def paced(runner: Runner, told: Told, seconds: float, image: NDArray[np.uint8]) -> list[int]:
    """Latencies of frames submitted at 30 per second."""
    begin, first = CLOCK.raw_ns(), len(told.results)
    count = round(seconds * 30)
    for index in range(count):
        OsClock().sleep_until(begin + index * S // 30)
        runner.submit(Frame("front", first + index, image, None, CLOCK.raw_ns()))
    told.wait(lambda: len(told.results) >= first + count)
    return [r.latencies.total_ns for r in told.results[first:]]


def test_edge_33_and_16_latency_at_30_fps_and_during_swaps(quiet: Any, tmp_path: Path) -> None:
    """edge-33: idle machine, 30 fps: p99/p50 <= 1.8; edge-16: p99 during swaps <= 1.5 x outside."""
    told = Told()
    bundle = nets.bundle("segmenter", tmp_path / "b")
    other = tiny.bundle(
        tmp_path / "other",
        nets.segmenter(seed=9),
        msgspec.structs.replace(bundle.manifest, version="2", files={}),
    )
    slot = ModelSlot(name="m", bundle=bundle, policy=QueuePolicy.FIFO, queue=64)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    image = nets.picture(1280, 960)
    paced(runner, told, 1.0, image)
    runs = [np.asarray(paced(runner, told, 8.0, image)) for _ in range(3)]
    calm = sorted(runs, key=lambda run: float(np.quantile(run, 0.99) / np.median(run)))[1]
    done = threading.Event()

    def swap() -> None:
        for turn in range(20):
            runner.swap_in_background(bundle if turn % 2 else other).result(20)
            time.sleep(0.25)
        done.set()

    threading.Thread(target=swap).start()
    busy: list[int] = []
    while not done.is_set():
        busy += paced(runner, told, 1.0, image)
    runner.stop()
    indexes = [r.frame.index for r in told.results]
    assert indexes == list(range(len(indexes)))
    calm_p50, calm_p99 = np.quantile(calm, [0.5, 0.99])
    busy_p99 = np.quantile(busy, 0.99)
    late = float(np.mean(calm > 33 * MS))
    quiet.extra_info.update(
        p99_over_p50=calm_p99 / calm_p50, swap_p99_ratio=busy_p99 / calm_p99, late_share=late
    )
    quiet.pedantic(lambda: None, rounds=1)
    assert calm_p99 <= 1.8 * calm_p50
    assert late <= 0.005
    assert busy_p99 <= 1.5 * calm_p99


def test_edge_36_shadow_in_slack_leaves_the_primary_alone(quiet: Any, tmp_path: Path) -> None:
    """edge-36: shadow on: p99 of the primary model at most 5 % more, at 20 fps."""
    bundle = nets.bundle("segmenter", tmp_path / "b")
    main = ModelSlot(name="main", bundle=bundle, policy=QueuePolicy.FIFO, queue=64)
    shadow = ModelSlot(name="shadow", bundle=bundle, shadow_of="main")
    image = nets.picture(1280, 960)
    p99: dict[str, list[float]] = {"off": [], "on": []}
    processed = 0
    for _ in range(3):
        for name, slots in (("off", [main]), ("on", [main, shadow])):
            told = Told()
            runner = Runner(slots, clock=CLOCK, callbacks=told.callbacks())
            runner.start()
            begin = CLOCK.raw_ns()
            for index in range(100):
                OsClock().sleep_until(begin + index * S // 20)
                runner.submit(Frame("front", index, image, None, CLOCK.raw_ns()))
            runner.stop()
            ages = [r.latencies.total_ns for r in told.results if not r.shadow]
            p99[name].append(float(np.quantile(ages, 0.99)))
            processed += sum(s.processed for s in runner.health().slots if s.slot == "shadow")
    ratio = min(p99["on"]) / min(p99["off"])
    quiet.extra_info.update(p99_ratio=ratio, shadow_processed=processed)
    quiet.pedantic(lambda: None, rounds=1)
    assert processed > 30  # of 300; on an idle machine nearly all
    assert ratio <= 1.05


def test_memory_of_the_process_is_stated(benchmark: Any, tmp_path: Path) -> None:
    """Resident memory with one detector loaded and running."""
    runner, _, given = loaded(tmp_path, "detector", (1920, 1080))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    benchmark.extra_info.update(rss_mb=runner.health().rss_bytes >> 20, peak_mb=peak)
    benchmark(lambda: runner.process(given))
    assert runner.health().rss_bytes < 600 << 20


def test_edge_32_first_frame_is_as_quick_as_the_others(quiet: Any, tmp_path: Path) -> None:
    """edge-32: the first frame after the golden run: at most 1.5 x the median."""
    bundle = nets.bundle("segmenter", tmp_path / "b")
    ratios = []
    for _ in range(5):
        runner = Runner([ModelSlot(name="m", bundle=bundle)], clock=CLOCK)
        runner.load()
        given = frame(0, bgr=nets.picture(1280, 960))
        costs = [cpu_ns(lambda: runner.process(given)) for _ in range(15)]  # noqa: B023
        ratios.append(costs[0] / float(np.median(costs)))
    quiet.extra_info.update(ratios=ratios)
    quiet.pedantic(lambda: None, rounds=1)
    assert min(ratios) <= 1.5


def test_peer_opencv_dnn(benchmark: Any, tmp_path: Path) -> None:
    """The whole runner against OpenCV's own network module on the same fp32 graph and frame.

    OpenCV's side is what its samples do: blobFromImage and forward; it decodes no boxes.
    """
    bundle = nets.bundle("detector", tmp_path / "b", dtype="float32")
    runner = Runner([ModelSlot(name="m", bundle=bundle)], clock=CLOCK)
    image = nets.picture(1920, 1080)
    given = Frame("front", 0, image, None, CLOCK.raw_ns())
    net = cv2.dnn.readNetFromONNX(str(bundle.folder / "model.onnx"))

    def opencv() -> None:
        net.setInput(cv2.dnn.blobFromImage(image, size=(640, 384)))
        net.forward()

    best = interleaved(
        {"ours": lambda: runner.process(given), "cv2.dnn": opencv},
        4 if benchmark.disabled else 25,
    )
    benchmark.extra_info.update(best, ratio=best["cv2.dnn"] / best["ours"])
    benchmark(lambda: runner.process(given))
    assert best["ours"] <= 1.1 * best["cv2.dnn"]
