"""A frame as it arrives, and the frame time that is made of it.

All points in time are int64 nanoseconds on a named clock. Conventions and equations:
docs/frame-time.md.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError
from syncline.sensors.mode import SensorMode, Shutter
from syncline.timebase import Clock

Ns = int
"""Nanoseconds: a point in time on a named clock, or a duration."""


class FrameEvent(enum.Enum):
    """What in the life of a frame a stamp marks."""

    TRIGGER = "trigger"
    """The edge on the trigger line."""
    SOE = "soe"
    """Start of exposure of the line that is read first."""
    SOF = "sof"
    """Start of readout of the first line, which is its end of exposure."""
    EOE = "eoe"
    """End of exposure of the first line."""
    EOF = "eof"
    """End of readout: one line time past the start of readout of the last line."""
    MID = "mid"
    """Middle of exposure of the first line."""
    ARRIVAL = "arrival"
    """The frame reached the host process."""


class Anchor(enum.Enum):
    """What happens periodically: the thing that exposure time does not move."""

    TRIGGER = "trigger"
    """Start of exposure is periodic; mid = event + exposure/2."""
    READOUT = "readout"
    """Start of readout is periodic (free run); mid = event - exposure/2."""
    UNKNOWN = "unknown"


class Quality(enum.Flag):
    """What is wrong, or less than usual, with a frame time."""

    OK = 0
    HOLDOVER = enum.auto()
    """The clock mapping is extrapolated or not yet settled."""
    INFERRED_INDEX = enum.auto()
    """The camera gave no sequence number; the index is inferred from arrival."""
    NO_EXPOSURE = enum.auto()
    """Exposure is not known; sigma carries the configured range."""
    AMBIGUOUS = enum.auto()
    """Anchor, trigger or whole periods could not be told apart."""
    STEPPED = enum.auto()
    """A clock stepped here; the time is being re-estimated."""
    STALE = enum.auto()
    """First frame after more than three periods of silence."""
    WRAPPED = enum.auto()
    """The device counter wrapped or restarted, or its stamp came out of order."""
    REJECTED = enum.auto()
    """Not usable: a duplicate or a contradiction."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A point in time, the clock it was read on, and what it marks.

    Attributes:
        t_ns: Nanoseconds on `clock`.
        clock: See `syncline.timebase.Clock`.
        event: What is marked.
        sigma_ns: One standard deviation of its error.
        bias_ns: (low, high): the true time lies in [t_ns + low, t_ns + high] but for sigma.
    """

    t_ns: Ns
    clock: Clock
    event: FrameEvent
    sigma_ns: float = 0.0
    bias_ns: tuple[Ns, Ns] = (0, 0)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma_ns) and self.sigma_ns >= 0.0):
            raise SensorDataError(f"stamp: sigma_ns={self.sigma_ns} must be finite and >= 0")
        if self.bias_ns[0] > self.bias_ns[1]:
            raise SensorDataError(f"stamp: bias_ns={self.bias_ns} must be (low, high)")


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure of a frame; a staggered HDR frame has several.

    Attributes:
        duration_ns: Length.
        gain: Linear gain; it does not move time, but its change marks a transition.
        offset_ns: Start, relative to the start of exposure of the frame.
        sigma_ns: One standard deviation of the duration.
    """

    duration_ns: Ns
    gain: float = 1.0
    offset_ns: Ns = 0
    sigma_ns: float = 0.0

    def __post_init__(self) -> None:
        if math.isnan(self.duration_ns) or self.duration_ns < 0:
            raise SensorDataError(
                f"exposure: duration_ns={self.duration_ns} must be at least 0",
                remedy="Leave exposures empty when the exposure is not known",
            )
        if not (math.isfinite(self.gain) and self.gain >= 0.0):
            raise SensorDataError(f"exposure: gain={self.gain} must be finite and >= 0")
        if not (math.isfinite(self.sigma_ns) and self.sigma_ns >= 0.0):
            raise SensorDataError(f"exposure: sigma_ns={self.sigma_ns} must be finite and >= 0")


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame as an adapter hands it over, before its time is known.

    Attributes:
        camera: Name of the camera.
        sequence: The driver's frame counter, where it has one; gaps are drops.
        device_ticks: Device time of the periodic event, in counter ticks, where it has one.
        driver: The driver's stamp of this frame, where it has one.
        arrival: When the host process had it.
        exposures: Exposures of this frame; empty = not known (yet).
        payload: Pixels or packet; never looked at here.
    """

    camera: str
    sequence: int | None
    device_ticks: int | None
    driver: Stamp | None
    arrival: Stamp
    exposures: tuple[Exposure, ...] = ()
    payload: object | None = None


@dataclass(frozen=True, slots=True)
class FrameTime:
    """When a frame was exposed, and how sure that is.

    `soe_ns`, `mid_ns` and `eof_ns` are of the line that is read first (`eof_ns`: end of readout of
    the last). Of several exposures, `mid_ns` belongs to the longest.

    Attributes:
        camera: Name of the camera.
        index: Frame number since the stream began; drops are counted.
        soe_ns: Start of exposure.
        mid_ns: Middle of exposure.
        eof_ns: End of readout.
        sigma_ns: One standard deviation of `mid_ns`.
        clock: Clock of all times here.
        anchor: What was taken as periodic.
        quality: See `Quality`.
        mode: Sensor mode, for row times.
        trigger_id: Number of the matched trigger edge.
        bias_ns: (low, high): the true middle lies in [mid_ns + low, mid_ns + high], but for sigma.
        exposures: Exposures used.
        sequence: The driver's frame counter, where it had one.
        revision: 0 as published live; a smoother issues n + 1.
    """

    camera: str
    index: int
    soe_ns: Ns
    mid_ns: Ns
    eof_ns: Ns
    sigma_ns: float
    clock: Clock
    anchor: Anchor
    quality: Quality
    mode: SensorMode
    trigger_id: int | None = None
    bias_ns: tuple[Ns, Ns] = (0, 0)
    exposures: tuple[Exposure, ...] = ()
    sequence: int | None = None
    revision: int = 0

    def row_time(self, rows: ArrayLike) -> NDArray[np.int64]:
        """Middle of exposure of image rows (of columns, when the sensor scans by columns).

        Args:
            rows: Image rows, any shape; fractions are fine.

        Returns:
            int64 nanoseconds on `clock`, same shape. Rolling: mid + r*line; global: mid; global
            reset: mid + r*line/2, because the row's exposure grows by r*line.
        """
        return self.mid_ns + line_offset_ns(self.mode, rows)

    def pixel_time(
        self, uv: ArrayLike, weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Middle of exposure of pixels.

        Args:
            uv: Pixels (..., 2) as (column, row).
            weights: Share of each exposure in each pixel (..., K), rows summing to 1; None = the
                longest exposure alone.

        Returns:
            int64 nanoseconds (...) on `clock`: of its row, or of its column.

        Raises:
            SensorDataError: `uv` is not (..., 2) or `weights` does not fit the exposures.
        """
        points = np.asarray(uv, dtype=np.float64)
        if points.ndim == 0 or points.shape[-1] != 2:
            raise SensorDataError(f"pixel_time: uv has shape {points.shape}, must be (..., 2)")
        times = self.row_time(points[..., 0 if self.mode.direction.by_columns else 1])
        if weights is None:
            return times
        mids = self.sub_exposures()[:, 1] - self.mid_ns
        if weights.shape != (*points.shape[:-1], len(mids)):
            raise SensorDataError(
                f"pixel_time: weights have shape {weights.shape}, "
                f"must be {(*points.shape[:-1], len(mids))}"
            )
        return times + np.rint(weights @ mids.astype(np.float64)).astype(np.int64)

    def sub_exposures(self) -> NDArray[np.int64]:
        """Start, middle and end of each exposure of the first line.

        Returns:
            int64 (K, 3) nanoseconds on `clock`; one row without exposures.
        """
        if not self.exposures:
            end = 2 * self.mid_ns - self.soe_ns
            return np.array([[self.soe_ns, self.mid_ns, end]], dtype=np.int64)
        spans = [
            (e.offset_ns, e.offset_ns + e.duration_ns // 2, e.offset_ns + e.duration_ns)
            for e in self.exposures
        ]
        return self.soe_ns + np.array(spans, dtype=np.int64)

    def span_ns(self) -> tuple[Ns, Ns]:
        """First start and last end of light on any pixel, nanoseconds on `clock`."""
        subs = self.sub_exposures()
        last = self.mode.line_count - 1
        grown = 0 if self.mode.shutter is Shutter.GLOBAL else last * self.mode.line_time_ns
        return int(subs[:, 0].min()), int(subs[:, 2].max()) + round(grown)

    def centre_ns(self) -> Ns:
        """Middle of exposure of the whole frame: rolling (SOE + EOF)/2; global: `mid_ns`."""
        readout_ns = self.mode.readout_time()
        if self.mode.shutter is Shutter.ROLLING:
            return self.mid_ns + readout_ns // 2
        if self.mode.shutter is Shutter.GLOBAL_RESET:
            return self.mid_ns + readout_ns // 4
        return self.mid_ns


def line_offset_ns(mode: SensorMode, rows: ArrayLike) -> NDArray[np.int64]:
    """Middle of exposure of image rows relative to the line read first, int64 nanoseconds."""
    line = mode.line_of(rows)
    if mode.shutter is Shutter.GLOBAL:
        return np.zeros(line.shape, dtype=np.int64)
    share = 0.5 if mode.shutter is Shutter.GLOBAL_RESET else 1.0
    return np.rint(line * (mode.line_time_ns * share)).astype(np.int64)


def line_offset_of(mode: SensorMode) -> tuple[float, float]:
    """`line_offset_ns` as a straight line, for those who ask once for many frames.

    Returns:
        (first, slope): middle of exposure of image line c, relative to the line read first, is
        first + slope * c nanoseconds.
    """
    if mode.shutter is Shutter.GLOBAL:
        return 0.0, 0.0
    share = 0.5 if mode.shutter is Shutter.GLOBAL_RESET else 1.0
    first, second = mode.line_of((0.0, 1.0)) * (mode.line_time_ns * share)
    return float(first), float(second - first)
