"""The edge runner's deadlines while CLOCK_REALTIME is set between frames, and during a run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from syncline.edge.job import Drop, Frame, Result
from syncline.edge.model.bundle import Bundle
from syncline.edge.queue import QueuePolicy
from syncline.edge.runner import Callbacks, ModelSlot, Runner
from syncline.timebase import OsClock
from tests.vm.guest import EXCHANGE
from tests.vm.inside.setter import S, raw_ns, step_by

DEADLINE_NS = 5 * S
STEPS_NS = (3600 * S, -3600 * S, -3600 * S, 3600 * S, 30 * S, -30 * S)
"""Each larger than the deadline; they sum to nothing."""
FRAMES = 60


class Books:
    """What the runner told."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.drops: list[Drop] = []
        self.latency_ns: list[int] = []
        self.changed = threading.Condition()

    def result(self, result: Result) -> None:
        with self.changed:
            self.results.append(result)
            self.latency_ns.append(raw_ns() - result.frame.raw_ns)
            self.changed.notify_all()

    def drop(self, drop: Drop) -> None:
        with self.changed:
            self.drops.append(drop)
            self.changed.notify_all()

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.results) + len(self.drops) >= count, 30)


def picture(index: int) -> Frame:
    rng = np.random.default_rng(index)
    bgr = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Frame("front", index, bgr, None, raw_ns())


def main(arguments: list[str]) -> dict[str, Any]:
    bundle = Bundle.open(Path(EXCHANGE, *arguments), trusted_keys=None)
    slot = ModelSlot(
        name="main", bundle=bundle, deadline_ns=DEADLINE_NS, policy=QueuePolicy.FIFO, queue=4
    )
    books = Books()
    runner = Runner(
        [slot], clock=OsClock(), callbacks=Callbacks(on_result=books.result, on_drop=books.drop)
    )
    runner.start()
    runner.submit(picture(0))
    books.wait(1)
    stepped_ns = []
    for index in range(1, FRAMES):
        step_ns = STEPS_NS[index % len(STEPS_NS)]
        runner.submit(picture(index))
        step_by(step_ns)  # while it waits or runs
        stepped_ns.append(step_ns)
        books.wait(index + 1)
    stale = Frame("front", FRAMES, picture(0).bgr, None, raw_ns() - DEADLINE_NS - S)
    runner.submit(stale)
    books.wait(FRAMES + 1)
    runner.stop()
    return {
        "steps": len(stepped_ns),
        "results": [r.frame.index for r in books.results],
        "valid": all(r.valid for r in books.results),
        "drops": [(d.index, d.reason.value) for d in books.drops],
        "latency_ns": sorted(books.latency_ns),
    }
