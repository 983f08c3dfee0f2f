"""How a sensor reads out a frame, and the electrical path from a trigger edge to its exposure.

Equations: docs/frame-time.md. Line time and period follow the Linux kernel's camera-sensor.rst:
`line = (crop_w + HBLANK) / PIXEL_RATE`, `frame = crop_h + VBLANK`, `period = frame * line`.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError

NS_PER_S = 1_000_000_000


class Shutter(enum.Enum):
    """When rows begin and end to gather light."""

    GLOBAL = "global"
    """All rows begin and end together."""
    ROLLING = "rolling"
    """Row r begins and ends r line times after row 0."""
    GLOBAL_RESET = "global_reset"
    """All rows begin together; row r ends r line times after row 0, so exposure grows by row."""


class ScanDirection(enum.Enum):
    """The way the readout walks over the image."""

    TOP_BOTTOM = "top_bottom"
    BOTTOM_TOP = "bottom_top"
    LEFT_RIGHT = "left_right"
    RIGHT_LEFT = "right_left"

    @property
    def by_columns(self) -> bool:
        """True when columns, not rows, are read one after the other."""
        return self in (ScanDirection.LEFT_RIGHT, ScanDirection.RIGHT_LEFT)

    @property
    def reversed(self) -> bool:
        """True when the last image row or column is read first."""
        return self in (ScanDirection.BOTTOM_TOP, ScanDirection.RIGHT_LEFT)


class Binning(enum.Enum):
    """Where rows are joined."""

    ANALOGUE = "analogue"
    """In the pixel array: one line time per output row."""
    AVERAGED = "averaged"
    """After readout: one line time per sensor row, so `binning` line times per output row."""


@dataclass(frozen=True, slots=True)
class TriggerPath:
    """Delays between a trigger edge and the start of exposure of the first row, nanoseconds."""

    line_response_ns: int = 0
    debounce_ns: int = 0
    trigger_delay_ns: int = 0
    exposure_start_delay_ns: int = 0

    def __post_init__(self) -> None:
        for name in ("line_response_ns", "debounce_ns", "trigger_delay_ns"):
            if getattr(self, name) < 0:
                raise SensorDataError(
                    f"{name}={getattr(self, name)} is below 0",
                    remedy="Give the delay of the camera's data sheet, in nanoseconds",
                )

    def total_ns(self) -> int:
        """Trigger edge to start of exposure, nanoseconds."""
        return (
            self.line_response_ns
            + self.debounce_ns
            + self.trigger_delay_ns
            + self.exposure_start_delay_ns
        )


@dataclass(frozen=True, slots=True)
class SensorMode:
    """Geometry and timing of one readout mode.

    Attributes:
        width: Image columns.
        height: Image rows.
        crop: (x, y, w, h) of the pixel array that the image shows, in array pixels.
        binning: (horizontal, vertical) array pixels per image pixel.
        line_time_ns: Time from one read-out line to the next.
        frame_length_lines: Lines per frame period, blanking included; 0 = not known.
        shutter: See `Shutter`.
        direction: See `ScanDirection`.
        control_delay: Frames between setting exposure or gain and the first frame that has it.
        readout_lines: (first, count) of array rows (columns, when scanning by columns) that the
            sensor really reads; None = the crop itself. Wider than the crop when the image
            processor cuts after readout.
        binning_kind: See `Binning`.
    """

    width: int
    height: int
    crop: tuple[int, int, int, int]
    binning: tuple[int, int]
    line_time_ns: float
    frame_length_lines: int
    shutter: Shutter
    direction: ScanDirection = ScanDirection.TOP_BOTTOM
    control_delay: int = 0
    readout_lines: tuple[int, int] | None = None
    binning_kind: Binning = Binning.ANALOGUE

    def __post_init__(self) -> None:
        _require(math.isfinite(self.line_time_ns), "line_time_ns", self.line_time_ns, "finite")
        _require(self.line_time_ns > 0, "line_time_ns", self.line_time_ns, "above 0")
        _require(self.width > 0 and self.height > 0, "size", (self.width, self.height), "above 0")
        _require(min(self.binning) >= 1, "binning", self.binning, "at least 1")
        _require(min(self.crop[2:]) > 0 and min(self.crop) >= 0, "crop", self.crop, "positive")
        _require(self.control_delay >= 0, "control_delay", self.control_delay, "at least 0")
        axis = 0 if self.direction.by_columns else 1
        shown = (self.width, self.height)[axis] * self.binning[axis]
        _require(shown <= self.crop[2 + axis], "crop", self.crop, f">= {shown} along the scan")
        first, count = self.scan_lines
        low, high = self.crop[axis], self.crop[axis] + self.crop[2 + axis]
        covered = first <= low and high <= first + count
        _require(covered, "readout_lines", (first, count), f"wide enough for {low}..{high}")
        blank = self.frame_length_lines == 0 or self.frame_length_lines >= self.line_count
        _require(blank, "frame_length_lines", self.frame_length_lines, f">= {self.line_count}")

    @classmethod
    def simple(
        cls,
        width: int,
        height: int,
        *,
        readout_ns: float = 0.0,
        period_ns: float = 0.0,
        shutter: Shutter = Shutter.ROLLING,
        direction: ScanDirection = ScanDirection.TOP_BOTTOM,
        control_delay: int = 0,
    ) -> SensorMode:
        """A mode without crop or binning, from the readout time of a whole frame.

        Args:
            width: Image columns.
            height: Image rows.
            readout_ns: First to one past the last row; a global shutter may leave it 0.
            period_ns: Frame period where known.
            shutter: See `Shutter`.
            direction: See `ScanDirection`.
            control_delay: See `SensorMode`.

        Raises:
            SensorDataError: A value is impossible.
        """
        lines = width if direction.by_columns else height
        if shutter is Shutter.GLOBAL and readout_ns == 0.0:
            readout_ns = float(lines)
        line_ns = readout_ns / lines if lines > 0 else math.nan
        length = round(period_ns / line_ns) if period_ns and line_ns > 0 else 0
        crop = (0, 0, width, height)
        return cls(width, height, crop, (1, 1), line_ns, length, shutter, direction, control_delay)

    @classmethod
    def from_v4l2(
        cls,
        hblank: int,
        vblank: int,
        pixel_rate: int,
        crop: tuple[int, int, int, int],
        *,
        binning: tuple[int, int] = (1, 1),
        shutter: Shutter = Shutter.ROLLING,
        direction: ScanDirection = ScanDirection.TOP_BOTTOM,
        control_delay: int = 0,
        binning_kind: Binning = Binning.ANALOGUE,
    ) -> SensorMode:
        """From V4L2 controls and the analogue crop (kernel camera-sensor.rst).

        HBLANK and VBLANK count pixels and lines at the size the pixel array is read out in, which
        under analogue binning is the binned size.

        Args:
            hblank: V4L2_CID_HBLANK, pixels.
            vblank: V4L2_CID_VBLANK, lines.
            pixel_rate: V4L2_CID_PIXEL_RATE, pixels per second.
            crop: V4L2_SEL_TGT_CROP (x, y, w, h), array pixels.
            binning: Array pixels per image pixel.
            shutter: See `Shutter`.
            direction: See `ScanDirection`.
            control_delay: See `SensorMode`.
            binning_kind: See `Binning`.

        Raises:
            SensorDataError: pixel_rate or a blanking is impossible.
        """
        _require(pixel_rate > 0, "pixel_rate", pixel_rate, "above 0")
        _require(hblank >= 0 and vblank >= 0, "blanking", (hblank, vblank), "at least 0")
        _require(min(binning) >= 1, "binning", binning, "at least 1")
        width, height = crop[2] // binning[0], crop[3] // binning[1]
        analogue = binning_kind is Binning.ANALOGUE
        read_w, read_h = (width, height) if analogue else (crop[2], crop[3])
        return cls(
            width,
            height,
            crop,
            binning,
            (read_w + hblank) * NS_PER_S / pixel_rate,
            read_h + vblank,
            shutter,
            direction,
            control_delay,
            binning_kind=binning_kind,
        )

    @property
    def scan_lines(self) -> tuple[int, int]:
        """(first, count) of array rows, or columns, that are read out."""
        if self.readout_lines is not None:
            return self.readout_lines
        axis = 0 if self.direction.by_columns else 1
        return self.crop[axis], self.crop[2 + axis]

    @property
    def scan_binning(self) -> int:
        """Binning along the scan."""
        return self.binning[0 if self.direction.by_columns else 1]

    @property
    def line_count(self) -> int:
        """N: line times from the first line to one past the last."""
        count = self.scan_lines[1]
        return count // self.scan_binning if self.binning_kind is Binning.ANALOGUE else count

    def readout_time(self) -> int:
        """R = N * line time, nanoseconds: first line to one *past* the last (Android's skew)."""
        return round(self.line_count * self.line_time_ns)

    def period_ns(self) -> float:
        """Frame period from the line time, nanoseconds; 0.0 when the frame length is not known."""
        return self.frame_length_lines * self.line_time_ns

    def line_of(self, coordinate: ArrayLike) -> NDArray[np.float64]:
        """Readout-order line r of image rows (columns, when scanning by columns).

        Args:
            coordinate: Image row v (or column u), any shape; fractions are fine.

        Returns:
            r as float64 of the same shape, 0 for the line that is read first. Averaged rows give
            the middle of the lines they are made of.
        """
        image = np.asarray(coordinate, dtype=np.float64)
        first, _ = self.scan_lines
        origin = self.crop[0 if self.direction.by_columns else 1]
        binning = self.scan_binning
        if self.binning_kind is Binning.ANALOGUE:
            line = (origin - first) / binning + image
        else:
            line = (origin - first) + image * binning + (binning - 1) / 2.0
        if self.direction.reversed:
            line = (self.line_count - 1) - line
        return np.asarray(line, dtype=np.float64)

    def check_period(self, measured_ns: float, tol_ppm: float = 100.0) -> None:
        """Refuse a line time that contradicts the measured frame period.

        Args:
            measured_ns: Frame period on the device clock, nanoseconds.
            tol_ppm: Greatest relative difference, parts per million.

        Raises:
            SensorDataError: They differ by more, or the mode has no frame length to check with.
        """
        _require(math.isfinite(measured_ns), "measured_ns", measured_ns, "finite")
        _require(measured_ns > 0, "measured_ns", measured_ns, "above 0")
        _require(self.frame_length_lines > 0, "frame_length_lines", 0, "known to check a period")
        off_ppm = (self.period_ns() / measured_ns - 1.0) * 1e6
        if abs(off_ppm) > tol_ppm:
            raise SensorDataError(
                f"line_time_ns={self.line_time_ns:.3f} with {self.frame_length_lines} lines "
                f"gives a period of {self.period_ns():.0f} ns, measured {measured_ns:.0f} ns "
                f"({off_ppm:+.0f} ppm, limit {tol_ppm:g})",
                remedy="Correct the line time or the blanking of the camera's mode",
            )


def _require(holds: bool, name: str, value: object, limit: str) -> None:
    if not holds:
        raise SensorDataError(
            f"sensor mode: {name}={value} must be {limit}",
            remedy="Correct the camera's mode in the configuration",
        )
