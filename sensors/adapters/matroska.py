"""Whether a Matroska file is as long as it says; how many frames it has, it does not say."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

EBML, SEGMENT = 0x1A45DFA3, 0x18538067


def missing_bytes(path: Path) -> int:
    """Bytes that a Matroska or WebM file announces and does not have.

    The size of its Segment element (RFC 8794, 4 and 6.2; RFC 9559, 5.1) is written when a recording
    is finished, so a file cut later shows. 0 also for a file that was never finished, whose size is
    "unknown", and for any other format.
    """
    try:
        with path.open("rb") as file:
            if _number(file, keep_marker=True) != EBML:
                return 0
            head = _number(file)
            if head is None:
                return 0
            file.seek(head, 1)
            if _number(file, keep_marker=True) != SEGMENT:
                return 0
            size = _number(file)
            return 0 if size is None else max(file.tell() + size - path.stat().st_size, 0)
    except OSError:
        return 0


def _number(file: BinaryIO, *, keep_marker: bool = False) -> int | None:
    """A variable-size integer; None at the end of the file, or of all ones, which is no size."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) != length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    if keep_marker:
        return value
    value -= 1 << (7 * length)
    return None if value == (1 << (7 * length)) - 1 else value
