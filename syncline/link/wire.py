"""Messages of the link and their bytes. docs/wire.md is the specification."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from syncline.errors import MessageError

PREFIX = b"S\x01"
MAX_FRAME_BYTES = 256 * 1024
MAX_MESSAGE_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 250_000
MAX_STREAMS_IN_HELLO = 2048
PIECE_BYTES = 192 * 1024
"""Bytes of a PART or CHUNK body: a frame of at most 256 kB with room for its header."""

(
    HELLO,
    WELCOME,
    DATA,
    ACK,
    ERROR,
    OFFER,
    STATE,
    PART,
    FETCH,
    CHUNK,
    END,
    REFUSED,
    NOTICE,
    BYE,
) = range(1, 15)


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """The device begins a session."""

    session: int
    device: str
    boot_id: str
    streams: list[tuple[str, str, int]]


class Notice(msgspec.Struct, array_like=True, frozen=True):
    """A word from the collector, such as a new revision of a model channel."""

    channel: str
    revision: int
    text: str


class Welcome(msgspec.Struct, array_like=True, frozen=True):
    """The collector takes the session: what it has, how much may be in flight."""

    session: int
    committed: list[tuple[str, str, int]]
    window: int
    notices: list[Notice]


class Error(msgspec.Struct, array_like=True, frozen=True):
    """The collector refuses something; see the codes in docs/wire.md."""

    session: int
    code: str
    text: str


class Offer(msgspec.Struct, array_like=True, frozen=True):
    """The device wants to send a file."""

    sha256: str
    size: int
    name: str
    meta: dict[str, str]


class State(msgspec.Struct, array_like=True, frozen=True):
    """How much of an offered file is durable."""

    sha256: str
    offset: int


class Fetch(msgspec.Struct, array_like=True, frozen=True):
    """The device asks for a piece of a resource; length 0 asks for its size and digest."""

    request: int
    name: str
    offset: int
    length: int


class End(msgspec.Struct, array_like=True, frozen=True):
    """Size and digest of a resource."""

    request: int
    size: int
    sha256: str


class Refused(msgspec.Struct, array_like=True, frozen=True):
    """A fetch that cannot be served."""

    request: int
    text: str


class Bye(msgspec.Struct, array_like=True, frozen=True):
    """The device goes."""

    session: int


class Data(NamedTuple):
    """A run of consecutive records of one stream; `body` is as `pack_body` made it."""

    session: int
    tx: int
    link_class: int
    n: int
    seq: int
    boot_id: str
    stream: str
    body: bytes


class Ack(NamedTuple):
    """Every DATA below `next_tx` of the session is durable; `window` bytes may be in flight."""

    session: int
    next_tx: int
    window: int


class Part(NamedTuple):
    """A piece of an offered file."""

    digest: bytes
    offset: int
    body: bytes


class Chunk(NamedTuple):
    """A piece of a fetched resource."""

    request: int
    offset: int
    body: bytes


Message = (
    Hello | Welcome | Data | Ack | Error | Offer | State | Part | Fetch | Chunk | End | Refused
    | Notice | Bye
)  # fmt: skip

_DATA = struct.Struct("<QIBIQBHI")
_ACK = struct.Struct("<QII")
_PART = struct.Struct("<32sQI")
_CHUNK = struct.Struct("<IQI")
DATA_OVERHEAD = len(PREFIX) + 1 + _DATA.size

_CONTROL: dict[int, type[msgspec.Struct]] = {
    HELLO: Hello, WELCOME: Welcome, ERROR: Error, OFFER: Offer, STATE: State, FETCH: Fetch,
    END: End, REFUSED: Refused, NOTICE: Notice, BYE: Bye,
}  # fmt: skip
_CODES = {kind: code for code, kind in _CONTROL.items()}
_DECODERS = {code: msgspec.msgpack.Decoder(kind) for code, kind in _CONTROL.items()}
_ENCODER = msgspec.msgpack.Encoder()


def pack_body(rows: Sequence[tuple[int, bytes]]) -> bytes:
    """Body of a DATA message from (raw_ns, payload) rows: n x i64, n x u32, payloads."""
    n = len(rows)
    times = struct.pack(f"<{n}q", *[raw_ns for raw_ns, _ in rows])
    lengths = struct.pack(f"<{n}I", *[len(payload) for _, payload in rows])
    return b"".join([times, lengths, *[payload for _, payload in rows]])


def unpack_body(body: bytes | memoryview, n: int) -> list[tuple[int, bytes]]:
    """Rows of a DATA body.

    Raises:
        MessageError: The lengths do not add up to the body.
    """
    if len(body) < 12 * n:
        raise MessageError(f"DATA of {n} records has a body of {len(body)} bytes")
    times = struct.unpack_from(f"<{n}q", body)
    lengths = struct.unpack_from(f"<{n}I", body, 8 * n)
    if 12 * n + sum(lengths) != len(body):
        raise MessageError(f"DATA of {n} records: lengths do not add up to {len(body)} bytes")
    rows, at = [], 12 * n
    for raw_ns, length in zip(times, lengths, strict=True):
        rows.append((raw_ns, bytes(body[at : at + length])))
        at += length
    return rows


def pack(message: Message) -> bytes:
    """Bytes of a message."""
    if isinstance(message, Data):
        boot, stream = message.boot_id.encode(), message.stream.encode()
        head = _DATA.pack(
            message.session, message.tx, message.link_class, message.n, message.seq,
            len(boot), len(stream), 0,
        )  # fmt: skip
        crc = crc32(message.body, crc32(head + boot + stream))
        return b"".join(
            [PREFIX, b"\x03", head[:-4], crc.to_bytes(4, "little"), boot, stream, message.body]
        )
    if isinstance(message, Ack):
        return PREFIX + bytes([ACK]) + _ACK.pack(*message)
    if isinstance(message, Part):
        head = _PART.pack(message.digest, message.offset, 0)
        head = head[:-4] + crc32(message.body, crc32(head[:-4])).to_bytes(4, "little")
        return b"".join([PREFIX, bytes([PART]), head, message.body])
    if isinstance(message, Chunk):
        head = _CHUNK.pack(message.request, message.offset, 0)
        head = head[:-4] + crc32(message.body, crc32(head[:-4])).to_bytes(4, "little")
        return b"".join([PREFIX, bytes([CHUNK]), head, message.body])
    return PREFIX + bytes([_CODES[type(message)]]) + _ENCODER.encode(message)


def unpack(data: bytes) -> Message:
    """The message in `data`.

    Raises:
        MessageError: It is not one, is too long, is cut, or a field has the wrong type or size.
    """
    if len(data) < 3 or data[:2] != PREFIX:
        raise MessageError("message does not begin as one of protocol version 1")
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message of {len(data)} bytes is over {MAX_MESSAGE_BYTES}")
    kind = data[2]
    try:
        if kind == DATA:
            return _unpack_data(data)
        if kind == ACK:
            return Ack(*_ACK.unpack(data[3:]))
        if kind == PART:
            return _unpack_part(data)
        if kind == CHUNK:
            return _unpack_chunk(data)
        decoder = _DECODERS.get(kind)
        if decoder is None:
            raise MessageError(f"message type {kind} is unknown")
        return decoder.decode(data[3:])  # type: ignore[return-value]
    except (struct.error, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise MessageError(f"message of type {kind} does not decode: {error}") from error


def _unpack_data(data: bytes) -> Data:
    session, tx, link_class, n, seq, boot_len, stream_len, crc = _DATA.unpack_from(data, 3)
    at = 3 + _DATA.size
    end = at + boot_len + stream_len
    if end > len(data) or not 0 < n <= MAX_MESSAGE_BYTES // 12 or link_class > 3:
        raise MessageError(f"DATA header does not fit its {len(data)} bytes")
    body = data[end:]
    head = data[3 : at - 4] + b"\0\0\0\0" + data[at:end]
    if crc32(body, crc32(head)) != crc:
        raise MessageError("DATA does not match its checksum")
    boot, stream = data[at : at + boot_len].decode(), data[at + boot_len : end].decode()
    if seq + n > 2**63:
        raise MessageError(f"DATA seq {seq} is over 2^63")
    return Data(session, tx, link_class, n, seq, boot, stream, body)


def _unpack_part(data: bytes) -> Part:
    digest, offset, crc = _PART.unpack_from(data, 3)
    body = data[3 + _PART.size :]
    if crc32(body, crc32(data[3 : 3 + _PART.size - 4])) != crc:
        raise MessageError("PART does not match its checksum")
    return Part(digest, offset, body)


def _unpack_chunk(data: bytes) -> Chunk:
    request, offset, crc = _CHUNK.unpack_from(data, 3)
    body = data[3 + _CHUNK.size :]
    if crc32(body, crc32(data[3 : 3 + _CHUNK.size - 4])) != crc:
        raise MessageError("CHUNK does not match its checksum")
    return Chunk(request, offset, body)
