"""The own clock: the window's line or a fresh track, its proofs, its age and its bounds.

Everything here works in seconds since the first measurement.
"""

from __future__ import annotations

import math
from collections import deque

from syncline.sync.drag import DragWatch, hidden
from syncline.sync.events import Event, Verdict
from syncline.sync.hard import HardInterval, Proof
from syncline.sync.line import Line
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.oscillator import LearnedOscillator
from syncline.sync.settings import EstimatorSettings
from syncline.sync.watch import Watch
from syncline.sync.window import Window
from syncline.timebase import NS_PER_S

_FRESH_S = 2.0

NORMAL_KINDS = (SourceKind.GNSS, SourceKind.PPS, SourceKind.CHRONY, SourceKind.LOGGER)


class OwnClock:
    """State of the estimator between measurements.

    Args:
        settings: Gates and priors.
        learned: Stored oscillator, if any.
        keep: Keep what the smoother needs (memory then grows with the drive).
    """

    def __init__(
        self,
        settings: EstimatorSettings,
        learned: LearnedOscillator | None,
        *,
        keep: bool = False,
    ) -> None:
        self.settings = settings
        self.keep = keep
        self.finished: list[Window] = []
        self.learned = learned
        self.raw0_ns = self.utc0_ns = 0
        self.window = self.fresh_window()
        self.hard = HardInterval()
        self.early: deque[Proof] = deque(maxlen=settings.window_rows // 2)
        self.doubted: frozenset[float] = frozenset()
        self.drags = DragWatch(settings)
        self.watches: dict[str, Watch] = {}
        self.now = 0.0
        self.born = 0.0
        self.accepted = 0
        self.last_accept = -1e18
        self.events: list[Event] = []
        self.restarted = False
        self._middle = (-1e18, 0.0, 0.0)
        self._own: Line | None = None
        self._own_until = -math.inf
        self._gnss_trust = settings.gnss_trust_ns * 1e-9
        self._gnss_bias_var = (settings.gnss_bias_ns * 1e-9) ** 2

    # -- time and the own clock ------------------------------------------------------------------

    def seconds(self, raw_ns: int) -> float:
        """Raw time as seconds since the first measurement."""
        return (raw_ns - self.raw0_ns) / NS_PER_S

    def offset(self, m: Measurement) -> float:
        """UTC minus raw of a measurement, relative to the first, s."""
        return ((m.utc_ns - self.utc0_ns) - (m.raw_ns - self.raw0_ns)) / NS_PER_S

    def fresh_window(self) -> Window:
        """An empty window with what is known of the oscillator."""
        if self.learned is None:
            return Window(self.settings, keep=self.keep)
        known = self.learned
        return Window(self.settings, known.rate, known.rate_sigma, keep=self.keep)

    def line(self) -> Line | None:
        """The own clock: the best fresh track, else the window."""
        if not self.now <= self._own_until:
            self._own = self._choose()
        return self._own

    def changed(self) -> None:
        """The own clock may be another one from now on."""
        self._own_until = -math.inf

    def _choose(self) -> Line | None:
        """The line with the least variance now, and until when the choice holds."""
        best, now, until = self.window.line, self.now, math.inf
        for watch in self.watches.values():
            track = watch.track
            if track is None or track.count < 2 or watch.verdict is not Verdict.SELECTED:
                continue
            xx = track.xx + self._gnss_bias_var
            wander, fine = self.window.wander, track.xx
            line = Line(track.t, track.x, track.y, xx, track.xy, track.yy, wander, fine)
            # a fresh track that is the surer at its own time stays so for the next seconds
            dt = 0.0 if best is None else track.t - best.t
            if best is None or (
                now - track.t < _FRESH_S and xx <= best.xx + dt * (2.0 * best.xy + dt * best.yy)
            ):
                best, until = line, min(until, track.t + _FRESH_S)
            else:
                until = now
                if line.var(now) <= best.var(now):
                    best = line
        self._own_until = until
        return best

    def drift(self, line: Line, *, proof: bool = False) -> float:
        """Rate error that the hard bound allows for."""
        s = self.settings
        limit = s.proof_drift_ppb if proof else s.drift_limit_ppb
        optimism = 1.0 + 2.0 * s.fresh_rows / (self.window.taken + 1)
        sigma = 5.0 * math.sqrt(line.yy) * optimism
        if sigma > 1e-5 and not self.young():
            sigma = 1e-5
        return limit * 1e-9 + sigma

    def drifts(self, line: Line) -> tuple[float, float]:
        """Rate error that the hard bound allows for: in general, and for carrying proofs."""
        wide, s = self.drift(line), self.settings
        return wide, wide - (s.drift_limit_ppb - s.proof_drift_ppb) * 1e-9

    def optimism(self, weight: float = 1.0) -> float:
        """Factor by which a rate learnt from few rows is surer than it should be."""
        return 1.0 + weight * self.settings.fresh_rows / (self.window.taken + 1)

    def sigma(self, m: Measurement) -> float:
        """Stamp noise of a measurement, s."""
        if m.uncertainty_ns > 0:
            return max(m.uncertainty_ns, 1.0) * m.inflation * 1e-9
        s = self.settings
        return (s.gnss_sigma_ns if m.kind in NORMAL_KINDS else s.stamp_ns) * m.inflation * 1e-9

    def young(self) -> bool:
        """True while the own clock has no record that could outvote a majority."""
        s = self.settings
        return self.accepted < s.young_count or self.now - self.born < s.young_s

    def now_ns(self) -> int:
        """Present raw time, ns."""
        return self.raw0_ns + round(self.now * 1e9)

    def doubt(self, line: Line, t: float) -> float:
        """What a change of rate may have hidden behind the newest exchange's queue, s."""
        at, middle, gap = self._middle
        if at < -1e17 or line.t > at + 1.0:
            return 0.0
        return hidden(abs(middle - line.at(at)), gap, max(t - at, 0.0), self.settings.ramp_rate)

    def gap(self, line: Line) -> float:
        """Time between the two newest exchanges; 0 when the line rests on something newer, s."""
        at, _, gap = self._middle
        return 0.0 if at < -1e17 or line.t > at + 1.0 else gap

    def led(self) -> bool:
        """True while a one-way source leads: the window is kept for when it falls silent."""
        return any(w.track and w.verdict is Verdict.SELECTED for w in self.watches.values())
