"""Writes MCAP with every field as given, for rewriting: recovery, cutting, conversion.

Live recording goes through foxglove-sdk, which counts sequences itself; a rewrite keeps them, and
copies chunks as they are.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO

import zstandard

from syncline.log.index import ChunkRef
from syncline.log.records import SchemaRecord
from syncline.log.wire import MAGIC, MESSAGE, MESSAGE_FIELDS, PREFIX, Op, RawChannel

_CHUNK_BYTES = 1 << 20
Entries = dict[int, list[int]]
"""Channel -> log time and offset in the chunk of each message, flat."""


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def _texts(values: dict[str, str]) -> bytes:
    body = b"".join(_text(k) + _text(v) for k, v in values.items())
    return struct.pack("<I", len(body)) + body


def _numbers(form: str, values: dict[int, int]) -> bytes:
    pack = struct.Struct(form).pack
    body = b"".join(pack(k, v) for k, v in values.items())
    return struct.pack("<I", len(body)) + body


def _schema_body(schema: SchemaRecord) -> bytes:
    head = struct.pack("<H", schema.id) + _text(schema.name) + _text(schema.encoding)
    return head + struct.pack("<I", len(schema.data)) + schema.data


def _channel_body(channel: RawChannel) -> bytes:
    head = struct.pack("<HH", channel.id, channel.schema_id)
    return head + _text(channel.topic) + _text(channel.encoding) + _texts(channel.metadata)


@dataclass
class _Summary:
    chunks: list[bytes] = field(default_factory=list)
    metadata: list[bytes] = field(default_factory=list)
    attachments: list[bytes] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    start_ns: int | None = None
    end_ns: int = 0


class ExactWriter:
    """Writes one file from front to back.

    Args:
        file: Opened for writing at its start.
        profile: Of the header.
        packed: Compress chunks that are made here with zstd; copied chunks stay as they are.
    """

    def __init__(self, file: BinaryIO, profile: str, *, packed: bool = True) -> None:
        self._file, self._pos, self._packed = file, 0, packed
        self._schemas: dict[int, SchemaRecord] = {}
        self._channels: dict[int, RawChannel] = {}
        self._summary = _Summary()
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self._entries: Entries = {}
        self._times = (0, 0)
        self._packer = zstandard.ZstdCompressor(level=3)
        self._write(MAGIC)
        self._record(Op.HEADER, _text(profile) + _text("syncline"))

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._pos += len(data)

    def _record(self, op: Op, body: bytes) -> int:
        start = self._pos
        self._write(PREFIX.pack(op, len(body)) + body)
        return start

    def schema(self, schema: SchemaRecord) -> None:
        """Write a schema under its own id; a second time does nothing."""
        if schema.id not in self._schemas:
            self._schemas[schema.id] = schema
            self._record(Op.SCHEMA, _schema_body(schema))

    def channel(self, channel: RawChannel) -> None:
        """Write a channel under its own id, behind its schema; a second time does nothing."""
        if channel.id not in self._channels:
            self._channels[channel.id] = channel
            self._record(Op.CHANNEL, _channel_body(channel))

    def metadata(self, name: str, values: dict[str, str]) -> None:
        """Write a metadata record."""
        self.finish_chunk()
        start = self._record(Op.METADATA, _text(name) + _texts(values))
        entry = struct.pack("<QQ", start, self._pos - start) + _text(name)
        self._summary.metadata.append(entry)

    def attachment(
        self, body: memoryview, log_ns: int, create_ns: int, size: int, name: str, kind: str
    ) -> None:
        """Copy an attachment record."""
        self.finish_chunk()
        start = self._record(Op.ATTACHMENT, bytes(body))
        entry = struct.pack("<QQQQQ", start, self._pos - start, log_ns, create_ns, size)
        self._summary.attachments.append(entry + _text(name) + _text(kind))

    def message(
        self, channel: int, sequence: int, log_ns: int, publish_ns: int, data: bytes | memoryview
    ) -> None:
        """Add a message to the open chunk; its channel must have been written."""
        first = self._times if self._entries else (log_ns, log_ns)
        self._times = (min(first[0], log_ns), max(first[1], log_ns))
        self._entries.setdefault(channel, []).extend((log_ns, self._size))
        length = MESSAGE_FIELDS + len(data)
        self._parts.append(MESSAGE.pack(Op.MESSAGE, length, channel, sequence, log_ns, publish_ns))
        self._parts.append(data)
        self._size += PREFIX.size + length
        if self._size >= _CHUNK_BYTES:
            self.finish_chunk()

    def finish_chunk(self) -> None:
        """Write the open chunk, if it has messages."""
        if not self._entries:
            return
        data = b"".join(self._parts)
        packed = self._packer.compress(data) if self._packed else data
        head = struct.pack("<QQQI", *self._times, len(data), zlib.crc32(data))
        name = _text("zstd" if self._packed else "")
        body = head + name + struct.pack("<Q", len(packed))
        start = self._pos
        self._write(PREFIX.pack(Op.CHUNK, len(body) + len(packed)) + body)
        self._write(packed)
        compression = "zstd" if self._packed else ""
        chunk = ChunkRef(*self._times, 0, len(packed), len(data), compression)
        self._indexed(start, chunk, self._entries)
        self._parts, self._size, self._entries = [], 0, {}

    def copy_chunk(self, body: memoryview, chunk: ChunkRef, entries: Entries) -> None:
        """Write the fields of a whole chunk record as they are.

        Args:
            body: Fields of the record, head and data.
            chunk: What its head says.
            entries: Its messages.
        """
        self.finish_chunk()
        start = self._pos
        self._write(PREFIX.pack(Op.CHUNK, len(body)))
        self._write(body)
        self._indexed(start, chunk, entries)

    def _indexed(self, start: int, chunk: ChunkRef, entries: Entries) -> None:
        length = self._pos - start
        offsets: dict[int, int] = {}
        for channel in sorted(entries):
            flat = entries[channel]
            data = struct.pack(f"<{len(flat)}Q", *flat)
            body = struct.pack("<HI", channel, len(data)) + data
            offsets[channel] = self._record(Op.MESSAGE_INDEX, body)
            counts = self._summary.counts
            counts[channel] = counts.get(channel, 0) + len(flat) // 2
        self._summary.chunks.append(
            struct.pack("<QQQQ", chunk.start_ns, chunk.end_ns, start, length)
            + _numbers("<HQ", offsets)
            + struct.pack("<Q", self._pos - start - length)
            + _text(chunk.compression)
            + struct.pack("<QQ", chunk.length, chunk.size)
        )
        if entries:
            known = self._summary.start_ns
            self._summary.start_ns = chunk.start_ns if known is None else min(known, chunk.start_ns)
            self._summary.end_ns = max(self._summary.end_ns, chunk.end_ns)

    def finish(self) -> int:
        """Write the summary and the end; returns the number of messages."""
        self.finish_chunk()
        self._record(Op.DATA_END, struct.pack("<I", 0))
        start, summary = self._pos, self._summary
        groups = [
            (Op.SCHEMA, [_schema_body(s) for s in self._schemas.values()]),
            (Op.CHANNEL, [_channel_body(c) for c in self._channels.values()]),
            (Op.STATISTICS, [self._statistics()]),
            (Op.CHUNK_INDEX, summary.chunks),
            (Op.ATTACHMENT_INDEX, summary.attachments),
            (Op.METADATA_INDEX, summary.metadata),
        ]
        tail = bytearray()
        offsets = bytearray()
        for op, bodies in groups:
            first = len(tail)
            for body in bodies:
                tail += PREFIX.pack(op, len(body)) + body
            if bodies:
                entry = struct.pack("<BQQ", op, start + first, len(tail) - first)
                offsets += PREFIX.pack(Op.SUMMARY_OFFSET, len(entry)) + entry
        offset_start = start + len(tail)
        tail += offsets
        tail += PREFIX.pack(Op.FOOTER, 20) + struct.pack("<QQ", start, offset_start)
        self._write(bytes(tail))
        self._write(struct.pack("<I", zlib.crc32(tail)) + MAGIC)
        return sum(summary.counts.values())

    def _statistics(self) -> bytes:
        summary = self._summary
        return struct.pack(
            "<QHIIIIQQ",
            sum(summary.counts.values()),
            len(self._schemas),
            len(self._channels),
            len(summary.attachments),
            len(summary.metadata),
            len(summary.chunks),
            summary.start_ns or 0,
            summary.end_ns,
        ) + _numbers("<HQ", summary.counts)
