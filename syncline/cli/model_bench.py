"""`syncline model bench`: CPU time per frame of bundles, variants taking turns."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from syncline.cli.model_files import check_runs, open_bundle
from syncline.cloud.models.bench import BenchReport, bench_bundles, bench_reference
from syncline.cloud.models.frames import open_frames


def bench(
    *bundles: Path,
    frame: Path | None = None,
    reference: bool = False,
    runs: int = 15,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Measure bundles against each other: whole frames and the bare run, one thread's CPU time.

    The first bundle is what the others are compared with.

    Args:
        bundles: Folders of bundles.
        frame: Picture, folder or video to take the frame from; default: the bundle's golden frame.
        reference: Measure what int8 gains on this machine, with networks of random weights.
        runs: Rounds.
        as_json: Print one JSON object.
    """
    check_runs(runs)
    if reference or not bundles:
        report = bench_reference(time.thread_time_ns, runs=runs)
    else:
        opened = [open_bundle(path) for path in bundles]
        image = next(iter(open_frames(frame, 1).read())).bgr if frame is not None else None
        report = bench_bundles(opened, time.thread_time_ns, image=image, runs=runs)
    print(json.dumps(report.as_dict()) if as_json else _as_text(report))
    return 0


def _as_text(report: BenchReport) -> str:
    width = max(len(row.name) for row in report.rows)
    lines = [f"{'':{width}}  run ms  frame ms  x {report.rows[0].name}"]
    for row in report.rows:
        frame_ms = f"{row.frame_ms:8.2f}" if row.frame_ms is not None else "       -"
        ratio = report.ratio(row)
        lines.append(f"{row.name:{width}}  {row.run_ms:6.2f}  {frame_ms}  {ratio:5.2f}")
    lines.append(f"{report.machine}; CPU time of one thread, best of {report.runs}, interleaved")
    return "\n".join(lines)
