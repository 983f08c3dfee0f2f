"""gpsd's JSON reports (gpsd_json(5)), decoded without trust and without I/O."""

from __future__ import annotations

import msgspec

from syncline.errors import MessageError
from syncline.sensors.adapters.gnss_epochs import GnssReading, day_utc_ns
from syncline.sensors.adapters.nmea import time_of_day_ns
from syncline.timebase import NS_PER_S

WATCH = b'?WATCH={"enable":true,"json":true,"pps":true};\n'
MAX_LINE = 65_536
MAX_ACCURACY_S = 10.0


class Satellite(msgspec.Struct):
    """One satellite of a SKY report."""

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
    alt_msl: float | None = msgspec.field(name="altMSL", default=None)
    speed: float | None = None
    track: float | None = None
    jam: int | None = None
    satellites: list[Satellite] = []
    uSat: int | None = None  # noqa: N815  (the protocol's own name)
    real_sec: int = 0
    real_nsec: int = 0
    clock_sec: int = 0
    clock_nsec: int = 0
    precision: int = 0
    release: str = ""
    message: str = ""


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


def accuracy_ns(report: Report) -> int:
    """The receiver's own claim for the time, bounded; 0 where it makes none."""
    return int(min(max(report.ept, 0.0), MAX_ACCURACY_S) * NS_PER_S)


def satellites_of(report: Report) -> int | None:
    """Satellites used, as a SKY tells it; None where it does not."""
    if report.uSat is not None or not report.satellites:
        return report.uSat
    return sum(satellite.used for satellite in report.satellites)


def reading_of(report: Report) -> GnssReading | None:
    """The epoch of a TPV, which does not tell satellites; None when it tells no time."""
    utc_ns = parse_time(report.time)
    if report.klass != "TPV" or utc_ns is None:
        return None
    mode = report.mode if report.mode in (2, 3) else 0
    leap = None if report.leapseconds is None else 10 <= report.leapseconds <= 40
    if not mode:
        return GnssReading(utc_ns, 0, accuracy_ns(report), leap_valid=leap)
    return GnssReading(
        utc_ns,
        mode,
        accuracy_ns(report),
        latitude_deg=report.lat,
        longitude_deg=report.lon,
        altitude_m=report.alt_msl,
        speed_mps=report.speed,
        heading_deg=report.track,
        leap_valid=leap,
    )


def parse_time(text: str) -> int | None:
    """UTC of gpsd's ISO 8601 time; None when it is not one."""
    date, t, clock = text.partition("T")
    parts = date.split("-")
    if not t or not clock.endswith("Z") or len(parts) != 3 or not all(p.isdigit() for p in parts):
        return None
    if max(len(p) for p in parts) > 4 or clock[2:3] != ":" or clock[5:6] != ":":
        return None
    in_day_ns = time_of_day_ns(clock[:-1].replace(":", "", 2))
    day_ns = day_utc_ns((int(parts[0]), int(parts[1]), int(parts[2])))
    return None if in_day_ns is None or day_ns is None else day_ns + in_day_ns
