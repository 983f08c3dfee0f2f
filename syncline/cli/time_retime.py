"""`syncline time retime`: better times for a drive that is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from cyclopts import Parameter

from syncline.errors import InputError

if TYPE_CHECKING:
    from syncline.sync.measurement import Measurement
    from syncline.timebase import MappingSegment, Timebase


def retime(
    log: Path,
    *,
    dry_run: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Smooth a recording's clock over the whole drive; writes `retimed.json` beside it.

    Args:
        log: Recording folder or file with /time/mapping and /time/measurements.
        dry_run: Only tell what would change.
        json_: Print one JSON object.
    """
    from syncline.log.reader import LogReader
    from syncline.log.revisions import write_revisions
    from syncline.sync.retiming import revise

    made, rows = [], []
    with LogReader(log) as reader:
        boots = reader.boot_ids
        for boot_id in boots:
            timebase = reader.timebase(boot_id)
            measurements, end_ns = _measurements(log, boot_id)
            if not timebase.segments or not measurements:
                continue
            revised = revise(timebase.segments, measurements, end_ns)
            made += revised
            rows.append(_compare(boot_id, timebase, revised, len(measurements), end_ns))
    if not made:
        raise InputError(
            f"{log} holds no time measurements",
            remedy="Only recordings made while the time service ran can be re-timed",
        )
    path = None if dry_run else write_revisions(log, made)
    if json_:
        print(json.dumps({"boots": rows, "written": None if path is None else str(path)}))
        return 0
    for row in rows:
        print(f"boot {row['boot_id']}: {row['measurements']} measurements")
        print(f"  {row['segments']} segments, revision {row['revision']}")
        print(f"  UTC moved by {row['moved_p50_us']} us (median), {row['moved_max_us']} us (most)")
        print(f"  hard bound {row['bound_before_us']} -> {row['bound_after_us']} us (median)")
    print("nothing written" if path is None else f"written {path}")
    return 0


def _measurements(log: Path, boot_id: str) -> tuple[list[Measurement], int]:
    """Measurements of one boot, and the last raw time of anything in it."""
    from syncline import topics
    from syncline.log.reader import LogReader
    from syncline.sync.publish import measurement_of

    found, end_ns = [], 0
    with LogReader(log) as reader:
        for record in reader:
            if record.boot_id != boot_id:
                continue
            end_ns = max(end_ns, record.raw_ns)
            if record.topic == topics.MEASUREMENTS.name:
                found.append(measurement_of(reader.decode(record)))
    return sorted(found, key=lambda m: m.known_raw_ns), end_ns


def _compare(
    boot_id: str, before: Timebase, revised: list[MappingSegment], measurements: int, end_ns: int
) -> dict[str, object]:
    from syncline.timebase import Timebase as Base

    after = Base(boot_id)
    for segment in revised:
        after.add(segment)
    raw = np.linspace(before.segments[0].raw0_ns, end_ns, 2000).astype(np.int64)
    old, new = before.utc(raw), after.utc(raw)
    moved_us = np.abs(new.utc_ns - old.utc_ns) / 1e3
    return {
        "boot_id": boot_id,
        "measurements": measurements,
        "segments": len(revised),
        "revision": revised[-1].revision,
        "moved_p50_us": round(float(np.median(moved_us)), 2),
        "moved_max_us": round(float(moved_us.max()), 2),
        "bound_before_us": round(float(np.median(old.bound_ns)) / 1e3, 1),
        "bound_after_us": round(float(np.median(new.bound_ns)) / 1e3, 1),
    }
