"""The bytes of MCAP: opcodes, limits, and a parser that trusts nothing.

The format is at https://mcap.dev/spec. Every length is checked against the bytes that are there and
against `Limits` before anything is read or allocated; what breaks one is a `LogError` that names
field, value and limit.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from syncline.errors import LogError
from syncline.log.records import SchemaRecord

MAGIC = b"\x89MCAP0\r\n"
PREFIX = struct.Struct("<BQ")
PLACEHOLDER = (1 << 64) - 1
"""Length of a chunk that is still open."""
MESSAGE = struct.Struct("<BQHIQQ")
"""A whole message head: opcode, length, channel, sequence, log time, publish time."""
MESSAGE_FIELDS = 22
CHANNEL_OFFSET = struct.Struct("<HQ")
"""An entry of a chunk's map of channel to message index."""
_INDEX_HEAD, _INDEX_MIDDLE, _INDEX_TAIL = (struct.Struct(f) for f in ("<QQQQI", "<QI", "<QQ"))
FOOTER_SIZE = 9 + 20 + len(MAGIC)
REMEDY = "Try `syncline log recover` to save what can be read"


class Op(enum.IntEnum):
    """Record types."""

    HEADER = 1
    FOOTER = 2
    SCHEMA = 3
    CHANNEL = 4
    MESSAGE = 5
    CHUNK = 6
    MESSAGE_INDEX = 7
    CHUNK_INDEX = 8
    ATTACHMENT = 9
    ATTACHMENT_INDEX = 10
    STATISTICS = 11
    METADATA = 12
    METADATA_INDEX = 13
    SUMMARY_OFFSET = 14
    DATA_END = 15


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may ask of us, in bytes unless it says otherwise."""

    record: int = 1 << 30
    chunk: int = 256 << 20
    held: int = 512 << 20
    schema: int = 4 << 20
    metadata: int = 1 << 20
    text: int = 64 << 10
    ids: int = 65_535
    """Schemas, and channels, of one file."""
    chunks: int = 2_000_000
    """Chunks of one file."""


@dataclass(frozen=True, slots=True)
class ChunkHead:
    """Fields of a chunk before its records."""

    start_ns: int
    end_ns: int
    uncompressed_size: int
    crc: int
    compression: str
    data_offset: int
    data_length: int


class ChunkIndexRecord(NamedTuple):
    """Where a chunk is; `index_offsets` is the raw map of channel to message index."""

    start_ns: int
    end_ns: int
    offset: int
    length: int
    index_offsets: memoryview
    index_length: int
    uncompressed_size: int


@dataclass(frozen=True, slots=True)
class RawChannel:
    """A channel as written, with the id of its schema (0: none)."""

    id: int
    schema_id: int
    topic: str
    encoding: str
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of a file."""

    message_count: int
    schema_count: int
    channel_count: int
    attachment_count: int
    metadata_count: int
    chunk_count: int
    start_ns: int
    end_ns: int
    channel_counts: dict[int, int]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A named blob."""

    log_ns: int
    create_ns: int
    name: str
    media_type: str
    data: memoryview
    crc: int


class Fields:
    """Reads the fields of one record in order, never past its end."""

    __slots__ = ("_end", "_limits", "_pos", "_view", "_what")

    def __init__(
        self, view: memoryview, pos: int, end: int, what: str, limits: Limits | None = None
    ) -> None:
        self._view, self._pos, self._end, self._what = view, pos, end, what
        self._limits = limits or Limits()

    @property
    def pos(self) -> int:
        """Offset of the next field."""
        return self._pos

    @property
    def left(self) -> int:
        """Bytes that are left."""
        return self._end - self._pos

    def _take(self, size: int, field: str) -> int:
        at = self._pos
        if size > self._end - at:
            raise LogError(
                f"{self._what} at byte {at}: {field} needs {size} bytes, {self._end - at} are left",
                remedy=REMEDY,
            )
        self._pos = at + size
        return at

    def number(self, size: int, field: str) -> int:
        """Unsigned little-endian integer."""
        at = self._take(size, field)
        return int.from_bytes(self._view[at : at + size], "little")

    def text(self, field: str) -> str:
        """UTF-8 text with its length before it."""
        return self._decode(self.blob(field, self._limits.text), field)

    def blob(self, field: str, limit: int, size_bytes: int = 4) -> memoryview:
        """Bytes with their length before them."""
        size = self.number(size_bytes, f"length of {field}")
        if size > limit:
            raise LogError(f"{self._what}: {field} of {size} bytes, limit {limit}", remedy=REMEDY)
        at = self._take(size, field)
        return self._view[at : at + size]

    def _decode(self, data: memoryview, field: str) -> str:
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise LogError(f"{self._what}: {field} is not UTF-8 ({error.reason})") from None

    def texts(self, field: str) -> dict[str, str]:
        """Map of text to text."""
        inner = self._inner(field, self._limits.metadata)
        found: dict[str, str] = {}
        while inner.left:
            key = inner._decode(inner.blob("key", self._limits.metadata), "key")
            if key in found:
                raise LogError(f"{self._what}: {field} has key {key!r} twice")
            found[key] = inner._decode(inner.blob("value", self._limits.metadata), "value")
        return found

    def numbers(self, key_size: int, value_size: int, field: str) -> dict[int, int]:
        """Map of integer to integer."""
        inner = self._inner(field, self._limits.ids * (key_size + value_size))
        found: dict[int, int] = {}
        while inner.left:
            key = inner.number(key_size, f"{field} key")
            found[key] = inner.number(value_size, f"{field} value")
        return found

    def _inner(self, field: str, limit: int) -> Fields:
        data = self.blob(field, limit)
        return Fields(data, 0, len(data), f"{self._what} {field}", self._limits)


def iter_records(
    view: memoryview, start: int, end: int, limits: Limits | None = None
) -> Iterator[tuple[int, int, int]]:
    """(opcode, offset of the fields, end of the record) of each record in [start, end).

    Raises:
        LogError: A record reaches beyond `end` or is longer than the limit.
    """
    limits = limits or Limits()
    pos = start
    while pos < end:
        if end - pos < PREFIX.size:
            raise LogError(f"file ends inside a record head at byte {pos}", remedy=REMEDY)
        opcode, length = PREFIX.unpack_from(view, pos)
        body = pos + PREFIX.size
        if length > end - body or length > limits.record:
            raise LogError(
                f"record {opcode} at byte {pos} says {length} bytes, {end - body} are left, "
                f"limit {limits.record}",
                remedy=REMEDY,
            )
        yield opcode, body, body + length
        pos = body + length


def parse_header(view: memoryview, pos: int, end: int) -> tuple[str, str]:
    """Profile and library."""
    fields = Fields(view, pos, end, "header")
    return fields.text("profile"), fields.text("library")


def parse_schema(view: memoryview, pos: int, end: int, limits: Limits) -> SchemaRecord:
    """A schema."""
    fields = Fields(view, pos, end, "schema", limits)
    schema_id = fields.number(2, "id")
    if schema_id == 0:
        raise LogError("schema id 0 is reserved", remedy=REMEDY)
    name, encoding = fields.text("name"), fields.text("encoding")
    return SchemaRecord(schema_id, name, encoding, bytes(fields.blob("data", limits.schema)))


def parse_channel(view: memoryview, pos: int, end: int, limits: Limits) -> RawChannel:
    """A channel."""
    fields = Fields(view, pos, end, "channel", limits)
    channel_id, schema_id = fields.number(2, "id"), fields.number(2, "schema_id")
    topic, encoding = fields.text("topic"), fields.text("message_encoding")
    return RawChannel(channel_id, schema_id, topic, encoding, fields.texts("metadata"))


def parse_chunk(view: memoryview, pos: int, end: int, limits: Limits) -> ChunkHead:
    """A chunk's head; the records must fill the rest of the record."""
    head = parse_chunk_head(view, pos, end, limits)
    if head.data_length > end - head.data_offset:
        raise LogError(
            f"chunk at byte {pos}: records of {head.data_length} bytes, "
            f"{end - head.data_offset} are left",
            remedy=REMEDY,
        )
    if head.uncompressed_size > limits.chunk:
        raise LogError(
            f"chunk at byte {pos}: uncompressed_size {head.uncompressed_size}, limit {limits.chunk}"
        )
    return head


