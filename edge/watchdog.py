"""Ends runs that pass their deadline and reports workers that do not come back.

`Watchlist` decides, purely; `Watchdog` is the thread around it. It sleeps until the next deadline
and is woken only for an earlier one, so an ordinary frame costs it nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from syncline.timebase import NS_PER_S, RawClock


@dataclass
class Watch:
    """One job under watch.

    Attributes:
        stop_ns: When its run is to be ended; None = never.
        hang_ns: When its worker counts as hung.
        stopped: Whether the end was ordered.
    """

    stop_ns: int | None
    hang_ns: int
    stopped: bool = False

    @property
    def next_ns(self) -> int:
        """When something is to be done about it."""
        if self.stopped or self.stop_ns is None:
            return self.hang_ns
        return min(self.stop_ns, self.hang_ns)


@dataclass
class Watchlist:
    """What is under watch, by job number. Not thread-safe."""

    watches: dict[int, Watch] = field(default_factory=dict)

    def arm(self, job: int, stop_ns: int | None, hang_ns: int) -> None:
        """Watch a job."""
        self.watches[job] = Watch(stop_ns, hang_ns)

    def disarm(self, job: int) -> None:
        """The job came back."""
        self.watches.pop(job, None)

    def step(self, now_ns: int) -> tuple[list[int], list[int]]:
        """(jobs to be stopped, jobs whose worker hangs; these are watched no longer)."""
        stop: list[int] = []
        hung: list[int] = []
        for job, watch in list(self.watches.items()):
            if now_ns >= watch.hang_ns:
                hung.append(job)
                del self.watches[job]
            elif not watch.stopped and watch.stop_ns is not None and now_ns >= watch.stop_ns:
                watch.stopped = True
                stop.append(job)
        return stop, hung

    @property
    def next_ns(self) -> int | None:
        """When to look again; None = when something is armed."""
        return min((watch.next_ns for watch in self.watches.values()), default=None)


class Watchdog:
    """The thread around a `Watchlist`.

    Args:
        clock: Deadlines are on its raw time; a step of the wall clock moves none of them.
        on_stop: Called with a job whose run is to be ended.
        on_hang: Called with a job whose worker does not come back.
    """

    def __init__(
        self, clock: RawClock, on_stop: Callable[[int], None], on_hang: Callable[[int], None]
    ) -> None:
        self._clock = clock
        self._on_stop = on_stop
        self._on_hang = on_hang
        self._list = Watchlist()
        self._changed = threading.Condition()
        self._wakes_ns: int | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="edge-watchdog", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching and wait for the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def arm(self, job: int, stop_ns: int | None, hang_ns: int) -> None:
        """Watch a job; see `Watchlist.arm`."""
        with self._changed:
            self._list.arm(job, stop_ns, hang_ns)
            due_ns = self._list.watches[job].next_ns
            if self._wakes_ns is None or due_ns < self._wakes_ns:
                self._changed.notify()

    def disarm(self, job: int) -> None:
        """The job came back."""
        with self._changed:
            self._list.disarm(job)

    def _loop(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    return
                stop, hung = self._list.step(self._clock.raw_ns())
                if not stop and not hung:
                    self._sleep()
                    continue
            for job in stop:
                self._on_stop(job)
            for job in hung:
                self._on_hang(job)

    def _sleep(self) -> None:
        self._wakes_ns = self._list.next_ns
        if self._wakes_ns is None:
            self._changed.wait()
        else:
            left_ns = self._wakes_ns - self._clock.raw_ns()
            self._changed.wait(max(left_ns, 0) / NS_PER_S)
        self._wakes_ns = None
