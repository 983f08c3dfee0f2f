"""A thread around a sensor that is not a camera: opened, read, opened again when it goes away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from syncline.edge.live_media import end
from syncline.errors import SynclineError

_log = logging.getLogger(__name__)

T = TypeVar("T")

REOPEN_S = 1.0


class SensorThread(Generic[T]):
    """Reads a sensor until it is stopped; one that is absent or fails is opened again.

    Memory: one sample.

    Args:
        label: Such as `can can0`, for messages.
        open_sensor: Opens it; raises a `SynclineError` where it cannot.
        samples: Begins to read: samples, and None where none came for a while, so that a stop is
            noticed; closing the iterator releases the sensor.
        take: Called with each sample, on this thread.
    """

    def __init__(
        self,
        label: str,
        open_sensor: Callable[[], None],
        samples: Callable[[], Iterator[T | None]],
        take: Callable[[T], None],
    ) -> None:
        self.label = label
        self.trouble = ""
        self.samples = 0
        self.reconnects = 0
        self._open, self._begin, self._take = open_sensor, samples, take
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=label.replace(" ", "-")[:15], daemon=True
        )

    def start(self) -> None:
        """Begin to read; a sensor that is absent is looked for every `REOPEN_S`."""
        self._thread.start()

    def _run(self) -> None:
        opened = 0
        while not self._stop.is_set():
            try:
                self._open()
                self.reconnects, self.trouble = opened, ""
                opened += 1
                self._read()
            except SynclineError as error:
                self._tell(error)
                self._stop.wait(REOPEN_S)
            except Exception:  # noqa: BLE001 - a bug of ours must show in health, alone
                self.trouble = "internal error in the sensor's thread; see the log"
                _log.exception("%s ended by a bug", self.label)
                return

    def _read(self) -> None:
        samples = self._begin()
        try:
            for sample in samples:
                if self._stop.is_set():
                    return
                if sample is not None:
                    self.samples += 1
                    self._take(sample)
        finally:
            end(samples)

    def _tell(self, error: SynclineError) -> None:
        if str(error) != self.trouble:
            _log.error("%s: %s", self.label, error)
        self.trouble = str(error)

    def stop(self) -> None:
        """Take no more samples; any thread."""
        self._stop.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """End the thread."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