def parse_chunk_head(view: memoryview, pos: int, end: int, limits: Limits) -> ChunkHead:
    """As `parse_chunk`, for a chunk whose sizes may not be true yet."""
    fields = Fields(view, pos, end, "chunk", limits)
    start_ns, end_ns = fields.number(8, "start"), fields.number(8, "end")
    size, crc = fields.number(8, "uncompressed_size"), fields.number(4, "crc")
    compression, length = fields.text("compression"), fields.number(8, "records length")
    return ChunkHead(start_ns, end_ns, size, crc, compression, fields.pos, length)


def parse_chunk_index(view: memoryview, pos: int, end: int) -> ChunkIndexRecord:
    """An entry of the summary's chunk index; there may be many, so it is read in three steps."""
    if end - pos < _INDEX_HEAD.size:
        raise _short_index(pos)
    start_ns, end_ns, offset, length, size = _INDEX_HEAD.unpack_from(view, pos)
    middle = pos + _INDEX_HEAD.size + size
    if end - middle < _INDEX_MIDDLE.size:
        raise _short_index(pos)
    index_length, name = _INDEX_MIDDLE.unpack_from(view, middle)
    tail = middle + _INDEX_MIDDLE.size + name
    if end - tail < _INDEX_TAIL.size or size % CHANNEL_OFFSET.size:
        raise _short_index(pos)
    offsets = view[pos + _INDEX_HEAD.size : middle]
    packed = _INDEX_TAIL.unpack_from(view, tail)
    return ChunkIndexRecord(start_ns, end_ns, offset, length, offsets, index_length, packed[1])


