"""Which segments of a long recording can hold a span of time, without opening them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

Group = tuple[Path, ...]
_LATE = 2
"""A record may stand in a segment behind its own; look so many segments before the span."""


def pick_groups(
    groups: Sequence[Group],
    start_of: Callable[[Group], int | None],
    from_ns: int,
    to_ns: int,
) -> list[Group]:
    """Segments that may hold records of [from_ns, to_ns), in the order given.

    Segments of one boot follow each other in time, so each boot is searched by halving.

    Args:
        groups: Files of each segment, in order of recording.
        start_of: First time in a segment; None when it holds nothing.
        from_ns: First instant wanted.
        to_ns: End, exclusive.
    """
    found: list[Group] = []
    for _, run in groupby(groups, key=_boot_of):
        boot = list(run)
        first = _count_before(boot, start_of, from_ns)
        last = _count_before(boot, start_of, to_ns)
        found += boot[max(first - _LATE, 0) : last + 1]
    return found


def _boot_of(group: Group) -> str:
    return group[0].parent.name.partition("-")[2]


def _count_before(
    groups: Sequence[Group], start_of: Callable[[Group], int | None], time_ns: int
) -> int:
    """How many segments start before `time_ns`."""
    low, high = 0, len(groups)
    while low < high:
        middle = (low + high) // 2
        probe, start = middle, start_of(groups[middle])
        while start is None and probe + 1 < high:
            probe += 1
            start = start_of(groups[probe])
        if start is None:
            high = middle
        elif start < time_ns:
            low = probe + 1
        else:
            high = middle
    return low
