"""A frame becomes the input tensor: resize once into a kept buffer, normalise by table.

The float path looks every byte up in a table of `(x - mean) / std`, which gives the very numbers of
the usual float32 arithmetic at a fraction of its cost. The uint8 path only resizes; the rest is
inside the graph.

A JPEG that is much larger than the input need not be decoded whole: `reduction_of` says how much
less will do, and the geometry stays that of the whole picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.edge.model.manifest import InputSpec
from syncline.errors import SensorDataError
from syncline.sensors.jpeg import DENOMINATORS

MAX_FRAME_SIDE_PX = 16_384


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the source image lies in the input tensor.

    `input = source * scale + pad`, per axis, in pixels. With letterbox, `scale` is the exact ratio
    that the usual scripts divide by, so that boxes equal theirs.

    Attributes:
        source_width: Width of the frame, pixels.
        source_height: Height of the frame, pixels.
        input_width: Width of the input tensor, pixels.
        input_height: Height of the input tensor, pixels.
        scale_x: Input pixels per source pixel, horizontally.
        scale_y: Input pixels per source pixel, vertically.
        pad_x: First input column of the image.
        pad_y: First input row of the image.
        content_width: Input columns that the image fills.
        content_height: Input rows that the image fills.
    """

    source_width: int
    source_height: int
    input_width: int
    input_height: int
    scale_x: float
    scale_y: float
    pad_x: int
    pad_y: int
    content_width: int
    content_height: int

    def to_source(self, xyxy_px: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) of the input tensor as source pixels, cut to the image."""
        pad, scale, limit = np.array(
            [
                [self.pad_x, self.pad_y] * 2,
                [self.scale_x, self.scale_y] * 2,
                [self.source_width, self.source_height] * 2,
            ],
            dtype=np.float32,
        )
        boxes: NDArray[np.float32] = (xyxy_px - pad) / scale
        np.maximum(boxes, np.float32(0.0), out=boxes)
        np.minimum(boxes, limit, out=boxes)
        return boxes


def geometry_of(spec: InputSpec, width: int, height: int) -> Geometry:
    """The geometry of a `width` x `height` frame under a manifest's input."""
    if spec.resize == "stretch":
        scale = (spec.width / width, spec.height / height)
        return Geometry(
            width, height, spec.width, spec.height, *scale, 0, 0, spec.width, spec.height
        )
    ratio = min(spec.width / width, spec.height / height)
    if spec.resize == "letterbox-topleft":
        inner = (int(width * ratio), int(height * ratio))
        pad = (0, 0)
    else:
        inner = (round(width * ratio), round(height * ratio))
        # As the usual centred letterbox rounds: the smaller half of an odd border comes first.
        pad = tuple(  # type: ignore[assignment]
            round((full - used) / 2 - 0.1)
            for full, used in zip((spec.width, spec.height), inner, strict=True)
        )
    inner = (max(inner[0], 1), max(inner[1], 1))
    return Geometry(width, height, spec.width, spec.height, ratio, ratio, *pad, *inner)


def reduction_of(spec: InputSpec, width: int, height: int) -> int:
    """The smallest fraction, as 1/n, at which a JPEG holds all that the input takes.

    The fraction never leaves fewer pixels than the input has for the picture, and is only taken
    where it divides both sides: a row or column of JPEG that hangs over the edge would stretch
    the picture, and boxes would be off by its part.

    Args:
        spec: The manifest's input.
        width: Width of the whole picture, pixels.
        height: Height of the whole picture, pixels.

    Returns:
        1, 2, 4 or 8.
    """
    at = geometry_of(spec, width, height)
    for n in DENOMINATORS:
        divides = width % n == 0 and height % n == 0
        if divides and width // n >= at.content_width and height // n >= at.content_height:
            return n
    return 1


@dataclass(slots=True)
class _Buffer:
    tensor: NDArray[np.generic]
    geometry: Geometry | None = None


