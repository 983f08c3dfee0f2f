"""One camera's thread: frames in, timed, recorded, handed to the runner."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np

from syncline.edge.cameras import Timer
from syncline.edge.job import Drop, DropReason, Frame
from syncline.edge.live_media import end
from syncline.errors import ClockError, SensorDataError, SynclineError
from syncline.sensors.adapter import Health, HealthState, SensorAdapter
from syncline.sensors.frame import FrameTime, RawFrame
from syncline.sensors.jpeg import JpegPicture

_log = logging.getLogger(__name__)

REOPEN_S = 1.0
STAGE = "camera"
"""Where frames end that never came to a model."""


class Capture:
    """Runs a camera until it ends or is closed; one that is absent or fails is opened again.

    Only the camera's own thread ends its frames: drivers and decoders are not safe to close while
    another thread reads them.

    Args:
        name: Name of the camera.
        make: Makes its adapter, not open yet, and the timer of its frames.
        captured: Told of every timed frame, before it is processed.
        submit: Takes the frame for processing.
        dropped: Told of frames that the camera's numbers skip and of those that get no time.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], tuple[SensorAdapter[RawFrame], Timer]],
        captured: Callable[[RawFrame, FrameTime], None],
        submit: Callable[[Frame], object],
        dropped: Callable[[Drop], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.problem = ""
        self.refusal = ""
        self.rejected = 0
        self._make = make
        self._made: tuple[SensorAdapter[RawFrame], Timer] | None = None
        self._is_open = self._was_open = False
        self._captured = captured
        self._submit = submit
        self._dropped = dropped
        self._next_index: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)

    def open(self) -> None:
        """Open the camera; where that fails, the thread tries again every `REOPEN_S`.

        Raises:
            SynclineError: It cannot be opened; a typed error that says why.
        """
        try:
            if self._made is None:
                self._made = self._make()
            adapter, _ = self._made
            adapter.open()
        except SynclineError as error:
            self._tell(error)
            raise
        self._is_open = self._was_open = True
        if self._stop.is_set():  # `close` came while it opened
            adapter.close()

    def start(self) -> None:
        """Begin to deliver frames."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether frames may still come."""
        return self._thread.is_alive()

    @property
    def was_open(self) -> bool:
        """Whether it could be opened at least once."""
        return self._was_open

    @property
    def state(self) -> HealthState:
        """Whether frames come, by its adapter and by what became of opening it."""
        if self.problem:
            return HealthState.GONE if self._was_open else HealthState.ABSENT
        state = self.health().state
        over = self.has_ended and self._thread.ident is not None
        return HealthState.ENDED if over and state is HealthState.OK else state

    @property
    def trouble(self) -> str:
        """Why no frames come, in words; empty while they do."""
        state = self.state
        if self.problem:
            return f"{state.value}: {self.problem}"
        if state in (HealthState.GONE, HealthState.STALE):
            return ": ".join(filter(None, [state.value, self.health().detail]))
        return f"frames are refused: {self.refusal}" if self.refusal else ""

    @property
    def has_ended(self) -> bool:
        """Whether it was a recording and is over."""
        return self._was_open and not self.is_running and not self.problem

    def health(self) -> Health:
        """State and counters of the adapter."""
        if self._made is None or not self._was_open:
            return Health(HealthState.ABSENT, detail=self.problem)
        return self._made[0].health()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._is_open:
                    self.open()
                self._deliver()
                return
            except SynclineError as error:
                self._is_open = False
                self._tell(error)
                self._stop.wait(REOPEN_S)
            except Exception:  # noqa: BLE001 - a bug of ours must show in health, alone
                self.problem = "internal error in the camera's thread; see the log"
                _log.exception("camera %s ended by a bug", self.name)
                return

    def _tell(self, error: SynclineError) -> None:
        if str(error) != self.problem:
            _log.error("camera %s: %s", self.name, error)
        self.problem = str(error)

    def _deliver(self) -> None:
        """Every frame until the camera ends or `close`."""
        assert self._made is not None
        adapter, timer = self._made
        frames = adapter.frames()
        try:
            for raw in frames:
                if self._stop.is_set():
                    return
                self.problem = ""
                self._one(raw, timer)
        finally:
            end(frames)

    def _one(self, raw: RawFrame, timer: Timer) -> None:
        try:
            timing = timer.stamp(raw)
        except (SensorDataError, ClockError) as error:
            self._refuse(raw, error)
            return
        self.refusal = ""
        self._count_lost(timing, raw.arrival.t_ns)
        assert isinstance(raw.payload, np.ndarray | JpegPicture)
        self._captured(raw, timing)
        self._submit(Frame(raw.camera, timing.index, raw.payload, timing, raw.arrival.t_ns))

    def _refuse(self, raw: RawFrame, error: SynclineError) -> None:
        self.rejected += 1
        self.refusal = str(error)
        _log.warning("camera %s: frame refused: %s", self.name, error)
        index = raw.sequence or 0
        reason = DropReason.REFUSED
        if self._next_index is not None:  # its number is accounted for
            self._next_index += 1
        self._dropped(Drop(STAGE, self.name, index, raw.arrival.t_ns, reason, str(error)))

    def _count_lost(self, timing: FrameTime, raw_ns: int) -> None:
        """A gap in the frame numbers is frames that ended before they came."""
        expected, self._next_index = self._next_index, timing.index + 1
        if expected is not None and timing.index > expected:
            count = timing.index - expected
            drop = Drop(STAGE, self.name, expected, raw_ns, DropReason.LOST, count=count)
            self._dropped(drop)

    def close(self, timeout_s: float = 5.0) -> None:
        """Take no more frames and end the thread."""
        self._stop.set()
        if self._made is not None:
            self._made[0].close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
