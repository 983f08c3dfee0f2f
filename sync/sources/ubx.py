"""u-blox UBX: frames, time, leap seconds, time marks, time pulses, jamming and spoofing flags.

Layouts: u-blox M8 and F9 receiver descriptions (interface manuals), chapters NAV, TIM and MON.
pyubx2 serves as the judge in the tests.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from syncline.errors import ClockError
from syncline.sync.floor import Floor, gps_to_utc_ns, utc_from_civil_ns
from syncline.sync.sources.gnss_gate import GnssEpoch, Leap
from syncline.sync.sources.nmea import mean_of_best, spread
from syncline.sync.sources.source import GnssSignals
from syncline.timebase import NS_PER_S

SYNC = b"\xb5\x62"
MAX_PAYLOAD = 8192
MS = 1_000_000
LEAP_SOURCES = frozenset((1, 2, 3, 4, 5, 6))
"""NAV-TIMELS srcOfCurrLs: 0 is the firmware's default and 255 unknown; the others were heard."""
DEFAULT_GPS_LEAP_S = 18
"""GPS - UTC since 2017-01-01; only used with messages that carry GPS time and no leap second."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One UBX frame whose checksum holds."""

    raw_ns: int
    kind: int
    payload: bytes


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


class UbxReader:
    """Bytes in, checked frames out; holds at most one frame.

    Args:
        byte_ns: Time of one byte on the line, 0 for a file.
    """

    def __init__(self, byte_ns: int = 0) -> None:
        self.bad = 0
        self._byte_ns = byte_ns
        self._buffer = bytearray()

    def feed(self, data: bytes, raw_ns: int) -> list[Frame]:
        """Take the bytes read at `raw_ns` (arrival of the last of them)."""
        self._buffer += data
        found: list[Frame] = []
        while (frame := self._next(raw_ns)) is not None:
            if frame.payload or frame.kind:
                found.append(frame)
        return found

    def _next(self, raw_ns: int) -> Frame | None:
        """The next frame, an empty one for skipped bytes, or None when more bytes are needed."""
        buffer = self._buffer
        start = buffer.find(SYNC)
        if start < 0:
            del buffer[: max(len(buffer) - 1, 0)]
            return None
        del buffer[:start]
        if len(buffer) < 8:
            return None
        size = int.from_bytes(buffer[4:6], "little")
        if size > MAX_PAYLOAD:
            return self._skip()
        if len(buffer) < size + 8:
            return None
        if _fletcher(buffer[2 : size + 6]) != bytes(buffer[size + 6 : size + 8]):
            return self._skip()
        stamp = raw_ns - len(buffer) * self._byte_ns
        frame = Frame(stamp, buffer[2] << 8 | buffer[3], bytes(buffer[6 : size + 6]))
        del buffer[: size + 8]
        return frame

    def _skip(self) -> Frame:
        self.bad += 1
        del self._buffer[:2]
        return Frame(0, 0, b"")


def _fletcher(data: bytes | bytearray) -> bytes:
    a = b = 0
    for byte in data:
        a = a + byte & 255
        b = b + a & 255
    return bytes((a, b))


def frame_bytes(kind: int, payload: bytes) -> bytes:
    """A whole frame; for tests and for asking a receiver."""
    body = bytes((kind >> 8, kind & 255)) + len(payload).to_bytes(2, "little") + payload
    return SYNC + body + _fletcher(body)


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
        p = frame.payload
        year, month, day, hour, minute, second, valid = struct.unpack_from("<H6B", p, 4)
        accuracy_ns, nano, fix, flags, flags2, used = struct.unpack_from("<IiBBBB", p, 12)
        longitude, latitude = struct.unpack_from("<ii", p, 24)
        speed_mm = struct.unpack_from("<i", p, 60)[0]
        self._pvt = True
        # 1 dead reckoning only, 4 GNSS + dead reckoning, 5 time only (surveyed position)
        self._mode = {2: 2, 3: 3, 4: 3, 5: 3}.get(fix, 0) if flags & 1 else 0
        located = self._mode >= 2 and fix != 5
        self._see(
            frame.raw_ns,
            fix_mode=self._mode,
            satellites=used,
            latitude_deg=latitude * 1e-7 if located else None,
            longitude_deg=longitude * 1e-7 if located else None,
            speed_mps=speed_mm * 1e-3 if located else None,
            time_accuracy_ns=accuracy_ns,
        )
        if valid & 3 != 3:
            return None
        in_day = (hour * 3600 + minute * 60 + second) * NS_PER_S + nano
        confirmed = bool(flags2 & 0x20) and flags2 & 0xC0 == 0xC0
        leap = self._leap if valid & 4 else Leap.INVALID
        return self._dated(frame, (year, month, day), in_day, leap, confirmed, accuracy_ns)

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
        _, flags, count, week_r, week_f = struct.unpack_from("<BBHHH", frame.payload)
        ms_r, ns_r, ms_f, ns_f, accuracy_ns = struct.unpack_from("<5I", frame.payload, 8)
        base = flags >> 3 & 3
        if not flags & 0x40 or base == 0 or (base == 1 and self._leap_s is None):
            return None
        leap_s = 0 if base == 2 else self._leap_s or 0
        for new, week, ms, ns, rising in (
            (flags & 0x80, week_r, ms_r, ns_r, True),
            (flags & 0x04, week_f, ms_f, ns_f, False),
        ):
            if not new:
                continue
            try:
                utc_ns = gps_to_utc_ns(week, ms * MS + ns, leap_s, self._floor)
            except ClockError:
                self.refused_weeks += 1
                continue
            self.marks = self.marks[-63:]
            self.marks.append(TimeMark(frame.raw_ns, utc_ns, rising, count, accuracy_ns))
        return None
