"""Our runner beside ultralytics, OpenVINO and OpenCV: one network, one frame, one run.

The network is ultralytics' own yolov8n (640x384, random weights, a hundred candidates), written by
ultralytics' own exporter. Each peer works in a process of its own and takes turns with us; what
counts is CPU time, all threads, the least of many. `make peers` installs them in `.venv-peers`;
without that folder these benches are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.cloud.models import graph
from syncline.cloud.models.importer import ImportOptions, import_model
from syncline.cloud.models.quantize import quantise_graph
from syncline.cloud.models.runtime import GraphSession
from syncline.cloud.models.targets import TARGETS
from syncline.edge.decode.types import Boxes
from syncline.edge.job import Frame
from syncline.edge.runner import ModelSlot, Runner
from tests.edge.harness import CLOCK

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("SYNCLINE_PEERS_PYTHON", ROOT / ".venv-peers/bin/python"))
WORKER = Path(__file__).with_name("peers_worker.py")
WIDTH, HEIGHT, ROUNDS = 640, 384, 12

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-peers: make peers"),
]


class Peer:
    """Another runtime in its own process."""

    def __init__(self, kind: str, model: Path, frame: Path) -> None:
        command = [str(PYTHON), str(WORKER), kind, str(model), str(frame)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        first = self._line()
        self.about: str = first["about"]
        self.answer = np.asarray(first["answer"], np.float32)

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate()
            pytest.fail(f"the peer ended: {said[-1500:]}")
        told: dict[str, Any] = json.loads(line)
        return told

    def least_ms(self, times: int) -> float:
        """Least CPU milliseconds of `times` frames."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        return float(self._line()["best_ms"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture(autouse=True)
def _one_opencv_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, made by the peer's own exporter."""
    path = tmp_path_factory.mktemp("peers") / "network.onnx"
    command = [str(PYTHON), str(WORKER), "network", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert path.exists(), done.stderr[-1500:]
    return path


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """A coarse random 1080p picture."""
    coarse = np.random.default_rng(3).integers(0, 256, (27, 48, 3), dtype=np.uint8)
    fine = cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine, np.uint8)


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    """Makes peers, and ends them."""
    started: list[Peer] = []

    def start(*given: Any) -> Peer:
        started.append(Peer(*given))
        return started[-1]

    yield start
    for peer in started:
        peer.close()


def least(jobs: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Least milliseconds of each job, all taking turns."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            best[name] = min(best[name], job())
    return best


def ours(work: Callable[[], object]) -> Callable[[], float]:
    """A job of this process: least CPU milliseconds of two calls."""

    def once() -> float:
        start = time.process_time_ns()
        work()
        return (time.process_time_ns() - start) / 1e6

    return lambda: min(once(), once())


def runner_of(network: Path, folder: Path) -> Runner:
    options = ImportOptions(preset="yolov8", score_threshold=0.25)
    return Runner(
        [ModelSlot(name="m", bundle=import_model(network, folder, options).bundle)], clock=CLOCK
    )


def found(runner: Runner, picture: NDArray[np.uint8]) -> Boxes:
    result = runner.process(Frame("front", 0, picture, None, CLOCK.raw_ns()))
    assert result.boxes is not None
    return result.boxes


def same_boxes(mine: Boxes, theirs: NDArray[np.float32], within_px: float) -> None:
    """Every box of either side is one of the other: class, corners, score."""
    assert len(mine.score) == len(theirs) > 10
    left = list(range(len(theirs)))
    for xyxy, score, label in zip(mine.xyxy_px, mine.score, mine.class_id, strict=True):
        away = [np.abs(theirs[k, :4] - xyxy).max() + 1e3 * (theirs[k, 5] != label) for k in left]
        nearest = left.pop(int(np.argmin(away)))
        assert min(away) <= within_px
        assert theirs[nearest, 4] == pytest.approx(score, abs=2e-3)


def test_ultralytics_predict_beside_ours(
    benchmark: Any, network: Path, picture: NDArray[np.uint8], peers: Any, tmp_path: Path
) -> None:
    """The same boxes from a 1080p frame as `predict`, at a fraction of its CPU time."""
    np.save(tmp_path / "frame.npy", picture)
    given = (network, tmp_path / "frame.npy")
    users, lean = peers("ultralytics", *given), peers("ultralytics-lean", *given)
    runner = runner_of(network, tmp_path / "b")
    same_boxes(found(runner, picture), users.answer, within_px=1.0)
    best = least(
        {
            "ours": ours(lambda: found(runner, picture)),
            "ultralytics": lambda: users.least_ms(2),
            "ultralytics, 1 thread": lambda: lean.least_ms(2),
        }
    )
    benchmark.extra_info.update(best, about=users.about, boxes=len(users.answer))
    print(users.about, f"{len(users.answer)} boxes", {k: f"{v:.1f} ms" for k, v in best.items()})
    benchmark.pedantic(lambda: found(runner, picture), rounds=3)
    assert best["ours"] <= 1.05 * best["ultralytics, 1 thread"]
    assert best["ours"] <= best["ultralytics"]


def test_openvino_and_opencv_beside_ours(
    benchmark: Any, network: Path, picture: NDArray[np.uint8], peers: Any, tmp_path: Path
) -> None:
    """Inference alone on the same fp32 and int8 files and tensor, one thread each."""
    small = cv2.dnn.blobFromImage(picture, 1 / 255.0, (WIDTH, HEIGHT), swapRB=True)
    np.save(tmp_path / "tensor.npy", small)
    plain = graph.load_model(network)
    noisy = [np.clip(small + np.float32(0.02 * k), 0, 1) for k in range(4)]
    int8 = quantise_graph(plain, iter([{"images": each} for each in noisy]), TARGETS["x86-64"])
    files = {"fp32": graph.serialise(plain), "int8": graph.serialise(int8)}
    jobs: dict[str, Callable[[], float]] = {}
    answers: dict[str, NDArray[np.float32]] = {}
    about = ""
    for name, data in files.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        peer, session = peers("openvino", path, tmp_path / "tensor.npy"), GraphSession(data)
        jobs[f"openvino {name}"] = partial(peer.least_ms, 2)
        jobs[f"onnxruntime {name}"] = ours(partial(session.run, {"images": small}))
        answers[name] = np.asarray(session.run({"images": small})[0], np.float32).reshape(-1)
        if name == "fp32":
            np.testing.assert_allclose(
                peer.answer, answers[name][: len(peer.answer)], rtol=1e-2, atol=0.5
            )
        about = peer.about
    net = cv2.dnn.readNetFromONNX(np.frombuffer(files["fp32"], np.uint8))

    def opencv() -> object:
        net.setInput(small)
        return net.forward()

    jobs["cv2.dnn fp32"] = ours(opencv)
    best = least(jobs)
    benchmark.extra_info.update(best, about=about)
    print(about, {name: f"{value:.1f} ms" for name, value in best.items()})
    benchmark.pedantic(opencv, rounds=3)
    assert best["onnxruntime fp32"] <= best["cv2.dnn fp32"]
