"""`syncline demo`: the whole system on a synthetic drive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from syncline.cli.progress import Progress
from syncline.errors import UsageError
from syncline.output import write_whole
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
    from syncline.demo.play import run_demo
    from syncline.demo.plot import plot_times
    from syncline.demo.report import report_json, report_lines
    from syncline.sensors.synthetic.drive import MAX_DURATION_S, MIN_DURATION_S

    if not MIN_DURATION_S <= seconds <= MAX_DURATION_S:
        raise UsageError(
            f"--seconds {seconds:g} is no length of a drive",
            remedy=f"Give {MIN_DURATION_S:g} to {MAX_DURATION_S:g}",
        )
    if seed < 0:
        raise UsageError(f"--seed {seed} is below 0", remedy="Give a whole number from 0")

    clock = OsClock()
    with Progress("demo", "frames", round(seconds * FPS), clock, quiet=json_) as progress:
        result = run_demo(out, seconds, seed, progress.update)
    write_whole(out / "report.json", json.dumps(report_json(result), indent=1).encode())
    plot_times(result.run, result.raw0_ns, out / "times.png")
    print(json.dumps(report_json(result)) if json_ else "\n".join(report_lines(result, out)))
    return 0
