"""The clock as a part of the edge daemon: a thread around the time service."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from syncline.edge.pipeline import Pipeline
from syncline.edge.records import Output
from syncline.errors import StorageError
from syncline.messages import syncline_pb2 as pb
from syncline.sync.config import TimeConfig
from syncline.sync.daemon import Outlets
from syncline.sync.services import build_service
from syncline.sync.sources.ubx import TimeMark
from syncline.timebase import NO_BOUND_NS, RawClock, TimeState

_log = logging.getLogger(__name__)


class TimePart:
    """Runs the time service and turns what it says into messages.

    Args:
        config: `[time]` of the configuration.
        folder: Where the floor and the learned oscillator are kept, unless `state_dir` says.
        clock: Raw clock.
        pipeline: Makes the messages; frames name the segment that it saw last.
        emit: Takes them; called on the clock's thread.
        speed_mps: The vehicle's speed, to hold against that of GNSS.
        mark: Takes the name of a receiver and an edge on its EXTINT pin; on the clock's thread.

    Raises:
        ConfigError: Keys that contradict each other.
        StorageError: The folder cannot be made.
    """

    def __init__(
        self,
        config: TimeConfig,
        folder: Path,
        clock: RawClock,
        pipeline: Pipeline,
        emit: Callable[[list[Output]], None],
        speed_mps: Callable[[], float | None] = lambda: None,
        mark: Callable[[str, TimeMark], None] | None = None,
    ) -> None:
        if not config.state_dir:
            _make(folder)
            config = msgspec.structs.replace(config, state_dir=str(folder))
        self._clock = clock
        self._problem = ""
        outlets = Outlets(
            segment=lambda segment, policy: emit(pipeline.segment(segment, policy)),
            measurement=lambda measurement: emit(pipeline.measurement(measurement)),
            notice=lambda notice: emit(pipeline.notice(notice)),
            source=lambda row, raw_ns: emit(pipeline.source(row, raw_ns)),
            sky=lambda name, sky: emit(pipeline.fix(name, sky)),
            mark=mark,
        )
        self._service = build_service(config, clock, outlets=outlets, wheel_speed_mps=speed_mps)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="time", daemon=True)

    def _run(self) -> None:
        try:
            self._service.run(self._stop.is_set)
        except Exception as error:  # noqa: BLE001 - a bug of ours must show in health, alone
            self._problem = f"the time service ended, time runs on unchecked: {_line(error)}"
            _log.exception("the time service ended by a bug")

    def start(self) -> None:
        """Begin to listen to the sources."""
        self._thread.start()

    def utc(self, raw_ns: int) -> tuple[int, int] | None:
        """UTC of a raw time and its hard bound; None while it is not known or has no bound."""
        known = self._service.conductor.utc(raw_ns)
        if known is None or known.bound_ns >= NO_BOUND_NS:
            return None
        return known.utc_ns, known.bound_ns

    def add_to(self, message: pb.Health) -> None:
        """Add the state of the clock, and whether it is still looked after, to a health message."""
        if self._problem:
            message.state = "degraded"
            message.detail = "; ".join(filter(None, [message.detail, f"time: {self._problem}"]))
        known = self._service.conductor.utc(self._clock.raw_ns())
        state = TimeState.COLD if known is None else known.state
        message.time_state = pb.TimeState.Name(int(state))
        if known is not None and known.bound_ns < NO_BOUND_NS:
            message.time_bound_ns = known.bound_ns

    def close(self) -> None:
        """Stop, and keep what was learned of the oscillator."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=5.0)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot make {folder}: {error.strerror or error}",
            remedy="Free space, or choose another $.device.data",
        ) from error
