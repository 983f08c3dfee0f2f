"""What adapters of devices that come and go share: looked for, and opened again after a loss."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Generator, Iterator

from syncline.errors import DeviceError
from syncline.sensors.adapter import HealthState
from syncline.sensors.adapters.base import BaseAdapter, S
from syncline.timebase import NS_PER_S, OsClock, RawClock

_log = logging.getLogger(__name__)

RETRY_NS = NS_PER_S // 2


class Reopening(BaseAdapter[S]):
    """The life of a device that may go away: `frames` opens it again until `close`.

    Each loss is one line of ERROR in the log, each return one of INFO.

    Args:
        clock: Paces retries; None for the machine's.
    """

    def __init__(self, clock: RawClock | None) -> None:
        super().__init__()
        self._clock = OsClock() if clock is None else clock
        self._was_open = False

    def _begin(self) -> None:
        super()._begin()
        self._was_open = True

    @property
    @abstractmethod
    def _is_open(self) -> bool:
        """Whether the device is held."""

    @abstractmethod
    def _some(self) -> Iterator[S]:
        """Samples of the open device as far as they come; a loss is told by `_lose`."""

    def _run(self) -> Generator[S, None, None]:
        while not self._closed.is_set():
            if self._is_open or self._reopen():
                yield from self._some()

    def _lose(self, reason: str) -> None:
        """The device is not there (any more): say so and release it."""
        state = HealthState.GONE if self._was_open else HealthState.ABSENT
        if (state, reason) != (self._state, self._detail):
            _log.error("%s: %s", state.value, reason)
        self._state, self._detail = state, reason
        self._release()

    def _reopen(self) -> bool:
        try:
            self._open()
        except DeviceError as error:
            self._lose(error.message)
            self._rest()
            return False
        if self._was_open:
            self._reconnects += 1
            _log.info("back after: %s", self._detail)
        self._was_open = True
        self._state = HealthState.OK
        self._came_back()
        return True

    def _rest(self) -> None:
        """Wait before the next try."""
        self._clock.sleep_until(self._clock.raw_ns() + RETRY_NS)

    def _came_back(self) -> None:
        """The device is open again: what was wrong is over."""
        self._detail = ""
