"""The edge daemon: cameras, clock, model, recorder and uplink, started and stopped in order.

Threads: one per camera, the runner's, the recorder's, the uplink's, the clock's, one for model
updates; this module holds them together and says how they are. Memory is bounded by their queues.
Stopping: cameras, clock, runner (drained), recorder (synced), spool (synced), uplink (drained).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from syncline import topics
from syncline.edge.cameras import Timer, make_camera
from syncline.edge.capture import Capture
from syncline.edge.config import CameraSection, EdgeConfig
from syncline.edge.drop_runs import DropRuns
from syncline.edge.job import Drop, Result
from syncline.edge.marked_timer import MarkBoard
from syncline.edge.model_set import ModelSet
from syncline.edge.outgoing import Outgoing
from syncline.edge.pipeline import Pipeline, PipelineOptions
from syncline.edge.prometheus import MetricsServer
from syncline.edge.records import Output, model_event_message
from syncline.edge.runner import Runner
from syncline.edge.serving import Callbacks
from syncline.edge.shadow_service import ShadowService
from syncline.edge.status import Status
from syncline.edge.swap import SwapEvent
from syncline.edge.time_part import TimePart
from syncline.edge.updater import UpdateEvent
from syncline.edge.vehicle import Vehicle
from syncline.errors import SynclineError, UsageError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapter import SensorAdapter
from syncline.sensors.frame import FrameTime, RawFrame
from syncline.systemd import notify, watchdog_interval_s
from syncline.timebase import NS_PER_S, RawClock

_log = logging.getLogger(__name__)

DRAIN_S = 5.0
TICK_S = 1.0
"""A new model on probation, uploads and the end of all cameras wait for no rare health message."""
_OF_THE_RUNNER = frozenset({"loaded", "unloadable", "reloaded", "reload-failed"})
"""What a service does to a model it reports itself, with its reasons."""


class EdgeDaemon:
    """One device at work.

    Args:
        config: `edge.toml`.
        clock: The machine's raw clock.
        show: Called with each health message, for a live status.

    Raises:
        SynclineError: Something configured cannot work; a typed error that says what.
    """

    def __init__(
        self,
        config: EdgeConfig,
        clock: RawClock,
        show: Callable[[pb.Health], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._show = show
        data = Path(config.device.data)
        self._models = ModelSet(config, data)
        options = PipelineOptions(
            images=config.record.enabled and config.record.images,
            jpeg_quality=config.record.jpeg_quality,
            recompress=config.record.recompress,
        )
        self._pipeline = Pipeline(clock.boot_id, options)
        self._runs = DropRuns()
        self._outgoing = Outgoing(config, clock, on_notice=self._on_notice)
        with ExitStack() as stack:  # what failed to be built leaves nothing open behind
            stack.callback(self._outgoing.close)
            self._build_parts(data)
            stack.pop_all()

    def _build_parts(self, data: Path) -> None:
        config, clock = self._config, self._clock
        slots = self._models.slots()
        shadowed = {slot.shadow_of for slot in slots if slot.shadow_of}
        self._shadow = ShadowService(config.device.name, clock.boot_id, shadowed, self._emit)
        self._runner = Runner(
            slots,
            clock=clock,
            callbacks=Callbacks(
                on_result=self._on_result,
                on_drop=self._on_drop,
                on_event=self._on_swap,
                on_shadow=self._shadow.on_shadow,
            ),
            workers=config.runner.workers,
        )
        self._marks = MarkBoard(self._utc)
        self._captures = [self._capture(at) for at in range(len(config.camera))]
        self._vehicle = Vehicle(config, clock, self._emit)
        self._time = TimePart(
            config.time,
            data / "time",
            clock,
            self._pipeline,
            self._emit,
            self._vehicle.speed_mps,
            self._marks.take,
        )
        self._status = Status(
            clock,
            self._runner,
            self._captures,
            [
                self._outgoing.add_to,
                self._time.add_to,
                self._shadow.add_to,
                self._vehicle.add_to,
                self._marks.add_to,
                lambda _: self._models.problems(),
            ],
        )

    def _capture(self, at: int) -> Capture:
        section = self._config.camera[at]
        make = partial(self._make_camera, section)
        return Capture(section.name, make, self._on_captured, self._runner_submit, self._on_drop)

    def _make_camera(self, section: CameraSection) -> tuple[SensorAdapter[RawFrame], Timer]:
        adapter, timer = make_camera(section, self._clock, self._utc)
        return adapter, self._marks.timer(section, timer)

    def _utc(self, raw_ns: int) -> tuple[int, int] | None:
        """UTC and its bound; the clock's part is made after the cameras, asked while they run."""
        return self._time.utc(raw_ns)

    def _runner_submit(self, frame: object) -> object:
        return self._runner.submit(frame)  # type: ignore[arg-type]

    # -- what the parts say ----------------------------------------------------------------------

    def _emit(self, outputs: list[Output]) -> None:
        for output in outputs:
            self._outgoing.emit(output)

    def _on_captured(self, frame: RawFrame, timing: FrameTime) -> None:
        self._emit(self._pipeline.captured(frame, timing))

    def _on_result(self, result: Result) -> None:
        self._emit(self._pipeline.result(result))
        self._shadow.on_result(result)

    def _on_drop(self, drop: Drop) -> None:
        self._tell_drops(self._runs.step(drop))

    def _tell_drops(self, drops: list[Drop]) -> None:
        for drop in drops:
            self._emit(self._pipeline.dropped(drop))

    def _on_swap(self, event: SwapEvent) -> None:
        if event.action in _OF_THE_RUNNER:
            self._tell_model(event, event.slot, event.raw_ns)

    def _on_update(self, slot: str, event: UpdateEvent) -> None:
        self._tell_model(event, slot, self._clock.raw_ns())

    def _tell_model(self, event: SwapEvent | UpdateEvent, slot: str, raw_ns: int) -> None:
        message = model_event_message(event, self._clock.boot_id, raw_ns)
        message.slot = slot
        self._emit([Output(topics.MODEL_EVENTS.name, message, raw_ns)])

    def _on_notice(self, topic: str) -> None:
        self._models.notice(topic)

    # -- life ------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set or every camera has ended; then stop in order.

        Raises:
            SynclineError: A part could not be started; what was started is stopped again.
        """
        with ExitStack() as stack:
            stack.callback(self._outgoing.close)
            stack.callback(lambda: self._tell_drops(self._runs.flush()))
            self._outgoing.start()
            stack.callback(self._vehicle.close)
            self._vehicle.start()
            self._time.start()
            stack.callback(self._time.close)
            self._runner.start()
            stack.callback(self._runner.stop, drain=True, timeout_s=DRAIN_S)
            self._follow_channels(stack)
            self._serve_metrics(stack)
            self._start_cameras(stack)
            notify("READY=1")
            self._watch(stop)
            notify("STOPPING=1")

    def _start_cameras(self, stack: ExitStack) -> None:
        """Open what can be opened; the threads of the other cameras keep trying.

        Raises:
            UsageError: A camera is configured as it cannot be; waiting mends nothing.
            SynclineError: Not one camera can be opened; the error of the first.
        """
        errors = []
        for capture in self._captures:
            stack.callback(capture.close)
            try:
                capture.open()
            except UsageError:
                raise
            except SynclineError as error:
                errors.append(error)
        if len(errors) == len(self._captures):
            raise errors[0]
        for capture in self._captures:
            capture.start()

    def _follow_channels(self, stack: ExitStack) -> None:
        if self._outgoing.uplink is not None:
            fetch = self._outgoing.uplink.fetch
            self._models.follow(self._runner, fetch, self._clock, self._on_update, stack)

    def _serve_metrics(self, stack: ExitStack) -> None:
        address = self._config.health.prometheus
        if address:
            server = MetricsServer(address, self._status.message)
            server.start()
            stack.callback(server.close)

    def _watch(self, stop: threading.Event) -> None:
        """Report every `health.interval_s`; look after the parts at least every `TICK_S`."""
        interval_ns = round(self._config.health.interval_s * NS_PER_S)
        tick_ns = round(min(TICK_S, watchdog_interval_s() or TICK_S) * NS_PER_S)
        report_ns = self._clock.raw_ns()
        while not stop.is_set():
            is_over = self._is_over()
            message = self._status.message()
            if is_over or message.raw_ns >= report_ns:
                self._report(message)
                report_ns = max(report_ns + interval_ns, message.raw_ns)
            if message.state != "failed":
                notify("WATCHDOG=1")
            self._outgoing.upload_closed_segments()
            self._models.check()
            if is_over:
                _log.info("every camera has ended")
                return
            next_ns = min(report_ns, message.raw_ns + tick_ns)
            stop.wait(max(next_ns - self._clock.raw_ns(), 0) / NS_PER_S)

    def _report(self, message: pb.Health) -> None:
        self._tell_drops(self._runs.flush())
        self._emit([Output(topics.HEALTH.name, message, message.raw_ns)])
        self._show(message)

    def _is_over(self) -> bool:
        """No frame can come any more: a device is waited for, a recording that is absent is not."""
        return not any(
            capture.is_running and (capture.was_open or section.is_live)
            for capture, section in zip(self._captures, self._config.camera, strict=True)
        )
