"""Instants and the clocks they are read from: the only reader of the operating system's clocks."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from syncline.errors import ClockError

NS_PER_S = 1_000_000_000


class Clock(enum.IntEnum):
    """The clock a stamp was taken on. Values are those of the wire and the log."""

    UNKNOWN = 0
    MONOTONIC_RAW = 1
    MONOTONIC = 2
    BOOTTIME = 3
    REALTIME = 4
    TAI = 5
    DEVICE = 6
    UTC = 7


@dataclass(frozen=True, order=True, slots=True)
class Instant:
    """A point in time as records carry it.

    Attributes:
        boot_id: The kernel's boot id (UUID text); RAW times of two boots are never comparable.
        raw_ns: CLOCK_MONOTONIC_RAW, nanoseconds.
    """

    boot_id: str
    raw_ns: int


class RawClock(Protocol):
    """What daemons take as their clock: raw nanoseconds and the boot they belong to."""

    @property
    def boot_id(self) -> str:
        """Boot that `raw_ns` counts in."""

    def raw_ns(self) -> int:
        """CLOCK_MONOTONIC_RAW now, nanoseconds."""

    def sleep_until(self, raw_ns: int) -> None:
        """Block until `raw_ns` has passed."""


@lru_cache(maxsize=1)
def os_boot_id() -> str:
    """The kernel's boot id, or the text of zeros where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "00000000-0000-0000-0000-000000000000"


_NAP_NS = 3_000_000


class OsClock:
    """The machine's own clocks."""

    @property
    def boot_id(self) -> str:
        """Boot id of the running kernel."""
        return os_boot_id()

    def raw_ns(self) -> int:
        """CLOCK_MONOTONIC_RAW now, nanoseconds."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)

    def sleep_until(self, raw_ns: int) -> None:
        """Block until `raw_ns` has passed; returns at once when it already has.

        Wakes once a little earlier: a core that slept long wakes late, one that slept 3 ms does
        not.
        """
        while (left_ns := raw_ns - self.raw_ns()) > 0:
            rest_ns = left_ns - _NAP_NS if left_ns > 2 * _NAP_NS else left_ns
            time.sleep(rest_ns / NS_PER_S)

    def now(self) -> Instant:
        """The present instant."""
        return Instant(self.boot_id, self.raw_ns())


class ManualClock:
    """A clock that a test or a replay moves by hand.

    Args:
        raw_ns: First reading.
        boot_id: Boot the readings belong to.
    """

    def __init__(self, raw_ns: int = 0, boot_id: str = "manual") -> None:
        self._raw_ns = raw_ns
        self._boot_id = boot_id

    @property
    def boot_id(self) -> str:
        """Boot id given at construction."""
        return self._boot_id

    def raw_ns(self) -> int:
        """The reading set last, nanoseconds."""
        return self._raw_ns

    def advance(self, ns: int) -> None:
        """Move the clock forward by `ns` nanoseconds."""
        self.sleep_until(self._raw_ns + ns)

    def sleep_until(self, raw_ns: int) -> None:
        """Move the clock to `raw_ns` unless it is already past it."""
        self._raw_ns = max(self._raw_ns, raw_ns)


@dataclass(frozen=True, slots=True)
class PairedRead:
    """One clock read between two readings of RAW.

    Attributes:
        raw_ns: Middle of the bracket, CLOCK_MONOTONIC_RAW.
        other_ns: The other clock's reading.
        bracket_ns: Width of the bracket; the pairing error is at most half of it.
    """

    raw_ns: int
    other_ns: int
    bracket_ns: int


_CLOCK_IDS = {
    Clock.MONOTONIC_RAW: time.CLOCK_MONOTONIC_RAW,
    Clock.MONOTONIC: time.CLOCK_MONOTONIC,
    Clock.BOOTTIME: getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC),
    Clock.REALTIME: time.CLOCK_REALTIME,
    Clock.TAI: getattr(time, "CLOCK_TAI", 11),
}


def paired_read(clock: Clock, tries: int = 5) -> PairedRead:
    """Read `clock` between two RAW readings, keeping the tightest of `tries` brackets.

    Raises:
        ClockError: The operating system has no such clock.
    """
    clock_id = _CLOCK_IDS.get(clock)
    if clock_id is None:
        raise ClockError(f"clock {clock.name} cannot be read by the operating system")
    best: PairedRead | None = None
    for _ in range(tries):
        before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        other_ns = time.clock_gettime_ns(clock_id)
        after_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        bracket_ns = after_ns - before_ns
        if best is None or bracket_ns < best.bracket_ns:
            best = PairedRead(before_ns + bracket_ns // 2, other_ns, bracket_ns)
    if best is None:
        raise ClockError(f"paired read of {clock.name} with tries={tries}: at least 1 is needed")
    return best
