"""`syncline demo`: the whole system on a synthetic drive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from syncline.cli.progress import Progress
from syncline.timebase import OsClock

FPS = 20


def demo(
    *,
    out: Path = Path("demo-out"),
    seconds: float = 30.0,
    seed: int = 7,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Play a synthetic drive through edge, link and collector, and report.

    Args:
        out: Folder for everything that is made; an earlier demo's is replaced.
        seconds: Length of the drive.
        seed: Another drive.
        json_: Print the report as one JSON object.
    """
    from syncline.demo import run_demo
    from syncline.demo.plot import plot_times
    from syncline.demo.report import report_json, report_lines

    clock = OsClock()
    with Progress("demo", "frames", round(seconds * FPS), clock, quiet=json_) as progress:
        result = run_demo(out, seconds, seed, progress.update)
    plot_times(result.run, result.raw0_ns, out / "times.png")
    report = report_json(result)
    (out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps(report) if json_ else "\n".join(report_lines(result, out)))
    return 0
