"""Later revisions of a recording's mapping segments, in a file beside it: `retimed.json`.

A smoother writes them once a drive is over. The recording itself never changes; a reader that meets
the file lets the newest revision of each segment win.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from syncline.errors import LogError
from syncline.files import replace_durably
from syncline.log.mapping import mapping_from_text, mapping_to_message, mapping_to_text
from syncline.output import cannot_write
from syncline.timebase import MappingSegment

REVISIONS_NAME = "retimed.json"
FORMAT = 1
MAX_BYTES = 64 << 20


def revisions_path(log: Path) -> Path:
    """Where the revisions of a recording folder or of a single file lie."""
    return log / REVISIONS_NAME if log.is_dir() else log.with_name(f"{log.name}.{REVISIONS_NAME}")


def write_revisions(log: Path, segments: Sequence[MappingSegment]) -> Path:
    """Replace the revisions of a recording, atomically.

    Raises:
        StorageError: The file cannot be written.
    """
    path = revisions_path(log)
    rows = [mapping_to_text(mapping_to_message(segment)) for segment in segments]
    try:
        replace_durably(path, json.dumps({"format": FORMAT, "segments": rows}).encode())
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def read_revisions(log: Path) -> list[MappingSegment]:
    """The revisions beside a recording; none when there is no such file.

    Raises:
        LogError: The file is there and is not one of ours.
    """
    path = revisions_path(log)
    if not path.is_file():
        return []
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LogError(f"{path} is larger than {MAX_BYTES} bytes")
        body = json.loads(path.read_bytes())
        if body["format"] != FORMAT:
            raise LogError(f"{path} has format {body['format']}, not {FORMAT}")
        return [mapping_from_text(dict(row)) for row in body["segments"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LogError(
            f"{path} cannot be used: {error!r}", remedy="Remove it, or run: syncline time retime"
        ) from error
