"""The estimator: measurements in, mapping segments and events out. A pure step, no clocks, no I/O.

Own clock: the joint window's line (see window.py), or the fast track of a one-way source while
that is fresh. Every measurement is first judged against the own clock: what contradicts it is
refused and counted, never averaged. A young clock yields to a consistent majority; an established
one to policy (`accept_step`), to three agreeing sources, or when refused for longer than its record
can outweigh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from syncline.sync.events import Adjust, Event, StateChange, Verdict
from syncline.sync.line import Line
from syncline.sync.measurement import UNUSABLE, Flag, Measurement
from syncline.sync.oscillator import LearnedOscillator
from syncline.sync.ownclock import NORMAL_KINDS
from syncline.sync.selection import Selection
from syncline.sync.settings import EstimatorSettings
from syncline.sync.watch import Watch
from syncline.timebase import NO_BOUND_NS, MappingSegment, TimeState

_CLEAR = Flag.NONE
_TURN_NS = 16e9
"""A turned rate matters when it moves time by its share within the shortest polling, ns."""

__all__ = ["LearnedOscillator", "SourceStatus", "TimeEstimator"]


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One line of `syncline time status`: a source as the estimator sees it."""

    source: str
    verdict: Verdict
    offset_ns: int
    sigma_ns: float
    min_delay_ns: int
    measurements: int
    rejected: int
    last_raw_ns: int
    reason: str


