"""Stamps that the kernel takes on CLOCK_REALTIME, put on the raw clock whatever sets that clock.

A socket's stamp (SO_TIMESTAMPNS) can be had on REALTIME alone. Between the stamp and its reading
somebody may set the clock, and the stamp is then wrong by the size of the step: a second is as
believable as a queue that was not read for a second. REALTIME against BOOTTIME tells each step
exactly, because slewing and suspending move both alike; the order of the stamps tells on which side
of it a stamp lies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from syncline.timebase import NS_PER_S, Clock, PairedRead

MAX_AGE_NS = 10 * NS_PER_S
"""A stamp that is older when it is read was taken on another clock."""
ORDER_SLACK_NS = 1_000_000
"""Stamps of one socket are in order but for what processors differ in their interrupts."""
KEPT_STEPS = 4
_COUNTER_NS = 100


@dataclass(frozen=True, slots=True)
class _Step:
    """The clock was set by `size_ns`, between the two raw instants."""

    size_ns: int
    after_raw_ns: int
    before_raw_ns: int


class KernelStamps:
    """Moves stamps of one socket to MONOTONIC_RAW, in the order they are read.

    Of several steps between two reads only the sum is seen: a clock that is set and put back before
    the next frame is read shows nothing, and a stamp from the time between is taken as it is when
    it is possible.

    Memory: the last four steps.

    Args:
        pair: Reads a clock against RAW.
    """

    def __init__(self, pair: Callable[[Clock], PairedRead]) -> None:
        self._pair = pair
        self._real, self._boot = pair(Clock.REALTIME), pair(Clock.BOOTTIME)
        self._floor_ns = self._real.raw_ns
        self._steps: deque[_Step] = deque(maxlen=KEPT_STEPS)

    def convert(self, real_ns: int) -> tuple[int, float] | None:
        """A stamp on RAW with its standard deviation; None when the clock was never at it.

        A stamp that fits on both sides of a step gets the middle and half their distance.

        Args:
            real_ns: The stamp, nanoseconds of CLOCK_REALTIME, read just now.
        """
        self._look()
        found = self._candidates(real_ns)
        if not found:
            return None
        sigma_ns = self._real.bracket_ns / 12**0.5
        if len(found) > 1:
            low, high = min(found), max(found)
            return (low + high) // 2, (high - low) / 2 + sigma_ns
        self._floor_ns = max(self._floor_ns, found[0])
        while self._steps and self._steps[0].before_raw_ns < self._floor_ns:
            self._steps.popleft()
        return found[0], sigma_ns

    def _look(self) -> None:
        """Read the clocks and keep the step that happened since they were read last."""
        old_real, old_boot = self._real, self._boot
        self._real, self._boot = self._pair(Clock.REALTIME), self._pair(Clock.BOOTTIME)
        reads = (old_real, old_boot, self._real, self._boot)
        size_ns = _apart(self._real, self._boot) - _apart(old_real, old_boot)
        if abs(size_ns) > sum(read.bracket_ns for read in reads) // 2 + _COUNTER_NS:
            after_ns, before_ns = old_real.raw_ns, self._boot.raw_ns
            self._steps.append(_Step(size_ns, after_ns, before_ns))

    def _candidates(self, real_ns: int) -> list[int]:
        """Raw instants at which REALTIME can have shown `real_ns`, one for each side of a step."""
        now_ns = self._real.raw_ns + self._real.bracket_ns
        low_ns = max(self._floor_ns - ORDER_SLACK_NS, now_ns - MAX_AGE_NS)
        t_ns = self._real.raw_ns - (self._real.other_ns - real_ns)
        found, high_ns = [], now_ns
        for step in reversed(self._steps):
            if max(low_ns, step.after_raw_ns) <= t_ns <= high_ns:
                found.append(t_ns)
            t_ns += step.size_ns
            high_ns = step.before_raw_ns
        if low_ns <= t_ns <= high_ns:
            found.append(t_ns)
        return found


def _apart(real: PairedRead, boot: PairedRead) -> int:
    return (real.other_ns - real.raw_ns) - (boot.other_ns - boot.raw_ns)
