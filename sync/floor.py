"""Times that cannot be: before the floor, beyond its ceiling, or in another GPS epoch.

The floor is the later of the build date and the last time that was saved while synchronised. It is
never read from CLOCK_REALTIME, which starts at 1970 on a machine without a battery-backed clock.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from syncline.errors import ClockError
from syncline.sync.saved import load_saved, save
from syncline.timebase import NS_PER_S

BUILD_UTC_NS = 1_793_491_200 * NS_PER_S
"""2026-11-01T00:00:00Z: this code is younger, so no true time lies before it."""
DAY_NS = 86_400 * NS_PER_S
CEILING_NS = 20 * 365 * DAY_NS + 5 * DAY_NS
"""Twenty years and their leap days."""
GPS_UNIX_S = 315_964_800
"""1980-01-06T00:00:00Z."""
GPS_WEEK_NS = 7 * DAY_NS
ROLLOVER_NS = 1024 * GPS_WEEK_NS
INVALID_WEEK = 0xFFFF
NEAR_FLOOR_NS = 400 * DAY_NS
"""A date found by adding GPS epochs is believed without a second source this close to the floor."""


class FloorState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file that keeps the last saved time over reboots."""

    utc_ns: int
    check: int


@dataclass(frozen=True, slots=True)
class Floor:
    """The earliest time that can be now, and with it the latest.

    Attributes:
        build_utc_ns: Date of the build.
        saved_utc_ns: Last time saved while synchronised, 0 when none was.
    """

    build_utc_ns: int = BUILD_UTC_NS
    saved_utc_ns: int = 0

    @property
    def utc_ns(self) -> int:
        """No true time is before this."""
        if self.saved_utc_ns > self.ceiling_utc_ns:
            return self.build_utc_ns
        return max(self.build_utc_ns, self.saved_utc_ns)

    @property
    def ceiling_utc_ns(self) -> int:
        """No true time is after this: build date + 20 years."""
        return self.build_utc_ns + CEILING_NS

    def check(self, utc_ns: int) -> None:
        """Refuse a time that cannot be.

        Raises:
            ClockError: Before the floor or beyond the ceiling.
        """
        if utc_ns < self.utc_ns:
            raise ClockError(
                f"time {iso(utc_ns)} is before the floor {iso(self.utc_ns)}",
                remedy="Check the source; the floor is the build date or the last saved time",
            )
        if utc_ns > self.ceiling_utc_ns:
            raise ClockError(
                f"time {iso(utc_ns)} is after {iso(self.ceiling_utc_ns)}, build date + 20 years",
                remedy="Check the source, or update the software if the year is right",
            )

    def admits(self, utc_ns: int) -> bool:
        """True when `check` would not raise."""
        return self.utc_ns <= utc_ns <= self.ceiling_utc_ns

    def with_saved(self, utc_ns: int) -> Floor:
        """A floor that also knows a saved time."""
        return replace(self, saved_utc_ns=max(self.saved_utc_ns, utc_ns))


def snap_epoch(utc_ns: int, floor: Floor, reference_utc_ns: int | None = None) -> tuple[int, int]:
    """Undo GPS week rollovers: move a date by whole epochs of 1024 weeks.

    With a reference (the present estimate) the nearest epoch wins; without one the first that is
    not before the floor. A date that needs no move is returned as it is, and so is one after the
    ceiling.

    Args:
        utc_ns: Date as the receiver gives it, any number of epochs stale.
        floor: Floor in force.
        reference_utc_ns: Own estimate of UTC, when there is one.

    Returns:
        The date and the number of epochs that were added.
    """
    if reference_utc_ns is not None:
        anchor = max(reference_utc_ns, floor.utc_ns)
        epochs = round((anchor - utc_ns) / ROLLOVER_NS)
    elif utc_ns >= floor.utc_ns:
        epochs = 0
    else:
        epochs = -((utc_ns - floor.utc_ns) // ROLLOVER_NS)
    return utc_ns + epochs * ROLLOVER_NS, epochs


def gps_to_utc_ns(week: int, tow_ns: int, leap_s: int, floor: Floor) -> int:
    """UTC of a GPS week and time of week.

    Args:
        week: GPS week, full or modulo 1024.
        tow_ns: Time of week.
        leap_s: GPS - UTC.
        floor: Floor in force; decides the epoch of a week below 1024.

    Raises:
        ClockError: Week 0xFFFF ("not known") or a time of week outside 0..604800 s.
    """
    if week == INVALID_WEEK or week < 0:
        raise ClockError(
            f"GPS week {week} means unknown", remedy="Wait for the receiver's first fix"
        )
    if not 0 <= tow_ns < GPS_WEEK_NS + 2 * NS_PER_S:
        raise ClockError(f"GPS time of week {tow_ns} ns is outside one week")
    utc_ns = GPS_UNIX_S * NS_PER_S + week * GPS_WEEK_NS + tow_ns - leap_s * NS_PER_S
    return utc_ns if week >= 1024 else snap_epoch(utc_ns, floor)[0]


def load_floor(path: Path, build_utc_ns: int = BUILD_UTC_NS) -> tuple[Floor, str]:
    """The floor with the saved time of `path`; a bad file is named, not fatal.

    Returns:
        The floor, and what is wrong with the file ("" when nothing is).
    """
    floor = Floor(build_utc_ns)
    state, why = load_saved(path, FloorState, "saved time")
    if state is None:
        return floor, why
    if state.check != _check(state.utc_ns):
        return floor, f"{path}: the saved time's checksum does not match"
    if state.utc_ns > floor.ceiling_utc_ns:
        return floor, f"{path}: saved time {iso(state.utc_ns)} is beyond build date + 20 years"
    return floor.with_saved(state.utc_ns), ""


def save_floor(path: Path, utc_ns: int) -> None:
    """Save the present time durably; only while synchronised.

    Raises:
        StorageError: The file cannot be written.
    """
    save(path, FloorState(utc_ns, _check(utc_ns)))


def _check(utc_ns: int) -> int:
    return zlib.crc32(f"syncline-floor {utc_ns}".encode())


def iso(utc_ns: int) -> str:
    """UTC in ISO 8601 with nanoseconds; computed in integers, for any year from 1970."""
    days, in_day = divmod(utc_ns, DAY_NS)
    seconds, ns = divmod(in_day, NS_PER_S)
    year, month, day = _civil(days)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{year:04d}-{month:02d}-{day:02d}T{clock}.{ns:09d}Z"


def _civil(days: int) -> tuple[int, int, int]:
    """Proleptic Gregorian date of days since 1970-01-01 (Hinnant, days_from_civil, inverted)."""
    z = days + 719_468
    era, doe = divmod(z, 146_097)
    yoe = (doe - doe // 1460 + doe // 36_524 - doe // 146_096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    day = doy - (153 * mp + 2) // 5 + 1
    month = mp + 3 if mp < 10 else mp - 9
    return yoe + era * 400 + (month <= 2), month, day


def utc_from_civil_ns(year: int, month: int, day: int, in_day_ns: int) -> int:
    """UTC of a date and the nanoseconds of its day.

    Raises:
        ClockError: No such month or day.
    """
    if not (1 <= month <= 12 and 1 <= day <= _month_days(year, month)):
        raise ClockError(f"no such date: {year}-{month}-{day}")
    y = year - (month <= 2)
    era, yoe = divmod(y, 400)
    doy = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    doe = yoe * 365 + yoe // 4 - yoe // 100 + doy
    return (era * 146_097 + doe - 719_468) * DAY_NS + in_day_ns


def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31
