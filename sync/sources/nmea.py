"""NMEA 0183: from sentences to epochs and the sky."""

from __future__ import annotations

from syncline.errors import ClockError
from syncline.sensors.adapters.nmea import (
    FIX_MODES,
    KNOT_MPS,
    NmeaReader,
    Sentence,
    civil_date,
    degrees,
    number,
    time_of_day_ns,
)
from syncline.sync.floor import utc_from_civil_ns
from syncline.sync.sources.gnss_gate import GnssEpoch, Leap
from syncline.sync.sources.source import GnssSignals
from syncline.timebase import NS_PER_S

__all__ = ["NmeaEpochs", "NmeaReader", "Sentence", "mean_of_best", "spread", "time_of_day_ns"]

FRESH_NS = 3 * NS_PER_S


class NmeaEpochs:
    """Sentences in, epochs out: one for each valid RMC, or ZDA where there is no RMC.

    A receiver that says in GGA or GSA that it has no fix is believed over an RMC that says "A".
    """

    def __init__(self) -> None:
        self._first: tuple[int, int] = (-1, 0)
        self._quality: tuple[int, int] | None = None
        self._gsa: tuple[int, int] | None = None
        self._rmc_raw_ns: int | None = None
        self._satellites: int | None = None
        self._cn0: dict[str, float] = {}
        self._cn0_done: list[float] = []
        self._position: tuple[float, float] | None = None
        self._speed_mps: float | None = None
        self._signals: GnssSignals | None = None

    def take(self, s: Sentence) -> GnssEpoch | None:
        """Use one sentence; an epoch when it completes one."""
        if s.kind in ("RMC", "GGA", "ZDA", "GLL", "GNS", "GST", "GBS") and s.fields:
            self._note_time(s)
        if s.kind == "RMC":
            return self._rmc(s)
        if s.kind == "ZDA":
            return self._zda(s)
        if s.kind == "GGA" and len(s.fields) >= 7:
            quality = s.fields[5]
            self._quality = (
                s.raw_ns,
                int(quality) if quality.isdigit() and len(quality) == 1 else 0,
            )
            used = s.fields[6]
            self._satellites = int(used) if used.isdigit() and len(used) <= 3 else None
        elif s.kind == "GSA" and len(s.fields) >= 2:
            mode = int(s.fields[1]) if s.fields[1] in ("1", "2", "3") else 0
            if self._gsa and s.raw_ns - self._gsa[0] < NS_PER_S // 2:
                mode = max(mode, self._gsa[1])
            self._gsa = (s.raw_ns, mode)
        elif s.kind == "GSV":
            self._gsv(s)
        return None

    def _note_time(self, s: Sentence) -> None:
        field = s.fields[4] if s.kind == "GLL" and len(s.fields) > 4 else s.fields[0]
        in_day = time_of_day_ns(field)
        if in_day is not None and in_day != self._first[0]:
            self._first = (in_day, s.raw_ns)

    def _gsv(self, s: Sentence) -> None:
        if len(s.fields) < 3:
            return
        if s.fields[1] == "1" and s.talker in {key[:2] for key in self._cn0}:
            self._cn0_done = sorted(self._cn0.values(), reverse=True)
            self._cn0.clear()
        for at in range(3, len(s.fields) - 3, 4):
            strength = number(s.fields[at + 3])
            if strength is not None and 0 < strength < 100 and len(self._cn0) < 64:
                self._cn0[s.talker + s.fields[at]] = strength

    def _mode(self, raw_ns: int) -> int:
        """Fix mode by GGA and GSA; 2 where neither is sent, since then RMC's "A" must do."""
        modes = []
        if self._quality and raw_ns - self._quality[0] < FRESH_NS:
            # 6 estimated, 7 manual, 8 simulator
            modes.append(0 if self._quality[1] in (0, 6, 7, 8) else 3)
        if self._gsa and raw_ns - self._gsa[0] < FRESH_NS:
            modes.append(self._gsa[1])
        return min(modes, default=2)

    def _rmc(self, s: Sentence) -> GnssEpoch | None:
        f = s.fields
        if len(f) < 9:
            return None
        self._rmc_raw_ns = s.raw_ns
        in_day, date = time_of_day_ns(f[0]), civil_date(f[8])
        letter = f[11] if len(f) > 11 and f[11] else "A"
        valid = f[1] == "A" and letter in FIX_MODES
        latitude, longitude = degrees(f[2], f[3]), degrees(f[4], f[5])
        knots = number(f[6])
        mode = self._mode(s.raw_ns) if valid else 0
        if latitude is None or longitude is None:
            mode = 0
        else:
            self._position = (latitude, longitude)
        self._speed_mps = None if knots is None else knots * KNOT_MPS
        self._sky(s.raw_ns, mode)
        if in_day is None or date is None:
            return None
        return self._epoch(date, in_day, mode)

    def _zda(self, s: Sentence) -> GnssEpoch | None:
        f = s.fields
        if len(f) < 4 or not all(x.isdigit() and len(x) <= 4 for x in f[1:4]):
            return None
        recent = self._rmc_raw_ns is not None and s.raw_ns - self._rmc_raw_ns < 2 * FRESH_NS
        in_day = time_of_day_ns(f[0])
        if recent or in_day is None or (self._quality is None and self._gsa is None):
            return None
        mode = self._mode(s.raw_ns)
        self._sky(s.raw_ns, mode)
        return self._epoch((int(f[3]), int(f[2]), int(f[1])), in_day, mode)

    def _epoch(self, date: tuple[int, int, int], in_day: int, mode: int) -> GnssEpoch | None:
        try:
            utc_ns = utc_from_civil_ns(*date, in_day)
        except ClockError:
            return None
        return GnssEpoch(self._first[1], utc_ns, mode, Leap.UNKNOWN)

    def _sky(self, raw_ns: int, mode: int) -> None:
        levels = self._cn0_done or sorted(self._cn0.values(), reverse=True)
        at = self._position if mode >= 2 else None
        self._signals = GnssSignals(
            raw_ns,
            fix_mode=mode,
            satellites=self._satellites,
            cn0_dbhz=mean_of_best(levels),
            cn0_spread_dbhz=spread(levels),
            latitude_deg=at[0] if at else None,
            longitude_deg=at[1] if at else None,
            speed_mps=self._speed_mps if mode >= 2 else None,
        )

    def signals(self) -> GnssSignals | None:
        """The sky at the last RMC or ZDA."""
        return self._signals


def mean_of_best(levels: list[float], count: int = 4) -> float | None:
    """Mean of the strongest; None without any."""
    best = sorted(levels, reverse=True)[:count]
    return sum(best) / len(best) if best else None


def spread(levels: list[float]) -> float | None:
    """Standard deviation of four or more levels."""
    if len(levels) < 4:
        return None
    mean = sum(levels) / len(levels)
    return float((sum((x - mean) ** 2 for x in levels) / (len(levels) - 1)) ** 0.5)