class TimeEstimator:
    """Joint estimator of UTC over the raw clock.

    Args:
        boot_id: Boot whose raw time is mapped.
        settings: None for the defaults.
        learned: Oscillator as `snapshot()` gave it before the last shutdown.
        keep: Keep what the smoother needs (memory then grows with the drive).
    """

    def __init__(
        self,
        boot_id: str = "",
        settings: EstimatorSettings | None = None,
        learned: LearnedOscillator | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self.boot_id = boot_id
        self.settings = settings or EstimatorSettings()
        self.core = Selection(self.settings, learned, keep=keep)
        self._started = False
        self._expiry_s = self.settings.expiry_bound_ns * 1e-9
        self._state = TimeState.COLD
        self._segment: MappingSegment | None = None
        self._next_id = 1

    @property
    def state(self) -> TimeState:
        """What the service knows now."""
        return self._state

    @property
    def segment_id(self) -> int:
        """Id of the newest segment, 0 before the first."""
        return self._next_id - 1

    # -- steps -----------------------------------------------------------------------------------

    def update(self, m: Measurement) -> list[Event]:
        """Take one measurement (in order of arrival) and tell what changed."""
        core = self.core
        core.events = []
        watch = core.watches.get(m.source)
        if watch is None:
            watch = core.watches[m.source] = Watch(m.source)
        if m.flags is not _CLEAR and m.flags & UNUSABLE:
            core.verdict(watch, Verdict.UNUSABLE, f"flags {Flag(m.flags & UNUSABLE).name}")
            return core.events
        if not self._started:
            self._started = True
            core.raw0_ns, core.utc0_ns = m.raw_ns, m.utc_ns
        t = core.seconds(m.raw_ns)
        known = t
        if m.arrival_raw_ns != m.raw_ns:
            known = core.seconds(m.arrival_raw_ns or m.known_raw_ns)
        if known > core.now:
            core.now = known
        watch.heard(t)
        if m.kind in NORMAL_KINDS:
            core.take_normal(watch, m, t)
        else:
            core.take_exchange(watch, m, t)
        self._settle()
        return core.events

    def advance(self, raw_ns: int) -> list[Event]:
        """Let time pass without a measurement: SYNCED becomes HOLDOVER, HOLDOVER expires."""
        self.core.events = []
        if self._started:
            self.core.now = max(self.core.now, self.core.seconds(raw_ns))
            self._settle()
        return self.core.events

    def accept_step(self, raw_ns: int, source: str | None = None) -> list[Event]:
        """Policy's word: adopt what the refused source(s) say, as a new segment."""
        core = self.core
        core.events = []
        core.now = max(core.now, core.seconds(raw_ns))
        names = [source] if source else list(core.watches)
        items = [i for n in names if n in core.watches for i in core.watches[n].refused]
        if items:
            core.restart(sorted(items, key=lambda i: i.t), "accepted by policy")
            self._settle()
        return core.events

    def widen(self, raw_ns: int, bound_ns: int) -> list[Event]:
        """Time of unknown amount was lost (suspend, VM pause): grow bounds, keep the rate."""
        core = self.core
        core.events = []
        if self._started:
            core.now = max(core.now, core.seconds(raw_ns))
            core.hard.widen(bound_ns * 1e-9)
            core.early.clear()
            core.window.widen((bound_ns * 1e-9) ** 2)
            for watch in core.watches.values():
                watch.track = None
            core.drags.clear()
            core.born, core.accepted = core.now, 0
            self._settle(force=True)
        return core.events

    # -- answers ---------------------------------------------------------------------------------

    def segment(self, raw_ns: int) -> MappingSegment | None:
        """The mapping in force at `raw_ns` (at or after the last update); None while COLD."""
        self.advance(raw_ns)
        return self._segment

    def estimate(self, raw_ns: int) -> tuple[int, float, float] | None:
        """UTC (ns), statistical bound (s) and hard bound (s) at `raw_ns`, without a segment."""
        core = self.core
        line = core.line()
        if line is None:
            return None
        t = core.seconds(raw_ns)
        x = line.at(t)
        hard = core.hard.bound(t, x, line.y, core.drift(line))
        utc_ns = core.utc0_ns + (raw_ns - core.raw0_ns) + round(x * 1e9)
        return utc_ns, min(self._statistical(line, t), hard), hard

    def _statistical(self, line: Line, t: float) -> float:
        """Statistical bound at `t`, s: noise, wander, temperature, a rate learnt from few rows."""
        s = self.settings
        age = max(t - line.t, 0.0)
        ramp = min(age, s.thermal_s)
        rate = min(max(s.thermal_rate, 0.1 * line.wander), s.thermal_limit)
        # a ramp since the exchange before the newest one bent the rate by half of what it could
        bent = 0.5 * rate * min(self.core.gap(line), s.thermal_s)
        thermal = rate * ramp * (age - 0.5 * ramp) + bent * age
        fresh = self.core.optimism() ** 2 - 1.0
        spread = line.var(t) + thermal * thermal + fresh * line.yy * age * age
        # one-sided noise made normal is taken for surer than it is, wander is learnt from few rows
        spread += (s.sure_margin**2 - 1.0) * (line.fine + line.wander**2 * age**3 / 3.0)
        noise = s.coverage_z * math.sqrt(spread)
        return noise + self.core.doubt(line, t) + s.stat_floor_ns * 1e-9

    def sources(self) -> list[SourceStatus]:
        """Status of every source."""
        core = self.core
        line = core.line()
        sigma = math.sqrt(line.var(core.now)) * 1e9 if line else math.inf
        return [
            SourceStatus(
                w.name,
                w.verdict,
                round(w.offset_s * 1e9),
                sigma,
                round(w.min_delay_s * 1e9) if w.min_delay_s < 1e17 else 0,
                w.accepted + w.rejected,
                w.rejected,
                core.raw0_ns + round(max(w.last_t, 0.0) * 1e9),
                w.reason,
            )
            for w in core.watches.values()
        ]

    def snapshot(self) -> LearnedOscillator | None:
        """The learned oscillator, None while its rate is not known better than at the factory."""
        line = self.core.line()
        if line is None or line.yy > (0.2 * self.settings.rate_sigma) ** 2:
            return None
        sigma = math.hypot(math.sqrt(line.yy), self.settings.reboot_rate_sigma)
        return LearnedOscillator(line.y, sigma, line.wander)

    def restore(self, learned: LearnedOscillator) -> None:
        """Take a stored oscillator; ignored after the first measurement."""
        if not self._started:
            self.core = Selection(self.settings, learned, keep=self.core.keep)

    # -- state and segments ----------------------------------------------------------------------

    def _settle(self, *, force: bool = False) -> None:
        """Retire silent tracks, set the state, publish."""
        core = self.core
        now = core.now
        for watch in core.watches.values():
            track = watch.track
            if track is not None and track.count > 1:
                silent = now - watch.last_t
                if silent > 5.0 and silent > 4.0 * watch.interval_s:
                    core.darken(watch)
        line = core.line()
        if line is None:
            return
        drift = core.drift(line)
        x = line.at(now)
        hard = core.hard.bound(now, x, line.y, drift)
        new = self._judge_state(hard)
        if new is not self._state:
            reason = self._reason(new, hard)
            core.events.append(StateChange(core.now_ns(), self._state, new, reason))
            self._state = new
            force = True
        if force or core.restarted or not self._holds(line, x, hard):
            self._publish(line, hard, drift)
        core.restarted = False

    def _judge_state(self, hard: float) -> TimeState:
        if hard > self._expiry_s:
            return TimeState.COLD
        now = self.core.now
        fresh = refused = dragging = False
        for w in self.core.watches.values():
            if w.verdict is Verdict.DRAGGING:
                dragging = True
            if w.run >= 2:
                refused = True
            elif not fresh:
                fresh = w.fresh(now)
        if fresh:
            return TimeState.INTERFERENCE if dragging else TimeState.SYNCED
        return TimeState.SUSPECT if refused else TimeState.HOLDOVER

    def _reason(self, state: TimeState, hard: float) -> str:
        """Why the state is as `_judge_state` found it."""
        watches, now = self.core.watches.values(), self.core.now
        if state is TimeState.COLD:
            return f"bound {hard:.3g} s beyond the limit"
        if state is TimeState.INTERFERENCE:
            return "dragged by " + ", ".join(
                w.name for w in watches if w.verdict is Verdict.DRAGGING
            )
        if state is TimeState.SYNCED:
            return f"{sum(w.run < 2 and w.fresh(now) for w in watches)} sources"
        if state is TimeState.SUSPECT:
            return "only refused sources: " + ", ".join(w.name for w in watches if w.run >= 2)
        return "no source heard"

    def _holds(self, line: Line, x: float, hard: float) -> bool:
        """True while the published segment says what the line does, near enough to keep it."""
        old, core, s = self._segment, self.core, self.settings
        if old is None:
            return False
        room_ns = max(s.adjust_share * math.sqrt(line.fine) * 1e9, s.adjust_floor_ns)
        turn = max(room_ns / _TURN_NS, 1e-8)
        if not -turn < line.y - old.rate < turn:
            return False
        raw_ns = core.now_ns()
        moved = core.utc0_ns + (raw_ns - core.raw0_ns) + round(x * 1e9) - old.utc_ns(raw_ns)
        if not -room_ns < moved < room_ns:
            return False
        gone, new = old.bound_ns(raw_ns), self._bound_ns(hard)
        return 0.9 * gone < new <= gone

    def _publish(self, line: Line, hard: float, drift: float) -> None:
        """A new segment: the mapping, its bound or the state changed enough to matter."""
        new, old = self._mapping(line, hard, drift), self._segment
        self._segment = new
        self._next_id += 1
        if old is not None:
            moved = new.utc0_ns - old.utc_ns(new.raw0_ns)
            if moved:
                change = new.rate - old.rate
                self.core.events.append(Adjust(new.raw0_ns, new.id, moved, change))

    def _utc_ns(self, line: Line, raw_ns: int) -> int:
        core = self.core
        return core.utc0_ns + (raw_ns - core.raw0_ns) + round(line.at(core.now) * 1e9)

    def _bound_ns(self, hard: float) -> int:
        known = self.core.hard.known
        return min(math.ceil(hard * 1e9), NO_BOUND_NS) if known else NO_BOUND_NS

    def _mapping(self, line: Line, hard: float, drift: float) -> MappingSegment:
        core = self.core
        raw_ns, now = core.now_ns(), core.now
        dt = now - line.t
        return MappingSegment(
            id=self._next_id,
            revision=0,
            boot_id=self.boot_id,
            raw0_ns=raw_ns,
            utc0_ns=self._utc_ns(line, raw_ns),
            rate=line.y,
            cov=(line.var(now) * 1e18, (line.xy + line.yy * dt) * 1e18, line.yy * 1e18),
            wander_ns2_per_s=(line.wander * 60.0) ** 2 * 1e18 / 3.0,
            hard_bound_ns=self._bound_ns(hard),
            drift_limit_ppb=drift * 1e9,
            state=self._state,
            sources=tuple([w.name for w in core.watches.values() if w.verdict is Verdict.SELECTED]),
        )
