"""What adapters of devices that come and go share: opened again after a loss, released once."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator

from syncline.errors import DeviceError
from syncline.sensors.adapter import HealthState
from syncline.sensors.frame import RawFrame
from syncline.timebase import NS_PER_S, OsClock, RawClock

RETRY_NS = NS_PER_S // 2


class Reopening(ABC):
    """The life of a device that may go away: `frames` opens it again until `close`.

    Drivers are not safe to release while another thread reads them: the thread that runs `frames`
    releases the device, `close` from elsewhere only asks for it.

    Args:
        clock: Paces retries; None for the machine's.
    """

    def __init__(self, clock: RawClock | None) -> None:
        self._clock = OsClock() if clock is None else clock
        self._closed = threading.Event()
        self._reading = False
        self._state, self._detail = HealthState.CLOSED, ""
        self._reconnects = 0

    @abstractmethod
    def open(self) -> None:
        """Open the device.

        Raises:
            DeviceError: It is missing or may not be used.
        """

    @property
    @abstractmethod
    def _is_open(self) -> bool:
        """Whether the device is held."""

    @abstractmethod
    def _some(self) -> Iterator[RawFrame]:
        """Frames of the open device as far as they come; a loss is told and released."""

    @abstractmethod
    def _release(self) -> None:
        """Give the device back; twice is fine."""

    def frames(self) -> Iterator[RawFrame]:
        """Frames in order, until `close`."""
        self._reading = True
        try:
            while not self._closed.is_set():
                if self._is_open or self._reopen():
                    yield from self._some()
        finally:
            self._reading = False
            self._state = HealthState.CLOSED
            self._release()

    def _reopen(self) -> bool:
        first = self._state is HealthState.CLOSED
        try:
            self.open()
        except DeviceError as error:
            self._state, self._detail = HealthState.GONE, error.message
            self._rest()
            return False
        self._reconnects += not first
        self._came_back()
        return True

    def _rest(self) -> None:
        """Wait before the next try."""
        self._clock.sleep_until(self._clock.raw_ns() + RETRY_NS)

    def _came_back(self) -> None:
        """The device is open again: what was wrong is over."""
        self._detail = ""

    def close(self) -> None:
        """End `frames` after the wait in progress, and release the device."""
        self._closed.set()
        if not self._reading:
            self._state = HealthState.CLOSED
            self._release()
