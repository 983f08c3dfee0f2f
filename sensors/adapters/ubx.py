"""u-blox UBX: checked frames, the navigation solution and the marks of external edges.

Layouts: u-blox M8 and F9 receiver descriptions (interface manuals), chapters NAV and TIM. pyubx2
serves as the judge in the tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from syncline.timebase import NS_PER_S

SYNC = b"\xb5\x62"
MAX_PAYLOAD = 8192
MS = 1_000_000
NAV_PVT, NAV_TIMEGPS, NAV_TIMELS, TIM_TM2 = 0x0107, 0x0120, 0x0126, 0x0D03
LEAP_SOURCES = frozenset((1, 2, 3, 4, 5, 6))
"""NAV-TIMELS srcOfCurrLs: 0 is the firmware's default and 255 unknown; the others were heard."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One UBX frame whose checksum holds."""

    raw_ns: int
    kind: int
    payload: bytes


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


@dataclass(frozen=True, slots=True)
class NavPvt:
    """NAV-PVT: one solution.

    Attributes:
        date: (year, month, day) UTC.
        in_day_ns: Nanoseconds of that day; may be below 0 or a day and more by rounding.
        dated: Date and time are valid.
        resolved: UTC to the second is fully resolved.
        confirmed: Date and time were confirmed by more than one signal.
        accuracy_ns: The receiver's own claim.
        fix_mode: 0 none (and dead reckoning alone), 2, 3.
        time_only: A surveyed position; only the time is new.
        satellites: Used in the solution.
        latitude_deg: North.
        longitude_deg: East.
        altitude_m: Above mean sea level.
        speed_mps: Over ground.
        heading_deg: Of motion, clockwise from north.
    """

    date: tuple[int, int, int]
    in_day_ns: int
    dated: bool
    resolved: bool
    confirmed: bool
    accuracy_ns: int
    fix_mode: int
    time_only: bool
    satellites: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    speed_mps: float
    heading_deg: float


def nav_pvt(payload: bytes) -> NavPvt:
    """Decode NAV-PVT.

    Raises:
        struct.error: It is too short.
    """
    year, month, day, hour, minute, second, valid = struct.unpack_from("<H6B", payload, 4)
    accuracy_ns, nano, fix, flags, flags2, used = struct.unpack_from("<IiBBBB", payload, 12)
    longitude, latitude, _, altitude_mm = struct.unpack_from("<iiii", payload, 24)
    speed_mm, heading = struct.unpack_from("<ii", payload, 60)
    return NavPvt(
        date=(year, month, day),
        in_day_ns=(hour * 3600 + minute * 60 + second) * NS_PER_S + nano,
        dated=valid & 3 == 3,
        resolved=bool(valid & 4),
        confirmed=bool(flags2 & 0x20) and flags2 & 0xC0 == 0xC0,
        accuracy_ns=accuracy_ns,
        # 1 dead reckoning only, 4 GNSS + dead reckoning, 5 time only (surveyed position)
        fix_mode={2: 2, 3: 3, 4: 3, 5: 3}.get(fix, 0) if flags & 1 else 0,
        time_only=fix == 5,
        satellites=used,
        latitude_deg=latitude * 1e-7,
        longitude_deg=longitude * 1e-7,
        altitude_m=altitude_mm * 1e-3,
        speed_mps=speed_mm * 1e-3,
        heading_deg=heading * 1e-5,
    )


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge of TIM-TM2: GNSS or UTC week and time of week."""

    rising: bool
    week: int
    tow_ns: int


@dataclass(frozen=True, slots=True)
class Tm2:
    """TIM-TM2: edges on the receiver's EXTINT pin.

    Attributes:
        time_valid: The times may be used.
        base: What they count: 0 the receiver's own time, 1 GNSS time, 2 UTC.
        count: Counts rising edges; a step above one is a lost mark.
        accuracy_ns: Receiver's own claim.
        edges: New ones, in order of time.
    """

    time_valid: bool
    base: int
    count: int
    accuracy_ns: int
    edges: tuple[Edge, ...]


def tim_tm2(payload: bytes) -> Tm2:
    """Decode TIM-TM2.

    Raises:
        struct.error: It is too short.
    """
    _, flags, count, week_r, week_f = struct.unpack_from("<BBHHH", payload)
    ms_r, ns_r, ms_f, ns_f, accuracy_ns = struct.unpack_from("<5I", payload, 8)
    edges = [Edge(True, week_r, ms_r * MS + ns_r)] if flags & 0x80 else []
    edges += [Edge(False, week_f, ms_f * MS + ns_f)] if flags & 0x04 else []
    return Tm2(bool(flags & 0x40), flags >> 3 & 3, count, accuracy_ns, tuple(edges))


def leap_seconds(frame: Frame) -> int | None:
    """GPS - UTC, where a frame tells it and it was heard from the sky; else None.

    Raises:
        struct.error: It is too short.
    """
    if frame.kind == NAV_TIMEGPS:
        _, _, _, leap_s, valid = struct.unpack_from("<IihbB", frame.payload)
        return int(leap_s) if valid & 4 else None
    if frame.kind == NAV_TIMELS:
        source, current = struct.unpack_from("<Bb", frame.payload, 8)
        (valid,) = struct.unpack_from("<B", frame.payload, 23)
        return int(current) if valid & 1 and source in LEAP_SOURCES else None
    return None