def _short_index(pos: int) -> LogError:
    return LogError(f"chunk index at byte {pos} is too short for its fields", remedy=REMEDY)


def parse_metadata(
    view: memoryview, pos: int, end: int, limits: Limits
) -> tuple[str, dict[str, str]]:
    """Name and entries of a metadata record."""
    fields = Fields(view, pos, end, "metadata", limits)
    return fields.text("name"), fields.texts("metadata")


def parse_attachment(view: memoryview, pos: int, end: int, limits: Limits) -> Attachment:
    """An attachment; its CRC is not checked here."""
    fields = Fields(view, pos, end, "attachment", limits)
    log_ns, create_ns = fields.number(8, "log_time"), fields.number(8, "create_time")
    name, media_type = fields.text("name"), fields.text("media_type")
    data = fields.blob("data", limits.record, size_bytes=8)
    return Attachment(log_ns, create_ns, name, media_type, data, fields.number(4, "crc"))


def parse_statistics(view: memoryview, pos: int, end: int) -> Statistics:
    """The statistics record."""
    fields = Fields(view, pos, end, "statistics")
    messages, schemas = fields.number(8, "message_count"), fields.number(2, "schema_count")
    channels, attachments = fields.number(4, "channel_count"), fields.number(4, "attachment_count")
    metadata, chunks = fields.number(4, "metadata_count"), fields.number(4, "chunk_count")
    start_ns, end_ns = fields.number(8, "start"), fields.number(8, "end")
    counts = fields.numbers(2, 8, "channel_message_counts")
    return Statistics(
        messages, schemas, channels, attachments, metadata, chunks, start_ns, end_ns, counts
    )


def parse_message_index(view: memoryview, pos: int, end: int) -> tuple[int, list[tuple[int, int]]]:
    """Channel and (log time, offset in the uncompressed chunk) of each message."""
    fields = Fields(view, pos, end, "message index")
    channel = fields.number(2, "channel")
    data = fields.blob("records", end - pos)
    if len(data) % 16:
        raise LogError(
            f"message index of channel {channel}: {len(data)} bytes are no whole entries"
        )
    return channel, list(struct.iter_unpack("<QQ", data))
