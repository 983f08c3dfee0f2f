"""PTP hardware clocks: `/dev/ptp*` read between two raw reads.

A PHC that ptp4l disciplines counts TAI. UTC needs the offset (37 s since 2017); while nobody
vouches for it the source is flagged and gives nothing: a guess would be wrong by 37 s. Nor is a
clock believed before it has shown that it advances: some drivers offer one that stands still.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from syncline.errors import DeviceError, PermissionDeniedError
from syncline.sync.leap import LeapTable
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.device_file import open_device
from syncline.sync.sources.source import GnssSignals, Health, SourceHealth, Tally
from syncline.timebase import NS_PER_S, RawClock

TRIES = 5
MAX_BRACKET_NS = 200_000
"""A wider bracket means that we were preempted five times, or that the bus hangs."""
RATE_LIMIT_PPM = 1_000
"""A crystal is within 100 ppm and a servo steers it by some hundred; more is a fault or a step."""


@dataclass(frozen=True, slots=True)
class PhcRead:
    """A hardware clock between two raw reads; its error is at most half the bracket."""

    raw_ns: int
    phc_ns: int
    bracket_ns: int


class HardwareClock(Protocol):
    """Where a PHC's time comes from."""

    def read_ns(self) -> int:
        """Its time, nanoseconds of its own epoch; raises DeviceError."""

    def close(self) -> None:
        """Give it back."""


class PhcDevice:
    """`/dev/ptp*` as a POSIX dynamic clock (FD_TO_CLOCKID, clock_getres(2)).

    Raises:
        PermissionDeniedError: No right to open it.
        DeviceError: No such device.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        remedy = "Check `ethtool -T` of the interface, or remove it from [time]"
        self._fd = open_device(path, os.O_RDONLY, "hardware clock", remedy)
        self._clock_id = (~self._fd << 3) | 3

    def read_ns(self) -> int:
        """Its time."""
        try:
            return time.clock_gettime_ns(self._clock_id)
        except OSError as error:
            raise DeviceError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the device."""
        os.close(self._fd)


def bracket_read(clock: RawClock, device: HardwareClock, tries: int = TRIES) -> PhcRead:
    """Read the device between two raw reads and keep the tightest bracket.

    Raises:
        DeviceError: The device does not answer.
    """
    best: PhcRead | None = None
    for _ in range(max(tries, 1)):
        before_ns = clock.raw_ns()
        phc_ns = device.read_ns()
        after_ns = clock.raw_ns()
        width_ns = after_ns - before_ns
        if best is None or width_ns < best.bracket_ns:
            best = PhcRead(before_ns + width_ns // 2, phc_ns, width_ns)
    assert best is not None
    return best


def wrong_rate(last: PhcRead, now: PhcRead) -> str:
    """Why a clock did not advance as time did between two reads; empty when it did."""
    elapsed_ns, advanced_ns = now.raw_ns - last.raw_ns, now.phc_ns - last.phc_ns
    if advanced_ns == 0 and elapsed_ns > 0:
        return "the clock stands still"
    limit_ns = elapsed_ns * RATE_LIMIT_PPM // 1_000_000 + (last.bracket_ns + now.bracket_ns) // 2
    if abs(advanced_ns - elapsed_ns) > limit_ns:
        return "the clock was stepped, or runs at another rate"
    return ""


@dataclass(frozen=True, slots=True)
class PhcOptions:
    """How a PHC relates to UTC.

    Attributes:
        name: Source name.
        utc: The PHC counts UTC itself.
        tai_utc_s: Announced TAI - UTC; None while the grandmaster's flag is not valid.
        root_bound_ns: Error of the grandmaster and of the path that ptp4l admits.
        poll_log2: Interval.
    """

    name: str
    utc: bool = False
    tai_utc_s: int | None = None
    root_bound_ns: int = 1_000
    poll_log2: int = 0


class Phc:
    """A hardware clock as a time source.

    Args:
        options: Its relation to UTC.
        open_device: Opens it; raises DeviceError.
        clock: Raw clock.
        leaps: To check the announced TAI - UTC.
    """

    kind = SourceKind.PTP

    def __init__(
        self,
        options: PhcOptions,
        open_device: Callable[[], HardwareClock],
        clock: RawClock,
        leaps: LeapTable,
    ) -> None:
        self.name = options.name
        self.tally = Tally()
        self._options, self._open, self._clock, self._leaps = options, open_device, clock, leaps
        self._device: HardwareClock | None = None
        self._due_raw_ns = clock.raw_ns()
        self._poll_log2 = options.poll_log2
        self._health, self._error = Health.STARTING, ""
        self._polls = 0
        self._last: PhcRead | None = None

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        """Read when due."""
        if now_raw_ns < self._due_raw_ns:
            return []
        self._due_raw_ns = now_raw_ns + (NS_PER_S << self._poll_log2)
        self._polls += 1
        try:
            if self._device is None:
                self._device = self._open()
            read = bracket_read(self._clock, self._device)
        except DeviceError as error:
            denied = isinstance(error, PermissionDeniedError)
            self._health = Health.DENIED if denied else Health.MISSING
            self._error = str(error)
            self.close()
            return []
        return self._measure(read)

    def _measure(self, read: PhcRead) -> list[Measurement]:
        last, self._last = self._last, read
        utc_ns, why = self._utc(read.phc_ns)
        if read.bracket_ns > MAX_BRACKET_NS:
            why = "bracket is too wide"
        if last is None:
            if not why:  # nothing is wrong yet, and nothing shown
                return []
        elif wrong := wrong_rate(last, read):
            why = wrong
        if why:
            self.tally.add(why)
            self._health, self._error = Health.DEGRADED, f"{self.name}: {why}"
            return []
        self._health, self._error = Health.OK, ""
        return [
            Measurement(
                self.name,
                SourceKind.PTP,
                read.raw_ns,
                utc_ns,
                uncertainty_ns=max(read.bracket_ns // 4, 50),
                root_bound_ns=self._options.root_bound_ns + read.bracket_ns // 2 + 1,
                arrival_raw_ns=read.raw_ns + read.bracket_ns // 2 + 1,
            )
        ]

    def _utc(self, phc_ns: int) -> tuple[int, str]:
        """UTC of the PHC's time, or why there is none."""
        if self._options.utc:
            return phc_ns, ""
        announced = self._options.tai_utc_s
        if announced is None:
            return 0, "TAI - UTC offset is not valid"
        utc_ns = phc_ns - announced * NS_PER_S
        known = self._leaps.tai_minus_utc_s(utc_ns)
        if known is not None and known != announced:
            return 0, f"TAI - UTC of {announced} s contradicts the table's {known} s"
        return utc_ns, ""

    def due_raw_ns(self) -> int:
        """Next read."""
        return self._due_raw_ns

    def fileno(self) -> int:
        """-1: the device is polled."""
        return -1

    def health(self) -> SourceHealth:
        """Device and refusals."""
        return SourceHealth(
            self._health, self._error, self._polls, dict(self.tally.counts), 0, self._poll_log2
        )

    def signals(self) -> GnssSignals | None:
        """None: no sky."""
        return None

    def set_poll(self, poll_log2: int) -> None:
        """Reading costs microseconds; at most every 16 s."""
        self._poll_log2 = min(max(poll_log2, 0), 4)

    def leap(self) -> int | None:
        """None: PTP's flags come with the offset, from configuration."""
        return None

    def close(self) -> None:
        """Close the device."""
        if self._device is not None:
            self._device.close()
        self._device = None
        self._last = None
