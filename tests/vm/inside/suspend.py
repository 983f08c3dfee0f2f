"""The machine is suspended under the jump watch; the host wakes it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from syncline.sync.jumps import Suspended, system_watch
from tests.vm.guest import EXCHANGE
from tests.vm.inside.clock import described


def clocks_ns() -> dict[str, int]:
    names = ("MONOTONIC_RAW", "MONOTONIC", "BOOTTIME", "REALTIME")
    return {name: time.clock_gettime_ns(getattr(time, f"CLOCK_{name}")) for name in names}


def main(arguments: list[str]) -> dict[str, Any]:
    (kind,) = arguments
    watch, lacks = system_watch()
    before = clocks_ns()
    (EXCHANGE / "asleep").touch()
    Path("/sys/power/state").write_text(kind, encoding="ascii")
    jumps = watch.poll()
    after = clocks_ns()
    time.sleep(0.2)
    jumps += watch.poll()
    watch.close()
    return {
        "lacks": lacks,
        "moved_ns": {name: after[name] - before[name] for name in before},
        "slept_ns": [jump.size_ns for jump in jumps if isinstance(jump, Suspended)],
        "jumps": [described(jump) for jump in jumps],
    }
