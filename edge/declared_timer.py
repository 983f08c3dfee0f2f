"""The timer of a camera that `edge.toml` declares, and what its driver tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from syncline.edge.config import CameraSection
from syncline.edge.recorded_time import recorded_timer
from syncline.errors import SensorDataError
from syncline.sensors.frame import FrameEvent, FrameTime, RawFrame
from syncline.sensors.jpeg import JpegPicture
from syncline.sensors.mode import SensorMode, Shutter
from syncline.sensors.timer import FrameTimer
from syncline.timebase import NS_PER_S

READOUT_TOLERANCE = 1e-3
"""How far a declared readout time may be from the one that the driver's controls give."""


def nothing_told() -> SensorMode | None:
    """For a camera that says nothing of its readout."""
    return None


class DeclaredTimer:
    """A timer that waits for the first frame to know the picture's size.

    Of a live camera whose readout time nobody tells, only that it is no longer than a period is
    known: the bias of its frames says so.

    Args:
        section: The declared camera.
        period_ns: Frame period where known; 0.0 = not known.
        told: The readout by the camera's own controls (V4L2 blanking and pixel rate), asked at
            the first frame; None where it has none.
    """

    def __init__(
        self,
        section: CameraSection,
        period_ns: float,
        told: Callable[[], SensorMode | None] = nothing_told,
    ) -> None:
        self._section = section
        self._period_ns = period_ns
        self._told = told
        self._unknown_ns = 0
        self._size_px = (0, 0)
        self._timer: FrameTimer | None = None

    def stamp(self, frame: RawFrame) -> FrameTime:
        """Time one frame.

        Raises:
            SensorDataError: The frame contradicts the mode, the declared readout the controls', or
                a live camera changed its resolution.
        """
        assert isinstance(frame.payload, np.ndarray | JpegPicture)
        size_px = frame.payload.shape[1], frame.payload.shape[0]
        if self._timer is None:
            told = self._told()
            self._size_px = size_px
            mode = camera_mode(self._section, size_px, self._period_ns, told)
            anchor, exposure_us = self._section.anchor_kind, self._section.exposure_us
            self._timer = recorded_timer(mode, anchor, exposure_us)
            if told is None and not self._section.readout_us and self._section.is_live:
                self._unknown_ns = round(self._period_ns or NS_PER_S / self._section.fps)
        if size_px != self._size_px and self._section.is_live:
            raise SensorDataError(
                f"camera {self._section.name!r}: pictures of {size_px[0]}x{size_px[1]} after "
                f"{self._size_px[0]}x{self._size_px[1]}: their lines have other times",
                remedy="Fix the camera's resolution, or start syncline again",
            )
        timing = self._timer.stamp(frame)
        return with_unknown_readout(timing, frame, self._unknown_ns) if self._unknown_ns else timing


def with_unknown_readout(timing: FrameTime, frame: RawFrame, longest_ns: int) -> FrameTime:
    """A time whose bias says that the readout, which nobody told, may take up to `longest_ns`.

    Stamped at its end, the middle of exposure lies before it by a readout that is not known; of
    lines that are read one after the other, those read late lie after the first.
    """
    stamp = frame.arrival
    if frame.driver is not None and frame.driver.clock is timing.clock:
        stamp = frame.driver
    low_ns, high_ns = timing.bias_ns
    if stamp.event in (FrameEvent.EOF, FrameEvent.ARRIVAL):
        return replace(timing, bias_ns=(low_ns - longest_ns, high_ns))
    if timing.mode.shutter is not Shutter.GLOBAL:
        return replace(timing, bias_ns=(low_ns, high_ns + longest_ns))
    return timing


def camera_mode(
    section: CameraSection, size_px: tuple[int, int], period_ns: float, told: SensorMode | None
) -> SensorMode:
    """The readout of a camera: as declared, else as its controls tell, never the mean of both.

    Args:
        section: The declared camera; its shutter and scan direction hold in any case, because no
            control tells them.
        size_px: (width, height) of its pictures.
        period_ns: Frame period where known.
        told: The readout by the controls, where there are any.

    Raises:
        SensorDataError: Declared and told readout differ by more than `READOUT_TOLERANCE`.
    """
    if told is None:
        return section.mode(*size_px, period_ns)
    told_us, declared_us = told.readout_time() / 1e3, section.readout_us
    if declared_us and abs(declared_us / told_us - 1.0) > READOUT_TOLERANCE:
        raise SensorDataError(
            f"camera {section.name!r}: readout_us={declared_us:g} is declared, blanking and pixel "
            f"rate give {told_us:g} ({declared_us / told_us - 1.0:+.2%}, limit "
            f"{READOUT_TOLERANCE:.1%})",
            remedy="Leave readout_us away to use the controls, or correct it for this mode",
        )
    shutter, direction = Shutter(section.shutter), section.scan_direction
    if (told.width, told.height) == size_px:
        return replace(told, shutter=shutter, direction=direction)
    # Scaled behind the sensor: its lines are not the picture's, the time they take is.
    return SensorMode.simple(
        *size_px,
        readout_ns=float(told.readout_time()),
        period_ns=told.period_ns(),
        shutter=shutter,
        direction=direction,
    )
