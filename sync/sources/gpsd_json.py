"""What gpsd's reports say of time and sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from syncline.sensors.adapters.gpsd_json import Report, accuracy_ns, parse_time
from syncline.sync.sources.gnss_gate import GnssEpoch, Leap
from syncline.sync.sources.nmea import mean_of_best, spread
from syncline.sync.sources.source import GnssSignals
from syncline.timebase import NS_PER_S

MAX_SATELLITES = 256


@dataclass(frozen=True, slots=True)
class Offset:
    """TOFF or PPS: gpsd's comparison of receiver time with CLOCK_REALTIME.

    Attributes:
        pulse: True for PPS, False for the message's first byte.
        utc_ns: Receiver's time.
        real_ns: CLOCK_REALTIME of the same instant.
        precision_log2: gpsd's claim for a pulse, log2 seconds.
    """

    pulse: bool
    utc_ns: int
    real_ns: int
    precision_log2: int


def epoch_of(report: Report, raw_ns: int) -> GnssEpoch | None:
    """The epoch of a TPV; None when it tells no time."""
    utc_ns = parse_time(report.time)
    if report.klass != "TPV" or utc_ns is None:
        return None
    leap = Leap.UNKNOWN
    if report.leapseconds is not None:
        leap = Leap.VALID if 10 <= report.leapseconds <= 40 else Leap.INVALID
    return GnssEpoch(raw_ns, utc_ns, report.mode, leap, accuracy_ns=accuracy_ns(report))


def offset_of(report: Report) -> Offset | None:
    """The comparison of a TOFF or PPS report."""
    if report.klass not in ("TOFF", "PPS") or report.real_sec <= 0 or report.clock_sec < 0:
        return None
    if not (0 <= report.real_nsec < NS_PER_S and 0 <= report.clock_nsec < NS_PER_S):
        return None
    utc_ns = report.real_sec * NS_PER_S + report.real_nsec
    real_ns = report.clock_sec * NS_PER_S + report.clock_nsec
    if max(utc_ns, real_ns) >= 2**63:
        return None
    precision = min(max(report.precision, -30), 0)
    return Offset(report.klass == "PPS", utc_ns, real_ns, precision)


def sky_of(report: Report, last: GnssSignals | None, raw_ns: int) -> GnssSignals | None:
    """The sky after a TPV or SKY report."""
    base: dict[str, Any] = {}
    if last is not None:
        base = {name: getattr(last, name) for name in GnssSignals.__dataclass_fields__}
    base["raw_ns"] = raw_ns
    if report.klass == "TPV":
        base.update(fix_mode=report.mode, latitude_deg=report.lat, longitude_deg=report.lon)
        base.update(speed_mps=report.speed)
        if report.jam is not None:
            base.update(jamming=min(max(report.jam, 0), 255) / 255)
    elif report.klass == "SKY" and len(report.satellites) <= MAX_SATELLITES:
        levels = [s.ss for s in report.satellites if s.ss is not None and 0 < s.ss < 100]
        if report.satellites:
            base.update(
                satellites=sum(1 for s in report.satellites if s.used),
                cn0_dbhz=mean_of_best(levels),
                cn0_spread_dbhz=spread(levels),
            )
        elif report.uSat is not None:
            base.update(satellites=report.uSat)
    else:
        return last
    return GnssSignals(**base)
