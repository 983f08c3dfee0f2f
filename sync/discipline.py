"""What is done to the system clock: nothing (the default), slewing, or stepping within limits.

CLOCK_REALTIME is an output here; nothing we record depends on it. It is touched only while we are
synchronised and sure, and only in the mode that the operator chose.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
from dataclasses import dataclass
from typing import Protocol

from syncline.errors import ClockError, PermissionDeniedError
from syncline.timebase import NS_PER_S, TimeState


class Mode(enum.Enum):
    """What may be done to the system clock."""

    OBSERVE = "observe"
    SLEW = "slew"
    STEP = "step"


@dataclass(frozen=True, slots=True)
class DisciplineLimits:
    """Limits of what is done.

    Attributes:
        step_above_ns: Smaller errors are slewed, even in mode step.
        max_step_ns: Larger errors are reported and left alone.
        max_steps: Steps in the life of the service; then it only slews.
        max_bound_ns: Nothing is done while our own bound is larger.
        max_slew_ppm: Speed of slewing, beside the frequency correction.
        time_constant_ns: An error is slewed away over about this long.
    """

    step_above_ns: int = NS_PER_S // 2
    max_step_ns: int = 2**62
    max_steps: int = 3
    max_bound_ns: int = NS_PER_S // 10
    max_slew_ppm: float = 200.0
    time_constant_ns: int = 64 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Action:
    """What to do to the clock now.

    Attributes:
        step_ns: Add this at once; 0 for none.
        frequency_ppm: Set this frequency correction; None to leave it.
        reason: In words.
    """

    step_ns: int = 0
    frequency_ppm: float | None = None
    reason: str = ""


NOTHING = Action()


class Discipline:
    """Errors in, actions out. Pure; `SystemClock` carries them out.

    Args:
        mode: What may be done.
        limits: How much.
    """

    def __init__(self, mode: Mode, limits: DisciplineLimits | None = None) -> None:
        self.mode = mode
        self.steps = 0
        self._limits = limits or DisciplineLimits()
        self._frequency_ppm = 0.0
        self._last: tuple[int, int] | None = None

    def forget(self) -> None:
        """Somebody else moved the clock: the last reading says nothing about our frequency."""
        self._last = None

    def decide(self, raw_ns: int, error_ns: int, bound_ns: int, state: TimeState) -> Action:
        """What to do about an error.

        Args:
            raw_ns: Now.
            error_ns: System clock minus UTC.
            bound_ns: Hard bound of that.
            state: State of the service.
        """
        limits = self._limits
        if self.mode is Mode.OBSERVE:
            return Action(reason="observe")
        if state is not TimeState.SYNCED or bound_ns > limits.max_bound_ns:
            return Action(reason=f"not sure enough ({state.name}, bound {bound_ns} ns)")
        if abs(error_ns) > max(limits.step_above_ns, bound_ns):
            return self._step(error_ns)
        return self._slew(raw_ns, error_ns)

    def _step(self, error_ns: int) -> Action:
        limits = self._limits
        if self.mode is not Mode.STEP:
            reason = f"off by {error_ns / NS_PER_S:.3f} s: too far to slew, stepping is not allowed"
            return Action(reason=reason)
        if abs(error_ns) > limits.max_step_ns or self.steps >= limits.max_steps:
            return Action(reason=f"step of {-error_ns} ns is beyond the limits")
        self.steps += 1
        self._last = None
        return Action(step_ns=-error_ns, reason="step")

    def _slew(self, raw_ns: int, error_ns: int) -> Action:
        """A proportional-integral loop; the integral is the clock's own frequency error."""
        limits = self._limits
        if self._last is not None and raw_ns > self._last[0]:
            drift_ppm = (error_ns - self._last[1]) / (raw_ns - self._last[0]) * 1e6
            weight = min((raw_ns - self._last[0]) / (4 * limits.time_constant_ns), 1.0)
            self._frequency_ppm -= weight * (drift_ppm - self._slew_ppm(self._last[1]))
            self._frequency_ppm = min(max(self._frequency_ppm, -450.0), 450.0)
        self._last = (raw_ns, error_ns)
        total = min(max(self._frequency_ppm + self._slew_ppm(error_ns), -500.0), 500.0)
        return Action(frequency_ppm=total, reason="slew")

    def _slew_ppm(self, error_ns: int) -> float:
        limits = self._limits
        wanted = -error_ns / limits.time_constant_ns * 1e6
        return min(max(wanted, -limits.max_slew_ppm), limits.max_slew_ppm)


class SettableClock(Protocol):
    """The clock that is disciplined."""

    def step(self, ns: int) -> None:
        """Add `ns` at once."""

    def set_frequency(self, ppm: float) -> None:
        """Run faster by `ppm` parts per million."""


class _Timeval(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("part", ctypes.c_long))


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _Timeval),
        ("rest", ctypes.c_char * 200),
    )


_ADJ_FREQUENCY, _ADJ_SETOFFSET, _ADJ_NANO = 0x0002, 0x0100, 0x2000


class SystemClock:
    """CLOCK_REALTIME through adjtimex(2); needs CAP_SYS_TIME."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def step(self, ns: int) -> None:
        """Add `ns` at once, without losing what passes meanwhile (ADJ_SETOFFSET).

        Raises:
            PermissionDeniedError: No CAP_SYS_TIME.
            ClockError: The kernel refused.
        """
        seconds, part = divmod(ns, NS_PER_S)
        self._adjust(_Timex(modes=_ADJ_SETOFFSET | _ADJ_NANO, time=_Timeval(seconds, part)))

    def set_frequency(self, ppm: float) -> None:
        """Frequency correction (ADJ_FREQUENCY, ppm with 16 bits of fraction).

        Raises:
            PermissionDeniedError: No CAP_SYS_TIME.
            ClockError: The kernel refused.
        """
        self._adjust(_Timex(modes=_ADJ_FREQUENCY, freq=round(ppm * 65536)))

    def _adjust(self, timex: _Timex) -> None:
        if self._libc.adjtimex(ctypes.byref(timex)) >= 0:
            return
        number = ctypes.get_errno()
        if number == errno.EPERM:
            raise PermissionDeniedError(
                "no right to set the system clock (CAP_SYS_TIME)",
                remedy='Grant it, or set [time] discipline = "observe"',
            )
        raise ClockError(f"adjtimex: {os.strerror(number)}")
