"""Frames that a model's rate does not ask for, told in runs: most of them are dropped by design.

At 30 frames a second and a `max_rate_hz` of 2 one record per frame would be most of what a device
sends, in the class that the link sends first.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from syncline.edge.job import Drop, DropReason


class DropRuns:
    """Puts consecutive drops of one slot and camera for its rate together; any thread.

    Memory: one drop for each slot and camera.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, str], Drop] = {}

    def step(self, drop: Drop) -> list[Drop]:
        """Take a drop; returns what is to be told now, every frame in exactly one drop."""
        if drop.reason is not DropReason.RATE:
            return [drop]
        key = (drop.slot, drop.camera)
        with self._lock:
            run = self._runs.get(key)
            if run is not None and drop.index == run.index + run.count:
                self._runs[key] = replace(run, count=run.count + drop.count)
                return []
            self._runs[key] = drop
        return [] if run is None else [run]

    def flush(self) -> list[Drop]:
        """What has come together so far; called with each health, so that little is untold."""
        with self._lock:
            runs, self._runs = list(self._runs.values()), {}
        return runs
