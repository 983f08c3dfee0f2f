"""What adapters of recordings share: read once through, then ended."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator

from syncline.sensors.adapter import HealthState
from syncline.sensors.adapters.base import BaseAdapter, S


class Recorded(BaseAdapter[S]):
    """The life of a recording: opened, read to its end or until `close`, opened again at will."""

    def _begin(self) -> None:
        self._frames = self._dropped = self._duplicates = self._errors = 0
        self._last_ns = None
        super()._begin()

    @abstractmethod
    def _read(self) -> Iterator[S]:
        """Everything that is in it.

        Raises:
            SynclineError: Not one sample could be read.
        """

    def _run(self) -> Generator[S, None, None]:
        if self._closed.is_set():
            return
        if self._state is not HealthState.OK:
            self._begin()
        yield from self._read()
        if not self._closed.is_set():
            self._state = HealthState.ENDED
