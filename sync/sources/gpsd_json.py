"""gpsd's JSON reports (gpsd_json(5)), decoded without trust and without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from syncline.errors import ClockError, MessageError
from syncline.sync.floor import utc_from_civil_ns
from syncline.sync.sources.gnss_gate import GnssEpoch, Leap
from syncline.sync.sources.nmea import mean_of_best, spread, time_of_day_ns
from syncline.sync.sources.source import GnssSignals
from syncline.timebase import NS_PER_S

MAX_LINE = 65_536
MAX_SATELLITES = 256


class _Satellite(msgspec.Struct):
    ss: float | None = None
    used: bool = False


class Report(msgspec.Struct):
    """The fields we use of any report; unknown ones are skipped, wrong types refused."""

    klass: str = msgspec.field(name="class", default="")
    device: str = ""
    mode: int = 0
    time: str = ""
    ept: float = 0.0
    leapseconds: int | None = None
    lat: float | None = None
    lon: float | None = None
    speed: float | None = None
    jam: int | None = None
    satellites: list[_Satellite] = []
    uSat: int | None = None  # noqa: N815  (the protocol's own name)
    real_sec: int = 0
    real_nsec: int = 0
    clock_sec: int = 0
    clock_nsec: int = 0
    precision: int = 0
    release: str = ""
    message: str = ""


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


class LineBuffer:
    """Bytes in, whole lines out; an endless line is thrown away at `MAX_LINE`."""

    def __init__(self) -> None:
        self.overlong = 0
        self._part = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Whole lines, without their ends."""
        self._part += data
        *lines, rest = bytes(self._part).split(b"\n")
        self._part = bytearray(rest)
        if len(self._part) > MAX_LINE:
            self._part.clear()
            self.overlong += 1
        return [line.strip() for line in lines if line.strip()]


def decode(line: bytes) -> Report:
    """One report.

    Raises:
        MessageError: Not JSON, too long, or a field of another type.
    """
    if len(line) > MAX_LINE:
        raise MessageError(f"gpsd report of {len(line)} bytes, limit {MAX_LINE}")
    try:
        return msgspec.json.decode(line, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"gpsd report does not decode: {error}") from error


def epoch_of(report: Report, raw_ns: int) -> GnssEpoch | None:
    """The epoch of a TPV; None when it tells no time."""
    utc_ns = parse_time(report.time)
    if report.klass != "TPV" or utc_ns is None:
        return None
    leap = Leap.UNKNOWN
    if report.leapseconds is not None:
        leap = Leap.VALID if 10 <= report.leapseconds <= 40 else Leap.INVALID
    accuracy_ns = int(min(max(report.ept, 0.0), 10.0) * NS_PER_S)
    return GnssEpoch(raw_ns, utc_ns, report.mode, leap, accuracy_ns=accuracy_ns)


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


def parse_time(text: str) -> int | None:
    """UTC of gpsd's ISO 8601 time; None when it is not one."""
    date, t, clock = text.partition("T")
    parts = date.split("-")
    if not t or not clock.endswith("Z") or len(parts) != 3 or not all(p.isdigit() for p in parts):
        return None
    if max(len(p) for p in parts) > 4 or clock[2:3] != ":" or clock[5:6] != ":":
        return None
    in_day_ns = time_of_day_ns(clock[:-1].replace(":", "", 2))
    if in_day_ns is None:
        return None
    try:
        return utc_from_civil_ns(int(parts[0]), int(parts[1]), int(parts[2]), in_day_ns)
    except ClockError:
        return None
