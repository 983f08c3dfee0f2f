"""The demo's device: a synthetic drive through the edge's own parts, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from syncline import topics
from syncline.edge.engine import Engine, Prepared
from syncline.edge.job import Frame, Result
from syncline.edge.pipeline import Pipeline
from syncline.edge.prefetch import ahead
from syncline.edge.records import Output, imu_message
from syncline.edge.sinks import Fanout
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.frame import FrameTime
from syncline.sensors.synthetic.camera import DriveFrame, FrameTruth
from syncline.sensors.synthetic.drive import DriveEvent, SyntheticDrive
from syncline.sensors.synthetic.gnss import GnssFix, PpsPulse
from syncline.sensors.synthetic.imu import ImuSample
from syncline.sensors.timer import FrameTimer
from syncline.sync.conductor import Conductor
from syncline.sync.floor import Floor
from syncline.sync.leap import built_in
from syncline.sync.measurement import Flag, Measurement, SourceKind
from syncline.sync.sources.source import GnssSignals
from syncline.sync.steps import StepInput
from syncline.timebase import NS_PER_S, OsClock, TimeState, UtcTime

BUFFERS = 4
TIME_STEP_NS = NS_PER_S // 10
EXPOSURE_RANGE_NS = (500_000, 18_000_000)
PULSE_BOUND_NS = 20_000


@dataclass(frozen=True, slots=True)
class FrameScore:
    """One frame: what was claimed and what was true.

    Attributes:
        timing: The claimed frame time.
        truth: The true one.
        utc: UTC as the device knew it then; None while it did not.
        result: The model's result.
    """

    timing: FrameTime
    truth: FrameTruth
    utc: UtcTime | None
    result: Result


@dataclass(frozen=True, slots=True)
class ClockScore:
    """The clock at an instant: error against the truth, and what was claimed.

    Attributes:
        raw_ns: When.
        error_ns: UTC estimate minus true UTC; None while there is no estimate.
        sigma_ns: Claimed standard deviation.
        bound_ns: Claimed hard bound.
        state: State of the service.
        has_fix: Truth: the receiver saw the sky.
        lying: Truth: the receiver's time was off.
    """

    raw_ns: int
    error_ns: int | None
    sigma_ns: float
    bound_ns: int
    state: TimeState
    has_fix: bool
    lying: bool


@dataclass
class DriveRun:
    """What the device did; filled while it runs.

    Attributes:
        frames: One per frame, without pictures.
        clock: Ten per second of the drive.
        notices: Lines about the clock.
        wall_s: How long the drive took to process.
    """

    frames: list[FrameScore] = field(default_factory=list)
    clock: list[ClockScore] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    wall_s: float = 0.0


class DemoEdge:
    """Feeds the events of a drive to timer, clock and model, and hands the outputs on.

    Args:
        drive: The synthetic drive.
        engine: The model.
        pipeline: Makes the messages.
        sink: Takes them.
        watch: Shown every result while its picture is still there.
    """

    def __init__(
        self,
        drive: SyntheticDrive,
        engine: Engine,
        pipeline: Pipeline,
        sink: Fanout,
        watch: Callable[[Result], None],
    ) -> None:
        self._drive = drive
        self._engine = engine
        self._pipeline = pipeline
        self._sink = sink
        self._watch = watch
        self._clock = OsClock()
        self._pre = engine.preprocessor(BUFFERS)
        spec = drive.camera_spec
        self._timer = FrameTimer(
            drive.mode,
            spec.anchor,
            dma_ns=spec.dma_ns,
            exposure_range_ns=EXPOSURE_RANGE_NS,
        )
        self._conductor = Conductor(drive.boot_id, Floor(), built_in())
        self._next_time_ns = drive.raw0_ns
        self._pulses: list[Measurement] = []
        self._sky: GnssSignals | None = None
        self.run = DriveRun()

    def play(self, events: Iterable[DriveEvent]) -> DriveRun:
        """Play the whole drive; its events are fetched ahead in a second thread."""
        begin_ns = self._clock.raw_ns()
        for event in ahead(events, lambda event: event):
            self._take(event)
        self.run.wall_s = (self._clock.raw_ns() - begin_ns) / NS_PER_S
        return self.run

    def _take(self, event: DriveEvent) -> None:
        while event.arrival_raw_ns >= self._next_time_ns:
            self._step_clock(self._next_time_ns)
            self._next_time_ns += TIME_STEP_NS
        if isinstance(event, DriveFrame):
            self._frame(event)
        elif isinstance(event, PpsPulse):
            self._pulses.append(_pulse_measurement(event))
        elif isinstance(event, GnssFix):
            self._sky = _signals(event)
            message = _fix_message(event, self._drive.boot_id)
            self._emit([Output(topics.GNSS.of(event.sensor), message, event.raw_ns)])
        else:
            self._imu(event)

    def _imu(self, sample: ImuSample) -> None:
        message = imu_message(
            sample.sensor,
            self._drive.boot_id,
            sample.raw_ns,
            sample.sigma_ns,
            sample.gyro_radps,
            sample.accel_mps2,
        )
        self._emit([Output(topics.IMU.of(sample.sensor), message, sample.raw_ns)])

    def _emit(self, outputs: list[Output]) -> None:
        for output in outputs:
            self._sink.emit(output)

    def _step_clock(self, raw_ns: int) -> None:
        measurements = tuple(m for m in self._pulses if m.known_raw_ns <= raw_ns)
        self._pulses = [m for m in self._pulses if m.known_raw_ns > raw_ns]
        for measurement in measurements:
            self._emit(self._pipeline.measurement(measurement))
        step = StepInput(raw_ns, measurements, signals=self._sky, has_gnss=True)
        output = self._conductor.step(step)
        for segment in output.segments:
            self._emit(self._pipeline.segment(segment, output.decision.scene.value))
        for notice in output.notices:
            self._emit(self._pipeline.notice(notice))
            at_s = (notice.raw_ns - self._drive.raw0_ns) / NS_PER_S
            if notice.kind.name != "ADJUST":
                text = (
                    f"{at_s:6.1f} s  {notice.kind.name.lower():<15} {notice.source} {notice.detail}"
                )
                self.run.notices.append(text)
        self._score_clock(raw_ns)

    def _score_clock(self, raw_ns: int) -> None:
        truth_utc_ns = self._drive.truth.utc_ns(raw_ns)
        true_ns = truth_utc_ns - self._drive.utc0_ns
        known = self._conductor.utc(raw_ns)
        self.run.clock.append(
            ClockScore(
                raw_ns,
                None if known is None else known.utc_ns - truth_utc_ns,
                0.0 if known is None else known.sigma_ns,
                0 if known is None else known.bound_ns,
                TimeState.COLD if known is None else known.state,
                self._drive.sky.fix(true_ns),
                self._drive.sky.error_ns(true_ns) != 0,
            )
        )

    def _frame(self, event: DriveFrame) -> None:
        timing = self._timer.stamp(event.frame)
        self._emit(self._pipeline.captured(event.frame, timing))
        image: NDArray[np.uint8] = event.image
        frame = Frame(timing.camera, timing.index, image, timing, event.frame.arrival.t_ns)
        prepared: Prepared = self._engine.prepare(frame, self._pre, self._clock)
        result = self._engine.run(prepared, self._clock, "primary")
        self._emit(self._pipeline.result(result))
        self._watch(result)
        # Without its picture: scores of a whole drive must not hold all its frames.
        small = Frame(timing.camera, timing.index, image[:1, :1].copy(), timing, frame.raw_ns)
        kept = Result(
            small,
            result.slot,
            result.model_digest,
            result.output,
            result.valid,
            result.invalid_reason,
            result.latencies,
        )
        utc = self._conductor.utc(timing.mid_ns)
        self.run.frames.append(FrameScore(timing, event.truth, utc, kept))


def _pulse_measurement(pulse: PpsPulse) -> Measurement:
    return Measurement(
        source=pulse.sensor,
        kind=SourceKind.PPS,
        raw_ns=pulse.raw_ns,
        utc_ns=pulse.utc_ns,
        uncertainty_ns=round(pulse.sigma_ns),
        root_bound_ns=PULSE_BOUND_NS,
        arrival_raw_ns=pulse.raw_ns,
        flags=Flag.SIMULATED,
    )


def _signals(fix: GnssFix) -> GnssSignals:
    return GnssSignals(
        raw_ns=fix.raw_ns,
        fix_mode=fix.mode,
        satellites=fix.satellites,
        cn0_dbhz=fix.cn0_dbhz,
        latitude_deg=fix.latitude_deg,
        longitude_deg=fix.longitude_deg,
        speed_mps=fix.speed_mps,
        time_accuracy_ns=round(fix.time_sigma_ns),
    )


def _fix_message(fix: GnssFix, boot_id: str) -> pb.GnssFix:
    return pb.GnssFix(
        sensor=fix.sensor,
        boot_id=boot_id,
        raw_ns=fix.raw_ns,
        utc_ns=fix.utc_ns,
        latitude_deg=fix.latitude_deg,
        longitude_deg=fix.longitude_deg,
        altitude_m=fix.altitude_m,
        speed_mps=fix.speed_mps,
        heading_deg=fix.heading_deg,
        mode=fix.mode,
        satellites=fix.satellites,
        time_sigma_ns=fix.time_sigma_ns,
        leap_valid=fix.leap_valid,
        cn0_dbhz=fix.cn0_dbhz,
    )
