"""From the messages of a receiver to whole epochs and trigger marks, as they stand."""

from __future__ import annotations

import datetime
import enum
import struct
from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

from syncline.sensors.adapters.nmea import (
    FIX_MODES,
    KNOT_MPS,
    Sentence,
    civil_date,
    degrees,
    number,
    time_of_day_ns,
)
from syncline.sensors.adapters.ubx import (
    MS,
    NAV_PVT,
    TIM_TM2,
    Frame,
    leap_seconds,
    nav_pvt,
    tim_tm2,
)
from syncline.timebase import NS_PER_S

DAY_NS = 86_400 * NS_PER_S
GPS_UTC_NS = 315_964_800 * NS_PER_S
"""1980-01-06, where GPS weeks begin."""
INVALID_WEEK = 0xFFFF
MAX_ACCURACY_NS = 60 * NS_PER_S
_EPOCH = datetime.date(1970, 1, 1).toordinal()
_NAV_POSLLH, _NAV_STATUS, _NAV_SOL, _NAV_TIMEUTC = 0x0102, 0x0103, 0x0106, 0x0121
_NO_FIX = (0, 6, 7, 8)
"""GGA qualities: none, estimated, manual, simulator."""


class Trouble(enum.Enum):
    """Why something of a recording was left out, or is odd."""

    UNDATED = "epochs without a date"
    NO_LEAP = "marks or epochs in GPS time before the leap seconds were told"
    NO_BASE = "marks whose time is not valid"
    SHORT = "messages shorter than their layout"
    BACKWARD = "steps back in time"


@dataclass(frozen=True, slots=True)
class GnssReading:
    """One epoch of a receiver.

    Attributes:
        utc_ns: UTC that the solution is valid for, as the receiver says it; None where a recording
            does not hold it.
        fix_mode: 0 none, 2, 3; dead reckoning, estimates and simulations count as none.
        accuracy_ns: The receiver's own claim for the time, or what its digits resolve.
        latitude_deg: North; None without a position.
        longitude_deg: East.
        altitude_m: Above mean sea level.
        speed_mps: Over ground.
        heading_deg: Of motion, clockwise from north.
        satellites: Used; None where it does not tell.
        leap_valid: The receiver knows the leap seconds; None where it does not tell (NMEA).
    """

    utc_ns: int | None
    fix_mode: int
    accuracy_ns: int
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    altitude_m: float | None = None
    speed_mps: float | None = None
    heading_deg: float | None = None
    satellites: int | None = None
    leap_valid: bool | None = None


@dataclass(frozen=True, slots=True)
class TriggerMark:
    """An edge on the receiver's EXTINT pin (UBX TIM-TM2).

    Attributes:
        utc_ns: When it came.
        rising: Which edge.
        count: Rising edges so far, modulo 65536; a step above one is a lost mark.
        accuracy_ns: The receiver's own claim.
    """

    utc_ns: int
    rising: bool
    count: int
    accuracy_ns: int


class Heard(NamedTuple):
    """An epoch or a mark, and when the first byte of it came.

    Attributes:
        raw_ns: CLOCK_MONOTONIC_RAW; 0 for a recording.
        what: The epoch or mark.
    """

    raw_ns: int
    what: GnssReading | TriggerMark


def day_utc_ns(date: tuple[int, int, int]) -> int | None:
    """UTC of a day's beginning; None for a day that is none."""
    try:
        return (datetime.date(*date).toordinal() - _EPOCH) * DAY_NS
    except ValueError:
        return None


