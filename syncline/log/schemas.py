"""What a payload looks like: schemas of our messages, and makers of Foxglove's."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, TypeAlias

from foxglove import Schema
from foxglove.messages import (
    CompressedImage,
    ImageAnnotations,
    LocationFix,
    Log,
    LogLevel,
    Timestamp,
)
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from syncline.errors import MessageError
from syncline.messages import syncline_pb2
from syncline.timebase import NS_PER_S


class FoxgloveMessage(Protocol):
    """A message type of foxglove-sdk."""

    def encode(self) -> bytes:
        """Protobuf bytes."""

    @staticmethod
    def get_schema() -> Schema:
        """Name and FileDescriptorSet."""


LogMessage: TypeAlias = Message | FoxgloveMessage
"""What a log takes: a protobuf message, one of foxglove-sdk's own types, or an encoded one."""


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
