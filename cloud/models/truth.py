"""Label maps as people store them: grey PNG, palette PNG, 8 or 16 bits; never colours.

A label is the sample itself: the index of a palette PNG, the value of a grey one. Colours say
nothing without their table, so a coloured map is refused instead of being read as something else.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.cloud.models.agreement import IGNORE
from syncline.cloud.models.frames import MAX_PICTURE_BYTES, Frame
from syncline.errors import MediaError

Labels = NDArray[np.uint8]
Truth = Callable[[str], Labels | None]
"""Label map of a frame by its name, or None."""

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3
_IGNORE_16 = 0xFFFF
_REMEDY = "Store class ids as a grey or palette PNG; 255 is what is not judged"


def truth_folder(folder: Path) -> Truth:
    """Label maps of a folder: the PNG with a frame's name.

    Raises:
        MediaError: It is no folder; when a map is asked for, see `read_label_map`.
    """
    if not folder.is_dir():
        raise MediaError(f"{folder} is not a folder", remedy="Give a folder of label maps")

    def labels(name: str) -> Labels | None:
        file = folder / Path(name).with_suffix(".png")
        return read_label_map(file) if file.is_file() else None

    return labels


def read_label_map(file: Path) -> Labels:
    """Labels of a PNG, uint8 (H, W).

    Samples of 1, 2 and 4 bits are labels as they are; of 16 bits 65535 is `IGNORE`.

    Raises:
        MediaError: Not a PNG, coloured, or a sample that is no class id.
    """
    if file.stat().st_size > MAX_PICTURE_BYTES:
        raise MediaError(f"{file} is larger than {MAX_PICTURE_BYTES} bytes")
    data = file.read_bytes()
    if data[:8] != _PNG or len(data) < 33:
        raise MediaError(f"{file} is not a PNG", remedy=_REMEDY)
    bits, kind = data[24], data[25]
    if kind in (_GREY, _PALETTE):
        return _samples(_decoded(_as_grey(data, file), file), bits, file)
    return _one_channel(_decoded(data, file), file)


def _as_grey(data: bytes, file: Path) -> bytes:
    """The same samples as a plain grey PNG (PNG specification, 11.2): so they come out unmapped."""
    parts = [_PNG]
    for name, body in _chunks(data, file):
        if name == b"IHDR":
            parts.append(_chunk(name, body[:9] + bytes([_GREY]) + body[10:]))
        elif name in (b"IDAT", b"IEND"):
            parts.append(_chunk(name, body))
    return b"".join(parts)


def _chunks(data: bytes, file: Path) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body = data[at + 8 : at + 8 + length]
        stored = data[at + 8 + length : at + 12 + length]
        if len(stored) < 4 or struct.unpack(">I", stored)[0] != zlib.crc32(
            data[at + 4 : at + 8 + length]
        ):
            raise _damaged(file)
        yield data[at + 4 : at + 8], body
        at += 12 + length


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _decoded(data: bytes, file: Path) -> NDArray[np.generic]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise _damaged(file)
    return np.asarray(image)


def _damaged(file: Path) -> MediaError:
    return MediaError(f"{file} cannot be decoded", remedy="Remove it or fetch it again")


def _samples(image: NDArray[np.generic], bits: int, file: Path) -> Labels:
    """Undo the decoder's stretching of few bits to eight; take 16 bits for class ids."""
    if bits == 16:
        wide = image.astype(np.uint16)
        if (foreign := wide[(wide > IGNORE) & (wide != _IGNORE_16)]).size:
            raise MediaError(
                f"{file} holds {int(foreign.max())}, which is no class id (0 to {IGNORE})",
                remedy="Instance ids are no labels; " + _REMEDY[0].lower() + _REMEDY[1:],
            )
        return np.where(wide == _IGNORE_16, IGNORE, wide).astype(np.uint8)
    step = 255 // ((1 << bits) - 1)
    return (image.astype(np.uint8) // np.uint8(step)).astype(np.uint8)


def _one_channel(image: NDArray[np.generic], file: Path) -> Labels:
    """A grey picture that was stored as colour; its channels are equal."""
    planes = image[..., :3] if image.ndim == 3 else image[..., None]
    if (planes != planes[..., :1]).any():
        raise MediaError(f"{file} holds colours, not labels", remedy=_REMEDY)
    return _samples(planes[..., 0], 16 if image.dtype == np.uint16 else 8, file)


def known_labels(labels: Labels, classes: int) -> Labels:
    """A label map with all that is no class of the model (void, unlabelled) set to ignore."""
    return np.where(labels < classes, labels, np.uint8(IGNORE)).astype(np.uint8)


def check_shape(labels: Labels, frame: Frame) -> None:
    """Refuse a label map of other proportions than its frame: it would be laid over it skewed.

    Raises:
        MediaError: They differ by more than a pixel of the label map.
    """
    height, width = frame.bgr.shape[:2]
    rows, columns = labels.shape
    if abs(columns - width * rows / height) > 1.0:
        raise MediaError(
            f"the label map of {frame.name} is {columns}x{rows}, its picture {width}x{height}",
            remedy="Give label maps of the whole picture",
        )
