"""A picture as recorded, encoded as `foxglove.CompressedImage` with one copy of its bytes."""

from __future__ import annotations

from foxglove import Schema
from foxglove.messages import CompressedImage

from syncline.errors import MessageError
from syncline.log.encoded import Encoded, timestamp_bytes, varint


class Picture(Encoded):
    """An encoded `foxglove.CompressedImage`."""

    __slots__ = ()

    @staticmethod
    def get_schema() -> Schema:
        """Name and FileDescriptorSet, the SDK's."""
        return CompressedImage.get_schema()


def image_message(raw_ns: int, frame_id: str, data: bytes, image_format: str) -> Picture:
    """A picture as recorded.

    Args:
        raw_ns: Mid-exposure, CLOCK_MONOTONIC_RAW.
        frame_id: Name of the camera.
        data: Encoded picture.
        image_format: `jpeg`, `png` or `webp`.

    Raises:
        MessageError: The time is negative.
    """
    if raw_ns < 0:
        raise MessageError(f"picture of {frame_id!r}: raw_ns {raw_ns} is negative")
    kind, name = image_format.encode(), frame_id.encode()
    fields = (
        b"\x0a", timestamp_bytes(raw_ns), b"\x12", varint(len(data)), data,
        b"\x1a", varint(len(kind)), kind, b"\x22", varint(len(name)), name,
    )  # fmt: skip
    return Picture(b"".join(fields))
