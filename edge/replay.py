"""Replay: recorded frames through the same step as live, at any rate, same digest twice."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from syncline.edge.engine import Engine, Prepared
from syncline.edge.job import Frame, Result
from syncline.edge.outputs import StuckDetector
from syncline.edge.pipeline import Pipeline
from syncline.edge.prefetch import ahead
from syncline.edge.records import Output
from syncline.edge.sinks import Sink
from syncline.errors import UsageError
from syncline.sensors.frame import FrameTime, RawFrame
from syncline.timebase import NS_PER_S, MappingSegment, RawClock

PREFETCH_BUFFERS = 4
"""Input tensors in a ring: three may be alive at once, see `prefetch.ahead`."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One recorded frame with its time."""

    frame: RawFrame
    timing: FrameTime


@dataclass(frozen=True, slots=True)
class Damage:
    """What of a recording could not be read.

    Attributes:
        errors: Places where reading failed: frames, packets, chunks.
        missing: Frames that the recording says it has and that did not come.
    """

    errors: int = 0
    missing: int = 0

    def __bool__(self) -> bool:
        """Whether anything was lost."""
        return self.errors > 0 or self.missing > 0


class Recording(Protocol):
    """Something that can be replayed."""

    @property
    def boot_id(self) -> str:
        """Boot that the raw times count in."""

    @property
    def frame_count(self) -> int:
        """Frames expected, for progress; 0 = not known."""

    def segments(self) -> list[MappingSegment]:
        """Mapping segments that the recording carries."""

    def frames(self) -> Iterator[Timed]:
        """Frames in order."""

    def damage(self) -> Damage:
        """What could not be read, as far as `frames` came."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How to replay.

    Attributes:
        rate: Seconds of recording per second of wall; 0 = as fast as possible.
        from_s: First second wanted, from the first frame.
        to_s: End in seconds from the first frame; None = the end.
        prefetch: Decode ahead in a second thread.
    """

    rate: float = 0.0
    from_s: float = 0.0
    to_s: float | None = None
    prefetch: bool = True

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise UsageError(f"--rate {self.rate} is below 0", remedy="Give 1.0, 0.5 or max")
        if self.from_s < 0 or (self.to_s is not None and self.to_s <= self.from_s):
            raise UsageError(
                f"--from {self.from_s} --to {self.to_s} holds no time",
                remedy="Give seconds from the first frame, --to after --from",
            )


@dataclass
class ReplayReport:
    """What a replay did.

    Attributes:
        frames: Frames processed.
        invalid: Results that must not be used.
        boxes: Detections in all.
        first_result_raw_ns: When the first result was there.
        begin_raw_ns: When the replay began.
        end_raw_ns: When it ended.
        span_ns: Time of the recording from the first to the last frame.
        damage: What of the recording could not be read.
        late_ns: How late each frame was against its schedule, when paced; at most 100 000 kept.
    """

    frames: int = 0
    invalid: int = 0
    boxes: int = 0
    first_result_raw_ns: int = 0
    begin_raw_ns: int = 0
    end_raw_ns: int = 0
    span_ns: int = 0
    damage: Damage = Damage()
    late_ns: list[int] = field(default_factory=list)

    @property
    def fps(self) -> float:
        """Frames per second of wall."""
        wall_ns = self.end_raw_ns - self.begin_raw_ns
        return self.frames * NS_PER_S / wall_ns if wall_ns > 0 else 0.0


def recording_boot_id(path: Path) -> str:
    """A boot id for a recording that has none: stable for the same content.

    Of a large file, size and both ends are hashed; of a folder, names and sizes.
    """
    sha = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            sha.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
    else:
        size = path.stat().st_size
        sha.update(str(size).encode())
        with path.open("rb") as stream:
            sha.update(stream.read(1 << 20))
            stream.seek(max(size - (1 << 20), 0))
            sha.update(stream.read(1 << 20))
    return f"recording-{sha.hexdigest()[:16]}"


