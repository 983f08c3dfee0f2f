"""Boxes and captions over a picture, encoded as `foxglove.ImageAnnotations` in one pass.

The SDK's own classes cost a Python object for each corner, colour and caption: 65 us for ten
boxes, four times what this takes. The bytes are those of foxglove-sdk's schema, checked against
its decoder in the tests; zeros stand on the wire, as protobuf allows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from foxglove import Schema
from foxglove.messages import ImageAnnotations

from syncline.errors import MessageError
from syncline.log.encoded import Encoded, timestamp_bytes, varint

_RGB = (
    (0.90, 0.29, 0.24), (0.20, 0.60, 0.86), (0.18, 0.80, 0.44), (0.95, 0.77, 0.06),
    (0.61, 0.35, 0.71), (0.90, 0.49, 0.13), (0.10, 0.74, 0.61), (0.93, 0.44, 0.69),
)  # fmt: skip
_COLOR = struct.Struct("<BdBdBdBd")
_COLORS = tuple(
    _COLOR.pack(0x09, red, 0x11, green, 0x19, blue, 0x21, 1.0) for red, green, blue in _RGB
)
"""`Color` messages: fields 1 to 4 as doubles."""
_POINT = "3sdsd"
_CORNER, _AT, _Y = b"\x1a\x12\x09", b"\x12\x12\x09", b"\x11"
"""A `Point2` as field 3 (corner of a line) or field 2 (place of a caption): x, then y."""
_CORNERS = struct.Struct("<" + 4 * _POINT)
_PLACE = struct.Struct("<" + _POINT)
_LINE_LOOP = b"\x10\x02"
_OUTLINES = tuple(b"\x22\x24" + color + b"\x39" + struct.pack("<d", 2.0) for color in _COLORS)
"""Fields 4 (colour) and 7 (thickness) of a `PointsAnnotation`."""
_LETTERS = tuple(b"\x21" + struct.pack("<d", 12.0) + b"\x2a\x24" + color for color in _COLORS)
"""Fields 4 (font size) and 5 (colour) of a `TextAnnotation`."""


class Annotations(Encoded):
    """An encoded `foxglove.ImageAnnotations`."""

    __slots__ = ()

    @staticmethod
    def get_schema() -> Schema:
        """Name and FileDescriptorSet, the SDK's."""
        return ImageAnnotations.get_schema()


class BoxColumns(NamedTuple):
    """Boxes as columns of plain numbers, pixels of the recorded picture."""

    x0_px: Sequence[float]
    y0_px: Sequence[float]
    x1_px: Sequence[float]
    y1_px: Sequence[float]
    score: Sequence[float]
    class_id: Sequence[int]


def annotations_message(
    raw_ns: int, boxes: BoxColumns, labels: Sequence[str] | None = None
) -> Annotations:
    """Boxes and captions over the picture of the same instant.

    Args:
        raw_ns: Mid-exposure of the picture, CLOCK_MONOTONIC_RAW.
        boxes: What to draw.
        labels: Name of each class id; numbers are shown without it.

    Raises:
        MessageError: The columns differ in length, or the time is negative.
    """
    if raw_ns < 0:
        raise MessageError(f"boxes: raw_ns {raw_ns} is negative")
    if len({len(column) for column in boxes}) != 1:
        raise MessageError(f"boxes: columns of {[len(column) for column in boxes]} values")
    stamp = b"\x0a" + timestamp_bytes(raw_ns)
    line_size = len(stamp) + len(_LINE_LOOP) + _CORNERS.size + len(_OUTLINES[0])
    line_head = b"\x12" + varint(line_size) + stamp + _LINE_LOOP
    text_size = len(stamp) + _PLACE.size + len(_LETTERS[0])
    lines: list[bytes] = []
    texts: list[bytes] = []
    for x0, y0, x1, y1, score, class_id in zip(*boxes, strict=True):
        kind = class_id % len(_COLORS)
        corners = _CORNERS.pack(
            _CORNER, x0, _Y, y0, _CORNER, x1, _Y, y0, _CORNER, x1, _Y, y1, _CORNER, x0, _Y, y1
        )
        lines += line_head, corners, _OUTLINES[kind]
        name = labels[class_id] if labels and class_id < len(labels) else str(class_id)
        caption = f"{name} {score:.2f}".encode()
        head = _text_head(len(caption))
        place = _PLACE.pack(_AT, x0, _Y, y0)
        size = text_size + len(head) + len(caption)
        texts += _text_head(size), stamp, place, head, caption, _LETTERS[kind]
    return Annotations(b"".join([*lines, *texts, b"\x2a", stamp[1:]]))


_TEXT_HEADS = tuple(bytes((0x1A, size)) for size in range(0x80))
"""Field 3 of a length below 128: a caption in an annotation, or its text in a caption."""


def _text_head(size: int) -> bytes:
    return _TEXT_HEADS[size] if size < 0x80 else b"\x1a" + varint(size)
