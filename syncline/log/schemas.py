"""What a payload looks like: schemas of our messages, and makers of Foxglove's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, TypeAlias

from foxglove import Schema
from foxglove.messages import (
    Color,
    CompressedImage,
    ImageAnnotations,
    LocationFix,
    Log,
    LogLevel,
    Point2,
    PointsAnnotation,
    PointsAnnotationType,
    TextAnnotation,
    Timestamp,
)
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from syncline.errors import MessageError
from syncline.messages import syncline_pb2
from syncline.messages.syncline_pb2 import Detections
from syncline.timebase import NS_PER_S

_PALETTE = tuple(
    Color(r=red, g=green, b=blue, a=1.0)
    for red, green, blue in (
        (0.90, 0.29, 0.24), (0.20, 0.60, 0.86), (0.18, 0.80, 0.44), (0.95, 0.77, 0.06),
        (0.61, 0.35, 0.71), (0.90, 0.49, 0.13), (0.10, 0.74, 0.61), (0.93, 0.44, 0.69),
    )
)  # fmt: skip
_LOOP = PointsAnnotationType.LineLoop


class FoxgloveMessage(Protocol):
    """A message type of foxglove-sdk."""

    def encode(self) -> bytes:
        """Protobuf bytes."""

    @staticmethod
    def get_schema() -> Schema:
        """Name and FileDescriptorSet."""


LogMessage: TypeAlias = Message | FoxgloveMessage
"""What a log takes: a protobuf message, or one of foxglove-sdk's own types."""


def payload_of(message: LogMessage) -> bytes:
    """The bytes that are recorded; maps in key order, so equal messages give equal bytes."""
    if isinstance(message, Message):
        return bytes(message.SerializeToString(deterministic=True))
    return message.encode()


def schema_name_of(message: LogMessage) -> str:
    """Full name such as `syncline.Detections`."""
    if isinstance(message, Message):
        return str(message.DESCRIPTOR.full_name)
    return message.get_schema().name


def schema_of(message: LogMessage) -> Schema:
    """Schema with everything a reader needs to decode the message without our code."""
    if isinstance(message, Message):
        return _protobuf_schema(message.DESCRIPTOR)
    return message.get_schema()


@lru_cache(maxsize=256)
def _protobuf_schema(descriptor: Descriptor) -> Schema:
    files = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()

    def add(file: descriptor_pb2.FileDescriptorProto) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        file.CopyToProto(files.file.add())

    add(descriptor.file)
    return Schema(
        name=str(descriptor.full_name),
        encoding="protobuf",
        data=files.SerializeToString(deterministic=True),
    )


def schema_named(name: str) -> Schema | None:
    """Schema of one of the messages in our table of topics, None for any other."""
    package, _, kind = name.partition(".")
    if package == "syncline":
        found = getattr(syncline_pb2, kind, None)
        return None if found is None else _protobuf_schema(found.DESCRIPTOR)
    makers = {m.__name__: m for m in (CompressedImage, ImageAnnotations, LocationFix, Log)}
    return makers[kind].get_schema() if package == "foxglove" and kind in makers else None


def raw_timestamp(raw_ns: int) -> Timestamp:
    """Foxglove's timestamp holding CLOCK_MONOTONIC_RAW (see docs/log-format.md, Time)."""
    return Timestamp(raw_ns // NS_PER_S, raw_ns % NS_PER_S)


def image_message(raw_ns: int, frame_id: str, data: bytes, image_format: str) -> CompressedImage:
    """A picture as recorded.

    Args:
        raw_ns: Mid-exposure, CLOCK_MONOTONIC_RAW.
        frame_id: Name of the camera.
        data: Encoded picture.
        image_format: `jpeg`, `png` or `webp`.
    """
    return CompressedImage(
        timestamp=raw_timestamp(raw_ns), frame_id=frame_id, data=data, format=image_format
    )


def location_message(
    raw_ns: int, frame_id: str, latitude_deg: float, longitude_deg: float, altitude_m: float
) -> LocationFix:
    """A position for map panels."""
    return LocationFix(
        timestamp=raw_timestamp(raw_ns),
        frame_id=frame_id,
        latitude=latitude_deg,
        longitude=longitude_deg,
        altitude=altitude_m,
    )


def log_message(raw_ns: int, name: str, text: str, level: str = "info") -> Log:
    """A line of a daemon's log; level is debug, info, warning, error or fatal.

    Raises:
        MessageError: The level is none of these.
    """
    found = getattr(LogLevel, level.capitalize(), None)
    if found is None:
        raise MessageError(
            f"log level {level!r} is unknown", remedy="Use debug, info, warning, error or fatal"
        )
    return Log(timestamp=raw_timestamp(raw_ns), level=found, message=text, name=name)


def annotations_message(
    detections: Detections, labels: Sequence[str] | None = None
) -> ImageAnnotations:
    """Boxes and captions over the picture of the same instant.

    Args:
        detections: Packed columns, pixels of the recorded picture.
        labels: Name of each class id; numbers are shown without it.

    Raises:
        MessageError: The columns differ in length.
    """
    n = len(detections.score)
    columns = (detections.x0_px, detections.y0_px, detections.x1_px, detections.y1_px)
    if any(len(c) != n for c in (*columns, detections.class_id)):
        raise MessageError(f"detections of {detections.camera!r}: columns differ in length")
    stamp = raw_timestamp(detections.mid_raw_ns)
    boxes, texts = [], []
    for x0, y0, x1, y1, score, class_id in zip(
        *columns, detections.score, detections.class_id, strict=True
    ):
        color = _PALETTE[class_id % len(_PALETTE)]
        first = Point2(x=x0, y=y0)
        corners = [first, Point2(x=x1, y=y0), Point2(x=x1, y=y1), Point2(x=x0, y=y1)]
        boxes.append(
            PointsAnnotation(
                timestamp=stamp, type=_LOOP, points=corners, outline_color=color, thickness=2.0
            )
        )
        name = labels[class_id] if labels and class_id < len(labels) else str(class_id)
        texts.append(
            TextAnnotation(
                timestamp=stamp,
                position=first,
                text=f"{name} {score:.2f}",
                font_size=12.0,
                text_color=color,
            )
        )
    return ImageAnnotations(timestamp=stamp, points=boxes, texts=texts)
