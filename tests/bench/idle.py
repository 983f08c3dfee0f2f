"""Whether other programs leave the machine alone: some figures mean nothing beside them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

PATIENCE_S = 20.0
MOST_BUSY = 0.15
"""Share of all cores that others may use."""


class Others:
    """CPU time that other processes take from now on."""

    def __init__(self) -> None:
        self._begin = self._read()

    def _read(self) -> tuple[float, float, float]:
        line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
        values = [int(value) / os.sysconf("SC_CLK_TCK") for value in line.split()[1:9]]
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        return sum(values), values[3] + values[4], mine

    def share(self) -> float:
        """Share of all cores that they took since."""
        total, idle, mine = (b - a for a, b in zip(self._begin, self._read(), strict=True))
        return max(total - idle - mine, 0.0) / max(total, 1e-3)


def busy_share(seconds: float = 1.0) -> float:
    """Share of all cores that others take for a while."""
    others = Others()
    time.sleep(seconds)
    return others.share()


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
