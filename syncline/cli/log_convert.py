"""`syncline log convert`: foreign bags to ours, ours to Rerun or to plain video."""

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
    to: Literal["mcap", "rerun", "video"] = "mcap",
    camera: str = "",
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Convert a ROS 2 bag or a recording.

    Args:
        path: ROS 2 bag (mcap, db3 or folder), MCAP file, or recording folder.
        out: New file.
        to: mcap: one syncline file; rerun: an .rrd with pictures, boxes, positions and curves;
            video: a camera's pictures as MP4, with its frame times beside it in OUT.mcap.
        camera: The camera of a video, where there are several.
        json_: Print one JSON object instead of lines.
    """
    if to == "rerun":
        found = _rerun(path, out)
    elif to == "video":
        found = _video(path, out, camera)
    else:
        found = _mcap(path, out)
    if json_:
        print(json.dumps(found, default=str))
        return 0
    what = "pictures" if to == "video" else "messages"
    print(f"{out}: {found['messages']} {what}")
    if to == "video":
        print(f"{found['sidecar']}: their times")
        if found["unmatched"]:
            print(f"  left out: {found['unmatched']} pictures or times without the other")
    left_out = found.get("left_out")
    for topic, count in left_out.items() if isinstance(left_out, dict) else ():
        print(f"  left out: {count} of {topic}, which Rerun has no picture for")
    damaged = found.get("damaged")
    for line in damaged if isinstance(damaged, list) else []:
        print(f"  damaged: {line}")
    return 0


def _rerun(path: Path, out: Path) -> dict[str, object]:
    from syncline.log.rerun_view import to_rerun

    return asdict(to_rerun(path, out))


def _video(path: Path, out: Path, camera: str) -> dict[str, object]:
    from syncline.log.clip import export_clip

    return asdict(export_clip(path, out, camera))


def _mcap(path: Path, out: Path) -> dict[str, object]:
    from syncline.log.convert import convert_bag
    from syncline.log.rewrite import cut
    from syncline.log.rosbag import is_bag

    return asdict(convert_bag(path, out)) if is_bag(path) else asdict(cut(path, out))
