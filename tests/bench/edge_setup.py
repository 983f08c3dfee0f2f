"""What the edge's benchmarks share: CPU time taken in turns, and a loaded runner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from syncline.edge.engine import Engine
from syncline.edge.job import Frame
from syncline.edge.runner import ModelSlot, Runner
from tests.edge import nets
from tests.edge.harness import CLOCK


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


def in_blocks(
    variants: dict[str, Callable[[], object]], blocks: int, calls: int
) -> dict[str, NDArray[np.float64]]:
    """CPU milliseconds of a call, by block: blocks of calls of each variant, taken in turns.

    Calls of one kind follow one another, as in service; pairs of blocks see the same machine.
    """
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(blocks):
        for name, work in variants.items():
            begin = time.process_time_ns()
            for _ in range(calls):
                work()
            spent[name].append((time.process_time_ns() - begin) / calls / 1e6)
    return {name: np.asarray(values) for name, values in spent.items()}


class BareWorker:
    """The least that a live runner can be: a thread that waits on a queue, and the bare run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._given: SimpleQueue[NDArray[np.generic] | None] = SimpleQueue()
        self._told: SimpleQueue[object] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (tensor := self._given.get()) is not None:
            self._told.put(self._engine.backend.run(tensor))

    def run(self, tensor: NDArray[np.generic]) -> None:
        self._given.put(tensor)
        self._told.get(timeout=10.0)

    def close(self) -> None:
        self._given.put(None)
        self._thread.join()


def loaded(folder: Path, kind: str, size: tuple[int, int]) -> tuple[Runner, Engine, Frame]:
    bundle = nets.bundle(kind, folder / kind)
    runner = Runner([ModelSlot(name="main", bundle=bundle)], clock=CLOCK)
    given = Frame("front", 0, nets.picture(*size), None, CLOCK.raw_ns())
    assert runner.process(given).valid
    engine = runner._serving.slots["main"].engine
    assert engine is not None
    return runner, engine, given