@dataclass
class Preprocessor:
    """Turns frames into input tensors.

    Tensors are reused: one is overwritten by the `buffers`-th call after the one that gave it.

    Args:
        spec: The manifest's input.
        buffers: Tensors kept; memory is `buffers` x the input, plus one uint8 image.
    """

    spec: InputSpec
    buffers: int = 1
    _ring: list[_Buffer] = field(init=False, repr=False)
    _next: int = field(init=False, default=0)
    _tables: tuple[NDArray[np.float32], ...] = field(init=False, repr=False)
    _border: NDArray[np.generic] = field(init=False, repr=False)
    _resized: NDArray[np.uint8] = field(init=False, repr=False)
    _source_px: tuple[int, int] = field(init=False, default=(0, 0))
    _geometry: Geometry = field(init=False, repr=False)

    def __post_init__(self) -> None:
        spec = self.spec
        dtype = np.dtype(spec.dtype)
        self._ring = [_Buffer(np.empty(spec.shape, dtype)) for _ in range(self.buffers)]
        levels = np.arange(256, dtype=np.float32)
        self._tables = tuple(
            (levels - np.float32(mean)) / np.float32(std)
            for mean, std in zip(spec.mean, spec.std, strict=True)
        )
        border = [table[spec.pad] for table in self._tables]
        self._border = np.asarray(border if dtype == np.float32 else [spec.pad] * 3, dtype=dtype)
        self._resized = np.empty((spec.height, spec.width, 3), np.uint8)

    def __call__(
        self, bgr: NDArray[np.uint8], size_px: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.generic], Geometry]:
        """Make the input tensor of a frame.

        Args:
            bgr: uint8 (H, W, 3), blue first.
            size_px: (width, height) of the picture that boxes are to be told in, where `bgr` is
                all of it at another size; None = of `bgr` itself.

        Returns:
            The tensor, of `spec.shape`, and where the frame lies in it.

        Raises:
            SensorDataError: The frame is not such an array.
        """
        check_frame(bgr)
        width, height = size_px or bgr.shape[1::-1]
        if (width, height) != self._source_px:
            self._source_px = (width, height)
            self._geometry = geometry_of(self.spec, width, height)
        geometry = self._geometry
        buffer = self._ring[self._next]
        self._next = (self._next + 1) % len(self._ring)
        if buffer.geometry is not geometry:
            self._fill_border(buffer.tensor)
            buffer.geometry = geometry
        self._write(bgr, buffer.tensor, geometry)
        return buffer.tensor, geometry

    def _fill_border(self, tensor: NDArray[np.generic]) -> None:
        if self.spec.layout == "NCHW":
            tensor[0] = self._border[:, None, None]
        else:
            tensor[0] = self._border

    def _write(self, bgr: NDArray[np.uint8], tensor: NDArray[np.generic], at: Geometry) -> None:
        rows = slice(at.pad_y, at.pad_y + at.content_height)
        columns = slice(at.pad_x, at.pad_x + at.content_width)
        if self.spec.layout == "NHWC":
            self._write_nhwc(bgr, tensor[0, rows, columns], at)
        else:
            self._write_nchw(self._resize(bgr, at), tensor[0, :, rows, columns])

    def _resize(
        self, bgr: NDArray[np.uint8], at: Geometry, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        size = (at.content_width, at.content_height)
        if bgr.shape[1::-1] == size and out is None:
            return bgr
        target = self._resized[: size[1], : size[0]] if out is None else out
        how = _interpolation(bgr.shape[1::-1], size)
        return _in_place(cv2.resize(bgr, size, target, interpolation=how), target)

    def _write_nhwc(self, bgr: NDArray[np.uint8], out: NDArray[np.generic], at: Geometry) -> None:
        swap = self.spec.color == "RGB"
        if self.spec.dtype == "uint8":
            pixels = out.view(np.uint8)
            if not swap:
                self._resize(bgr, at, pixels)
                return
            _in_place(cv2.cvtColor(self._resize(bgr, at), cv2.COLOR_BGR2RGB, pixels), pixels)
            return
        image = self._resize(bgr, at)
        for channel, table in enumerate(self._tables):
            out[..., channel] = table[image[..., 2 - channel if swap else channel]]

    def _write_nchw(self, image: NDArray[np.uint8], out: NDArray[np.generic]) -> None:
        planes = cv2.split(image)
        order = planes[::-1] if self.spec.color == "RGB" else planes
        for channel, plane in enumerate(order):
            if self.spec.dtype == "uint8":
                out[channel] = plane
            else:
                floats = out[channel]
                _in_place(cv2.LUT(plane, self._tables[channel], floats), floats)


def _interpolation(source_px: Sequence[int], size_px: Sequence[int]) -> int:
    """Linear; where that is the pixel in the middle (1080p for a width of 640), taken directly.

    With an odd whole ratio the centre of a target pixel is the centre of a source pixel, whose
    weight is one: the same bytes at half the cost, which is that of the rows that are read.
    """
    odd = all(
        source % size == 0 and source // size % 2
        for source, size in zip(source_px, size_px, strict=True)
    )
    return cv2.INTER_NEAREST_EXACT if odd else cv2.INTER_LINEAR


def check_frame(bgr: NDArray[np.uint8]) -> None:
    """Refuse what is not an uint8 (H, W, 3) image.

    Raises:
        SensorDataError: Naming what is wrong.
    """
    if not isinstance(bgr, np.ndarray) or bgr.dtype != np.uint8:
        kind = getattr(bgr, "dtype", type(bgr).__name__)
        raise SensorDataError(f"frame: pixels are {kind}, must be uint8")
    if bgr.ndim != 3 or bgr.shape[2] != 3:
        raise SensorDataError(f"frame: shape {bgr.shape}, must be (H, W, 3)")
    if not all(1 <= side <= MAX_FRAME_SIDE_PX for side in bgr.shape[:2]):
        raise SensorDataError(
            f"frame: shape {bgr.shape}, sides must be 1 to {MAX_FRAME_SIDE_PX} pixels"
        )


def _in_place(result: object, target: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Make sure that OpenCV wrote into `target`; it allocates anew when it cannot."""
    if result is not target:  # what it takes as it is, it gives back itself
        array = np.asarray(result)
        if not np.may_share_memory(array, target):
            target[...] = array.reshape(target.shape)
    return target  # type: ignore[return-value]