class NmeaAssembler:
    """Sentences of one time of day become one epoch; the date comes from RMC or ZDA.

    Args:
        trouble: Where oddities are counted.
    """

    def __init__(self, trouble: Counter[Trouble]) -> None:
        self._trouble = trouble
        self._day_ns: int | None = None
        self._in_day_ns = -1
        self._raw_ns = 0
        self._clear()

    def _clear(self) -> None:
        self._open = self._dated = False
        self._void: bool | None = None
        self._gsa = 0
        self._quality: int | None = None
        self._reading = GnssReading(0, 0, 0)

    def take(self, s: Sentence) -> Heard | None:
        """Use one sentence; the epoch before it, when it begins a new one."""
        done = None
        if s.kind in ("RMC", "GGA", "ZDA", "GNS") and s.fields:
            in_day_ns = time_of_day_ns(s.fields[0])
            if in_day_ns is not None and in_day_ns != self._in_day_ns:
                done = self.finish()
                self._begin(in_day_ns, s)
            if in_day_ns is not None:
                self._fill(s)
        elif s.kind == "GSA" and len(s.fields) >= 2 and s.fields[1] in ("2", "3"):
            self._gsa = max(self._gsa, int(s.fields[1]))
        return done

    def finish(self) -> Heard | None:
        """The epoch that was being gathered."""
        reading, open_ = self._reading, self._open
        day_ns, mode = self._day_ns, self._mode()
        self._clear()
        if not open_:
            return None
        if day_ns is None:
            self._trouble[Trouble.UNDATED] += 1
            return None
        reading = replace(reading, utc_ns=day_ns + self._in_day_ns, fix_mode=mode)
        return Heard(self._raw_ns, reading)

    def _begin(self, in_day_ns: int, s: Sentence) -> None:
        if self._day_ns is not None and self._in_day_ns - in_day_ns > DAY_NS // 2:
            self._day_ns += DAY_NS  # midnight passed; a date that follows corrects it
        self._in_day_ns, self._raw_ns, self._open = in_day_ns, s.raw_ns, True
        digits = len(s.fields[0].partition(".")[2])
        self._reading = GnssReading(0, 0, round(NS_PER_S / 10**digits / 12**0.5))

    def _fill(self, s: Sentence) -> None:
        f = s.fields
        if s.kind == "RMC" and len(f) >= 9:
            letter = f[11] if len(f) > 11 and f[11] else "A"
            self._void = f[1] != "A" or letter not in FIX_MODES
            self._date(civil_date(f[8]))
            self._place(f[2:6])
            knots, heading = number(f[6]), number(f[7])
            speed = None if knots is None else knots * KNOT_MPS
            self._reading = replace(self._reading, speed_mps=speed, heading_deg=heading)
        elif s.kind == "GGA" and len(f) >= 9:
            self._quality = int(f[5]) if len(f[5]) == 1 and f[5].isdigit() else 0
            self._place(f[1:5])
            used = int(f[6]) if f[6].isdigit() and len(f[6]) <= 3 else None
            self._reading = replace(self._reading, satellites=used, altitude_m=number(f[8]))
        elif s.kind == "ZDA" and len(f) >= 4 and all(x.isdigit() and len(x) <= 4 for x in f[1:4]):
            self._date((int(f[3]), int(f[2]), int(f[1])))

    def _date(self, date: tuple[int, int, int] | None) -> None:
        day_ns = None if date is None else day_utc_ns(date)
        if day_ns is not None:
            self._day_ns = day_ns

    def _place(self, f: tuple[str, ...]) -> None:
        latitude, longitude = degrees(f[0], f[1]), degrees(f[2], f[3])
        if latitude is not None and longitude is not None:
            self._reading = replace(self._reading, latitude_deg=latitude, longitude_deg=longitude)

    def _mode(self) -> int:
        if self._void or self._quality in _NO_FIX or self._reading.latitude_deg is None:
            return 0
        return self._gsa or (3 if self._reading.altitude_m is not None else 2)


