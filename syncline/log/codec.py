"""Decompression of chunks within stated bounds."""

from __future__ import annotations

import importlib
import zlib
from typing import Any

import zstandard

from syncline.errors import LogError
from syncline.log.wire import REMEDY

_ZSTD_WINDOW = 128 << 20


def expand(data: memoryview, compression: str, size: int) -> memoryview:
    """The uncompressed records of a chunk; `data` itself when it is not compressed.

    Args:
        data: Bytes of the file.
        compression: Empty, `zstd` or `lz4`.
        size: Uncompressed size that the chunk states; nothing beyond it is ever produced.

    Raises:
        LogError: Unknown compression, damaged data, or another size than stated.
    """
    if compression == "":
        found = data
    elif compression == "zstd":
        found = memoryview(_unzstd(data, size))
    elif compression == "lz4":
        found = memoryview(_unlz4(data, size))
    else:
        raise LogError(
            f"chunk compression {compression!r} is unknown", remedy="Only zstd, lz4 and none are"
        )
    if len(found) != size:
        raise LogError(
            f"chunk expands to {len(found)} bytes, its head says {size}",
            remedy=REMEDY,
        )
    return found


def check_crc(data: memoryview, crc: int) -> None:
    """Compare the CRC of a chunk; 0 means that the writer made none.

    Raises:
        LogError: The CRC differs.
    """
    if crc and (found := zlib.crc32(data)) != crc:
        raise LogError(f"chunk has CRC {found:08x}, its head says {crc:08x}", remedy=REMEDY)


def _unzstd(data: memoryview, size: int) -> bytes:
    if size == 0:
        return b""
    try:
        stated = zstandard.frame_content_size(data)
        if stated > size:
            raise LogError(f"zstd frame says {stated} bytes, its chunk {size}", remedy=REMEDY)
        reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        if stated == size:
            return reader.decompress(data, max_output_size=size)
        with reader.stream_reader(data, read_across_frames=True) as stream:
            found = stream.read(size)
            return found + stream.read(1)
    except zstandard.ZstdError as error:
        raise LogError(f"chunk is damaged: {error}", remedy=REMEDY) from None


def _unlz4(data: memoryview, size: int) -> bytes:
    try:
        lz4: Any = importlib.import_module("lz4.frame")
    except ImportError:
        raise LogError("chunk is packed with lz4", remedy="pip install lz4") from None
    try:
        machine = lz4.LZ4FrameDecompressor()
        return bytes(machine.decompress(data, max_length=size + 1)) if size else b""
    except (RuntimeError, EOFError, ValueError) as error:
        raise LogError(f"chunk is damaged: {error}", remedy=REMEDY) from None
