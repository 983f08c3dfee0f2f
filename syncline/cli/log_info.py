"""`syncline log info`: what a recording holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from syncline.log.info import BootInfo, LogInfo


def info(path: Path, *, json_: Annotated[bool, Parameter(name="--json")] = False) -> int:
    """Show topics, rates, boots, mapping segments, drops and damage of a recording.

    Args:
        path: MCAP file, segment or recording folder.
        json_: Print one JSON object instead of lines.
    """
    import msgspec

    from syncline.log.info import read_info

    found = read_info(path)
    if json_:
        print(msgspec.json.encode(found).decode())
        return 0
    for line in _lines(found):
        print(line)
    return 0


def _lines(found: LogInfo) -> list[str]:
    head = (
        f"{found.path}: {found.messages} messages, {found.files} files, {found.bytes} bytes, "
        f"profile {found.profile or 'none'}, written by {found.library or 'unknown'}"
    )
    lines = [head]
    lines += [_boot_line(boot) for boot in found.boots]
    width = max((len(row.topic) for row in found.topics), default=0)
    for row in found.topics:
        lines.append(
            f"  {row.topic:{width}}  {row.messages:>9}  {row.rate_hz:>9.2f} Hz  "
            f"{row.schema or '-'} ({row.encoding})"
        )
    lines += [f"  dropped {count} on {topic}" for topic, count in sorted(found.dropped.items())]
    lines += [
        f"  truncated: {name}; `syncline log recover` makes it whole" for name in found.truncated
    ]
    if found.damaged_chunks or found.lost_bytes:
        lines.append(f"  damaged: {found.damaged_chunks} chunks, {found.lost_bytes} bytes")
    return lines


def _boot_line(boot: BootInfo) -> str:
    name = boot.boot_id or "unnamed (not a syncline file)"
    line = f"  boot {name} {boot.device}: {boot.duration_s:.3f} s from raw {boot.start_raw_ns} ns"
    if boot.mapping_segments:
        line += f", {boot.mapping_segments} mapping segments, UTC {boot.start_utc_ns} ns at start"
    return line
