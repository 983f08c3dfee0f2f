"""A thread around a sensor that is not a camera; the adapter knows how to come back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from syncline.edge.live_media import end
from syncline.errors import SynclineError
from syncline.sensors.adapter import Health, HealthState, SensorAdapter, Stamped

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=Stamped)

RETRY_S = 1.0
_IN_TROUBLE = frozenset({HealthState.ABSENT, HealthState.GONE, HealthState.STALE})


class SensorThread(Generic[S]):
    """Reads an adapter until it is stopped; what the adapter itself does not survive is told.

    Memory: one sample.

    Args:
        label: Such as `can body`, for messages.
        adapter: The sensor, not open yet.
        take: Called with each sample, on this thread.
    """

    def __init__(self, label: str, adapter: SensorAdapter[S], take: Callable[[S], None]) -> None:
        self.label = label
        self._adapter, self._take = adapter, take
        self._problem = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=label.replace(" ", "-")[:15], daemon=True
        )

    def start(self) -> None:
        """Begin to read; a sensor that is absent is looked for again and again."""
        self._thread.start()

    def health(self) -> Health:
        """State and counters of the adapter."""
        return self._adapter.health()

    @property
    def trouble(self) -> str:
        """Why no samples come, in words; empty while they do."""
        health = self._adapter.health()
        if health.state in _IN_TROUBLE:
            return ": ".join(filter(None, [health.state.value, health.detail]))
        return self._problem

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
                return
            except SynclineError as error:
                self._tell(error)
                self._stop.wait(RETRY_S)
            except Exception:  # noqa: BLE001 - a bug of ours must show in health, alone
                self._problem = "internal error in the sensor's thread; see the log"
                _log.exception("%s ended by a bug", self.label)
                return

    def _read(self) -> None:
        samples = self._adapter.frames()
        try:
            for sample in samples:
                if self._stop.is_set():
                    return
                self._problem = ""
                self._take(sample)
        finally:
            end(samples)

    def _tell(self, error: SynclineError) -> None:
        if str(error) != self._problem:
            _log.error("%s: %s", self.label, error)
        self._problem = str(error)

    def close(self, timeout_s: float = 2.0) -> None:
        """End the thread and release the sensor."""
        self._stop.set()
        self._adapter.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
