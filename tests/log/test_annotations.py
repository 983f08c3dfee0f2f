"""Boxes and captions as bytes, against what foxglove-sdk itself encodes."""

from __future__ import annotations

from functools import cache
from typing import Any

import foxglove.messages as fox
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import MessageError
from syncline.log.annotations import annotations_message
from syncline.messages import syncline_pb2 as pb

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


def by_the_sdk(detections: pb.Detections, labels: list[str]) -> bytes:
    stamp = fox.Timestamp(detections.mid_raw_ns // 10**9, detections.mid_raw_ns % 10**9)
    colors = [p.outline_color for p in decode(annotations_message(detections).encode()).points]
    points, texts = [], []
    for i, c in enumerate(colors):
        color = fox.Color(r=c.r, g=c.g, b=c.b, a=c.a)
        x0, y0 = detections.x0_px[i], detections.y0_px[i]
        x1, y1 = detections.x1_px[i], detections.y1_px[i]
        kind = detections.class_id[i]
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
                text=f"{name} {detections.score[i]:.2f}",
                font_size=12.0,
                text_color=color,
            )
        )
    return fox.ImageAnnotations(timestamp=stamp, points=points, texts=texts).encode()


@given(
    boxes=st.lists(BOX, max_size=12),
    raw_ns=st.integers(0, (1 << 32) * 10**9 - 1),
    labels=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), max_size=9),
)
def test_bytes_say_what_the_sdk_would(
    boxes: list[tuple[Any, ...]], raw_ns: int, labels: list[str]
) -> None:
    x0, y0, x1, y1, score, class_id = zip(*boxes, strict=True) if boxes else ((),) * 6
    detections = pb.Detections(
        mid_raw_ns=raw_ns, x0_px=x0, y0_px=y0, x1_px=x1, y1_px=y1, score=score, class_id=class_id
    )
    ours = decode(annotations_message(detections, labels).encode())
    assert ours == decode(by_the_sdk(detections, labels))


def test_classes_next_to_each_other_differ_in_colour() -> None:
    n = 8
    detections = pb.Detections(
        x0_px=[0] * n, y0_px=[0] * n, x1_px=[1] * n, y1_px=[1] * n, score=[1] * n,
        class_id=range(n),
    )  # fmt: skip
    found = decode(annotations_message(detections).encode())
    colors = {(p.outline_color.r, p.outline_color.g, p.outline_color.b) for p in found.points}
    assert len(colors) == n
    assert all(p.outline_color.a == 1.0 for p in found.points)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(MessageError, match="columns differ"):
        annotations_message(pb.Detections(score=[1.0]))
