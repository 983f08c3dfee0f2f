"""u-blox UBX: time, leap seconds, time marks, time pulses, jamming and spoofing flags.

Layouts: u-blox M8 and F9 receiver descriptions (interface manuals), chapters NAV, TIM and MON.
pyubx2 serves as the judge in the tests.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from syncline.errors import ClockError
from syncline.sensors.adapters.ubx import (
    LEAP_SOURCES,
    Frame,
    UbxReader,
    frame_bytes,
    nav_pvt,
    tim_tm2,
)
from syncline.sync.floor import Floor, gps_to_utc_ns, utc_from_civil_ns
from syncline.sync.sources.gnss_gate import GnssEpoch, Leap
from syncline.sync.sources.nmea import mean_of_best, spread
from syncline.sync.sources.source import GnssSignals
from syncline.timebase import NS_PER_S

__all__ = ["Frame", "PulseAhead", "TimeMark", "UbxEpochs", "UbxReader", "frame_bytes"]

MS = 1_000_000
DEFAULT_GPS_LEAP_S = 18
"""GPS - UTC since 2017-01-01; only used with messages that carry GPS time and no leap second."""


@dataclass(frozen=True, slots=True)
class TimeMark:
    """TIM-TM2: UTC of an edge on the receiver's EXTINT pin.

    Attributes:
        raw_ns: Arrival of the message, not of the edge.
        utc_ns: When the edge came.
        rising: Which edge.
        count: Counts rising edges; a step above one is a lost mark.
        accuracy_ns: Receiver's own claim.
    """

    raw_ns: int
    utc_ns: int
    rising: bool
    count: int
    accuracy_ns: int


@dataclass(frozen=True, slots=True)
class PulseAhead:
    """TIM-TP: the time that the next pulse will mark.

    Attributes:
        raw_ns: Arrival of the message, before the pulse.
        utc_ns: UTC of the pulse.
        quantisation_ps: The pulse comes this much late, known from the receiver's clock.
    """

    raw_ns: int
    utc_ns: int
    quantisation_ps: int


class UbxEpochs:
    """Frames in, epochs out; keeps leap seconds, sky, marks and the next pulse.

    Args:
        floor: Decides the GPS epoch of weeks below 1024.
    """

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._leap: Leap = Leap.UNKNOWN
        self._leap_s: int | None = None
        self._mode = 0
        self._sky = GnssSignals(0)
        self._have_sky = False
        self._pvt = False
        self.marks: list[TimeMark] = []
        self.pulse: PulseAhead | None = None
        self.refused_weeks = 0
        self._handlers: dict[int, Callable[[Frame], GnssEpoch | None]] = {
            0x0107: self._nav_pvt,
            0x0121: self._nav_timeutc,
            0x0120: self._nav_timegps,
            0x0126: self._nav_timels,
            0x0103: self._nav_status,
            0x0106: self._nav_sol,
            0x0135: self._nav_sat,
            0x0130: self._nav_svinfo,
            0x0A09: self._mon_hw,
            0x0A38: self._mon_rf,
            0x0D01: self._tim_tp,
            0x0D03: self._tim_tm2,
        }

    def take(self, frame: Frame) -> GnssEpoch | None:
        """Use one frame; an epoch when it tells the time."""
        handler = self._handlers.get(frame.kind)
        if handler is None:
            return None
        try:
            return handler(frame)
        except (struct.error, IndexError):
            return None

    def signals(self) -> GnssSignals | None:
        """The sky as the last frames told it."""
        return self._sky if self._have_sky else None

    def take_marks(self) -> list[TimeMark]:
        """Marks since the last call."""
        marks, self.marks = self.marks, []
        return marks

    def _see(self, raw_ns: int, **what: object) -> None:
        self._sky = replace(self._sky, raw_ns=raw_ns, **what)  # type: ignore[arg-type]
        self._have_sky = True

    def _nav_pvt(self, frame: Frame) -> GnssEpoch | None:
        pvt = nav_pvt(frame.payload)
        self._pvt = True
        self._mode = pvt.fix_mode
        located = self._mode >= 2 and not pvt.time_only
        self._see(
            frame.raw_ns,
            fix_mode=self._mode,
            satellites=pvt.satellites,
            latitude_deg=pvt.latitude_deg if located else None,
            longitude_deg=pvt.longitude_deg if located else None,
            speed_mps=pvt.speed_mps if located else None,
            time_accuracy_ns=pvt.accuracy_ns,
        )
        if not pvt.dated:
            return None
        leap = self._leap if pvt.resolved else Leap.INVALID
        return self._dated(frame, pvt.date, pvt.in_day_ns, leap, pvt.confirmed, pvt.accuracy_ns)

    def _nav_timeutc(self, frame: Frame) -> GnssEpoch | None:
        _, accuracy_ns, nano = struct.unpack_from("<IIi", frame.payload)
        year, month, day, hour, minute, second, valid = struct.unpack_from(
            "<H6B", frame.payload, 12
        )
        if self._pvt or valid & 3 != 3:
            return None
        leap = Leap.VALID if valid & 4 else Leap.INVALID
        in_day = (hour * 3600 + minute * 60 + second) * NS_PER_S + nano
        return self._dated(frame, (year, month, day), in_day, leap, False, accuracy_ns)

    def _dated(
        self,
        frame: Frame,
        date: tuple[int, int, int],
        in_day_ns: int,
        leap: Leap,
        confirmed: bool,
        accuracy_ns: int,
    ) -> GnssEpoch | None:
        try:
            utc_ns = utc_from_civil_ns(*date, in_day_ns)
        except ClockError:
            return None
        accuracy_ns = min(accuracy_ns, 60 * NS_PER_S)
        return GnssEpoch(frame.raw_ns, utc_ns, self._mode, leap, confirmed, accuracy_ns)

    def _nav_timegps(self, frame: Frame) -> GnssEpoch | None:
        tow_ms, frac_ns, week, leap_s, valid = struct.unpack_from("<IihbB", frame.payload)
        if valid & 4:
            self._leap_s = leap_s
            if self._leap is Leap.UNKNOWN:
                self._leap = Leap.VALID
        elif self._leap is not Leap.VALID:
            self._leap = Leap.INVALID
        if self._week_ok(week & 0xFFFF, tow_ms * MS + frac_ns):
            return None
        self.refused_weeks += 1
        return None

    def _week_ok(self, week: int, tow_ns: int) -> bool:
        try:
            gps_to_utc_ns(week, max(tow_ns, 0), self._leap_s or DEFAULT_GPS_LEAP_S, self._floor)
        except ClockError:
            return False
        return True

    def _nav_timels(self, frame: Frame) -> GnssEpoch | None:
        source, current, valid = frame.payload[8], frame.payload[9], frame.payload[23]
        known = bool(valid & 1) and source in LEAP_SOURCES
        self._leap = Leap.VALID if known else Leap.INVALID
        if known:
            self._leap_s = current - 256 if current > 127 else current
        return None

    def _nav_status(self, frame: Frame) -> GnssEpoch | None:
        fix, flags, flags2 = frame.payload[4], frame.payload[5], frame.payload[7]
        self._mode = {2: 2, 3: 3, 4: 3, 5: 3}.get(fix, 0) if flags & 1 else 0
        self._see(frame.raw_ns, fix_mode=self._mode, spoofing_state=flags2 >> 3 & 3)
        return None

    def _nav_sol(self, frame: Frame) -> GnssEpoch | None:
        """Week and time of week of receivers before NAV-PVT; leap seconds from NAV-TIMEGPS."""
        tow_ms, frac_ns, week, fix, flags = struct.unpack_from("<IihBB", frame.payload)
        used = frame.payload[47]
        self._mode = {2: 2, 3: 3, 4: 3, 5: 3}.get(fix, 0) if flags & 1 else 0
        self._see(frame.raw_ns, fix_mode=self._mode, satellites=used)
        if self._pvt or flags & 0x0C != 0x0C or self._leap_s is None:
            return None
        try:
            tow_ns = tow_ms * MS + frac_ns
            utc_ns = gps_to_utc_ns(week & 0xFFFF, tow_ns, self._leap_s, self._floor)
        except ClockError:
            self.refused_weeks += 1
            return None
        return GnssEpoch(frame.raw_ns, utc_ns, self._mode, self._leap)

    def _nav_sat(self, frame: Frame) -> GnssEpoch | None:
        count = frame.payload[5]
        self._levels(frame, [frame.payload[8 + 12 * i + 2] for i in range(count)])
        return None

    def _nav_svinfo(self, frame: Frame) -> GnssEpoch | None:
        count = frame.payload[4]
        self._levels(frame, [frame.payload[8 + 12 * i + 4] for i in range(count)])
        return None

    def _levels(self, frame: Frame, levels: list[int]) -> None:
        heard = [float(level) for level in levels if level > 0]
        self._see(frame.raw_ns, cn0_dbhz=mean_of_best(heard), cn0_spread_dbhz=spread(heard))

    def _mon_hw(self, frame: Frame) -> GnssEpoch | None:
        p = frame.payload
        indicator = p[45] if len(p) <= 60 else p[53]
        self._see(frame.raw_ns, jamming=indicator / 255, jamming_state=p[22] >> 2 & 3)
        return None

    def _mon_rf(self, frame: Frame) -> GnssEpoch | None:
        p = frame.payload
        blocks = [(p[4 + 24 * i + 1] & 3, p[4 + 24 * i + 16]) for i in range(p[1])]
        if blocks:
            state, indicator = max(s for s, _ in blocks), max(j for _, j in blocks)
            self._see(frame.raw_ns, jamming=indicator / 255, jamming_state=state)
        return None

    def _tim_tp(self, frame: Frame) -> GnssEpoch | None:
        tow_ms, sub, error_ps, week, flags = struct.unpack_from("<IIiHB", frame.payload)
        utc_base = bool(flags & 1) and bool(flags & 2)
        if not utc_base and self._leap_s is None:
            return None
        leap_s = 0 if utc_base else self._leap_s or 0
        tow_ns = tow_ms * MS + (sub * MS >> 32)
        try:
            utc_ns = gps_to_utc_ns(week, tow_ns, leap_s, self._floor)
        except ClockError:
            self.refused_weeks += 1
            return None
        self.pulse = PulseAhead(frame.raw_ns, utc_ns, error_ps)
        return None

    def _tim_tm2(self, frame: Frame) -> GnssEpoch | None:
        mark = tim_tm2(frame.payload)
        if not mark.time_valid or mark.base == 0 or (mark.base == 1 and self._leap_s is None):
            return None
        leap_s = 0 if mark.base == 2 else self._leap_s or 0
        for edge in mark.edges:
            try:
                utc_ns = gps_to_utc_ns(edge.week, edge.tow_ns, leap_s, self._floor)
            except ClockError:
                self.refused_weeks += 1
                continue
            self.marks = self.marks[-63:]
            self.marks.append(
                TimeMark(frame.raw_ns, utc_ns, edge.rising, mark.count, mark.accuracy_ns)
            )
        return None
