"""`syncline sensors group`: which frames of several cameras saw the same moment."""

from __future__ import annotations

import contextlib
import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np
from cyclopts import Parameter

from syncline.errors import SensorDataError, UsageError
from syncline.timebase import NO_BOUND_NS, Timebase

if TYPE_CHECKING:
    from syncline.messages import syncline_pb2 as pb
    from syncline.sensors.frame import FrameTime
    from syncline.sensors.group import FrameGrouper, Group

_SAMPLES = ("/imu/", "/gnss/")
REORDER_NS = 3_000_000_000
"""How far apart in time two records may be written in the wrong order."""
BEYOND_NS = 100_000_000

Entry: TypeAlias = "tuple[int, int, str, FrameTime | None]"
"""Time (ns), number in the recording, topic of a sample, frame."""


def group(
    log: Path,
    *,
    tolerance_ms: float = 10.0,
    timeout_ms: float = 500.0,
    window_ms: float = 0.0,
    cameras: str = "",
    out: Path | None = None,
    boot: str = "",
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Group frames by the middle of their exposure, with the IMU and GNSS samples around it.

    An incomplete group is delivered and says which cameras are missing; no frame is in two groups.

    Args:
        log: Recording folder or file.
        tolerance_ms: Longest time between the first and the last frame of a group.
        timeout_ms: How long a group waits for a missing camera, in time of the recording.
        window_ms: Samples up to this far on either side go with a group, and one beyond each end.
        cameras: Names, comma-separated; all of the recording where it is left out.
        out: File to write, one JSON object a line for each group.
        boot: Beginning of a boot's id, where the recording holds several.
        json_: Print one JSON object.
    """
    from syncline.output import check_new
    from syncline.sensors.group import FrameGrouper

    found = _Drive(log, boot)
    names = [name.strip() for name in cameras.split(",") if name.strip()] or found.cameras
    if unknown := sorted(set(names) - set(found.cameras)):
        raise UsageError(
            f"{log} holds no camera {unknown[0]!r}",
            remedy=f"It holds: {', '.join(found.cameras)}",
        )
    if not all(
        np.isfinite(value) and value >= 0 for value in (tolerance_ms, timeout_ms, window_ms)
    ):
        raise UsageError("--tolerance-ms, --timeout-ms and --window-ms must be 0 or more")
    if out is not None:
        check_new(out, "--out", source=log)
    spans = [round(value * 1e6) for value in (tolerance_ms, timeout_ms, window_ms)]
    grouper = FrameGrouper(names, *spans)
    counts = _Counts(dict.fromkeys(names, 0))
    with contextlib.ExitStack() as stack:
        file = None if out is None else stack.enter_context(out.open("x", encoding="utf-8"))
        for one in found.groups(grouper):
            counts.add(one)
            if file is not None:
                file.write(json.dumps(_row(one, found.timebase)) + "\n")
    body = counts.summary() | {"repeats": grouper.repeats, "out_of_order": found.out_of_order}
    print(json.dumps(body) if json_ else "\n".join(_lines(body, out)))
    return 0


class _Drive:
    """One boot of a recording: its cameras, its mapping and its records in order.

    Raises:
        LogError: No frame times.
    """

    def __init__(self, log: Path, wanted: str) -> None:
        from syncline.log.boots import timed_boot

        found = timed_boot(log, wanted)
        self._log, self._boot_id = log, found.boot_id
        self._topics = found.timing | {t for t in found.others if t.startswith(_SAMPLES)}
        self.cameras = sorted(t.split("/")[2] for t in found.timing)
        self.timebase = found.timebase
        self.out_of_order = 0

    def groups(self, grouper: FrameGrouper) -> Iterator[Group]:
        """Groups in order of time."""
        from syncline.sensors.group import Sample

        for t_ns, _, name, ft in reordered(self._records(grouper), REORDER_NS):
            if ft is not None:
                yield from grouper.add(ft)
                continue
            try:
                grouper.add_sample(name, Sample(t_ns, None))
            except SensorDataError:
                self.out_of_order += 1
        yield from grouper.flush()

    def _records(self, grouper: FrameGrouper) -> Iterator[Entry]:
        """Samples at their times, frames when the samples around them are there too."""
        from syncline.edge.recorded_time import timing_of_message
        from syncline.log.reader import LogReader

        with LogReader(self._log, topics=self._topics) as reader:
            for number, record in enumerate(reader):
                if record.boot_id != self._boot_id:
                    continue
                if record.topic.startswith(_SAMPLES):
                    yield record.raw_ns, number, record.topic, None
                    continue
                message: pb.FrameTiming = reader.decode(record)
                if message.camera in grouper.cameras:
                    ft = timing_of_message(message)
                    # One sample beyond the window belongs to it as well.
                    yield ft.centre_ns() + grouper.window_ns + BEYOND_NS, number, "", ft


def reordered(entries: Iterable[Entry], depth_ns: int) -> Iterator[Entry]:
    """Entries in order of their first field; those at most `depth_ns` apart may be swapped.

    Memory: the entries of `depth_ns`.
    """
    heap: list[Entry] = []
    newest = -(1 << 62)
    for entry in entries:
        heapq.heappush(heap, entry)
        newest = max(newest, entry[0])
        while heap[0][0] < newest - depth_ns:
            yield heapq.heappop(heap)
    while heap:
        yield heapq.heappop(heap)


@dataclass
class _Counts:
    """What the groups were like."""

    missing: dict[str, int]
    groups: int = 0
    complete: int = 0
    late: int = 0
    spreads_ms: list[float] = field(default_factory=list)

    def add(self, one: Group) -> None:
        """Count one group."""
        self.groups += 1
        self.complete += one.complete
        self.late += one.late
        for camera in one.missing:
            self.missing[camera] += 1
        if one.complete:
            self.spreads_ms.append(one.spread_ns / 1e6)

    def summary(self) -> dict[str, Any]:
        """Figures for people and programs."""
        spreads = self.spreads_ms or [float("nan")]
        p50, p99 = (float(value) for value in np.percentile(spreads, (50, 99)))
        known = bool(self.spreads_ms)
        return {
            "groups": self.groups,
            "complete": self.complete,
            "late": self.late,
            "missing": self.missing,
            "spread_p50_ms": p50 if known else None,
            "spread_p99_ms": p99 if known else None,
        }


def _row(one: Group, timebase: Timebase) -> dict[str, Any]:
    row: dict[str, Any] = {
        "raw_ns": one.t_ns,
        "spread_ns": one.spread_ns,
        "missing": list(one.missing),
        "late": one.late,
        "frames": {
            camera: {
                "index": ft.index,
                "mid_raw_ns": ft.mid_ns,
                "centre_raw_ns": ft.centre_ns(),
                "sigma_ns": ft.sigma_ns,
            }
            for camera, ft in one.frames.items()
        },
        "samples_raw_ns": {name: [s.t_ns for s in some] for name, some in one.samples.items()},
    }
    if timebase.segments:
        utc = timebase.utc(np.array([one.t_ns], np.int64))
        if int(utc.bound_ns[0]) < NO_BOUND_NS:
            row |= {"utc_ns": int(utc.utc_ns[0]), "utc_bound_ns": int(utc.bound_ns[0])}
    return row


def _lines(body: dict[str, Any], out: Path | None) -> list[str]:
    share = body["complete"] / body["groups"] if body["groups"] else 0.0
    lines = [f"{body['groups']} groups, {body['complete']} complete ({share:.1%})"]
    if body["spread_p50_ms"] is not None:
        lines.append(
            f"spread of a complete group: median {body['spread_p50_ms']:.3f} ms, "
            f"p99 {body['spread_p99_ms']:.3f} ms"
        )
    lines += [f"{camera}: missing in {n} groups" for camera, n in body["missing"].items() if n]
    if body["late"]:
        lines.append(f"{body['late']} groups of frames that came after their moment was closed")
    if body["repeats"] or body["out_of_order"]:
        lines.append(
            f"{body['repeats']} repeated frames, {body['out_of_order']} samples out of order"
        )
    if out is not None:
        lines.append(f"written {out}")
    return lines
