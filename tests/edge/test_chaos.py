"""All at once: bad frames, late frames, swaps, hangs, two cameras, a shadow: books balance."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.edge.backend import Backend
from syncline.edge.job import DropReason, Frame
from syncline.edge.queue import QueuePolicy
from syncline.edge.runner import ModelSlot, Runner
from syncline.errors import ModelError

from . import tiny
from .harness import CLOCK, MS, Told, books_balance


def broken_decoder() -> NDArray[np.uint8]:
    raise ValueError("cut short")


def any_frame(rng: random.Random, index: int) -> Frame:
    """Mostly good frames; some bad, some late, some that decode when asked."""
    camera = rng.choice(["left", "right"])
    image = tiny.frame(index)
    kind = rng.random()
    if kind < 0.1:
        return Frame(camera, index, np.zeros((3, 3), np.uint8), None, CLOCK.raw_ns())
    if kind < 0.2:
        return Frame(camera, index, broken_decoder, None, CLOCK.raw_ns())
    if kind < 0.3:
        return Frame(camera, index, image, None, CLOCK.raw_ns() - 10_000 * MS)
    if kind < 0.4:
        return Frame(camera, index, lambda: image, None, CLOCK.raw_ns())
    return Frame(camera, index, image, None, CLOCK.raw_ns())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("policy", list(QueuePolicy))
def test_books_balance_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, policy: QueuePolicy
) -> None:
    rng = random.Random(seed)
    told, release = Told(), threading.Event()
    bundles = [
        tiny.bundle(tmp_path / f"b{i}", tiny.segmenter(i), tiny.manifest(version=str(i)))
        for i in range(2)
    ]
    damaged = tiny.bundle(tmp_path / "damaged")
    (damaged.folder / "model.onnx").write_bytes(b"x")
    main = ModelSlot(name="main", bundle=bundles[0], policy=policy, queue=3, deadline_ns=200 * MS)
    shadow = ModelSlot(name="next", bundle=bundles[1], shadow_of="main")
    workers = 1 + seed % 2
    runner = Runner([main, shadow], clock=CLOCK, callbacks=told.callbacks(), workers=workers)
    runner.start()
    original, faults = Backend.run, random.Random(seed + 100)

    def run(self: Backend, tensor: NDArray[Any], stop: Any = None) -> list[NDArray[Any]]:
        serving = threading.current_thread().name.startswith("edge-worker")
        dice = faults.random() if serving else 1.0
        if dice < 0.01:
            release.wait(30)
        elif dice < 0.05:
            raise RuntimeError("a fault that nobody thought of")
        return original(self, tensor, stop)

    monkeypatch.setattr(Backend, "run", run)
    refused = 0
    for index in range(150):
        runner.submit(any_frame(rng, index))
        if rng.random() < 0.05:
            try:
                runner.swap(rng.choice([*bundles, damaged]))
            except ModelError:
                refused += 1
        time.sleep(rng.choice([0.0, 0.001, 0.004]))
    monkeypatch.setattr(Backend, "run", original)
    last = Frame("left", 999, tiny.frame(1), None, CLOCK.raw_ns())
    time.sleep(0.5)
    runner.submit(last)
    told.wait(lambda: 999 in [r.frame.index for r in told.results] + [d.index for d in told.drops])
    runner.stop()
    release.set()
    books_balance(runner, told)
    reasons = {drop.reason for drop in told.drops}
    assert DropReason.BAD_FRAME in reasons or policy is QueuePolicy.LATEST
    digests = {bundle.digest for bundle in bundles}
    assert {r.model_digest for r in told.results} <= digests
    for camera in ("left", "right"):
        seen = [r.frame.index for r in told.results
                if r.frame.camera == camera and not r.shadow]  # fmt: skip
        assert seen == sorted(seen)
