"""`syncline demo`: a synthetic drive through the whole system, and an honest report.

```
SyntheticDrive -> FrameTimer, Conductor, Engine -> Recorder
                                                -> Spool -> Uplink ==CURVE==> collector (a process)
                                                                              -> catalog -> dataset
```
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from syncline.cloud.dataset import DatasetVersion, freeze
from syncline.cloud.harvest import harvest
from syncline.demo.cloud_side import CollectorProcess, Stored, stored, wait_for_files
from syncline.demo.edge_side import DemoEdge, DriveRun
from syncline.edge.annotate import Annotator
from syncline.edge.engine import Engine
from syncline.edge.job import Result
from syncline.edge.model.bundle import Bundle
from syncline.edge.pipeline import Pipeline, PipelineOptions
from syncline.edge.shipped import resolve_bundle
from syncline.edge.sinks import DigestSink, Fanout, RecorderSink, SpoolSink
from syncline.errors import UsageError
from syncline.link import Uplink
from syncline.log.recorder import Recorder
from syncline.sensors.synthetic.drive import SyntheticDrive
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
    """
    begin_ns = OsClock().raw_ns()
    _prepare(out)
    boot_id = f"demo-{seed}"
    drive = SyntheticDrive(seed, seconds, boot_id=boot_id, utc0_ns=UTC0_NS)
    bundle = Bundle.open(resolve_bundle("road-detector"), trusted_keys=None)
    engine = Engine.load(bundle)
    labels = bundle.manifest.labels
    collector = CollectorProcess(out / "cloud", DEVICE)
    annotator = Annotator(out / "annotated.mp4", labels)
    clock = ManualClock(drive.raw0_ns, boot_id)
    digest = DigestSink()
    sent = _Counting()
    count = 0

    def watch(result: Result) -> None:
        nonlocal count
        annotator.add(result)
        count += 1
        progress(count)

    try:
        with Recorder(out / "recording", clock=clock, device=DEVICE, lossless=True) as recorder:
            spool = Spool(out / "spool", clock=clock)
            uplink = Uplink(
                spool, collector.endpoint, collector.server_key, collector.device_keys, OsClock()
            )
            uplink.start()
            sink = Fanout([RecorderSink(recorder, clock), SpoolSink(spool), digest, sent])
            pipeline = Pipeline(boot_id, PipelineOptions(images=True, labels=labels))
            run = DemoEdge(drive, engine, pipeline, sink, watch).play()
        annotator.close()
        segments = sorted((out / "recording" / "ring").glob("*/cam.mcap"))
        for path in segments:
            uplink.upload(path, name=path.parent.name, meta={"kind": "camera-segment"})
        wait_for_files(out / "cloud", DEVICE, len(segments), DRAIN_S)
        uplink.close(DRAIN_S)
        spool.close()
    finally:
        collector.close()
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
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise UsageError(
            f"{out} holds files that no demo made", remedy="Give another folder with --out"
        )
    shutil.rmtree(out, ignore_errors=True)
    (out / "cloud").mkdir(parents=True)
    (out / MARK).touch()


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
