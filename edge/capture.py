"""One camera's thread: frames in, timed, recorded, handed to the runner."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np

from syncline.edge.cameras import Timer
from syncline.edge.job import Frame
from syncline.errors import SensorDataError, SynclineError
from syncline.sensors.adapter import Health, SensorAdapter
from syncline.sensors.frame import FrameTime, RawFrame

_log = logging.getLogger(__name__)

REOPEN_S = 1.0


class Capture:
    """Runs a camera until it ends or is closed.

    Args:
        name: Name of the camera.
        adapter: Its adapter, not open yet.
        timer: Times its frames.
        captured: Told of every timed frame, before it is processed.
        submit: Takes the frame for processing.
    """

    def __init__(
        self,
        name: str,
        adapter: SensorAdapter,
        timer: Timer,
        captured: Callable[[RawFrame, FrameTime], None],
        submit: Callable[[Frame], object],
    ) -> None:
        self.name = name
        self.adapter = adapter
        self.problem = ""
        self.rejected = 0
        self._timer = timer
        self._captured = captured
        self._submit = submit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)

    def start(self) -> None:
        """Open the camera and begin.

        Raises:
            SynclineError: It cannot be opened; a typed error that says why.
        """
        self.adapter.open()
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether frames may still come."""
        return self._thread.is_alive()

    def health(self) -> Health:
        """State and counters of the adapter."""
        return self.adapter.health()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                for raw in self.adapter.frames():
                    if self._stop.is_set():
                        return
                    self._one(raw)
                return
            except SynclineError as error:
                self.problem = str(error)
                _log.error("camera %s: %s", self.name, error)
                self._stop.wait(REOPEN_S)
                self._reopen()
            except Exception:  # noqa: BLE001 - a bug of ours must show in health, alone
                self.problem = "internal error in the camera's thread; see the log"
                _log.exception("camera %s ended by a bug", self.name)
                return

    def _reopen(self) -> None:
        self.adapter.close()
        try:
            self.adapter.open()
            self.problem = ""
        except SynclineError as error:
            self.problem = str(error)

    def _one(self, raw: RawFrame) -> None:
        try:
            timing = self._timer.stamp(raw)
        except SensorDataError as error:
            self.rejected += 1
            _log.warning("camera %s: frame refused: %s", self.name, error)
            return
        assert isinstance(raw.payload, np.ndarray)
        self._captured(raw, timing)
        self._submit(Frame(raw.camera, timing.index, raw.payload, timing, raw.arrival.t_ns))

    def close(self, timeout_s: float = 5.0) -> None:
        """Take no more frames and end the thread."""
        self._stop.set()
        self.adapter.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
