"""A camera's JPEG as it came: recorded byte for byte, decoded only as large as it is needed.

JPEG stores blocks of 8 x 8 samples as frequencies. Leaving the high ones away gives the picture at
1/2, 1/4 or 1/8 of its size for a fraction of the work (Independent JPEG Group, libjpeg,
`scale_denom`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.errors import MediaError

Image = NDArray[np.uint8]

DENOMINATORS = (8, 4, 2)
"""Fractions of the size at which a JPEG decodes for less, the smallest first."""
MAX_PIXELS = 1 << 26
"""Of the whole picture: 200 MB decoded, more than any camera of a vehicle gives."""

_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Rows stay as the sensor read them, since each has a time: an orientation tag would turn them.
_AS_READ = cv2.IMREAD_IGNORE_ORIENTATION
_START, _END = b"\xff\xd8", b"\xff\xd9"
_TABLES, _SCAN = 0xC4, 0xDA
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame header (ITU-T T.81, table B.1)."""


class JpegPicture:
    """A compressed picture that knows its size.

    Each size is decoded once and kept with the picture: all models that see a frame share it.
    Memory: the bytes and at most 1.33 x the decoded picture. Any thread may decode.

    Attributes:
        data: The bytes. A camera that leaves the standard Huffman tables out, as Motion JPEG may,
            has them put in, so that every viewer can read the picture; no sample changes.
        width_px: Width by its header.
        height_px: Height by its header.
        reducible: Whether models may be given less than its full size.
    """

    __slots__ = ("_decoded", "_lock", "data", "height_px", "reducible", "width_px")

    def __init__(self, data: bytes, *, reducible: bool = False) -> None:
        """Read the header.

        Raises:
            MediaError: It is no JPEG, cut short, or larger than `MAX_PIXELS`.
        """
        self.width_px, self.height_px, scan_at, has_tables = _read_header(data)
        if data.rfind(_END, scan_at) < 0:  # told before it is recorded, without decoding it
            raise MediaError(
                f"a JPEG of {len(data)} bytes is cut short: it has no end",
                remedy="Check the camera's cable, or lower its rate",
            )
        self.data = data if has_tables else data[:scan_at] + _STANDARD + data[scan_at:]
        self.reducible = reducible
        self._decoded: dict[int, Image] = {}
        self._lock = threading.Lock()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of the whole picture, as the decoded array has it."""
        return self.height_px, self.width_px, 3

    def decode(self, denominator: int = 1) -> Image:
        """The picture, BGR, at 1/`denominator` of its size, rounded up.

        Args:
            denominator: 1, 2, 4 or 8.

        Raises:
            MediaError: It does not decode, or to another size than its header says.
        """
        with self._lock:
            known = self._decoded.get(denominator)
            if known is None:
                known = self._decoded[denominator] = self._decode(denominator)
            return known

    def _decode(self, denominator: int) -> Image:
        buffer = np.frombuffer(self.data, dtype=np.uint8)
        try:
            image = cv2.imdecode(buffer, _FLAGS[denominator] | _AS_READ)
        except cv2.error:
            image = None
        size = -(-self.height_px // denominator), -(-self.width_px // denominator), 3
        if image is None or image.shape != size:
            raise MediaError(
                f"a JPEG of {len(self.data)} bytes does not decode",
                remedy="Check the camera's cable, or lower its rate",
            )
        return np.asarray(image, dtype=np.uint8)


def pixels_of(payload: object) -> Image:
    """The whole picture of a frame's payload, BGR (H, W, 3), decoded when it is a JPEG.

    Raises:
        MediaError: It does not decode.
    """
    if isinstance(payload, JpegPicture):
        return payload.decode()
    assert isinstance(payload, np.ndarray), "the frame is of a camera"
    return payload


def is_jpeg(data: bytes) -> bool:
    """Whether bytes begin as a JPEG does."""
    return data[:2] == _START


def _read_header(data: bytes) -> tuple[int, int, int, bool]:
    """Width, height, where the first scan begins, and whether Huffman tables come before it."""
    size: tuple[int, int] | None = None
    has_tables = False
    for marker, at, body in _segments(data):
        has_tables |= marker == _TABLES
        if marker in _SIZES and len(body) >= 5:
            size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
        if marker == _SCAN and size is not None:
            if not 1 <= size[0] * size[1] <= MAX_PIXELS:
                break
            return *size, at, has_tables
    raise MediaError(
        f"{len(data)} bytes are no JPEG of 1 to {MAX_PIXELS} pixels",
        remedy="Check the camera's pixel format and cable",
    )


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Marker, place and body of each segment up to the first scan's header."""
    at = len(_START) if is_jpeg(data) else len(data)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a filler
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            return
        yield marker, at, data[at + 4 : at + 2 + length]
        if marker == _SCAN:
            return
        at += 2 + length


# The tables of ITU-T T.81, annex K.3: DC and AC of luminance, DC and AC of chrominance.
_STANDARD = bytes.fromhex(
    "ffc4001f0000010501010101010100000000000000000102030405060708090a0b"
    "ffc400b5100002010303020403050504040000017d010203000411051221314106"
    "13516107227114328191a1082342b1c11552d1f02433627282090a161718191a25"
    "262728292a3435363738393a434445464748494a535455565758595a6364656667"
    "68696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6"
    "a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2"
    "e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
    "ffc4001f0100030101010101010101010000000000000102030405060708090a0b"
    "ffc400b51100020102040403040705040400010277000102031104052131061241"
    "510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718"
    "191a262728292a35363738393a434445464748494a535455565758595a63646566"
    "6768696a737475767778797a82838485868788898a92939495969798999aa2a3a4"
    "a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9da"
    "e2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa"
)