class Model:
    """An engine as replay uses it: frames prepared ahead, run in order.

    Args:
        engine: The loaded and proven model.
        clock: For the latencies.
    """

    def __init__(self, engine: Engine, clock: RawClock) -> None:
        self.engine = engine
        self._clock = clock
        self._pre = engine.preprocessor(PREFETCH_BUFFERS)
        self._detectors: dict[str, StuckDetector] = {}

    def prepare(self, timed: Timed) -> tuple[Timed, Prepared]:
        """Resize a frame; may run ahead in another thread."""
        timing = timed.timing
        frame = Frame(timing.camera, timing.index, timed.frame.payload, timing, timing.mid_ns)  # type: ignore[arg-type]
        return timed, self.engine.prepare(frame, self._pre, self._clock)

    def run(self, prepared: Prepared) -> Result:
        """Run the model on a prepared frame."""
        detector = self._detectors.setdefault(prepared.frame.camera, StuckDetector())
        return self.engine.run(prepared, self._clock, "primary", detector=detector)


def replay(
    recording: Recording,
    model: Model,
    pipeline: Pipeline,
    sink: Sink,
    clock: RawClock,
    options: ReplayOptions | None = None,
    watch: Callable[[ReplayReport, Result], None] = lambda _report, _result: None,
) -> ReplayReport:
    """Run every frame of a recording through the model, in order, dropping none.

    Args:
        recording: What to replay.
        model: The model.
        pipeline: Makes the messages.
        sink: Takes them.
        clock: Paces the replay.
        options: See `ReplayOptions`.
        watch: Shown each result, after its messages went out.

    Raises:
        InputError: The recording cannot be read.
        UsageError: No frame lies in the range that `options` asks for.
        ModelError: The model cannot take its frames.
    """
    options = options or ReplayOptions()
    report = ReplayReport(begin_raw_ns=clock.raw_ns())
    mapping = _Mapping(recording.segments())
    wanted = _selected(recording, options)
    frames = ahead(wanted, model.prepare) if options.prefetch else map(model.prepare, wanted)
    first_ns: int | None = None
    start_ns = 0
    for timed, prepared in frames:
        if first_ns is None:
            first_ns, start_ns = timed.timing.mid_ns, clock.raw_ns()
        offset_ns = timed.timing.mid_ns - first_ns
        if options.rate > 0:
            due_ns = start_ns + round(offset_ns / options.rate)
            clock.sleep_until(due_ns)
            if len(report.late_ns) < 100_000:
                report.late_ns.append(clock.raw_ns() - due_ns)
        for segment in mapping.until(timed.timing.mid_ns):
            _emit(sink, pipeline.segment(segment))
        _emit(sink, pipeline.captured(timed.frame, timed.timing))
        result = model.run(prepared)
        _emit(sink, pipeline.result(result))
        _count(report, result)
        if report.frames == 1:
            report.first_result_raw_ns = clock.raw_ns()
        report.span_ns = offset_ns
        watch(report, result)
    report.end_raw_ns = clock.raw_ns()
    report.damage = recording.damage()
    return report


class _Mapping:
    """Hands each mapping segment out before the first frame that it holds for."""

    def __init__(self, segments: list[MappingSegment]) -> None:
        self._left = deque(segments)
        self._first = True

    def until(self, raw_ns: int) -> Iterator[MappingSegment]:
        """Segments that begin by then; the first one also holds for what came before it."""
        while self._left and (self._first or self._left[0].raw0_ns <= raw_ns):
            self._first = False
            yield self._left.popleft()


def _count(report: ReplayReport, result: Result) -> None:
    report.frames += 1
    report.invalid += not result.valid
    report.boxes += len(result.boxes) if result.boxes is not None else 0


def _emit(sink: Sink, outputs: list[Output]) -> None:
    for output in outputs:
        sink.emit(output)


def _selected(recording: Recording, options: ReplayOptions) -> Iterator[Timed]:
    first_ns: int | None = None
    at_s, found = 0.0, False
    for timed in recording.frames():
        first_ns = timed.timing.mid_ns if first_ns is None else first_ns
        at_s = (timed.timing.mid_ns - first_ns) / NS_PER_S
        if options.to_s is not None and at_s >= options.to_s:
            break
        if at_s >= options.from_s:
            found = True
            yield timed
    if not found:
        end = "the end" if options.to_s is None else f"--to {options.to_s:g}"
        which = "last" if options.to_s is None or at_s < options.to_s else "next"
        where = "there is none" if first_ns is None else f"the {which} one lies at {at_s:.3f} s"
        raise UsageError(
            f"no frame lies between --from {options.from_s:g} and {end}; {where}",
            remedy="Give seconds from the first frame on, --to after --from",
        )
