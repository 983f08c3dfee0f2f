"""The whole demo, from the first picture to the frozen dataset.

```
renderer (a process) -> FrameTimer, Conductor, Engine -> Recorder
                                                -> Spool -> Uplink ==CURVE==> collector (a process)
                                                                              -> catalog -> dataset
```
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from syncline.cloud.dataset import DatasetVersion, freeze
from syncline.cloud.harvest import harvest
from syncline.demo.cloud_side import CollectorProcess, Stored, stored, wait_for_files
from syncline.demo.edge_side import DemoEdge, DriveRun
from syncline.demo.scenery import DriveSpec, RenderProcess
from syncline.edge.annotate import Annotator
from syncline.edge.engine import Engine
from syncline.edge.job import Result
from syncline.edge.model.bundle import Bundle
from syncline.edge.pipeline import Pipeline, PipelineOptions
from syncline.edge.shipped import resolve_bundle
from syncline.edge.sinks import DigestSink, Fanout, RecorderSink, Sink, SpoolSink
from syncline.edge.whole import RoomGuard, check_room, whole_recorder
from syncline.errors import UsageError
from syncline.link import Uplink
from syncline.log.disk import Disk
from syncline.output import cannot_write
from syncline.spool import Spool
from syncline.sync.floor import BUILD_UTC_NS
from syncline.timebase import NS_PER_S, ManualClock, OsClock

DEVICE = "demo-car"
DRAIN_S = 20.0
MARK = ".syncline-demo"
UTC0_NS = BUILD_UTC_NS + 100 * 86_400 * NS_PER_S + 350_000_000
"""The drive's date: after the build, because no receiver is believed that says otherwise."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Everything that the report tells.

    Attributes:
        run: Frames, clock and notices of the device.
        raw0_ns: Raw time at which the drive began.
        sent: Messages handed to the link, per topic.
        stored: What the collector has.
        dataset: The frozen dataset.
        model: Name and version.
        digest: Over every message: equal for equal seeds.
        wall_s: The whole demo.
    """

    run: DriveRun
    raw0_ns: int
    sent: dict[str, int]
    stored: Stored
    dataset: DatasetVersion
    model: str
    digest: str
    wall_s: float


def run_demo(
    out: Path, seconds: float, seed: int, progress: Callable[[int], None] = lambda _: None
) -> DemoResult:
    """Play the demo into a folder that is emptied first, if an earlier demo made it.

    Args:
        out: Folder for recording, collector data and report.
        seconds: Length of the drive.
        seed: Of the drive.
        progress: Told the number of frames so far.

    Raises:
        UsageError: The folder holds something that no demo made.
        StorageError: It cannot be written, or its disk is nearly full.
    """
    begin_ns = OsClock().raw_ns()
    _prepare(out)
    boot_id = f"demo-{seed}"
    spec = DriveSpec(seed, seconds, boot_id, UTC0_NS)
    sent, digest = _Counting(), DigestSink()
    with ExitStack() as stack:
        # The renderer first: it paints its scene while everything else starts.
        renderer = stack.enter_context(closing(RenderProcess(spec)))
        collector = stack.enter_context(closing(CollectorProcess(out / "cloud", DEVICE)))
        drive = spec.drive()
        bundle = Bundle.open(resolve_bundle("road-detector"), trusted_keys=None)
        engine = Engine.load(bundle)
        labels = bundle.manifest.labels
        clock = ManualClock(drive.raw0_ns, boot_id)
        spool = stack.enter_context(closing(Spool(out / "spool", clock=clock)))
        uplink = Uplink(
            spool, collector.endpoint, collector.server_key, collector.device_keys, OsClock()
        )
        stack.enter_context(closing(uplink))
        uplink.start()
        pipeline = Pipeline(boot_id, PipelineOptions(images=True))
        with ExitStack() as driving:
            watch = _watcher(driving, out / "annotated.mp4", labels, progress)
            recorder = driving.enter_context(whole_recorder(out / "recording", clock, DEVICE))
            sinks: list[Sink] = [
                RecorderSink(recorder, clock),
                RoomGuard(recorder, out / "recording"),
            ]
            sink = Fanout([*sinks, SpoolSink(spool), digest, sent])
            events = driving.enter_context(closing(renderer.events()))
            run = DemoEdge(drive, engine, pipeline, sink, watch).play(events)
        _upload(uplink, out)
    dataset = _dataset(out / "cloud", bundle)
    wall_s = (OsClock().raw_ns() - begin_ns) / NS_PER_S
    return DemoResult(
        run,
        drive.raw0_ns,
        sent.counts,
        stored(out / "cloud", DEVICE, boot_id),
        dataset,
        f"{bundle.manifest.name} {bundle.manifest.version} ({bundle.manifest.target.precision})",
        digest.hexdigest(),
        wall_s,
    )


def _watcher(
    stack: ExitStack, path: Path, labels: Sequence[str], progress: Callable[[int], None]
) -> Callable[[Result], None]:
    """Draws every result into a video and counts it."""
    annotator = stack.enter_context(Annotator(path, labels))
    count = itertools.count(1)

    def watch(result: Result) -> None:
        annotator.add(result)
        progress(next(count))

    return watch


def _upload(uplink: Uplink, out: Path) -> None:
    """Send the camera's segments and wait until everything is acknowledged; bounded."""
    segments = sorted((out / "recording" / "ring").glob("*/cam.mcap"))
    for path in segments:
        uplink.upload(path, name=path.parent.name, meta={"kind": "camera-segment"})
    wait_for_files(out / "cloud", DEVICE, len(segments), DRAIN_S)
    uplink.close(DRAIN_S)


class _Counting(SpoolSink):
    """Counts what goes to the link."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        super().__init__(self)

    def put(self, link_class: object, stream: str, raw_ns: int, payload: bytes) -> int:
        """Count one record."""
        self.counts[stream] = self.counts.get(stream, 0) + 1
        return self.counts[stream]


def _prepare(out: Path) -> None:
    try:
        if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
            raise UsageError(
                f"{out} holds files that no demo made", remedy="Give another folder with --out"
            )
        shutil.rmtree(out, ignore_errors=True)
        (out / "cloud").mkdir(parents=True)
        (out / MARK).touch()
    except OSError as error:
        raise cannot_write(out, error) from error
    check_room(out, Disk().free_bytes)


def _dataset(data: Path, bundle: Bundle) -> DatasetVersion:
    from syncline.cloud.catalog import Catalog
    from syncline.cloud.dataset_store import DatasetStore
    from syncline.cloud.objects import Objects

    with Catalog.open(data) as catalog:
        objects = Objects(data / "objects")
        labels = {bundle.digest: bundle.manifest.labels}
        version = freeze("demo", harvest(catalog, objects, labels).items)
        DatasetStore(catalog.engine, objects).publish(version, 0)
    return version
