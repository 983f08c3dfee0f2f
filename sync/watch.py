"""Per-source bookkeeping of selection: what was accepted, what was refused, and the verdict."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from syncline.sync.events import Verdict
from syncline.sync.measurement import Measurement
from syncline.sync.track import Track


@dataclass(frozen=True, slots=True)
class Refused:
    """A measurement that contradicts the own clock.

    Attributes:
        t: Seconds since the epoch.
        low: Least offset it allows, s.
        high: Greatest offset it allows, s.
        measurement: As it came.
    """

    t: float
    low: float
    high: float
    measurement: Measurement


@dataclass(slots=True)
class Watch:
    """One source as selection sees it.

    Attributes:
        name: Source.
        verdict: Present verdict.
        reason: In words.
        accepted: Measurements taken.
        rejected: Measurements refused.
        run: Refused in a row.
        last_t: Newest measurement, s.
        last_accept_t: Newest accepted one, s.
        interval_s: Typical time between measurements.
        min_delay_s: Shortest round trip.
        epoch: Counts path changes; the line's name carries it.
        fits: Fitting replies in a row since it was caught dragging.
        offset_s: Newest offset against our estimate.
        track: Fast filter of a one-way source.
        refused: Refused measurements, newest last.
    """

    name: str
    verdict: Verdict = Verdict.CANDIDATE
    reason: str = ""
    accepted: int = 0
    rejected: int = 0
    run: int = 0
    last_t: float = -1e18
    last_accept_t: float = -1e18
    interval_s: float = 0.0
    min_delay_s: float = 1e18
    epoch: int = 0
    fits: int = 0
    offset_s: float = 0.0
    track: Track | None = None
    refused: deque[Refused] = field(default_factory=lambda: deque(maxlen=32))

    @property
    def line(self) -> str:
        """Name of the present path's line in the window."""
        return f"{self.name}#{self.epoch}" if self.epoch else self.name

    @property
    def patience_s(self) -> float:
        """Silence after which the source counts as gone."""
        return max(5.0 if self.track is not None else 80.0, 4.0 * self.interval_s)

    def fresh(self, now: float) -> bool:
        """True while it is not silent for longer than it may be."""
        quiet = now - self.last_accept_t
        return quiet <= 5.0 or quiet <= self.patience_s

    def redeemed(self) -> bool:
        """Count a fitting reply of a source that was caught; true when it fits again for long."""
        self.fits += 1
        return self.fits >= (8 if self.verdict == Verdict.DRAGGING else 3)

    def heard(self, t: float) -> None:
        """Note a measurement's time."""
        gap = t - self.last_t
        if gap > 0.0:
            self.last_t = t
        if gap < 1e17:
            gap = min(max(gap, 0.0), 4096.0)
            self.interval_s = gap if self.interval_s == 0.0 else 0.7 * self.interval_s + 0.3 * gap

    def accept(self, t: float) -> None:
        """Note an accepted measurement."""
        self.accepted += 1
        self.run = self.fits = 0
        if self.refused:
            self.refused.clear()
        self.last_accept_t = t

    def refuse(self, item: Refused) -> None:
        """Note a refused measurement."""
        self.rejected += 1
        self.run += 1
        self.fits = 0
        self.refused.append(item)


def agree(items: list[Refused], slack_rate: float, slack_s: float) -> bool:
    """True when one offset, drifting by at most `slack_rate`, explains all refused measurements."""
    if not items:
        return False
    ref = items[-1].t
    low = max(i.low - slack_rate * abs(ref - i.t) for i in items)
    high = min(i.high + slack_rate * abs(ref - i.t) for i in items)
    return low <= high + slack_s
