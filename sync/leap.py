"""Leap seconds: UTC to TAI and back, labels such as 23:59:60, servers that smear.

POSIX UTC counts 23:59:60 and 00:00:00 as the same second, so a line over it would be wrong by a
second on one side. Inside, the service therefore counts TAI = UTC + table(UTC), which never jumps;
a mapping segment ends at a leap second and the next begins with UTC one second back or ahead.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path

from syncline.errors import InputError
from syncline.sync.floor import DAY_NS, iso, utc_from_civil_ns
from syncline.timebase import NS_PER_S

NTP_UNIX_S = 2_208_988_800
MAX_LIST_BYTES = 1 << 20

_SINCE_1972 = (
    (1972, 1), (1972, 7), (1973, 1), (1974, 1), (1975, 1), (1976, 1), (1977, 1), (1978, 1),
    (1979, 1), (1980, 1), (1981, 7), (1982, 7), (1983, 7), (1985, 7), (1988, 1), (1990, 1),
    (1991, 1), (1992, 7), (1993, 7), (1994, 7), (1996, 1), (1997, 7), (1999, 1), (2006, 1),
    (2009, 1), (2012, 7), (2015, 7), (2017, 1),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LeapTable:
    """TAI - UTC over time.

    Attributes:
        starts_utc_ns: POSIX UTC from which each offset holds, ascending.
        offsets_s: TAI - UTC from then on.
    """

    starts_utc_ns: tuple[int, ...]
    offsets_s: tuple[int, ...]

    def tai_minus_utc_s(self, utc_ns: int) -> int | None:
        """TAI - UTC at a POSIX UTC; None before 1972."""
        at = bisect.bisect_right(self.starts_utc_ns, utc_ns) - 1
        return self.offsets_s[at] if at >= 0 else None

    def to_tai_ns(self, utc_ns: int) -> int:
        """TAI of a POSIX UTC; within an inserted second POSIX cannot tell the two apart."""
        return utc_ns + (self.tai_minus_utc_s(utc_ns) or self.offsets_s[0]) * NS_PER_S

    def _at_tai(self, tai_ns: int) -> int:
        """Index of the offset in force at a TAI.

        An inserted second already counts with the new offset, so that POSIX UTC repeats 23:59:59 as
        the kernel does; a deleted one ends with the old offset's 23:59:58.
        """
        for at in range(len(self.offsets_s) - 1, 0, -1):
            if tai_ns >= self._start_tai_ns(at):
                return at
        return 0

    def _start_tai_ns(self, at: int) -> int:
        smaller_s = min(self.offsets_s[at - 1], self.offsets_s[at])
        return self.starts_utc_ns[at] + smaller_s * NS_PER_S

    def to_utc_ns(self, tai_ns: int) -> int:
        """POSIX UTC of a TAI: an inserted second repeats the one before it, as POSIX does."""
        return tai_ns - self.offsets_s[self._at_tai(tai_ns)] * NS_PER_S

    def inside_leap(self, tai_ns: int) -> bool:
        """True within an inserted second, 23:59:60."""
        at = self._at_tai(tai_ns)
        inserted = at > 0 and self.offsets_s[at] > self.offsets_s[at - 1]
        return inserted and tai_ns < self._start_tai_ns(at) + NS_PER_S

    def label(self, tai_ns: int) -> str:
        """UTC in ISO 8601 with 23:59:60 where it belongs."""
        if not self.inside_leap(tai_ns):
            return iso(self.to_utc_ns(tai_ns))
        return iso(self.to_utc_ns(tai_ns)).replace("T23:59:59", "T23:59:60")

    def next_start_ns(self, utc_ns: int) -> int | None:
        """POSIX UTC of the next change after `utc_ns`, if one is known."""
        at = bisect.bisect_right(self.starts_utc_ns, utc_ns)
        return self.starts_utc_ns[at] if at < len(self.starts_utc_ns) else None

    def announced(self, utc_ns: int, leap: int) -> LeapTable:
        """The table with a leap second at the end of the UTC month of `utc_ns`.

        Args:
            utc_ns: Now.
            leap: +1 insert, -1 delete, 0 none.
        """
        start = month_end_ns(utc_ns)
        if leap == 0 or start in self.starts_utc_ns or start < self.starts_utc_ns[-1]:
            return self
        starts = (*self.starts_utc_ns, start)
        return LeapTable(starts, (*self.offsets_s, self.offsets_s[-1] + leap))


def built_in() -> LeapTable:
    """The table as known when this was written: 37 s since 2017-01-01."""
    starts = tuple(utc_from_civil_ns(year, month, 1, 0) for year, month in _SINCE_1972)
    return LeapTable(starts, tuple(range(10, 10 + len(starts))))


def read_list(path: Path) -> tuple[LeapTable, int]:
    """A `leap-seconds.list` (IERS, NIST) and its expiry, POSIX UTC.

    Raises:
        InputError: Not readable, or not such a list.
    """
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputError(f"{path} is larger than {MAX_LIST_BYTES} bytes")
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the leap-second list {path}: {error}") from error
    rows: list[tuple[int, int]] = []
    expires_ns = 0
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        try:
            if line.startswith("#@"):
                expires_ns = (int(line[2:].split()[0]) - NTP_UNIX_S) * NS_PER_S
            elif words:
                rows.append(((int(words[0]) - NTP_UNIX_S) * NS_PER_S, int(words[1])))
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}:{number}: not a leap-second line: {line!r}") from error
    if not rows or rows != sorted(rows) or any(not 9 <= offset <= 99 for _, offset in rows):
        raise InputError(f"{path}: no ascending leap seconds in it")
    return LeapTable(tuple(r[0] for r in rows), tuple(r[1] for r in rows)), expires_ns


def month_end_ns(utc_ns: int) -> int:
    """POSIX UTC of the next midnight that begins a month."""
    year, month = int(iso(utc_ns)[:4]), int(iso(utc_ns)[5:7])
    return utc_from_civil_ns(year + month // 12, month % 12 + 1, 1, 0)


SMEAR_PPM = NS_PER_S / DAY_NS * 1e6
"""A 24-hour linear smear runs 11.574 ppm off (Google, AWS; noon to noon around the leap)."""
SMEAR_WINDOW_NS = 3600 * NS_PER_S
SMEAR_SPAN_NS = 26 * 3600 * NS_PER_S
MAX_POINTS = 512
MIN_POINTS = 8


class SmearDetector:
    """Finds the server that smears a leap second while others step it.

    Near a leap second each server's offset to our estimate is followed for an hour; a slope of
    11.57 ppm within a fifth, well above its own noise, is a smear. Bounded: `MAX_POINTS` a server.

    Args:
        leaps: Says when a leap second is near.
    """

    def __init__(self, leaps: LeapTable) -> None:
        self.leaps = leaps
        self.smearing: set[str] = set()
        self._points: dict[str, list[tuple[int, int]]] = {}

    def near(self, utc_ns: int) -> bool:
        """True within a smear's reach of a leap second."""
        return any(abs(utc_ns - start) <= SMEAR_SPAN_NS for start in self.leaps.starts_utc_ns[-2:])

    def take(self, source: str, raw_ns: int, utc_ns: int, offset_ns: int) -> bool:
        """Note a server's offset; True when it has just been found to smear."""
        if not self.near(utc_ns):
            self._points.pop(source, None)
            self.smearing.discard(source)
            return False
        points = self._points.setdefault(source, [])
        points.append((raw_ns, offset_ns))
        while len(points) > MAX_POINTS or points[0][0] < raw_ns - SMEAR_WINDOW_NS:
            points.pop(0)
        found = _smears(points)
        new = found and source not in self.smearing
        if found:
            self.smearing.add(source)
        return new


def _smears(points: list[tuple[int, int]]) -> bool:
    if len(points) < MIN_POINTS:
        return False
    raw0, y0 = points[0]
    x = [(raw - raw0) / NS_PER_S for raw, _ in points]
    y = [float(offset - y0) for _, offset in points]
    n, mean_x, mean_y = len(x), sum(x) / len(x), sum(y) / len(y)
    sxx = sum((a - mean_x) ** 2 for a in x)
    if sxx <= 0:
        return False
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sxx
    rest = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    sigma = (rest / max(n - 2, 1) / sxx) ** 0.5
    ppm, sigma_ppm = abs(slope) / 1e3, sigma / 1e3
    return abs(ppm - SMEAR_PPM) < 0.2 * SMEAR_PPM and sigma_ppm < 0.05 * SMEAR_PPM
