"""Another program that sets the machine's clock; a process of its own, small so that it is quick.

Run as a script it obeys lines of its input, `by NS`, `to NS`, `slew PPM` or `leap WAY`, and answers
each with `SIZE BEFORE_RAW AFTER_RAW`. `ClockSetter` is the other end.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from dataclasses import dataclass

S = 1_000_000_000
_ADJ_FREQUENCY, _ADJ_SETOFFSET, _ADJ_NANO, _ADJ_TICK = 0x0002, 0x0100, 0x2000, 0x4000
_ADJ_STATUS, _STA_INS, _STA_DEL = 0x0010, 0x0010, 0x0020
_TICK_US = 10_000


class _Timeval(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("part", ctypes.c_long))


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
        ("constant", ctypes.c_long), ("precision", ctypes.c_long), ("tolerance", ctypes.c_long),
        ("time", _Timeval), ("tick", ctypes.c_long), ("rest", ctypes.c_char * 200),
    )  # fmt: skip


_libc = ctypes.CDLL(None, use_errno=True)


def raw_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


@dataclass(frozen=True)
class Stepped:
    """One step: its size, and the RAW instants before and after the call."""

    size_ns: int
    before_raw_ns: int
    after_raw_ns: int


def _adjust(timex: _Timex) -> tuple[int, int]:
    before = raw_ns()
    if _libc.adjtimex(ctypes.byref(timex)) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")
    return before, raw_ns()


def step_by(size_ns: int) -> Stepped:
    """ADJ_SETOFFSET: a step of exactly this size, with nothing lost between reading and setting."""
    seconds, part = divmod(size_ns, S)
    timex = _Timex(modes=_ADJ_SETOFFSET | _ADJ_NANO, time=_Timeval(seconds, part))
    return Stepped(size_ns, *_adjust(timex))


def set_to(utc_ns: int) -> Stepped:
    """clock_settime, as date(1) does it; the size is known to the time between the two calls."""
    before = raw_ns()
    old_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
    time.clock_settime_ns(time.CLOCK_REALTIME, utc_ns)
    return Stepped(utc_ns - old_ns, before, raw_ns())


def slew(ppm: int) -> Stepped:
    """Run the clock fast or slow: the tick for the hundreds, the frequency for the rest."""
    ticks, rest = divmod(ppm, 100)
    timex = _Timex(modes=_ADJ_FREQUENCY | _ADJ_TICK, freq=rest << 16, tick=_TICK_US + ticks)
    return Stepped(0, *_adjust(timex))


def leap(way: int) -> Stepped:
    """Tell the kernel of a second to insert (1) or leave out (-1) at the day's end; 0: none."""
    status = {1: _STA_INS, -1: _STA_DEL, 0: 0}[way]
    return Stepped(0, *_adjust(_Timex(modes=_ADJ_STATUS, status=status)))


class ClockSetter:
    """The process that sets the clock."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-B", __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.tell("slew", 0)
        self.answer()

    def tell(self, what: str, value: int) -> None:
        """Ask for it; it happens at once, in the other process."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {value}\n")
        self._process.stdin.flush()

    def answer(self) -> Stepped:
        """What was done last."""
        assert self._process.stdout is not None
        return Stepped(*map(int, self._process.stdout.readline().split()))

    def close(self) -> None:
        """Leave the clock unslewed and end."""
        self.tell("slew", 0)
        self._process.communicate(timeout=10)


def _obey() -> None:
    commands = {"by": step_by, "to": set_to, "slew": slew, "leap": leap}
    for line in sys.stdin:
        what, value = line.split()
        done = commands[what](int(value))
        print(done.size_ns, done.before_raw_ns, done.after_raw_ns, flush=True)


if __name__ == "__main__":
    _obey()