class UbxAssembler:
    """NAV messages of one time of week become one epoch; TIM-TM2 becomes marks.

    Args:
        trouble: Where oddities are counted.
    """

    def __init__(self, trouble: Counter[Trouble]) -> None:
        self.tells_time = False
        self._trouble = trouble
        self._leap_s: int | None = None
        self._tow_ms: int | None = None
        self._raw_ns = 0
        self._utc_ns: int | None = None
        self._gps: tuple[int, int] | None = None
        self._reading = GnssReading(0, 0, 0)

    def take(self, frame: Frame) -> list[Heard]:
        """Use one frame: the epoch before it, when it begins a new one, or its marks.

        Raises:
            struct.error: It is shorter than its layout.
        """
        leap_s = leap_seconds(frame)
        self._leap_s = self._leap_s if leap_s is None else leap_s
        if frame.kind == TIM_TM2:
            return self._marks(frame)
        if frame.kind not in (NAV_PVT, _NAV_POSLLH, _NAV_STATUS, _NAV_SOL, _NAV_TIMEUTC):
            return []
        (tow_ms,) = struct.unpack_from("<I", frame.payload)
        done = None
        if tow_ms != self._tow_ms:
            done = self.finish()
            self._tow_ms, self._raw_ns = tow_ms, frame.raw_ns
        self._fill(frame)
        return [] if done is None else [done]

    def finish(self) -> Heard | None:
        """The epoch that was being gathered."""
        reading, utc_ns, gps = self._reading, self._utc_ns, self._gps
        was_open = self._tow_ms is not None
        self._tow_ms = self._utc_ns = self._gps = None
        self._reading = GnssReading(0, 0, 0)
        if utc_ns is None and gps is not None:
            utc_ns = self._gps_utc(*gps)
            reading = replace(reading, leap_valid=utc_ns is not None)
        if utc_ns is None:
            self._trouble[Trouble.UNDATED] += was_open
            return None
        self.tells_time = True
        return Heard(self._raw_ns, replace(reading, utc_ns=utc_ns))

    def _fill(self, frame: Frame) -> None:
        p = frame.payload
        if frame.kind == NAV_PVT:
            self._pvt(frame)
        elif frame.kind == _NAV_TIMEUTC:
            _, accuracy_ns, nano = struct.unpack_from("<IIi", p)
            year, month, day, hour, minute, second, valid = struct.unpack_from("<H6B", p, 12)
            day_ns = day_utc_ns((year, month, day))
            if valid & 3 == 3 and day_ns is not None and self._utc_ns is None:
                self._utc_ns = day_ns + (hour * 3600 + minute * 60 + second) * NS_PER_S + nano
                self._set(accuracy_ns=min(accuracy_ns, MAX_ACCURACY_NS), leap_valid=bool(valid & 4))
        elif frame.kind == _NAV_POSLLH:
            _, longitude, latitude, _, altitude_mm = struct.unpack_from("<Iiiii", p)
            self._set(
                latitude_deg=latitude * 1e-7,
                longitude_deg=longitude * 1e-7,
                altitude_m=altitude_mm * 1e-3,
            )
        elif frame.kind == _NAV_STATUS:
            fix, flags = struct.unpack_from("<BB", p, 4)
            self._set(fix_mode={2: 2, 3: 3, 4: 3, 5: 3}.get(fix, 0) if flags & 1 else 0)
        elif frame.kind == _NAV_SOL:
            tow_ms, frac_ns, week, fix, flags = struct.unpack_from("<IihBB", p)
            self._set(
                fix_mode={2: 2, 3: 3, 4: 3, 5: 3}.get(fix, 0) if flags & 1 else 0,
                satellites=struct.unpack_from("<B", p, 47)[0],
            )
            if flags & 0x0C == 0x0C:
                self._gps = week & 0xFFFF, tow_ms * MS + frac_ns

    def _pvt(self, frame: Frame) -> None:
        pvt = nav_pvt(frame.payload)
        day_ns = day_utc_ns(pvt.date)
        if pvt.dated and day_ns is not None:
            self._utc_ns = day_ns + pvt.in_day_ns
        self._set(
            fix_mode=pvt.fix_mode,
            accuracy_ns=min(pvt.accuracy_ns, MAX_ACCURACY_NS),
            satellites=pvt.satellites,
            leap_valid=pvt.resolved,
        )
        if pvt.fix_mode and not pvt.time_only:
            self._set(
                latitude_deg=pvt.latitude_deg,
                longitude_deg=pvt.longitude_deg,
                altitude_m=pvt.altitude_m,
                speed_mps=pvt.speed_mps,
                heading_deg=pvt.heading_deg,
            )

    def _set(self, **what: object) -> None:
        self._reading = replace(self._reading, **what)  # type: ignore[arg-type]

    def _marks(self, frame: Frame) -> list[Heard]:
        told = tim_tm2(frame.payload)
        if not told.time_valid or told.base == 0:
            self._trouble[Trouble.NO_BASE] += 1
            return []
        marks = []
        for edge in told.edges:
            utc_ns = self._gps_utc(edge.week, edge.tow_ns, is_utc=told.base == 2)
            if utc_ns is not None:
                marks.append(TriggerMark(utc_ns, edge.rising, told.count, told.accuracy_ns))
        marks.sort(key=lambda mark: mark.utc_ns)
        return [Heard(frame.raw_ns, mark) for mark in marks]

    def _gps_utc(self, week: int, tow_ns: int, *, is_utc: bool = False) -> int | None:
        """UTC of a week and time of week; None, counted, where it cannot be told."""
        if week == INVALID_WEEK or not 0 <= tow_ns < 8 * DAY_NS:
            self._trouble[Trouble.NO_BASE] += 1
            return None
        if self._leap_s is None and not is_utc:
            self._trouble[Trouble.NO_LEAP] += 1
            return None
        leap_ns = 0 if is_utc else (self._leap_s or 0) * NS_PER_S
        return GPS_UTC_NS + week * 7 * DAY_NS + tow_ns - leap_ns
