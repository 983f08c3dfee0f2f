"""Stored frames: what a collector's segment file is made of. docs/wire.md is the specification."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec

FILE_MAGIC = b"SYCS\x01"
FILE_HEADER = FILE_MAGIC.ljust(32, b"\0")
_FRAME = struct.Struct("<2sHII")
_MAGIC = b"SF"
FRAME_BYTES = _FRAME.size
MAX_FRAME_BYTES = 2 << 20


class Frame(NamedTuple):
    """A run of consecutive records of one stream, as received."""

    device: str
    boot: str
    stream: str
    link_class: int
    seq: int
    n: int
    body: bytes


class Placed(NamedTuple):
    """A frame and where its body lies."""

    frame: Frame
    stored_id: int
    offset: int


class _Head(msgspec.Struct, array_like=True, frozen=True):
    device: str
    boot: str
    stream: str
    link_class: int
    seq: int
    n: int


def pack_frame(frame: Frame) -> tuple[bytes, int]:
    """Bytes of a frame, and the offset of its body in them."""
    head = msgspec.msgpack.encode(_Head(*frame[:6]))
    crc = crc32(frame.body, crc32(head))
    start = _FRAME.pack(_MAGIC, len(head), len(frame.body), crc)
    return b"".join([start, head, frame.body]), FRAME_BYTES + len(head)


def read_frames(path: Path) -> Iterator[tuple[Frame, int, int]]:
    """Sound frames of a file: (frame, offset of its body, offset behind it).

    Stops at the first frame that is cut or does not check.
    """
    with path.open("rb") as file:
        if file.read(len(FILE_HEADER)) != FILE_HEADER:
            return
        at = len(FILE_HEADER)
        while len(start := file.read(FRAME_BYTES)) == FRAME_BYTES:
            magic, head_len, body_len, crc = _FRAME.unpack(start)
            if magic != _MAGIC or body_len > MAX_FRAME_BYTES:
                return
            data = file.read(head_len + body_len)
            if len(data) < head_len + body_len or crc32(data) != crc:
                return
            head = msgspec.msgpack.decode(data[:head_len], type=_Head)
            body_at = at + FRAME_BYTES + head_len
            at = body_at + body_len
            frame = Frame(
                head.device, head.boot, head.stream, head.link_class, head.seq, head.n,
                data[head_len:],
            )  # fmt: skip
            yield frame, body_at, at
