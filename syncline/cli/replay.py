"""`syncline replay`: a recording through a model, as live."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from syncline.cli.progress import Progress
from syncline.cli.providers import options_of, plugins_of
from syncline.errors import UsageError
from syncline.timebase import ManualClock, OsClock, RawClock

if TYPE_CHECKING:
    from syncline.edge.backend import BackendOptions
    from syncline.edge.job import Result
    from syncline.edge.model.bundle import Bundle
    from syncline.edge.replay import Recording, ReplayOptions, ReplayReport
    from syncline.edge.sinks import Sink

SLOWEST, FASTEST = 1e-3, 1e6
MAX_THREADS = 64
"""As in the daemon's configuration."""


def replay(
    recording: Path,
    *,
    model: str = "road-detector",
    out: Path | None = None,
    rate: str = "max",
    from_: Annotated[float, Parameter(name="--from")] = 0.0,
    to: float | None = None,
    threads: int = 1,
    images: bool = False,
    annotate: Path | None = None,
    camera: str = "",
    boot: str = "",
    prefetch: bool = True,
    decode: Literal["full", "reduced"] = "full",
    provider: tuple[str, ...] = (),
    plugin: tuple[str, ...] = (),
    provider_option: tuple[str, ...] = (),
    strict_provider: bool | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Run a model over a recording; the same input gives the same digest.

    Args:
        recording: Video file, folder of pictures, or a log that syncline recorded.
        model: Folder of a model bundle, or the name of a shipped one.
        out: Record the results into this new folder.
        rate: Seconds of recording per second, or max.
        from_: First second wanted, from the first frame.
        to: Second at which to end.
        threads: Threads of one inference.
        images: Record the pictures too.
        annotate: Write a video with the boxes drawn.
        camera: Only this camera of a recording or bag.
        boot: Beginning of a boot's id, where a recording holds several.
        prefetch: Decode ahead in a second thread.
        decode: As the camera's decode was: a log's JPEGs whole, or no larger than the model needs.
        provider: Execution provider instead of the bundle's; again for the next best.
        plugin: Library of a provider that the runtime does not bring, NAME=LIBRARY.
        provider_option: Option of a provider, NAME.KEY=VALUE.
        strict_provider: Fail where the first provider cannot run the model; default: as the
            bundle says.
        json_: Print one JSON object instead of lines.
    """
    from syncline.edge.backend import BackendOptions
    from syncline.edge.config import CameraSection
    from syncline.edge.model.bundle import Bundle
    from syncline.edge.recordings import open_recording
    from syncline.edge.replay import ReplayOptions
    from syncline.edge.shipped import resolve_bundle

    options = ReplayOptions(_checked(rate, from_, to, threads), from_, to, prefetch)
    source = open_recording(
        recording,
        CameraSection(name="camera", kind="video", path="-", decode=decode),
        only=camera,
        boot=boot,
    )
    bundle = Bundle.open(resolve_bundle(model), trusted_keys=None)
    backend = BackendOptions(
        intra_op_threads=threads,
        providers=provider or None,
        strict_provider=strict_provider,
        plugins=plugins_of(plugin),
        provider_options=options_of(provider_option),
    )
    job = _Job(recording, source, bundle, options, backend, images, out, annotate, quiet=json_)
    report, digest, counts = job.run(OsClock())
    if report.damage:
        sys.stderr.write(f"syncline: warning: {recording} {_damage_text(report)}\n")
    result = {**job.told(), **_figures(report), "digest": digest, "messages": counts}
    if json_:
        print(json.dumps(result))
        return 0
    for key in _LINES:
        if key != "boxes" or bundle.manifest.task == "detection":
            print(f"{key:<10} {result[key]}")
    for path in filter(None, (out, annotate)):
        print(f"{'written':<10} {path}")
    return 0


_LINES = (
    "recording", "model", "provider", "frames", "boxes", "invalid", "fps", "span_s", "digest",
)  # fmt: skip
"""What is said of a replay without --json."""


def _figures(report: ReplayReport) -> dict[str, object]:
    return {
        "frames": report.frames,
        "boxes": report.boxes,
        "invalid": report.invalid,
        "fps": round(report.fps, 2),
        "span_s": round(report.span_ns / 1e9, 6),
        "first_result_ms": round((report.first_result_raw_ns - report.begin_raw_ns) / 1e6, 1),
        "damaged": bool(report.damage),
        "errors": report.damage.errors,
        "missing": report.damage.missing,
    }


def _damage_text(report: ReplayReport) -> str:
    damage = report.damage
    text = f"is damaged: {report.frames} frames came; {damage.errors} errors"
    if damage.missing:
        text += f"; {damage.missing} more frames are announced that did not come"
    return text


@dataclass
class _Job:
    recording: Path
    source: Recording
    bundle: Bundle
    options: ReplayOptions
    backend: BackendOptions
    images: bool
    out: Path | None
    annotate: Path | None
    quiet: bool
    ran_on: dict[str, str | float] = field(default_factory=dict)

    def run(self, clock: RawClock) -> tuple[ReplayReport, str, dict[str, int]]:
        from syncline.edge.engine import Engine
        from syncline.edge.pipeline import Pipeline, PipelineOptions
        from syncline.edge.replay import Model, replay
        from syncline.edge.sinks import DigestSink, Fanout

        images = self.images and self.out is not None
        pipeline = Pipeline(self.source.boot_id, PipelineOptions(images))
        digest = DigestSink()
        with ExitStack() as stack:
            draw = self._annotator(stack)  # first: what cannot be written is told at once
            engine = Engine.load(self.bundle, self.backend)
            self.ran_on = {
                "provider": engine.backend.ep_actual,
                "provider_requested": engine.backend.ep_requested,
                "node_share": round(engine.backend.node_share, 4),
                "runtime": engine.backend.runtime,
            }
            sinks: list[Sink] = [digest, *self._recorder(stack)]
            # How many frames lie in a part of a recording is known when they are read.
            part = self.options.from_s > 0 or self.options.to_s is not None
            total = 0 if part else self.source.frame_count
            progress = Progress("replay", "frames", total, clock, quiet=self.quiet)
            stack.enter_context(progress)

            def watch(report: ReplayReport, result: Result) -> None:
                draw(result)
                progress.update(report.frames)

            model = Model(engine, clock)
            fanout = Fanout(sinks)
            report = replay(self.source, model, pipeline, fanout, clock, self.options, watch)
        return report, digest.hexdigest(), digest.counts

    def told(self) -> dict[str, object]:
        """What ran on what, once it ran."""
        manifest = self.bundle.manifest
        return {
            "recording": str(self.recording),
            "model": f"{manifest.name} {manifest.version}",
            "model_sha256": self.bundle.digest,
            **self.ran_on,
        }

    def _recorder(self, stack: ExitStack) -> list[Sink]:
        if self.out is None:
            return []
        from syncline.edge.sinks import RecorderSink
        from syncline.edge.whole import RoomGuard, whole_recorder

        if self.out.is_file() or (self.out.exists() and any(self.out.iterdir())):
            raise UsageError(f"--out {self.out} is not an empty folder", remedy="Give a new folder")
        clock = ManualClock(0, self.source.boot_id)
        recorder = stack.enter_context(whole_recorder(self.out, clock, "replay"))
        return [RoomGuard(recorder, self.out), RecorderSink(recorder, clock)]

    def _annotator(self, stack: ExitStack) -> Callable[[Result], None]:
        if self.annotate is None:
            return lambda _: None
        from syncline.edge.annotate import Annotator

        labels = self.bundle.manifest.labels
        annotator = Annotator(self.annotate, labels, source=self.recording)
        return stack.enter_context(annotator).add


def _rate(text: str) -> float:
    if text == "max":
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not SLOWEST <= value <= FASTEST:
        raise UsageError(
            f"--rate {text!r} is no rate",
            remedy=f"Give max, or a number from {SLOWEST:g} to {FASTEST:g}, such as 1.0",
        )
    return value


def _checked(rate: str, from_s: float, to_s: float | None, threads: int) -> float:
    """The rate as a number; the other numbers are refused where they cannot be meant.

    Raises:
        UsageError: Which, and what may be given.
    """
    for flag, value in (("--from", from_s), ("--to", to_s)):
        if value is not None and not isfinite(value):
            raise UsageError(f"{flag} {value} is no time", remedy="Give seconds, such as 1.5")
    if not 1 <= threads <= MAX_THREADS:
        raise UsageError(
            f"--threads {threads} is no number of threads", remedy=f"Give 1 to {MAX_THREADS}"
        )
    return _rate(rate)
