"""What all adapters share: their counters, and an end that any thread may ask for."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

from syncline.sensors.adapter import Health, HealthState, Stamped
from syncline.sensors.frame import FrameEvent, Ns
from syncline.timebase import Clock

S = TypeVar("S", bound=Stamped)


class BaseAdapter(ABC, Generic[S]):
    """A `SensorAdapter` whose `frames` and `close` are safe against each other.

    Drivers and decoders are not safe to release while another thread reads them: the thread that
    runs `frames` releases what was opened, `close` from elsewhere only asks for it.
    """

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._reading = False
        self._state, self._detail = HealthState.CLOSED, ""
        self._frames = self._dropped = self._duplicates = self._errors = 0
        self._reconnects = 0
        self._last_ns: Ns | None = None

    @abstractmethod
    def _open(self) -> None:
        """Open the device or file."""

    @abstractmethod
    def _run(self) -> Generator[S, None, None]:
        """Everything there is; looks at `_closed` wherever it waits."""

    @abstractmethod
    def _release(self) -> None:
        """Give back what `_open` took; twice is fine."""

    def open(self) -> None:
        """Open it; what was asked of `close` before is over.

        Raises:
            SynclineError: See `_open` of the adapter.
        """
        self._closed.clear()
        self._begin()

    def _begin(self) -> None:
        self._release()
        self._open()
        self._state, self._detail = HealthState.OK, ""

    def frames(self) -> Iterator[S]:
        """Frames or samples in order, until the end or `close`."""
        with self._lock:
            self._reading = True
        try:
            with closing(self._run()) as run:
                for sample in run:
                    if self._closed.is_set():
                        return
                    self._frames += 1
                    if sample.arrival.clock is Clock.MONOTONIC_RAW:
                        self._last_ns = sample.arrival.t_ns
                    yield sample
        finally:
            with self._lock:
                self._reading = False
                self._end()

    def close(self) -> None:
        """End `frames` after the wait in progress, and release the device or file."""
        self._closed.set()
        with self._lock:
            if not self._reading:
                self._end()

    def _end(self) -> None:
        if self._state is not HealthState.ENDED:
            self._state = HealthState.CLOSED
        self._release()

    def health(self) -> Health:
        """State and counters."""
        clock, event = self._stamps()
        return Health(
            self._state,
            frames=self._frames,
            dropped=self._dropped,
            duplicates=self._duplicates,
            errors=self._errors,
            reconnects=self._reconnects,
            last_ns=self._last_ns,
            stamp_clock=clock,
            stamp_event=event,
            detail="; ".join(filter(None, [self._detail, *self._told()])),
        )

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        """Clock of the stamps and what they mark."""
        return Clock.UNKNOWN, FrameEvent.ARRIVAL

    def _told(self) -> list[str]:
        """What people should know beside the counters."""
        return []
