"""What the runner's tests share: a recorder of all it tells, and frames on the real clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syncline.edge.job import Drop, DropReason, Frame, Result
from syncline.edge.runner import Callbacks, ModelSlot, Runner
from syncline.edge.swap import SwapEvent
from syncline.timebase import OsClock

from . import tiny

CLOCK = OsClock()
MS = 1_000_000


@dataclass
class Told:
    """Everything that a runner said, in order."""

    results: list[Result] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    events: list[SwapEvent] = field(default_factory=list)
    shadows: list[tuple[Result, Result]] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def callbacks(self) -> Callbacks:
        def add(target: list[Any]) -> Callable[..., None]:
            def put(*values: object) -> None:
                with self.changed:
                    target.append(values[0] if len(values) == 1 else values)
                    if target is self.results:
                        self.arrived_ns.append(CLOCK.raw_ns())
                    self.changed.notify_all()

            return put

        return Callbacks(
            on_result=add(self.results),
            on_drop=add(self.drops),
            on_event=add(self.events),
            on_shadow=add(self.shadows),
        )

    def wait(self, done: Callable[[], bool], timeout_s: float = 20.0) -> None:
        with self.changed:
            assert self.changed.wait_for(done, timeout_s), (len(self.results), self.drops[-3:])

    def dropped(self, reason: DropReason) -> list[int]:
        return [drop.index for drop in self.drops if drop.reason is reason]


def frame(
    index: int, camera: str = "front", bgr: NDArray[np.uint8] | None = None, age_ns: int = 0
) -> Frame:
    """A frame that arrives now (or did `age_ns` ago)."""
    pixels = tiny.frame(index) if bgr is None else bgr
    return Frame(camera, index, pixels, None, CLOCK.raw_ns() - age_ns)


def bright(index: int, level: int, camera: str = "front", age_ns: int = 0) -> Frame:
    """A frame of one grey level: with `tiny.slow`, the level sets how long the run takes."""
    pixels = np.full((tiny.HEIGHT, tiny.WIDTH, 3), level, np.uint8)
    pixels[0, 0] = level, index % 256 * level // 255, level
    return Frame(camera, index, pixels, None, CLOCK.raw_ns() - age_ns)


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


def slow_slot(tmp_path: Path, rounds: int = 3000, side: int = 256, **changes: object) -> ModelSlot:
    """A slot whose run takes as long as its frame is bright."""
    model, spec = tiny.slow(rounds, side), tiny.scores_manifest()
    golden = tiny.golden_of(model, spec, np.zeros((24, 32, 3), np.uint8))
    bundle = tiny.bundle(tmp_path / "slow", model, spec, golden)
    return ModelSlot(name="main", bundle=bundle, **changes)  # type: ignore[arg-type]
