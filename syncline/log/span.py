"""From when to when a segment reaches."""

from __future__ import annotations

from syncline.errors import SynclineError
from syncline.log.folder import Segment
from syncline.log.mapped import MappedFile
from syncline.log.scan import read_index


def segment_span(segment: Segment) -> tuple[int | None, int | None]:
    """First and last raw time of a segment's messages; None where nothing can be read."""
    starts: list[int] = []
    ends: list[int] = []
    for path in segment.files:
        try:
            index = read_index(MappedFile(path))
        except SynclineError:
            continue
        starts += [chunk.start_ns for chunk in index.chunks if chunk.size]
        ends += [chunk.end_ns for chunk in index.chunks if chunk.size]
    return min(starts, default=None), max(ends, default=None)
