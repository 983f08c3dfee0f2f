"""Notices that the system clock was set, or that time was lost in suspend.

A timerfd with TFD_TIMER_CANCEL_ON_SET wakes us within tens of microseconds of any clock_settime,
but tells no size, and two quick steps may merge. A paired read (RAW, REALTIME, RAW) tells the
size but only when it is made. Together they give typed events. ADJ_FREQUENCY and ADJ_TAI wake
nobody; a slew shows as an `Adjust` of the system clock in the paired reads.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from syncline.errors import DeviceError
from syncline.sync.events import Step, UnknownStep
from syncline.timebase import NS_PER_S, Clock, PairedRead, paired_read

TFD_CLOEXEC, TFD_NONBLOCK = 0o2000000, 0o4000
_TFD_ABSTIME, _TFD_CANCEL_ON_SET = 1, 2
_CLOCK_REALTIME = 0
_FAR_FUTURE_S = 2**40
SLEW_LIMIT = 0.0012
"""Fastest honest movement of REALTIME against RAW: 500 ppm slew, 500 frequency, 200 crystal.
chronyd may slew 83 000 ppm through the tick; that is then reported as a step of its size."""
RESOLUTION_NS = 500
SUSPEND_NS = 50_000_000
"""BOOTTIME may run ahead of MONOTONIC by this much between two reads without a suspend."""


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


@dataclass(frozen=True, slots=True)
class Suspended:
    """The machine slept: RAW stood still while UTC went on.

    Attributes:
        raw_ns: First raw reading after it.
        size_ns: Time slept as BOOTTIME tells it.
        uncertainty_ns: Half width: the clock that measured the sleep counts in seconds.
    """

    raw_ns: int
    size_ns: int
    uncertainty_ns: int


Jump = Step | UnknownStep | Suspended


@dataclass(frozen=True, slots=True)
class ClockReads:
    """The three comparisons that a check needs, taken together."""

    real: PairedRead
    boot: PairedRead
    mono: PairedRead


def read_clocks() -> ClockReads:
    """REALTIME, BOOTTIME and MONOTONIC against RAW, now."""
    return ClockReads(*(paired_read(c) for c in (Clock.REALTIME, Clock.BOOTTIME, Clock.MONOTONIC)))


class JumpDetector:
    """Paired reads in, typed jumps out; pure, the notice comes from outside.

    The rate of REALTIME against RAW is followed slowly, so that the size of a step is not mixed
    with the slew since the last read.

    Args:
        first: Reads to start from.
    """

    def __init__(self, first: ClockReads) -> None:
        self._last = first
        self._rate = 0.0
        self.steps = 0
        self.slewed_ns = 0

    @property
    def last_real(self) -> PairedRead:
        """REALTIME against RAW at the last check."""
        return self._last.real

    def check(self, reads: ClockReads, noticed: bool) -> list[Jump]:
        """Compare with the last reads.

        Args:
            reads: Reads of now.
            noticed: True when the timer was cancelled, that is, somebody set the clock.
        """
        last, self._last = self._last, reads
        found: list[Jump] = []
        slept_ns, slept_error_ns = _slept(last, reads)
        if slept_ns > SUSPEND_NS:
            found.append(Suspended(reads.real.raw_ns, slept_ns, slept_error_ns))
        else:
            slept_ns = 0
        found.extend(self._step(last.real, reads.real, slept_ns, slept_error_ns, noticed))
        return found

    def _step(
        self, last: PairedRead, now: PairedRead, slept_ns: int, error_ns: int, noticed: bool
    ) -> list[Jump]:
        elapsed_ns = now.raw_ns - last.raw_ns
        moved_ns = (now.other_ns - now.raw_ns) - (last.other_ns - last.raw_ns) - slept_ns
        unexpected_ns = moved_ns - round(self._rate * elapsed_ns)
        brackets_ns = (last.bracket_ns + now.bracket_ns) // 2
        blur_ns = brackets_ns + RESOLUTION_NS + (error_ns if slept_ns else 0)
        if noticed and not slept_ns:
            if abs(unexpected_ns) <= blur_ns:
                return [UnknownStep(now.raw_ns, Clock.REALTIME, "clock set, net size below noise")]
            return [self._sized(now, unexpected_ns, brackets_ns, "clock set")]
        limit_ns = blur_ns + round(SLEW_LIMIT * max(elapsed_ns, 0))
        if abs(moved_ns) > limit_ns:
            return [self._sized(now, unexpected_ns, blur_ns, "clock moved faster than any slew")]
        if not slept_ns and elapsed_ns > NS_PER_S // 100:
            self.slewed_ns += moved_ns
            weight = min(elapsed_ns / (16 * NS_PER_S), 1.0)
            self._rate += weight * (moved_ns / elapsed_ns - self._rate)
        return []

    def _sized(self, now: PairedRead, size_ns: int, error_ns: int, reason: str) -> Step:
        self.steps += 1
        return Step(now.raw_ns, Clock.REALTIME, size_ns, error_ns, -1, reason)


def _slept(last: ClockReads, now: ClockReads) -> tuple[int, int]:
    """Growth of BOOTTIME - MONOTONIC, which only a suspend moves, and its uncertainty."""
    before = (last.boot.other_ns - last.boot.raw_ns) - (last.mono.other_ns - last.mono.raw_ns)
    after = (now.boot.other_ns - now.boot.raw_ns) - (now.mono.other_ns - now.mono.raw_ns)
    return after - before, 2 * NS_PER_S


class SetNotice(Protocol):
    """Tells that somebody set the clock."""

    def fileno(self) -> int:
        """Readable when the clock was set; -1 when notices are not available."""

    def taken(self) -> bool:
        """True once for each notice (several may merge)."""

    def close(self) -> None:
        """Give the descriptor back."""


class TimerNotice:
    """The timerfd that the kernel cancels when CLOCK_REALTIME is set (timerfd_create(2)).

    Raises:
        DeviceError: The kernel has no timerfd, or the C library is not there.
    """

    def __init__(self) -> None:
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            flags = TFD_CLOEXEC | TFD_NONBLOCK
            self._fd = int(self._libc.timerfd_create(_CLOCK_REALTIME, flags))
        except (OSError, AttributeError) as error:
            raise DeviceError(f"clock-set notices are not available: {error}") from error
        if self._fd < 0:
            raise DeviceError(f"timerfd_create: {os.strerror(ctypes.get_errno())}")
        self._arm()

    def _arm(self) -> None:
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(_FAR_FUTURE_S // 128, 0))
        flags = _TFD_ABSTIME | _TFD_CANCEL_ON_SET
        if self._libc.timerfd_settime(self._fd, flags, ctypes.byref(spec), None) != 0:
            raise DeviceError(f"timerfd_settime: {os.strerror(ctypes.get_errno())}")

    def fileno(self) -> int:
        """The timer's descriptor: readable when the clock was set."""
        return self._fd

    def taken(self) -> bool:
        """Read the notice and arm again."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                return False
            # The kernel keeps cancelling until armed again against the clock as it is now.
            self._arm()
            return True
        return False

    def close(self) -> None:
        """Close the timer."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class JumpWatch:
    """Detector, notice and reads in one: what the daemon's loop asks.

    Args:
        notice: Where notices come from; None to rely on paired reads alone.
        reads: Takes the paired reads.
    """

    def __init__(
        self, notice: SetNotice | None, reads: Callable[[], ClockReads] = read_clocks
    ) -> None:
        self._notice = notice
        self._reads = reads
        self.detector = JumpDetector(reads())

    @property
    def last_real(self) -> PairedRead:
        """REALTIME against RAW at the last poll."""
        return self.detector.last_real

    def fileno(self) -> int:
        """Descriptor to wait on, or -1."""
        return -1 if self._notice is None else self._notice.fileno()

    def poll(self) -> list[Jump]:
        """Jumps since the last call."""
        noticed = self._notice is not None and self._notice.taken()
        return self.detector.check(self._reads(), noticed)

    def close(self) -> None:
        """Give the notice's descriptor back."""
        if self._notice is not None:
            self._notice.close()


def system_watch() -> tuple[JumpWatch, str]:
    """A watch on this machine's clocks, and what it lacks ("" when nothing)."""
    try:
        return JumpWatch(TimerNotice()), ""
    except DeviceError as error:
        return JumpWatch(None), f"{error}; jumps are found by paired reads at each step only"
