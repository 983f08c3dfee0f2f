"""Whether other programs leave the machine alone: some figures mean nothing beside them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

PATIENCE_S = 20.0
MOST_BUSY = 0.15
"""Share of all cores that others may use."""


def busy_share(seconds: float = 1.0, stat: Path = Path("/proc/stat")) -> float:
    """Share of all cores that worked while this thread slept."""

    def read() -> tuple[int, int]:
        values = [int(v) for v in stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
        return sum(values), values[3] + values[4]

    before, idle_before = read()
    time.sleep(seconds)
    after, idle_after = read()
    return 1.0 - (idle_after - idle_before) / max(after - before, 1)


def wait_until_idle() -> None:
    """Wait a little for the machine to fall idle; skip the bench when it does not.

    SYNCLINE_BENCH_BUSY=1 runs it all the same.
    """
    if os.environ.get("SYNCLINE_BENCH_BUSY"):
        return
    until_s = time.monotonic() + PATIENCE_S
    while (busy := busy_share()) > MOST_BUSY:
        if time.monotonic() > until_s:
            pytest.skip(f"needs an idle machine; others use {busy:.0%} of this one")
