"""Peak memory of this very process."""

from __future__ import annotations

from pathlib import Path


def peak_kb() -> int:
    """VmHWM, kilobytes: unlike ru_maxrss it does not begin with what the parent had at the fork."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM in /proc/self/status")
