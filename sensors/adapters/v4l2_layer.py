"""The little that the V4L2 adapter asks of a device, and linuxpy behind it.

Tests and simulators give their own `CaptureDevice`; this file alone imports linuxpy.
"""

from __future__ import annotations

import contextlib
import errno
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from syncline.errors import DeviceError, PermissionDeniedError
from syncline.sensors.adapters.extras import need

# linux/v4l2-controls.h
CID_EXPOSURE = 0x0098_0911
CID_GAIN = 0x0098_0913
CID_EXPOSURE_AUTO = 0x009A_0901
CID_EXPOSURE_ABSOLUTE = 0x009A_0902
CID_VBLANK = 0x009E_0901
CID_HBLANK = 0x009E_0902
CID_ANALOGUE_GAIN = 0x009E_0903
CID_PIXEL_RATE = 0x009F_0902
CONTROLS = (
    CID_EXPOSURE,
    CID_GAIN,
    CID_EXPOSURE_AUTO,
    CID_EXPOSURE_ABSOLUTE,
    CID_VBLANK,
    CID_HBLANK,
    CID_ANALOGUE_GAIN,
    CID_PIXEL_RATE,
)

# linux/videodev2.h, struct v4l2_buffer.flags
FLAG_ERROR = 0x0040
FLAG_STAMP_MASK = 0xE000
FLAG_STAMP_MONOTONIC = 0x2000
FLAG_SOURCE_MASK = 0x7_0000
FLAG_SOURCE_SOE = 0x1_0000


@dataclass(frozen=True, slots=True)
class Layout:
    """What the device delivers.

    Attributes:
        width: Columns.
        height: Rows.
        fourcc: Pixel format by its kernel name: `MJPEG`, `YUYV`...
        stride: Bytes per row; 0 for compressed pictures.
        crop: (x, y, w, h) of the pixel array, where the driver tells.
    """

    width: int
    height: int
    fourcc: str
    stride: int = 0
    crop: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Captured:
    """One buffer as the driver hands it over.

    Attributes:
        seconds: `v4l2_buffer.timestamp.tv_sec`.
        useconds: `v4l2_buffer.timestamp.tv_usec`.
        sequence: The driver's frame counter, 32 bits.
        flags: `v4l2_buffer.flags`.
        data: The picture's bytes.
        controls: Control values read right after the buffer, by control id.
    """

    seconds: int
    useconds: int
    sequence: int
    flags: int
    data: bytes
    controls: dict[int, int] = field(default_factory=dict)


class CaptureDevice(Protocol):
    """An open device that streams."""

    def layout(self) -> Layout:
        """What it delivers."""

    def controls(self) -> dict[int, int]:
        """Values of those of `CONTROLS` that it has."""

    def read(self, timeout_s: float) -> Captured | None:
        """The next buffer; None after a silent `timeout_s`. OSError: the device is gone."""

    def close(self) -> None:
        """Stop streaming; closing a device that is gone is fine."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask of a device; zeros leave what it has.

    Attributes:
        path: Device node.
        width: Columns.
        height: Rows.
        fps: Frames per second.
        buffers: Driver buffers.
    """

    path: str
    width: int = 0
    height: int = 0
    fps: float = 0.0
    buffers: int = 4


class LinuxpyDevice:
    """A device node through linuxpy.

    Args:
        wanted: Node and format.

    Raises:
        UsageError: linuxpy is not installed.
        DeviceError: The node is absent, no capture device, or busy.
        PermissionDeniedError: The node may not be used.
    """

    def __init__(self, wanted: Wanted) -> None:
        video: Any = need("linuxpy.video.device", "a V4L2 camera")
        self._device = video.Device(wanted.path)
        self._capture: Any = None
        try:
            self._device.open()
            self._capture = video.VideoCapture(self._device, size=wanted.buffers)
            if wanted.width and wanted.height:
                now = self._capture.get_format()
                self._capture.set_format(wanted.width, wanted.height, now.pixel_format)
            if wanted.fps:
                self._capture.set_fps(wanted.fps)
            self._controls = self._known_controls()
            self._capture.open()
        except PermissionError as error:
            self._release()
            raise PermissionDeniedError(
                f"{wanted.path}: {error.strerror}", remedy="Add the user to the group `video`"
            ) from error
        except (OSError, video.V4L2Error) as error:
            self._release()
            raise DeviceError(
                f"{wanted.path}: {getattr(error, 'strerror', None) or error}",
                remedy=_remedy(error),
            ) from error

    def layout(self) -> Layout:
        """What it delivers."""
        found = self._capture.get_format()
        stride = int(getattr(found, "bytes_per_line", 0))
        return Layout(found.width, found.height, found.pixel_format.name, stride, self._crop())

    def _crop(self) -> tuple[int, int, int, int] | None:
        video: Any = need("linuxpy.video.device", "a V4L2 camera")
        try:
            rect = self._capture.get_selection(video.SelectionTarget.CROP)
            return int(rect.left), int(rect.top), int(rect.width), int(rect.height)
        except (OSError, AttributeError):
            return None

    def _known_controls(self) -> dict[int, Any]:
        """Those of `CONTROLS` that it has."""
        found = self._device.controls
        try:
            len(found)  # linuxpy asks the driver at the first look, which `get` and `in` are not
        except (OSError, ValueError, Warning):  # Warning: limits that linuxpy does not believe
            return {}
        return {number: found[number] for number in CONTROLS if number in found}

    def controls(self) -> dict[int, int]:
        """Values of those of `CONTROLS` that it has and tells now."""
        found: dict[int, int] = {}
        for number, control in self._controls.items():
            try:
                value = control.value
            except OSError:  # USB cameras fail to answer at times; a device that is gone shows next
                continue
            if value is not None:
                found[number] = int(value)
        return found

    def read(self, timeout_s: float) -> Captured | None:
        """The next buffer; None after a silent `timeout_s`."""
        waiting = select.poll()
        waiting.register(self._device.fileno(), select.POLLIN)
        if not waiting.poll(timeout_s * 1e3):
            return None
        frame = self._capture.buffer.raw_read()
        stamp = frame.buff.timestamp
        return Captured(
            int(stamp.secs),
            int(stamp.usecs),
            int(frame.buff.sequence),
            int(frame.buff.flags),
            bytes(frame.data),
            self.controls(),
        )

    def close(self) -> None:
        """Stop streaming."""
        self._release()

    def _release(self) -> None:
        """Give everything back, also of a device that is gone or never started.

        Each step by itself: a mapped buffer or a descriptor that is kept keeps the camera busy, or
        its node taken, so that it comes back under another name.
        """
        steps: list[Callable[[], None]] = [self._device.close]
        if self._capture is not None and self._capture.buffer is not None:
            steps = [self._capture.stream_off, self._capture.disarm, *steps]
        for step in steps:
            with contextlib.suppress(OSError, ValueError):
                step()


def _remedy(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.EBUSY:
            return "End the other program that uses the camera"
        return "Plug the camera in, or see what there is with: syncline doctor"
    return "Use a node that captures through the single-planar interface, as USB cameras have"


def open_linuxpy(wanted: Wanted) -> CaptureDevice:
    """A device node through linuxpy; see `LinuxpyDevice` for what it raises."""
    return LinuxpyDevice(wanted)
