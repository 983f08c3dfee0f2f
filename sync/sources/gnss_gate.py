"""Which receiver epochs may become measurements: fix, leap seconds, GPS epoch, steadiness.

Receivers lie most when they wake: dates of 1980 or 2006 without a fix, GPS time without leap
seconds, weeks of the wrong 1024, a first lock that is minutes wrong. Each such epoch is refused
with a reason.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from syncline.sync.floor import NEAR_FLOOR_NS, Floor, snap_epoch
from syncline.sync.measurement import Flag, Measurement, SourceKind
from syncline.sync.sources.source import Tally
from syncline.timebase import NS_PER_S, UtcTime

MIN_FIX_MODE = 2
STEADY_EPOCHS = 3
"""Consecutive consistent epochs before an unconfirmed receiver is believed."""
STEADY_NS = 600_000_000
"""How far an epoch may arrive from its own rhythm: receivers compute late when the sky changes."""
MAX_GAP_NS = 60 * NS_PER_S
LEAP_AMBIGUITY_NS = 19 * NS_PER_S
"""GPS - UTC is 18 s; a receiver that lost its almanac is wrong by whole seconds up to that."""
ALMANAC_NS = 750 * NS_PER_S
"""A receiver hears the leap second within 12.5 min of tracking (IS-GPS-200, subframe 4 page 18)."""
AGREEMENT_NS = NS_PER_S // 2


class Leap(enum.Enum):
    """What the receiver says of GPS - UTC."""

    VALID = "valid"
    UNKNOWN = "unknown"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class GnssEpoch:
    """One epoch of a receiver.

    Attributes:
        raw_ns: Arrival of its first byte, CLOCK_MONOTONIC_RAW.
        utc_ns: The receiver's UTC.
        fix_mode: 0 or 1 none, 2, 3; dead reckoning and simulation count as none.
        leap: What is known of the leap seconds in `utc_ns`.
        confirmed: The receiver vouches for date and time by more than one signal.
        accuracy_ns: The receiver's own claim, 0 when it makes none.
    """

    raw_ns: int
    utc_ns: int
    fix_mode: int
    leap: Leap = Leap.UNKNOWN
    confirmed: bool = False
    accuracy_ns: int = 0


@dataclass(frozen=True, slots=True)
class InBand:
    """How late the message of an epoch arrives, since no pulse tells.

    Attributes:
        latency_ns: Usual delay from the epoch to its first byte.
        sigma_ns: Jitter.
        bound_ns: The delay is within this of `latency_ns`, for certain.
    """

    latency_ns: int = 250_000_000
    sigma_ns: int = 30_000_000
    bound_ns: int = 750_000_000


Reference = Callable[[int], UtcTime | None]


class GnssGate:
    """Turns epochs into measurements, or counts why not.

    Args:
        name: Source name.
        floor: Earliest possible time; decides the GPS epoch.
        in_band: Message latency.
        trust_leap: The receiver is known to keep leap seconds over power-off.
        reference: The service's own estimate, asked for the GPS epoch and for leap seconds.
        kind: Noise model of the measurements.
    """

    def __init__(
        self,
        name: str,
        floor: Floor,
        in_band: InBand | None = None,
        *,
        trust_leap: bool = False,
        reference: Reference | None = None,
        kind: SourceKind = SourceKind.GNSS,
    ) -> None:
        self.name = name
        self._kind = kind
        self.tally = Tally()
        self.epochs = 0
        self.usable = 0
        self.last: Measurement | None = None
        self._floor = floor
        self._in_band = in_band or InBand()
        self._trust_leap = trust_leap
        self._reference = reference
        self._last: GnssEpoch | None = None
        self._steady = 0
        self._tracking_since_ns: int | None = None
        self._leap_heard = trust_leap
        self._gps_epochs: int | None = None

    def take(self, epoch: GnssEpoch) -> Measurement | None:
        """Judge one epoch."""
        self.epochs += 1
        reason, utc_ns, bound_ns = self._judge(epoch)
        if reason:
            self.tally.add(reason)
            self.last = None
            return None
        self.usable += 1
        band = self._in_band
        self.last = Measurement(
            self.name,
            self._kind,
            epoch.raw_ns - band.latency_ns,
            utc_ns,
            uncertainty_ns=max(band.sigma_ns, epoch.accuracy_ns),
            root_bound_ns=bound_ns,
            arrival_raw_ns=epoch.raw_ns,
            flags=Flag.NONE,
        )
        return self.last

    def _judge(self, epoch: GnssEpoch) -> tuple[str, int, int]:
        """Reason of refusal ("" for none), UTC and hard bound."""
        if epoch.fix_mode < MIN_FIX_MODE:
            self._lost()
            return "no fix", 0, 0
        if epoch.leap is Leap.INVALID:
            return "leap seconds are not valid", 0, 0
        steady = self._is_steady(epoch)
        if self._tracking_since_ns is None:
            self._tracking_since_ns = epoch.raw_ns
        if not (steady or epoch.confirmed):
            return "not steady yet", 0, 0
        utc_ns, reason = self._snap(epoch)
        if reason:
            return reason, 0, 0
        leap_bound_ns, reason = self._leap(epoch, utc_ns)
        return reason, utc_ns, self._in_band.bound_ns + epoch.accuracy_ns + leap_bound_ns

    def _lost(self) -> None:
        self._steady = 0
        self._last = None
        self._tracking_since_ns = None
        self._gps_epochs = None
        self._leap_heard = self._trust_leap

    def _is_steady(self, epoch: GnssEpoch) -> bool:
        last, self._last = self._last, epoch
        if last is None:
            self._steady = 1
            return False
        gap_ns = epoch.raw_ns - last.raw_ns
        slip_ns = (epoch.utc_ns - last.utc_ns) - gap_ns
        if 0 <= gap_ns <= MAX_GAP_NS and abs(slip_ns) <= STEADY_NS:
            self._steady += 1
        else:
            self._steady = 1
            self._tracking_since_ns = epoch.raw_ns
            self._gps_epochs = None
            self._leap_heard = self._trust_leap
            self.tally.add("time jumped")
        return self._steady >= STEADY_EPOCHS

    def _snap(self, epoch: GnssEpoch) -> tuple[int, str]:
        """UTC in the right GPS epoch, or why that cannot be told."""
        known = self._known(epoch.raw_ns)
        utc_ns, moved = snap_epoch(epoch.utc_ns, self._floor, known.utc_ns if known else None)
        if moved and known is None:
            near = utc_ns - self._floor.utc_ns <= NEAR_FLOOR_NS
            if not near or moved < 0:
                return 0, "GPS epoch needs a second source"
        if self._gps_epochs not in (None, moved):
            self._gps_epochs = None
            return 0, "GPS epoch changed"
        self._gps_epochs = moved
        return utc_ns, ""

    def _leap(self, epoch: GnssEpoch, utc_ns: int) -> tuple[int, str]:
        """What the leap seconds add to the bound, or why they are wrong."""
        if epoch.leap is Leap.VALID or self._leap_heard:
            return 0, ""
        since = self._tracking_since_ns
        if since is not None and epoch.raw_ns - since >= ALMANAC_NS:
            self._leap_heard = True
            return 0, ""
        known = self._known(epoch.raw_ns)
        if known is not None and known.bound_ns < AGREEMENT_NS:
            off_ns = abs(utc_ns + self._in_band.latency_ns - known.utc_ns)
            if off_ns > AGREEMENT_NS + known.bound_ns + self._in_band.bound_ns:
                return 0, "disagrees by whole seconds before the almanac"
            return 0, ""
        return LEAP_AMBIGUITY_NS, ""

    def _known(self, raw_ns: int) -> UtcTime | None:
        return self._reference(raw_ns) if self._reference is not None else None
