"""How the daemon stands against the other programs of its device, by Linux's niceness.

Under a fair scheduler a program with many threads takes the share of many. An edge daemon that runs
a model in one thread would see its rate fall to a fraction beside a handful of busy processes, so
it asks to go before them; what runs in slack does not.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from types import TracebackType

USUAL = 0
"""Niceness of whoever asked for nothing."""


def ask(nice: int) -> int:
    """Ask for a niceness, for this thread and those that it starts from now on.

    A niceness that the process was started with, by `nice` or systemd's `Nice=`, stays.

    Args:
        nice: From -20 (goes before others) to 19.

    Returns:
        What the thread has now: `USUAL` where the system does not allow one below it.
    """
    if sys.platform != "linux":
        return USUAL
    me = threading.get_native_id()
    _set_usual(me, nice)
    return os.getpriority(os.PRIO_PROCESS, me)


def ask_for_all(nice: int) -> int:
    """`ask`, for every thread that the process has by now: libraries start some when imported."""
    if sys.platform == "linux":
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                _set_usual(int(task.name), nice)
    return ask(nice)


def give_way(nice: int) -> None:
    """Put this thread behind the others for good, where the system counts niceness by thread."""
    if sys.platform == "linux":
        _set(threading.get_native_id(), nice)


class Slack:
    """Holds a thread at the usual niceness while it does what may wait.

    Nothing happens where the threads have no other, or could not come back to it. Any thread.
    """

    def __init__(self) -> None:
        self._own = _own_if_it_can_be_left()

    def __enter__(self) -> None:
        """Step back."""
        if self._own < USUAL:
            _set(threading.get_native_id(), USUAL)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Come back."""
        self.recall(threading.get_native_id())

    def recall(self, thread: int | None) -> None:
        """Bring another thread back at once: it is to end, and must be let run to do so."""
        if self._own < USUAL and thread is not None:
            _set(thread, self._own)


def _own_if_it_can_be_left() -> int:
    """This thread's niceness; `USUAL` where a thread that left it could not take it again.

    Found by doing it: rights come from capabilities, limits and security modules.
    """
    if sys.platform != "linux":
        return USUAL
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    if own >= USUAL:
        return USUAL
    came_back: list[bool] = []

    def leave_and_return() -> None:
        me = threading.get_native_id()
        came_back.append(_set(me, USUAL) and _set(me, own))

    probe = threading.Thread(target=leave_and_return, name="edge-niceness")
    probe.start()
    probe.join()
    return own if came_back == [True] else USUAL


def _set_usual(thread: int, nice: int) -> None:
    """Set the niceness of a thread that was given none."""
    if os.getpriority(os.PRIO_PROCESS, thread) == USUAL:
        _set(thread, nice)


def _set(thread: int, nice: int) -> bool:
    try:
        os.setpriority(os.PRIO_PROCESS, thread, nice)
    except OSError:  # not allowed, or the thread is gone
        return False
    return True
