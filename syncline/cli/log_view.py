"""`syncline log view`: the timing of a recorded drive as a picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from cyclopts import Parameter

from syncline.timebase import NO_BOUND_NS, Timebase

if TYPE_CHECKING:
    from syncline.messages import syncline_pb2 as pb


def view(
    log: Path,
    *,
    out: Path = Path("timing.png"),
    boot: str = "",
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Draw exposures, trigger edges, jitter and clock of a recording; print the figures.

    The picture answers four questions: when was each line of the first frames exposed, are the
    intervals even and is a frame missing, how large is the jitter, and how far may UTC be wrong.

    Args:
        log: Recording folder or file.
        out: Picture to write: .png, .svg, .pdf or .html.
        boot: Beginning of a boot's id, where the recording holds several.
        json_: Print one JSON object.
    """
    from syncline.cli.timing_picture import draw
    from syncline.figure import check_picture
    from syncline.sensors.report import timing_report

    check_picture(out)
    cameras, timebase = _read(log, boot)
    reports = {}
    for name, timings in cameras.items():
        if len(timings) >= 3:
            reports[name] = timing_report(np.array([t.mid_raw_ns for t in timings], np.int64))
    draw(_title(log, cameras, timebase), cameras, reports, timebase, out)
    if json_:
        body = {name: asdict(report) for name, report in reports.items()}
        print(json.dumps({"cameras": body, "segments": len(timebase.segments), "out": str(out)}))
        return 0
    for name, report in reports.items():
        print(name)
        for line in report.lines():
            print(f"  {line}")
    print(f"{len(timebase.segments)} mapping segments; drawn in {out}")
    return 0


def _title(log: Path, cameras: dict[str, list[pb.FrameTiming]], timebase: Timebase) -> str:
    """The recording, its length, and when it was, where that is known."""
    from syncline.cli.timing_picture import unit_of

    mids = [t.mid_raw_ns for timings in cameras.values() for t in timings]
    frames = f"{len(mids)} frame{'' if len(mids) == 1 else 's'}"
    scale, unit = unit_of(max(mids) - min(mids))
    span = f"{(max(mids) - min(mids)) / scale:.1f} {unit}"
    text = f"{log}: {len(cameras)} camera{'' if len(cameras) == 1 else 's'}"
    text += f", {frames} in {span}"
    if not timebase.segments:
        return text
    utc = timebase.utc(np.array([min(mids)], np.int64))
    if int(utc.bound_ns[0]) >= NO_BOUND_NS:
        return text
    began = datetime.fromtimestamp(int(utc.utc_ns[0]) // 10**9, UTC)
    return f"{text}, from {began:%Y-%m-%d %H:%M:%S} UTC"


def _read(log: Path, wanted: str) -> tuple[dict[str, list[pb.FrameTiming]], Timebase]:
    from syncline.log.boots import timed_boot
    from syncline.log.reader import LogReader

    found = timed_boot(log, wanted)
    cameras: dict[str, list[pb.FrameTiming]] = {}
    with LogReader(log, topics=found.timing) as reader:
        for record in reader:
            if record.boot_id == found.boot_id:
                message = reader.decode(record)
                cameras.setdefault(message.camera, []).append(message)
    return dict(sorted(cameras.items())), found.timebase
