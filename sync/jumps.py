"""Notices that the system clock was set, or that time was lost in suspend.

A timerfd with TFD_TIMER_CANCEL_ON_SET wakes us within tens of microseconds of any clock_settime,
but tells no size, and two quick steps may merge. Paired reads tell the size but only when they are
made. Together they give typed events.

The kernel makes REALTIME, MONOTONIC and BOOTTIME out of one counter and one rate: a slew moves all
three alike, a suspend moves REALTIME and BOOTTIME alike, and only setting the clock (or a leap
second) moves REALTIME against BOOTTIME. So that difference is the step, exactly, whatever slew is
in progress and however fast it is (kernel/time/timekeeping.c, `tk_set_wall_to_mono` and
`tk_update_sleep_time`).
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
from syncline.timebase import Clock, PairedRead, paired_read

TFD_CLOEXEC, TFD_NONBLOCK = 0o2000000, 0o4000
_TFD_ABSTIME, _TFD_CANCEL_ON_SET = 1, 2
_CLOCK_REALTIME = 0
_FAR_FUTURE_S = 2**40
RESOLUTION_NS = 100
"""Two processors' counters may differ by this much; brackets do not show it."""
SLEEP_ERROR_NS = 2_000_000_000
"""The clock that measures a suspend counts in seconds on most machines, before and after."""
SUSPEND_NS = 1_000_000
"""Only a suspend moves BOOTTIME against MONOTONIC; a read that was preempted blurs them less."""


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


_TRIES = 20
"""A step shows when it is larger than four half brackets: a few more tries, each of 0.3 us, keep
these below 1 us on a busy machine too."""


def read_clocks() -> ClockReads:
    """REALTIME, BOOTTIME and MONOTONIC against RAW, now."""
    clocks = (Clock.REALTIME, Clock.BOOTTIME, Clock.MONOTONIC)
    return ClockReads(*(paired_read(clock, _TRIES) for clock in clocks))


class JumpDetector:
    """Paired reads in, typed jumps out; pure, the notice comes from outside.

    Args:
        first: Reads to start from.
    """

    def __init__(self, first: ClockReads) -> None:
        self._last = first
        self.steps = 0

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
        slept_ns = _apart(reads.boot, reads.mono) - _apart(last.boot, last.mono)
        slept = slept_ns > SUSPEND_NS
        if slept:
            found.append(Suspended(reads.real.raw_ns, slept_ns, SLEEP_ERROR_NS))
        size_ns = _apart(reads.real, reads.boot) - _apart(last.real, last.boot)
        brackets = (last.real, last.boot, reads.real, reads.boot)
        blur_ns = sum(read.bracket_ns for read in brackets) // 2 + RESOLUTION_NS
        if abs(size_ns) > blur_ns:
            reason = "clock set" if noticed else "clock set without a notice"
            self.steps += 1
            raw_ns = reads.real.raw_ns
            found.append(Step(raw_ns, Clock.REALTIME, size_ns, blur_ns, -1, reason))
        elif noticed and not slept:  # waking up notifies as well
            text = "clock set, net size below noise"
            found.append(UnknownStep(reads.real.raw_ns, Clock.REALTIME, text))
        return found


def _apart(one: PairedRead, other: PairedRead) -> int:
    """How far one clock is ahead of another, by way of RAW."""
    return (one.other_ns - one.raw_ns) - (other.other_ns - other.raw_ns)


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
