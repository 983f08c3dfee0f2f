"""What the edge's benchmarks share: CPU time taken in turns, and a loaded runner."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

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


def loaded(folder: Path, kind: str, size: tuple[int, int]) -> tuple[Runner, Engine, Frame]:
    bundle = nets.bundle(kind, folder / kind)
    runner = Runner([ModelSlot(name="main", bundle=bundle)], clock=CLOCK)
    given = Frame("front", 0, nets.picture(*size), None, CLOCK.raw_ns())
    assert runner.process(given).valid
    engine = runner._serving.slots["main"].engine
    assert engine is not None
    return runner, engine, given
