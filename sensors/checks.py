"""Contradictions between stamps of one frame: refused, never averaged away."""

from __future__ import annotations

from collections.abc import Sequence

from syncline.errors import ClockError, SensorDataError
from syncline.sensors.frame import Exposure, FrameEvent, Ns, Stamp
from syncline.sensors.mode import SensorMode

TAI_UTC_NS = 37_000_000_000
"""TAI minus UTC since 2017."""
FAR_NS = 5_000_000_000
"""Two stamps of one frame further apart than this are on different clocks."""


def soe_offset_ns(event: FrameEvent, mode: SensorMode, exposure_ns: Ns, trigger_ns: Ns) -> Ns:
    """Nanoseconds from the start of exposure to `event`, exact up to a rounded half.

    Args:
        event: What a stamp marks.
        mode: Gives the readout time.
        exposure_ns: Exposure of the first line.
        trigger_ns: Trigger edge to start of exposure.

    Returns:
        Offset to add to the start of exposure.

    Raises:
        SensorDataError: ARRIVAL says nothing of the exposure without a model of the delay.
    """
    if event is FrameEvent.TRIGGER:
        return -trigger_ns
    if event is FrameEvent.SOE:
        return 0
    if event is FrameEvent.MID:
        return exposure_ns // 2
    if event in (FrameEvent.SOF, FrameEvent.EOE):
        return exposure_ns
    if event is FrameEvent.EOF:
        return exposure_ns + mode.readout_time()
    raise SensorDataError(
        "event ARRIVAL cannot be turned into a start of exposure",
        remedy="Map arrivals through a clock mapper (FrameTimer)",
    )


def span_of(exposures: Sequence[Exposure]) -> Ns:
    """First start to last end of a frame's exposures, nanoseconds."""
    if len(exposures) == 1:
        return exposures[0].offset_ns + exposures[0].duration_ns
    return max((e.offset_ns + e.duration_ns for e in exposures), default=0)


def reference_of(exposures: Sequence[Exposure]) -> Exposure:
    """The exposure that a frame's time is that of: the longest, the first of equals."""
    if len(exposures) == 1:
        return exposures[0]
    return max(exposures, key=lambda e: e.duration_ns)


def check_exposures(exposures: Sequence[Exposure], period_ns: float, free_run: bool) -> None:
    """Refuse exposures that cannot be.

    Raises:
        SensorDataError: In free run they last longer than the period.
    """
    span_ns = span_of(exposures)
    if free_run and period_ns > 0 and span_ns > period_ns:
        raise SensorDataError(
            f"exposure of {span_ns} ns is longer than the frame period of {period_ns:.0f} ns "
            "of a free-running camera",
            remedy="Check the exposure's unit, or declare the anchor as TRIGGER",
        )


def check_events(
    stamps: Sequence[Stamp], mode: SensorMode, exposure_ns: Ns, tolerance_ns: Ns
) -> None:
    """Refuse stamps of one frame that cannot belong to one frame.

    Args:
        stamps: Two or more stamps on one clock, arrivals excepted.
        mode: Sensor mode.
        exposure_ns: Exposure of the first line.
        tolerance_ns: How far apart their starts of exposure may lie.

    Raises:
        ClockError: Two stamps are on different clocks.
        SensorDataError: They disagree: start and end of frame are of different frames.
    """
    first = stamps[0]
    start_ns = first.t_ns - soe_offset_ns(first.event, mode, exposure_ns, 0)
    for stamp in stamps[1:]:
        if stamp.clock is not first.clock:
            raise ClockError(
                f"stamps {first.event.name} on {first.clock.name} and {stamp.event.name} on "
                f"{stamp.clock.name} cannot be compared",
                remedy="Convert both by a paired read first",
            )
        there_ns = stamp.t_ns - soe_offset_ns(stamp.event, mode, exposure_ns, 0)
        if abs(there_ns - start_ns) > tolerance_ns:
            raise SensorDataError(
                f"{stamp.event.name} is {there_ns - start_ns:+d} ns off where {first.event.name} "
                f"puts it (limit {tolerance_ns} ns): they are of different frames",
                remedy="Pair start and end of frame by the driver's sequence number",
            )


def check_clock(driver: Stamp, arrival: Stamp) -> None:
    """Refuse a driver stamp that must be on another clock than it claims.

    Args:
        driver: The driver's stamp, claiming the arrival's clock.
        arrival: Arrival at the host.

    Raises:
        ClockError: They are seconds apart; TAI against UTC, and a clock that counts suspend or
            the time of day against one that does not, are named.
    """
    apart_ns = driver.t_ns - arrival.t_ns
    if abs(apart_ns) < FAR_NS:
        return
    if abs(abs(apart_ns) - TAI_UTC_NS) < 1_500_000_000:
        guess = "TAI and UTC mixed (37 s)"
    elif abs(apart_ns) > 10**18:
        guess = "time of day and time since boot mixed"
    else:
        guess = "BOOTTIME (counts suspend) and MONOTONIC mixed, or another machine's clock"
    raise ClockError(
        f"suspected clock: driver stamp on {driver.clock.name} is {apart_ns / 1e9:+.3f} s off the "
        f"arrival: {guess}",
        remedy="Declare the clock that the driver really uses",
    )
