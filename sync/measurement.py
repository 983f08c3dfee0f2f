"""What a time source hands to the estimator: one comparison of its time with the raw clock.

All values are int64 nanoseconds. An NTP exchange (t1, t2, t3, t4) becomes the pair of midpoints
and the round-trip delay (RFC 5905, section 8): `utc - raw` is the offset and `delay` bounds its
error to plus or minus `delay / 2` whatever the two path halves are.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from syncline.errors import MeasurementError

MAX_DELAY_NS = 60 * 1_000_000_000
"""A reply older than this is no measurement (RFC 5905: 16 s; cellular links buffer more)."""


COARSE_BOUND_NS = 10_000_000
"""A one-way source that admits more than this is coarse: what it admits is a bias, no noise."""


class SourceKind(enum.IntEnum):
    """How a source relates to UTC; it selects the noise model."""

    NTP = 1
    GNSS = 2
    PPS = 3
    PTP = 4
    CHRONY = 5
    LOGGER = 6


class Flag(enum.IntFlag):
    """What the driver or the policy knows against a measurement."""

    NONE = 0
    JAMMED = 1
    SPOOF_WARNING = 2
    LEAP_UNKNOWN = 4
    NO_FIX = 8
    UNSYNCHRONISED = 16
    SIMULATED = 32


UNUSABLE = Flag.LEAP_UNKNOWN | Flag.NO_FIX | Flag.UNSYNCHRONISED
"""Flags with which a measurement never reaches the estimator's state."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One comparison of a source with the raw clock.

    Attributes:
        source: Stable name of the source ("ntp:192.0.2.1", "gnss0").
        kind: Noise model.
        raw_ns: Local instant, CLOCK_MONOTONIC_RAW: (t1 + t4) / 2 of an exchange.
        utc_ns: The source's time at that instant, ns since 1970 (leap seconds not counted):
            (t2 + t3) / 2 of an exchange.
        delay_ns: Round-trip delay (t4 - t1) - (t3 - t2); 0 for a one-way source.
        uncertainty_ns: One sigma of stamp noise and of the source's own claim, beside the path.
        root_bound_ns: Root delay / 2 + root dispersion of the source: error it admits itself.
        arrival_raw_ns: When the measurement was complete (t4); the estimate may use it from then.
            0 means `raw_ns + delay_ns / 2`.
        flags: Reasons for distrust.
        inflation: Factor on the uncertainty, set by the scenario policy; at least 1.
        stratum: Of the server; 0 where it has no meaning.
        temperature_c: Of the oscillator, when known.
    """

    source: str
    kind: SourceKind
    raw_ns: int
    utc_ns: int
    delay_ns: int = 0
    uncertainty_ns: int = 0
    root_bound_ns: int = 0
    arrival_raw_ns: int = 0
    flags: Flag = Flag.NONE
    inflation: float = 1.0
    stratum: int = 0
    temperature_c: float | None = None

    @property
    def known_raw_ns(self) -> int:
        """Raw time from which this measurement may be used."""
        return self.arrival_raw_ns or self.raw_ns + self.delay_ns // 2

    @property
    def two_way(self) -> bool:
        """True for an exchange, whose delay bounds its error."""
        return self.kind in (SourceKind.NTP, SourceKind.PTP) and self.delay_ns > 0

    @property
    def coarse(self) -> bool:
        """True for a one-way source too inexact to be weighed against others."""
        return self.delay_ns == 0 and self.root_bound_ns >= COARSE_BOUND_NS


def exchange(
    source: str,
    t1_raw_ns: int,
    t2_utc_ns: int,
    t3_utc_ns: int,
    t4_raw_ns: int,
    *,
    kind: SourceKind = SourceKind.NTP,
    uncertainty_ns: int = 200,
    root_bound_ns: int = 0,
    flags: Flag = Flag.NONE,
    stratum: int = 0,
) -> Measurement:
    """A two-way exchange as a measurement.

    Args:
        source: Name of the server.
        t1_raw_ns: Request sent, local RAW clock.
        t2_utc_ns: Request received, server clock.
        t3_utc_ns: Reply sent, server clock.
        t4_raw_ns: Reply received, local RAW clock.
        kind: NTP or PTP.
        uncertainty_ns: One sigma of the local stamps.
        root_bound_ns: Server's root delay / 2 + root dispersion.
        flags: Reasons for distrust.
        stratum: Server's stratum.

    Raises:
        MeasurementError: The reply arrived before the request, the server replied before it
            received, or the delay is negative beyond the stamps' resolution and rate error.
    """
    local_ns, served_ns = t4_raw_ns - t1_raw_ns, t3_utc_ns - t2_utc_ns
    delay_ns = local_ns - served_ns
    if local_ns < 0 or served_ns < -1000:
        raise MeasurementError(
            f"exchange with {source}: stamps run backwards (t4-t1={local_ns} ns, t3-t2={served_ns})"
        )
    if local_ns > MAX_DELAY_NS:
        raise MeasurementError(
            f"exchange with {source}: {local_ns} ns between t1 and t4, limit {MAX_DELAY_NS}"
        )
    tolerance_ns = 2 * uncertainty_ns + local_ns // 10_000
    if delay_ns < -tolerance_ns:
        raise MeasurementError(
            f"exchange with {source}: delay {delay_ns} ns is negative beyond {tolerance_ns} ns"
        )
    return Measurement(
        source,
        kind,
        raw_ns=(t1_raw_ns + t4_raw_ns) // 2,
        utc_ns=(t2_utc_ns + t3_utc_ns) // 2,
        delay_ns=max(delay_ns, 1),
        uncertainty_ns=uncertainty_ns,
        root_bound_ns=root_bound_ns,
        arrival_raw_ns=t4_raw_ns,
        flags=flags,
        stratum=stratum,
    )
