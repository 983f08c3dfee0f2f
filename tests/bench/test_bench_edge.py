"""What the runner costs, as ratios to bare `session.run` in the same process and run.

CPU time of this process, variants interleaved, the smallest of many: holds on a shared machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np
import pytest

from syncline.edge.backend import Backend, BackendOptions
from syncline.edge.job import Frame, Result
from syncline.edge.outputs import StuckDetector, not_finite
from syncline.edge.pipeline import encode_jpeg
from syncline.edge.runner import ModelSlot, Runner
from syncline.edge.serving import Callbacks
from syncline.sensors.jpeg import JpegPicture
from tests.bench.edge_setup import BareWorker, cpu_ns, in_blocks, interleaved, loaded
from tests.edge import nets
from tests.edge.harness import CLOCK

pytestmark = pytest.mark.usefixtures("one_opencv_thread")

S = 1_000_000_000


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
    parts = interleaved(
        {
            "bare": bare,
            "prepare": lambda: engine.prepare(given, pre, CLOCK),
            "conclude": lambda: engine.conclude(prepared, outputs, detector),
        },
        12 if benchmark.disabled else 60,
    )
    spent = in_blocks({"bare": bare, "ours": ours}, *((3, 4) if benchmark.disabled else (20, 20)))
    ratio = float(np.median(spent["ours"] / spent["bare"]))
    benchmark.extra_info.update(parts, ratio=ratio)
    benchmark(ours)
    print(f"\n{case}: {ratio:.3f} of bare runs ({np.median(spent['bare']):.2f} ms)")
    assert ratio <= (1.5 if benchmark.disabled else limit)
    if not benchmark.disabled:
        assert parts["prepare"] + parts["conclude"] <= 1.5


@pytest.mark.parametrize(
    ("case", "kind", "size", "limit"),
    [("edge-1", "segmenter", (1280, 960), 1.10), ("edge-2", "detector", (1920, 1080), 1.20)],
    ids=["edge-1", "edge-2"],
)
def test_live_cpu_per_frame_against_bare_run(
    benchmark: Any, tmp_path: Path, case: str, kind: str, size: tuple[int, int], limit: float
) -> None:
    """edge-1, edge-2: the same through the live queue: submitted, run by a worker, told.

    Against a bare run in a thread that waits on a queue too: any live runner wakes a thread. What
    that itself costs, against bare runs one after another, is printed beside it.
    """
    _, engine, given = loaded(tmp_path, kind, size)
    tensor, _ = engine.preprocessor()(nets.picture(*size))
    told: SimpleQueue[Result] = SimpleQueue()
    slot = ModelSlot(name="live", bundle=engine.bundle)
    live = Runner([slot], clock=CLOCK, callbacks=Callbacks(on_result=told.put))
    live.start()
    woken = BareWorker(engine)

    def one() -> None:
        live.submit(replace(given, raw_ns=CLOCK.raw_ns()))
        told.get(timeout=10.0)

    spent = in_blocks(
        {
            "bare": lambda: engine.backend.run(tensor),
            "woken": lambda: woken.run(tensor),
            "live": one,
        },
        *((3, 4) if benchmark.disabled else (20, 20)),
    )
    ratio = float(np.median(spent["live"] / spent["woken"]))
    in_a_row = float(np.median(spent["live"] / spent["bare"]))
    benchmark.extra_info.update(ratio=ratio, of_runs_in_a_row=in_a_row)
    benchmark(one)
    live.stop()
    woken.close()
    print(f"\n{case} live: {ratio:.3f} of a bare run in a thread; {in_a_row:.3f} of runs in a row")
    assert ratio <= (1.5 if benchmark.disabled else limit)


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
    assert gap["off"] <= 0.2


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


_FRESH = """
import sys
from pathlib import Path
from tests.bench.edge_setup import loaded
runner, _, given = loaded(Path(sys.argv[1]), "detector", (1920, 1080))
for _ in range(50):
    runner.process(given)
print(runner.health().rss_bytes)
"""


def test_memory_of_the_process_is_stated(benchmark: Any, tmp_path: Path) -> None:
    """Resident memory of a fresh process with one detector loaded and running."""
    command = [sys.executable, "-c", _FRESH, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    rss = int(done.stdout)
    benchmark.extra_info.update(rss_mb=rss >> 20)
    benchmark.pedantic(lambda: None, rounds=1)
    print(f"\nmemory: {rss >> 20} MB")
    assert rss < 300 << 20


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
