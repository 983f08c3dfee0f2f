"""A V4L2 camera: driver stamps on the raw clock, drops counted, unplugging survived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.errors import DeviceError, MediaError, SensorDataError
from syncline.sensors.adapter import Health, HealthState
from syncline.sensors.adapters.reopening import Reopening
from syncline.sensors.adapters.v4l2_layer import (
    CID_HBLANK,
    CID_PIXEL_RATE,
    CID_VBLANK,
    FLAG_ERROR,
    Captured,
    CaptureDevice,
    Layout,
    Wanted,
    open_linuxpy,
)
from syncline.sensors.adapters.v4l2_stamp import (
    DISTRUST_FRAMES,
    FrameCounter,
    StampFault,
    frame_exposure,
    frame_stamp,
)
from syncline.sensors.frame import FrameEvent, RawFrame, Stamp
from syncline.sensors.jpeg import JpegPicture
from syncline.sensors.mode import SensorMode
from syncline.timebase import NS_PER_S, Clock, PairedRead, RawClock, paired_read

STALE_PERIODS = 3
_UNKNOWN_PERIOD_NS = NS_PER_S // 10

# Of raw formats: rows per picture row, bytes per pixel, and how OpenCV makes colours of them.
_RAW_FORMATS: dict[str, tuple[float, int, int | None]] = {
    "YUYV": (1.0, 2, cv2.COLOR_YUV2BGR_YUYV),
    "UYVY": (1.0, 2, cv2.COLOR_YUV2BGR_UYVY),
    "NV12": (1.5, 1, cv2.COLOR_YUV2BGR_NV12),
    "GREY": (1.0, 1, cv2.COLOR_GRAY2BGR),
    "BGR24": (1.0, 3, None),
    "RGB24": (1.0, 3, cv2.COLOR_RGB2BGR),
}
_COMPRESSED = frozenset({"MJPEG", "MJPG", "JPEG"})


class V4l2Camera(Reopening[RawFrame]):
    """Frames of a device node.

    Pictures that the camera compresses stay JPEG (`JpegPicture`); all others become BGR arrays.

    Memory: the driver's buffers and one picture. `frames` survives unplugging: the adapter says
    GONE and opens the node again every half second; frame numbers go on by the time that passed.

    Args:
        wanted: Node and format.
        camera: Name given to the frames.
        clock: Paces retries.
        open_device: Opens the node (tests pass a device of their own).
        pair: Reads MONOTONIC against RAW.
        reducible: Whether models may be given less than the full size of a JPEG.
    """

    def __init__(
        self,
        wanted: Wanted,
        camera: str = "camera",
        *,
        clock: RawClock | None = None,
        open_device: Callable[[Wanted], CaptureDevice] = open_linuxpy,
        pair: Callable[[Clock], PairedRead] = paired_read,
        reducible: bool = False,
    ) -> None:
        self._wanted, self._camera = wanted, camera
        self._reducible = reducible
        super().__init__(clock)
        self._open_device, self._pair = open_device, pair
        self._device: CaptureDevice | None = None
        self._layout = Layout(0, 0, "")
        self._line_ns = 0.0
        self._counter = FrameCounter()
        self._faults: Counter[StampFault] = Counter()
        self._distrusted = 0
        self._event = FrameEvent.ARRIVAL
        self.mode: SensorMode | None = None

    def _open(self) -> None:
        """Open the node and start it; see `LinuxpyDevice` for what it raises.

        Raises:
            DeviceError: Also for a pixel format that is not known here.
        """
        device = self._open_device(self._wanted)
        layout = device.layout()
        if layout.fourcc not in _COMPRESSED and layout.fourcc not in _RAW_FORMATS:
            device.close()
            raise DeviceError(
                f"{self._wanted.path}: pixel format {layout.fourcc!r} is not known",
                remedy=f"Set one of {', '.join(sorted({*_COMPRESSED, *_RAW_FORMATS}))}",
            )
        self._device, self._layout = device, layout
        self.mode = sensor_mode(layout, device.controls())
        self._line_ns = self.mode.line_time_ns if self.mode else 0.0

    @property
    def _is_open(self) -> bool:
        return self._device is not None

    def _some(self) -> Iterator[RawFrame]:
        captured = self._read()
        if captured is None:
            return
        frame = self._frame(captured, self._pair(Clock.MONOTONIC))
        if frame is not None:
            yield frame

    def _read(self) -> Captured | None:
        """The next buffer; silence makes the camera STALE, an error GONE."""
        assert self._device is not None
        period_ns = self._counter.period_ns or _UNKNOWN_PERIOD_NS
        try:
            captured = self._device.read(STALE_PERIODS * period_ns / NS_PER_S)
        except OSError as error:
            self._lose(f"{self._wanted.path}: {error.strerror or error}")
            return None
        if captured is None:
            self._state = HealthState.STALE
            return None
        self._state = HealthState.OK
        return captured

    def _frame(self, captured: Captured, pair: PairedRead) -> RawFrame | None:
        stamp, fault = frame_stamp(captured, pair, trusted=not self._distrusted)
        self._distrusted = max(self._distrusted - 1, 0)
        if fault is StampFault.FUTURE:
            self._distrusted = DISTRUST_FRAMES
        if fault is not StampFault.NONE:
            self._faults[fault] += 1
        index = self._counter.step(captured.sequence, stamp.t_ns)
        if captured.flags & FLAG_ERROR:  # it has a number: an error, not a drop as well
            self._errors += 1
            return None
        if index is None:
            return None
        picture = take_picture(captured.data, self._layout, reducible=self._reducible)
        if picture is None:
            self._errors += 1
            return None
        self._event = stamp.event
        return RawFrame(
            camera=self._camera,
            sequence=index,
            device_ticks=None,
            driver=stamp,
            arrival=Stamp(pair.raw_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL),
            exposures=frame_exposure(captured.controls, self._line_ns),
            payload=picture,
        )

    def health(self) -> Health:
        """State and counters; stamps that are not used count as errors."""
        return replace(
            super().health(),
            dropped=self._counter.dropped,
            duplicates=self._counter.duplicates,
            errors=self._errors + sum(self._faults.values()),
        )

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.MONOTONIC_RAW, self._event

    def _told(self) -> list[str]:
        faults = [f"{count} stamps {fault.value}" for fault, count in self._faults.items()]
        restarts = self._counter.restarts
        return faults + ([f"counter restarted {restarts} times"] if restarts else [])

    def _release(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.close()


def sensor_mode(layout: Layout, controls: dict[int, int]) -> SensorMode | None:
    """Line time and period by the sensor's own controls; None where the driver has them not."""
    rate, hblank, vblank = (controls.get(k) for k in (CID_PIXEL_RATE, CID_HBLANK, CID_VBLANK))
    if rate is None or hblank is None or vblank is None:
        return None
    crop = layout.crop or (0, 0, layout.width, layout.height)
    if not layout.width or not layout.height:
        return None
    binning = max(crop[2] // layout.width, 1), max(crop[3] // layout.height, 1)
    try:
        return SensorMode.from_v4l2(hblank, vblank, rate, crop, binning=binning)
    except SensorDataError:
        return None


def take_picture(
    data: bytes, layout: Layout, *, reducible: bool = False
) -> NDArray[np.uint8] | JpegPicture | None:
    """A picture of the layout's size, BGR (height, width, 3), or a JPEG that is not decoded yet.

    None for bytes that are none, or of another size.
    """
    if layout.fourcc in _COMPRESSED:
        try:
            picture = JpegPicture(data, reducible=reducible)
        except MediaError:
            return None
        return picture if picture.shape[:2] == (layout.height, layout.width) else None
    buffer = np.frombuffer(data, dtype=np.uint8)
    rows_per_row, depth, code = _RAW_FORMATS[layout.fourcc]
    rows, width_bytes = int(layout.height * rows_per_row), layout.width * depth
    stride = layout.stride or width_bytes
    if stride < width_bytes or buffer.size < rows * stride:
        return None
    table = buffer[: rows * stride].reshape(rows, stride)[:, :width_bytes]
    pixels = table.reshape(rows, layout.width, depth) if depth > 1 else table
    pixels = np.ascontiguousarray(pixels)
    return np.asarray(pixels if code is None else cv2.cvtColor(pixels, code), dtype=np.uint8)
