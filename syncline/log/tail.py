"""The journal of the open telemetry chunk: what a killed process had not yet compressed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from syncline.log.disk import RecordFile
from syncline.log.lanes import Item

TAIL_MAGIC = b"SYNTAIL1"
_ENTRY = struct.Struct("<II")
_CHANNEL = struct.Struct("<BHH")
_MESSAGE = struct.Struct("<BHIQ")
_KIND_CHANNEL, _KIND_MESSAGE = 1, 2
_MAX_ENTRY = 16 << 20


@dataclass(frozen=True, slots=True)
class TailMessage:
    """A message of the journal."""

    topic: str
    schema: str
    sequence: int
    raw_ns: int
    data: bytes


class Tail:
    """Writes the journal; one write per batch."""

    def __init__(self, file: RecordFile) -> None:
        self._file = file
        self._known: set[int] = set()
        self._file.write(TAIL_MAGIC)
        self._base = self._file.size
        self._fresh: list[bytes] = []

    def add(self, items: Iterable[tuple[Item, int]]) -> None:
        """Append messages, each with the sequence that it got in the segment."""
        parts: list[bytes] = []
        for (lane, payload, raw_ns), sequence in items:
            if lane.number not in self._known:
                self._known.add(lane.number)
                entry = _channel_entry(lane.number, lane.name, lane.topic.schema)
                self._fresh.append(entry)
                parts.append(entry)
            body = _MESSAGE.pack(_KIND_MESSAGE, lane.number, sequence, raw_ns) + payload
            parts.append(_ENTRY.pack(zlib.crc32(body), len(body)))
            parts.append(body)
        if parts:
            self._file.write(b"".join(parts))

    def reset(self) -> None:
        """Cut back to the channels: the messages are in the log itself now."""
        if self._file.error is None and (self._file.size > self._base or self._fresh):
            self._file.cut(self._base, b"".join(self._fresh))
            self._base = self._file.size
            self._fresh.clear()


def _channel_entry(number: int, topic: str, schema: str) -> bytes:
    name, kind = topic.encode(), schema.encode()
    body = _CHANNEL.pack(_KIND_CHANNEL, number, len(name)) + name + kind
    return _ENTRY.pack(zlib.crc32(body), len(body)) + body


def read_tail(data: bytes) -> Iterator[TailMessage]:
    """Messages of a journal up to the first entry that is not whole."""
    channels: dict[int, tuple[str, str]] = {}
    pos = len(TAIL_MAGIC)
    if data[:pos] != TAIL_MAGIC:
        return
    while pos + _ENTRY.size <= len(data):
        crc, length = _ENTRY.unpack_from(data, pos)
        body = data[pos + _ENTRY.size : pos + _ENTRY.size + length]
        if not _CHANNEL.size <= length <= _MAX_ENTRY or len(body) < length:
            return
        if zlib.crc32(body) != crc:
            return
        pos += _ENTRY.size + length
        if body[0] == _KIND_CHANNEL:
            _, number, size = _CHANNEL.unpack_from(body)
            text = body[_CHANNEL.size :]
            channels[number] = (str(text[:size], "utf-8"), str(text[size:], "utf-8"))
        elif body[0] == _KIND_MESSAGE and length >= _MESSAGE.size:
            _, number, sequence, raw_ns = _MESSAGE.unpack_from(body)
            if number in channels:
                topic, schema = channels[number]
                yield TailMessage(topic, schema, sequence, raw_ns, body[_MESSAGE.size :])
