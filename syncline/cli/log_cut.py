"""`syncline log cut`: part of a recording as one file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from syncline.errors import UsageError


def cut(
    path: Path,
    out: Path,
    *,
    from_: Annotated[float, Parameter(name="--from")] = 0.0,
    to: float | None = None,
    topic: list[str] | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Write the records between two instants into one new file, times and sequences unchanged.

    Args:
        path: MCAP file, segment or recording folder.
        out: New file.
        from_: First second wanted, from the start of the recording.
        to: Second at which to end.
        topic: Only this topic; may be given several times.
        json_: Print one JSON object instead of a line.
    """
    from syncline.log.info import read_info
    from syncline.log.rewrite import cut as cut_log
    from syncline.timebase import NS_PER_S

    if from_ < 0 or (to is not None and to <= from_):
        raise UsageError(f"--from {from_} --to {to}", remedy="Give 0 <= from < to, in seconds")
    boots = [boot for boot in read_info(path).boots if boot.start_raw_ns is not None]
    start_ns = boots[0].start_raw_ns if boots else 0
    start_ns = start_ns or 0
    report = cut_log(
        path,
        out,
        from_raw_ns=start_ns + round(from_ * NS_PER_S),
        to_raw_ns=None if to is None else start_ns + round(to * NS_PER_S),
        topics=topic or None,
    )
    if json_:
        print(json.dumps(asdict(report), default=str))
    else:
        print(f"{report.out}: {report.messages} messages, {report.bytes} bytes")
    return 0
