"""`syncline log view`: the timing of a recorded drive as a picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from syncline.errors import LogError, UsageError
from syncline.timebase import NO_BOUND_NS, Timebase, UtcTimes

if TYPE_CHECKING:
    from syncline.messages import syncline_pb2 as pb

EXPOSURE_BARS = 40
SAMPLES = 1000
COLOURS = ("#2563eb", "#c2410c", "#0d9488", "#9333ea", "#be123c", "#4d7c0f")


def view(
    log: Path,
    *,
    out: Path = Path("timing.png"),
    boot: str = "",
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Draw exposures, trigger edges, jitter and clock of a recording; print the figures.

    Args:
        log: Recording folder or file.
        out: Picture to write.
        boot: Beginning of a boot's id, where the recording holds several.
        json_: Print one JSON object.
    """
    from syncline.sensors.report import timing_report

    cameras, timebase = _read(log, boot)
    reports = {}
    for name, timings in cameras.items():
        if len(timings) >= 3:
            reports[name] = timing_report(np.array([t.mid_raw_ns for t in timings], np.int64))
    _draw(cameras, timebase, out)
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


def _read(log: Path, wanted: str) -> tuple[dict[str, list[pb.FrameTiming]], Timebase]:
    from syncline.edge.boots import choose_boot, messages_per_boot
    from syncline.log.reader import LogReader

    with LogReader(log) as reader:
        topics = {c.topic for c in reader.channels if c.topic.endswith("/timing")}
        counts = messages_per_boot(log, topics)
        if not counts:
            raise LogError(
                f"{log} holds no frame timing", remedy="Record a camera, or give another recording"
            )
        boot = choose_boot(log, counts, wanted, "frame times")
        timebase = reader.timebase(boot)
    cameras: dict[str, list[pb.FrameTiming]] = {}
    with LogReader(log, topics=topics) as reader:
        for record in reader:
            if record.boot_id == boot:
                message = reader.decode(record)
                cameras.setdefault(message.camera, []).append(message)
    return dict(sorted(cameras.items())), timebase


def _draw(cameras: dict[str, list[pb.FrameTiming]], timebase: Timebase, out: Path) -> None:
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as missing:
        raise UsageError(
            "the picture needs matplotlib", remedy="Install: pip install 'syncline[cloud]'"
        ) from missing
    mids = [t.mid_raw_ns for timings in cameras.values() for t in timings]
    zero_ns = min(mids)
    figure, axes = plt.subplots(2, 2, figsize=(13, 7.5), layout="constrained")
    _exposures(axes[0, 0], cameras, zero_ns)
    _jitter(axes[0, 1], cameras)
    _intervals(axes[1, 0], cameras, zero_ns)
    _bounds(axes[1, 1], timebase, zero_ns, max(mids))
    for axis in axes.flat:
        axis.grid(alpha=0.25)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _exposures(axis: Any, cameras: dict[str, list[pb.FrameTiming]], zero_ns: int) -> None:
    """One bar per frame from start of exposure to end of readout; a mark at the middle."""
    for row, (timings, colour) in enumerate(zip(cameras.values(), COLOURS * 4, strict=False)):
        for t in timings[:EXPOSURE_BARS]:
            begin = (t.soe_raw_ns - zero_ns) / 1e6
            light, total = t.exposure_ns / 1e6, (t.eof_raw_ns - t.soe_raw_ns) / 1e6
            axis.broken_barh([(begin, total)], (row - 0.3, 0.6), color=colour, alpha=0.25)
            axis.broken_barh([(begin, light)], (row - 0.3, 0.6), color=colour, alpha=0.8)
            axis.plot((t.mid_raw_ns - zero_ns) / 1e6, row, "|", color="black", ms=10)
            if t.trigger_id >= 0:
                axis.plot(begin, row + 0.4, "v", color="black", ms=4)
    axis.set_yticks(range(len(cameras)), list(cameras))
    axis.set_xlabel("time [ms]")
    axis.set_title(f"exposure (full), readout (pale), middle; first {EXPOSURE_BARS} frames")


def _jitter(axis: Any, cameras: dict[str, list[pb.FrameTiming]]) -> None:
    for (name, timings), colour in zip(cameras.items(), COLOURS * 4, strict=False):
        steps = np.diff(np.array([t.mid_raw_ns for t in timings], np.int64)) / 1e6
        if len(steps):
            off = (steps - np.median(steps)) * 1e3
            near = off[np.abs(off) < 0.5e3 * np.median(steps)]
            axis.hist(near, bins=60, color=colour, alpha=0.6, label=name)
    axis.set_xlabel("interval minus median [us]")
    axis.set_yscale("log")
    axis.set_title("jitter of the middle of exposure (drops left out)")
    axis.legend(fontsize=8)


def _intervals(axis: Any, cameras: dict[str, list[pb.FrameTiming]], zero_ns: int) -> None:
    for (name, timings), colour in zip(cameras.items(), COLOURS * 4, strict=False):
        t = (np.array([x.mid_raw_ns for x in timings], np.int64) - zero_ns) / 1e9
        axis.plot(t[1:], np.diff(t) * 1e3, ".", ms=3, color=colour, label=name)
    axis.set_xlabel("time [s]")
    axis.set_ylabel("interval [ms]")
    axis.set_title("intervals: a doubled one is a lost frame")


def sample_bounds(
    timebase: Timebase, begin_raw_ns: int, end_raw_ns: int, count: int = SAMPLES
) -> tuple[NDArray[np.int64], UtcTimes] | None:
    """What is claimed of UTC from the first to the last frame; it grows within each segment.

    Returns:
        Raw times int64 (count,) and UTC at each; None when no segment bounds UTC.
    """
    if not any(s.hard_bound_ns < NO_BOUND_NS for s in timebase.segments):
        return None
    raw_ns = np.linspace(begin_raw_ns, end_raw_ns, count).astype(np.int64)
    return raw_ns, timebase.utc(raw_ns)


def _bounds(axis: Any, timebase: Timebase, begin_raw_ns: int, end_raw_ns: int) -> None:
    axis.set_xlabel("time [s]")
    axis.set_ylabel("bound of UTC [us]")
    axis.set_title("what is claimed of UTC: both bounds over the whole recording")
    sampled = sample_bounds(timebase, begin_raw_ns, end_raw_ns)
    if sampled is None:
        axis.text(0.5, 0.5, "no UTC in this recording", ha="center", transform=axis.transAxes)
        return
    raw_ns, utc = sampled
    t = (raw_ns - begin_raw_ns) / 1e9
    hard = np.where(utc.bound_ns < NO_BOUND_NS, utc.bound_ns / 1e3, np.nan)
    axis.plot(t, hard, label="hard bound")
    axis.plot(t, np.where(np.isnan(hard), np.nan, 3.3 * utc.sigma_ns / 1e3), label="99.9 %")
    starts = [(s.raw0_ns - begin_raw_ns) / 1e9 for s in timebase.segments]
    for start in (x for x in starts if 0 < x < t[-1]):
        axis.axvline(start, color="#94a3b8", lw=0.4, alpha=0.5)
    axis.set_yscale("log")
    axis.legend(fontsize=8)
