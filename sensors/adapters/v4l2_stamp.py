"""The pure part of the V4L2 adapter: what a buffer's stamp and counter mean.

Kernel documentation: buffer.rst (timestamp flags and sources). Drivers stamp the end of the frame
unless they say start of exposure, on CLOCK_MONOTONIC cut to microseconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from syncline.sensors.adapters.v4l2_layer import (
    CID_ANALOGUE_GAIN,
    CID_EXPOSURE,
    CID_EXPOSURE_ABSOLUTE,
    CID_EXPOSURE_AUTO,
    CID_GAIN,
    FLAG_SOURCE_MASK,
    FLAG_SOURCE_SOE,
    FLAG_STAMP_MASK,
    FLAG_STAMP_MONOTONIC,
    Captured,
)
from syncline.sensors.frame import Exposure, FrameEvent, Stamp
from syncline.timebase import NS_PER_S, Clock, PairedRead

MAX_AGE_NS = 10 * NS_PER_S
"""A stamp older than this at its arrival was taken on another clock."""

LATENCY_NS = 100_000_000
"""A frame without a usable stamp may have been read out this long before it arrived."""

SLEW_LIMIT = 500e-6
"""MONOTONIC is disciplined by at most 500 ppm against RAW (kernel NTP limit)."""

DISTRUST_FRAMES = 64
"""A driver that stamped ahead of time is not believed for so many frames, each time anew: the
others of its stamps are ahead as well, and only look past because they were read late."""

LEARN_FRAMES = 20
"""The period follows the last frames, about so many."""

_MICROSECOND_NS = 1000
_MANUAL_EXPOSURE = 1
_ABSOLUTE_UNIT_NS = 100_000
_SEQUENCE_SPAN = 1 << 32


class StampFault(enum.Enum):
    """Why a driver's stamp was not used."""

    NONE = "none"
    ABSENT = "absent"
    """The driver says that its stamp is on no known clock, or gives zero."""
    FUTURE = "future"
    OLD = "old"
    AHEAD = "of a driver that stamps ahead of time"


def frame_stamp(
    captured: Captured, pair: PairedRead, *, trusted: bool = True
) -> tuple[Stamp, StampFault]:
    """A buffer's stamp on MONOTONIC_RAW.

    Args:
        captured: The buffer.
        pair: MONOTONIC against RAW, read right after the buffer arrived.
        trusted: Whether the driver's stamps have been possible of late.

    Returns:
        The driver's stamp, or the arrival with its one-sided bias when that cannot be used.
    """
    fault, age_ns = _age(captured, pair)
    if fault is StampFault.NONE and not trusted:
        fault = StampFault.AHEAD
    if fault is not StampFault.NONE:
        bias = (-LATENCY_NS, 0)
        return Stamp(pair.raw_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, 0.0, bias), fault
    soe = captured.flags & FLAG_SOURCE_MASK == FLAG_SOURCE_SOE
    # Uniform within the bracket, and within what slewing can do while the frame was on its way.
    variance = (pair.bracket_ns**2 + (2 * SLEW_LIMIT * age_ns) ** 2) / 12.0
    return (
        Stamp(
            pair.raw_ns - age_ns,
            Clock.MONOTONIC_RAW,
            FrameEvent.SOE if soe else FrameEvent.EOF,
            variance**0.5,
            (0, _MICROSECOND_NS),
        ),
        fault,
    )


def _age(captured: Captured, pair: PairedRead) -> tuple[StampFault, int]:
    stamp_ns = captured.seconds * NS_PER_S + captured.useconds * 1000
    if captured.flags & FLAG_STAMP_MASK != FLAG_STAMP_MONOTONIC or stamp_ns <= 0:
        return StampFault.ABSENT, 0
    age_ns = pair.other_ns - stamp_ns
    if age_ns < -pair.bracket_ns:
        return StampFault.FUTURE, age_ns
    return (StampFault.OLD if age_ns > MAX_AGE_NS else StampFault.NONE), age_ns


def frame_exposure(controls: dict[int, int], line_ns: float) -> tuple[Exposure, ...]:
    """Exposure by the controls; empty while the camera chooses it itself and does not tell.

    Args:
        controls: Values by control id.
        line_ns: Line time, where known; sensors count exposure in lines.
    """
    gain = float(controls.get(CID_ANALOGUE_GAIN, controls.get(CID_GAIN, 1))) or 1.0
    absolute = controls.get(CID_EXPOSURE_ABSOLUTE, 0)
    if absolute > 0 and controls.get(CID_EXPOSURE_AUTO) == _MANUAL_EXPOSURE:
        sigma_ns = _ABSOLUTE_UNIT_NS / 12**0.5
        return (Exposure(absolute * _ABSOLUTE_UNIT_NS, gain, sigma_ns=sigma_ns),)
    lines = controls.get(CID_EXPOSURE, 0)
    if lines > 0 and line_ns > 0.0:
        return (Exposure(round(lines * line_ns), gain, sigma_ns=line_ns / 12**0.5),)
    return ()


@dataclass(slots=True)
class FrameCounter:
    """Frame numbers that only grow, out of a driver's 32-bit counter.

    A counter that wraps goes on; one that restarts (reopened device, driver reset) is continued by
    the time that passed; one that repeats while its stamp moved (UVC, old kernels) counts on.

    Attributes:
        period_ns: Learned frame period; 0 before the second frame.
        dropped: Frames that were lost.
        duplicates: Buffers that repeat a frame.
        restarts: Times the counter began anew.
    """

    period_ns: float = 0.0
    dropped: int = 0
    duplicates: int = 0
    restarts: int = 0
    _learned: int = 0
    _index: int = -1
    _sequence: int = -1
    _t_ns: int = 0

    def step(self, sequence: int, t_ns: int) -> int | None:
        """Number of a frame; None for a duplicate.

        Args:
            sequence: The driver's counter.
            t_ns: Time of the frame on MONOTONIC_RAW.
        """
        if self._index < 0:
            return self._take(0, sequence, t_ns)
        elapsed_ns = t_ns - self._t_ns
        delta = (sequence - self._sequence) % _SEQUENCE_SPAN
        close = 0.5 * self.period_ns if self.period_ns else 1_000_000.0
        if delta == 0 and abs(elapsed_ns) < close:
            self.duplicates += 1
            return None
        if delta == 0:
            # The counter stood still: the frame is new, the next step of the counter may be 2.
            self._t_ns = t_ns
            self._index += 1
            self._sequence = (sequence + 1) % _SEQUENCE_SPAN
            return self._index
        if not self._plausible(delta, elapsed_ns):
            self.restarts += 1
            delta = max(1, round(elapsed_ns / self.period_ns)) if self.period_ns else 1
        elif delta == 1:
            self._learn(elapsed_ns)
        self.dropped += delta - 1
        return self._take(self._index + delta, sequence, t_ns)

    def _plausible(self, delta: int, elapsed_ns: int) -> bool:
        """Whether so many frames can have passed in that time."""
        if not self.period_ns:
            return delta < _SEQUENCE_SPAN // 2
        return delta <= 2 + 2 * max(elapsed_ns, 0) / self.period_ns

    def _learn(self, elapsed_ns: int) -> None:
        if elapsed_ns > 0:
            # A mean at first: the frames that waited while the camera was opened come in a bunch.
            self._learned += 1
            weight = max(1.0 / self._learned, 1.0 / LEARN_FRAMES)
            self.period_ns += weight * (elapsed_ns - self.period_ns)

    def _take(self, index: int, sequence: int, t_ns: int) -> int:
        self._index, self._sequence, self._t_ns = index, sequence, t_ns
        return index
