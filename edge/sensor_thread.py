"""A thread around a sensor that is not a camera: opened, read, opened again when it goes away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from syncline.errors import SynclineError

_log = logging.getLogger(__name__)

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

REOPEN_S = 1.0
READ_S = 0.2
"""Longest wait for a sample: a stop is noticed within it."""


class Readable(Protocol[T_co]):
    """A sensor that gives one sample at a time."""

    def open(self) -> None:
        """Open it.

        Raises:
            SynclineError: It is absent or may not be used.
        """

    def read(self, timeout_s: float) -> T_co | None:
        """The next sample; None when none came in time.

        Raises:
            SynclineError: It went away; `open` again.
        """

    def close(self) -> None:
        """Release it; twice is fine."""


class SensorThread(Generic[T]):
    """Reads a sensor until it is stopped. Memory: one sample.

    Args:
        label: Such as `can can0`, for messages.
        source: The sensor, not open yet.
        take: Called with each sample, on this thread.
    """

    def __init__(self, label: str, source: Readable[T], take: Callable[[T], None]) -> None:
        self.label = label
        self.trouble = ""
        self.samples = 0
        self.reconnects = 0
        self._source, self._take = source, take
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
                self._source.open()
                self.reconnects, self.trouble = opened, ""
                opened += 1
                self._read()
            except SynclineError as error:
                self._tell(error)
                self._stop.wait(REOPEN_S)
            except Exception:  # noqa: BLE001 - a bug of ours must show in health, alone
                self.trouble = "internal error in the sensor's thread; see the log"
                _log.exception("%s ended by a bug", self.label)
                break
        self._source.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            sample = self._source.read(READ_S)
            if sample is not None:
                self.samples += 1
                self._take(sample)

    def _tell(self, error: SynclineError) -> None:
        self._source.close()
        if str(error) != self.trouble:
            _log.error("%s: %s", self.label, error)
        self.trouble = str(error)

    def close(self, timeout_s: float = 2.0) -> None:
        """End the thread and release the sensor."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
