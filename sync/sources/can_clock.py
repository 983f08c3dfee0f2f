"""A CAN logger's own clock against the GNSS time that its receiver puts on the bus.

Frames of the CSS Electronics CANmod.gps (canmod-gps.dbc): 1 gnss_status, 2 gnss_time. The stamp
of a frame is the logger's, so the "raw" clock of these measurements is the logger's clock.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from syncline.errors import LogError
from syncline.sync.floor import Floor
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.gnss_gate import GnssEpoch, GnssGate, InBand, Leap
from syncline.timebase import NS_PER_S

STATUS_ID, TIME_ID = 1, 2
EPOCH_S = 1_577_840_400
"""Offset of the DBC's Epoch signal: 2020-01-01T01:00:00Z."""
BUS_LATENCY = InBand(latency_ns=0, sigma_ns=20_000_000, bound_ns=250_000_000)
"""Receiver to logger stamp, 1 Hz: 13 to 25 ms of scatter were seen, outliers to 200 ms."""
FIX_3D = 3
MIN_SATELLITES = 4


class CanClock:
    """Frames of the receiver in, measurements of the logger's clock out.

    Args:
        name: Source name.
        floor: Earliest possible time.
        in_band: Latency from the epoch to the stamp.
    """

    def __init__(self, name: str, floor: Floor, in_band: InBand = BUS_LATENCY) -> None:
        self.gate = GnssGate(name, floor, in_band, trust_leap=True, kind=SourceKind.LOGGER)
        self._mode = 0
        self._satellites = 0

    def status(self, fix_mode: int, satellites: int) -> None:
        """Note the fix; a 2D fix counts as none: its first seconds are the false ones."""
        self._mode, self._satellites = fix_mode, satellites

    def epoch(self, logger_ns: int, utc_ns: int, valid: bool = True) -> Measurement | None:
        """A time report, stamped by the logger."""
        good = valid and self._mode >= FIX_3D and self._satellites >= MIN_SATELLITES
        mode = self._mode if good else 0
        return self.gate.take(GnssEpoch(logger_ns, utc_ns, mode, Leap.VALID))

    def frame(self, logger_ns: int, can_id: int, data: bytes) -> Measurement | None:
        """Any frame of the bus; others are skipped."""
        if can_id == STATUS_ID and len(data) >= 1:
            self.status(data[0] & 7, data[0] >> 3)
        elif can_id == TIME_ID and len(data) >= 6:
            utc_ns = EPOCH_S * NS_PER_S + int.from_bytes(data[1:6], "little") * 1_000_000
            return self.epoch(logger_ns, utc_ns, bool(data[0] & 1))
        return None


_FIXES = {"No fix": 0, "2D-fix": 2, "3D-fix": 3}


def read_csv(path: Path, source: CanClock) -> Iterator[Measurement]:
    """Measurements of a decoded drive (columns logger_t_s, gps_epoch_unix_s, fix, satellites).

    Raises:
        LogError: A column is missing or a row is no number.
    """
    with path.open(newline="", encoding="ascii") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                logger_ns, utc_ns = _ns(row["logger_t_s"]), _ns(row["gps_epoch_unix_s"])
                source.status(_FIXES.get(row["fix"], 0), int(row["satellites"]))
            except (KeyError, ValueError, TypeError) as error:
                raise LogError(f"{path}:{number}: not a row of a logger drive: {error}") from error
            measured = source.epoch(logger_ns, utc_ns)
            if measured is not None:
                yield measured


def _ns(text: str) -> int:
    """Decimal seconds to nanoseconds without a float."""
    whole, _, part = text.partition(".")
    return int(whole) * NS_PER_S + int(part[:9].ljust(9, "0") or "0")
