"""GPMF, the telemetry that GoPro cameras put beside their video: a parser for one payload.

A payload is a tree of KLV items, big-endian: key (4 bytes), type (1), size of one sample (1),
repeat (2), then size * repeat bytes padded to 4. Type 0 nests. Source: gopro/gpmf-parser,
docs/README.md. Everything here is bounded, because the bytes come from a file of anybody.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.errors import MediaError

MAX_PAYLOAD_BYTES = 4 << 20
"""Largest payload that is parsed; real ones hold about 6 kB per second of video."""

MAX_DEPTH = 4
"""Payload, device, stream, item: deeper nesting is refused."""

MAX_ITEMS = 20_000
"""Items in one payload; real ones hold about 250."""

_NUMBERS = {
    b"b": ">i1",
    b"B": ">u1",
    b"s": ">i2",
    b"S": ">u2",
    b"l": ">i4",
    b"L": ">u4",
    b"j": ">i8",
    b"J": ">u8",
    b"f": ">f4",
    b"d": ">f8",
}
_FIXED = {b"q": (">i4", 2.0**16), b"Q": (">i8", 2.0**32)}
_HEADER = struct.Struct(">4scBH")
_SETTINGS = frozenset({"STMP", "TSMP", "STNM", "SIUN", "UNIT", "SCAL", "GPSU", "GPSF", "GPSP"})


@dataclass(frozen=True, slots=True)
class Item:
    """One KLV item.

    Attributes:
        key: Four characters.
        kind: Type character; NUL nests.
        size: Bytes of one sample.
        repeat: Number of samples.
        data: Bytes of all samples, without padding.
    """

    key: str
    kind: bytes
    size: int
    repeat: int
    data: memoryview

    @property
    def nested(self) -> bool:
        """True when `data` holds items."""
        return self.kind == b"\0"

    def text(self) -> str:
        """The bytes as text, up to the first NUL."""
        return bytes(self.data).split(b"\0")[0].decode("latin-1")

    def numbers(self) -> NDArray[np.float64]:
        """Samples as float64 (repeat, values per sample).

        Raises:
            MediaError: The type holds no numbers, or the size is no multiple of it.
        """
        fixed = _FIXED.get(self.kind)
        code = fixed[0] if fixed else _NUMBERS.get(self.kind)
        if code is None:
            raise MediaError(f"GPMF {self.key}: type {self.kind!r} holds no numbers")
        width = np.dtype(code).itemsize
        if self.size == 0 or self.size % width:
            raise MediaError(
                f"GPMF {self.key}: sample size {self.size} is no multiple of {width}",
                remedy="The telemetry is damaged; copy the file from the card again",
            )
        values = np.frombuffer(self.data, dtype=code).astype(np.float64)
        values = values.reshape(self.repeat, self.size // width)
        return values / fixed[1] if fixed else values

    def integer(self) -> int:
        """The first sample of an integer type.

        Raises:
            MediaError: No integer is there.
        """
        code = _NUMBERS.get(self.kind, ">f8")
        width = np.dtype(code).itemsize
        if code[1] == "f" or len(self.data) < width:
            raise MediaError(f"GPMF {self.key}: type {self.kind!r} x{self.repeat} is no integer")
        return int(np.frombuffer(self.data[:width], dtype=code)[0])


@dataclass(frozen=True, slots=True)
class Block:
    """The samples of one sensor in one payload.

    Attributes:
        key: Four characters, such as `SHUT`.
        name: What the camera calls the stream.
        values: float64 (N, columns), scaled to the stated units.
        stamp_us: The camera's own time of the first sample, microseconds; None = not stated.
        total: Samples of this stream since the recording began, this block included; None = not
            stated.
        utc_text: GPSU `yymmddhhmmss.sss` of a GPS stream, else empty.
        axes: ORIN, which axis each column holds, such as `XzY` (small: negative); else empty.
    """

    key: str
    name: str
    values: NDArray[np.float64]
    stamp_us: int | None
    total: int | None
    utc_text: str = ""
    axes: str = ""


def parse_items(data: memoryview, depth: int = 0) -> Iterator[Item]:
    """Items side by side in `data`.

    Raises:
        MediaError: A header or a length reaches past the end, or nesting is too deep.
    """
    if depth > MAX_DEPTH:
        raise MediaError(
            f"GPMF: items nest deeper than {MAX_DEPTH}",
            remedy="The telemetry is damaged or no GPMF",
        )
    at = 0
    while at < len(data):
        if len(data) - at < _HEADER.size:
            raise MediaError(f"GPMF: {len(data) - at} bytes at {at} are no item header")
        key, kind, size, repeat = _HEADER.unpack_from(data, at)
        if key == b"\0\0\0\0":
            return  # padding of the whole payload
        at += _HEADER.size
        length = size * repeat
        if length > len(data) - at:
            raise MediaError(
                f"GPMF {key!r}: {length} bytes at {at}, only {len(data) - at} are left",
                remedy="The telemetry is cut short; copy the file from the card again",
            )
        yield Item(key.decode("latin-1"), kind, size, repeat, data[at : at + length])
        at += (length + 3) & ~3


def parse_payload(payload: bytes) -> list[Block]:
    """Blocks of one payload; streams of types that hold no numbers are left out.

    Raises:
        MediaError: The payload is damaged, too large or nests too deep.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MediaError(f"GPMF: payload of {len(payload)} bytes, limit {MAX_PAYLOAD_BYTES}")
    blocks: list[Block] = []
    for stream in _streams(payload):
        block = _block(stream)
        if block is not None:
            blocks.append(block)
    return blocks


def _streams(payload: bytes) -> Iterator[list[Item]]:
    """The items of every STRM, with the count of all items bounded."""
    count = 0
    for device in parse_items(memoryview(payload)):
        if device.key != "DEVC" or not device.nested:
            raise MediaError(f"GPMF: payload begins with {device.key!r}, must be 'DEVC'")
        for child in parse_items(device.data, 1):
            items: list[Item] = []
            if child.nested:
                for item in parse_items(child.data, 2):
                    items.append(item)
                    count += 1
                    if count > MAX_ITEMS:
                        raise MediaError(f"GPMF: more than {MAX_ITEMS} items in one payload")
            if child.key == "STRM":
                yield items


def _block(items: list[Item]) -> Block | None:
    """The samples of a stream are its last item; what stands before it describes them."""
    if not items or items[-1].key in _SETTINGS or items[-1].nested:
        return None
    last = items[-1]
    if last.kind not in _NUMBERS and last.kind not in _FIXED:
        return None
    found = {item.key: item for item in items[:-1]}
    values = last.numbers()
    if "SCAL" in found and values.size:
        values = values / _scale(found["SCAL"], values.shape[1])
    stamp, total = found.get("STMP"), found.get("TSMP")
    return Block(
        last.key,
        found["STNM"].text() if "STNM" in found else "",
        values,
        stamp.integer() if stamp else None,
        total.integer() if total else None,
        found["GPSU"].text() if "GPSU" in found else "",
        found["ORIN"].text() if "ORIN" in found else "",
    )


def _scale(item: Item, columns: int) -> NDArray[np.float64]:
    scale = item.numbers().ravel()
    if scale.size not in (1, columns) or not np.all(np.isfinite(scale) & (scale != 0.0)):
        raise MediaError(
            f"GPMF SCAL: {scale.size} divisors for {columns} columns, must be 1 or {columns}, not 0"
        )
    return scale
