"""`syncline log convert`: foreign bags to ours, ours to Rerun."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def convert(
    path: Path,
    out: Path,
    *,
    to: Literal["mcap", "rerun"] = "mcap",
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Convert a ROS 2 bag or a recording.

    Args:
        path: ROS 2 bag (mcap, db3 or folder), MCAP file, or recording folder.
        out: New file.
        to: mcap: one syncline file; rerun: an .rrd with pictures, boxes, positions and curves.
        json_: Print one JSON object instead of lines.
    """
    if to == "rerun":
        found: dict[str, object] = {"out": out, "messages": _rerun(path, out)}
    else:
        found = _mcap(path, out)
    if json_:
        print(json.dumps(found, default=str))
        return 0
    print(f"{out}: {found['messages']} messages")
    damaged = found.get("damaged")
    for line in damaged if isinstance(damaged, list) else []:
        print(f"  damaged: {line}")
    return 0


def _rerun(path: Path, out: Path) -> int:
    from syncline.log.rerun_view import to_rerun

    return to_rerun(path, out)


def _mcap(path: Path, out: Path) -> dict[str, object]:
    from syncline.log.convert import convert_bag
    from syncline.log.rewrite import cut
    from syncline.log.rosbag import is_bag

    return asdict(convert_bag(path, out)) if is_bag(path) else asdict(cut(path, out))
