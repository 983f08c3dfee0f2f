"""`syncline log recover`: save what can be read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from syncline.errors import UsageError

if TYPE_CHECKING:
    from syncline.log.recovery import RecoveryReport


def recover(
    path: Path,
    out: Path | None = None,
    *,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Write what can be read of a damaged log to a new file, or finish a recording in place.

    Args:
        path: MCAP file; or a recording folder, whose open segments are finished in place.
        out: Output for a file; NAME.recovered.mcap beside it when not given.
        json_: Print one JSON array instead of lines.
    """
    from syncline.log.lock import FolderLock
    from syncline.log.recovery import recover as recover_file
    from syncline.log.recovery import repair_folder

    if path.is_dir():
        if out is not None:
            raise UsageError("a folder is finished in place", remedy="Leave the output out")
        with FolderLock(path):
            reports = repair_folder(path)
    else:
        reports = [recover_file(path, out or path.with_suffix(".recovered.mcap"))]
    if json_:
        print(json.dumps([asdict(report) for report in reports], default=str))
        return 0
    for report in reports:
        print(_line(report))
    if not reports:
        print(f"{path}: nothing to recover")
    return 0


def _line(report: RecoveryReport) -> str:
    line = (
        f"{report.out}: {report.messages} messages ({report.open_messages} of the open chunk, "
        f"{report.journal_messages} of the journal)"
    )
    if report.damaged_chunks or report.damaged_records or report.lost_bytes:
        line += (
            f"; lost: {report.damaged_chunks} chunks, {report.damaged_records} records, "
            f"{report.lost_bytes} bytes"
        )
    return line
