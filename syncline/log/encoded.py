"""Messages of foxglove-sdk's schemas that are made as bytes at once: they come with every frame."""

from __future__ import annotations

from syncline.timebase import NS_PER_S


class Encoded:
    """A message as its protobuf bytes; each schema has its own subclass."""

    __slots__ = ("_payload",)

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def encode(self) -> bytes:
        """Protobuf bytes."""
        return self._payload


def varint(value: int) -> bytes:
    """Base 128, low groups first (protobuf encoding); not negative."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def timestamp_bytes(raw_ns: int) -> bytes:
    """`google.protobuf.Timestamp` with its length before it; CLOCK_MONOTONIC_RAW."""
    seconds, nanos = divmod(raw_ns, NS_PER_S)
    body = b"\x08" + varint(seconds) + b"\x10" + varint(nanos)
    return varint(len(body)) + body
