"""Bytes of a spool segment: header, records, footer. docs/wire.md is the specification."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import msgspec

MAGIC = b"SYSP"
END_MAGIC = b"SYSF"
VERSION = 1
DATA, NAME, FOOTER = 0, 1, 2
MAX_RECORD_BYTES = 250_000
"""A record must fit one frame of the link."""
MAX_TABLE_BYTES = 1 << 20

_HEAD = struct.Struct("<4sBBHQII")
_RECORD = struct.Struct("<IIQqHB")
_BODY = struct.Struct("<IQqHB")  # a record's header without its checksum
_TAIL = struct.Struct("<QI4s")
RECORD_BYTES = _RECORD.size
_MASK = 0xFFFFFFFF

Table = dict[str, tuple[int, int]]
"""Stream name to (id, next seq)."""


class RawRecord(NamedTuple):
    """One record as it lies in a segment."""

    kind: int
    stream_id: int
    seq: int
    raw_ns: int
    payload: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself."""

    link_class: int
    number: int
    boot_id: str
    table: Table
    size: int


class Footer(msgspec.Struct, array_like=True, frozen=True):
    """What a sealed segment holds."""

    count: int
    names: dict[int, str]
    table: Table


def pack_header(link_class: int, number: int, boot_id: str, table: Table) -> bytes:
    """Bytes of a segment's header."""
    boot, names = boot_id.encode(), msgspec.msgpack.encode(table)
    head = _HEAD.pack(MAGIC, VERSION, link_class, len(boot), number, len(names), 0)
    crc = crc32(head[:-4] + boot + names)
    return head[:-4] + crc.to_bytes(4, "little") + boot + names


def parse_header(data: bytes) -> Header | None:
    """Header at the start of `data`, or None when it does not check."""
    if len(data) < _HEAD.size:
        return None
    magic, version, link_class, boot_len, number, table_len, crc = _HEAD.unpack_from(data)
    size = _HEAD.size + boot_len + table_len
    if magic != MAGIC or version != VERSION or table_len > MAX_TABLE_BYTES or len(data) < size:
        return None
    if crc32(data[: _HEAD.size - 4] + data[_HEAD.size : size]) != crc:
        return None
    boot = data[_HEAD.size : _HEAD.size + boot_len].decode()
    table = msgspec.msgpack.decode(data[_HEAD.size + boot_len : size], type=Table)
    return Header(link_class, number, boot, table, size)


def pack_record(
    kind: int, stream_id: int, seq: int, raw_ns: int, payload: bytes, offset: int
) -> bytes:
    """Bytes of one record that will lie at `offset`."""
    body = _BODY.pack(len(payload), seq, raw_ns, stream_id, kind) + payload
    return crc32(body, offset & _MASK).to_bytes(4, "little") + body


def parse_records(data: bytes, base: int) -> Iterator[RawRecord]:
    """Whole and sound records in `data`, whose first byte lies at offset `base`.

    Stops at the first record that is cut, too long or does not check.
    """
    at, limit = 0, len(data)
    unpack, view = _RECORD.unpack_from, memoryview(data)
    while at + RECORD_BYTES <= limit:
        crc, length, seq, raw_ns, stream_id, kind = unpack(data, at)
        end = at + RECORD_BYTES + length
        if length > MAX_RECORD_BYTES or end > limit:
            return
        if crc32(view[at + 4 : end], (base + at) & _MASK) != crc:
            return
        yield RawRecord(kind, stream_id, seq, raw_ns, data[at + RECORD_BYTES : end], base + end)
        at = end


def needed_bytes(data: bytes) -> int:
    """Bytes that the record at the start of `data` claims, or 0 when even its header is cut."""
    if len(data) < RECORD_BYTES:
        return 0
    return RECORD_BYTES + int(_RECORD.unpack_from(data)[1])


def pack_footer(footer: Footer, offset: int) -> bytes:
    """Footer record and the fixed tail that points to it."""
    record = pack_record(FOOTER, 0, 0, 0, msgspec.msgpack.encode(footer), offset)
    place = offset.to_bytes(8, "little")
    return record + place + crc32(place).to_bytes(4, "little") + END_MAGIC


TAIL_BYTES = _TAIL.size


def footer_offset(tail: bytes) -> int | None:
    """Where the footer record begins, from a segment's last `TAIL_BYTES` bytes."""
    if len(tail) != TAIL_BYTES:
        return None
    offset, crc, magic = _TAIL.unpack(tail)
    if magic != END_MAGIC or crc32(tail[:8]) != crc:
        return None
    return int(offset)


def parse_footer(data: bytes, offset: int) -> Footer | None:
    """Footer record in `data`, which lay at `offset`; None when it does not check."""
    for record in parse_records(data, offset):
        if record.kind != FOOTER:
            return None
        try:
            return msgspec.msgpack.decode(record.payload, type=Footer)
        except msgspec.MsgspecError:
            return None
    return None
