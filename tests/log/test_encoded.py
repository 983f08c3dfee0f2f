"""Messages that we encode ourselves, against what foxglove-sdk encodes."""

from __future__ import annotations

from functools import cache
from typing import Any

import foxglove.messages as fox
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import MessageError
from syncline.log.annotations import BoxColumns, annotations_message
from syncline.log.picture import image_message

COORDINATE = st.floats(-1e5, 1e5, width=32).map(lambda px: px + 0.0)  # the SDK leaves -0 out
BOX = st.tuples(
    COORDINATE, COORDINATE, COORDINATE, COORDINATE, st.floats(0, 1, width=32), st.integers(0, 99)
)


@cache
def message_class() -> Any:
    files = descriptor_pb2.FileDescriptorSet.FromString(fox.ImageAnnotations.get_schema().data)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    found = pool.FindMessageTypeByName("foxglove.ImageAnnotations")
    return message_factory.GetMessageClass(found)


def decode(payload: bytes) -> Any:
    return message_class().FromString(payload)


def by_the_sdk(raw_ns: int, boxes: BoxColumns, labels: list[str]) -> bytes:
    stamp = fox.Timestamp(raw_ns // 10**9, raw_ns % 10**9)
    outlines = decode(annotations_message(raw_ns, boxes).encode()).points
    points, texts = [], []
    for outline, (x0, y0, x1, y1, score, kind) in zip(
        outlines, zip(*boxes, strict=True), strict=True
    ):
        c = outline.outline_color
        color = fox.Color(r=c.r, g=c.g, b=c.b, a=c.a)
        points.append(
            fox.PointsAnnotation(
                timestamp=stamp,
                type=fox.PointsAnnotationType.LineLoop,
                points=[fox.Point2(x=x, y=y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))],
                outline_color=color,
                thickness=2.0,
            )
        )
        name = labels[kind] if kind < len(labels) else str(kind)
        texts.append(
            fox.TextAnnotation(
                timestamp=stamp,
                position=fox.Point2(x=x0, y=y0),
                text=f"{name} {score:.2f}",
                font_size=12.0,
                text_color=color,
            )
        )
    return fox.ImageAnnotations(timestamp=stamp, points=points, texts=texts).encode()


@given(
    rows=st.lists(BOX, max_size=12),
    raw_ns=st.integers(0, (1 << 32) * 10**9 - 1),
    labels=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), max_size=9),
)
def test_bytes_say_what_the_sdk_would(
    rows: list[tuple[Any, ...]], raw_ns: int, labels: list[str]
) -> None:
    boxes = BoxColumns(*(zip(*rows, strict=True) if rows else ((),) * 6))
    ours = decode(annotations_message(raw_ns, boxes, labels).encode())
    assert ours == decode(by_the_sdk(raw_ns, boxes, labels))


def test_classes_next_to_each_other_differ_in_colour() -> None:
    ones = [1.0] * 8
    boxes = BoxColumns(ones, ones, ones, ones, ones, range(8))
    found = decode(annotations_message(0, boxes).encode())
    colors = {(p.outline_color.r, p.outline_color.g, p.outline_color.b) for p in found.points}
    assert len(colors) == 8
    assert all(p.outline_color.a == 1.0 for p in found.points)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(MessageError, match=r"columns of \[0, 0, 0, 0, 1, 0\] values"):
        annotations_message(0, BoxColumns([], [], [], [], [1.0], []))


@given(
    raw_ns=st.integers(0, (1 << 32) * 10**9 - 1),
    camera=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
    data=st.binary(min_size=1, max_size=400),
    kind=st.sampled_from(["jpeg", "png", "webp"]),
)
def test_a_picture_is_byte_for_byte_the_sdks(
    raw_ns: int, camera: str, data: bytes, kind: str
) -> None:
    stamp = fox.Timestamp(raw_ns // 10**9, raw_ns % 10**9)
    theirs = fox.CompressedImage(timestamp=stamp, frame_id=camera, data=data, format=kind)
    ours = image_message(raw_ns, camera, data, kind)
    found = fox.CompressedImage.get_schema()
    assert (ours.get_schema().name, ours.get_schema().data) == (found.name, found.data)
    if 0 not in (raw_ns // 10**9, raw_ns % 10**9):  # where the SDK leaves a zero out
        assert ours.encode() == theirs.encode()


def test_a_time_before_the_boot_is_refused() -> None:
    with pytest.raises(MessageError, match="raw_ns -1 is negative"):
        image_message(-1, "front", b"x", "jpeg")
    with pytest.raises(MessageError, match="raw_ns -1 is negative"):
        annotations_message(-1, BoxColumns([], [], [], [], [], []))
