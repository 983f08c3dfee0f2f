"""The estimator: measurements in, mapping segments and events out. A pure step, no clocks, no I/O.

Own clock: the joint window's line (see window.py), or the fast track of a one-way source while that
is fresh. Every measurement is first judged against the own clock: what contradicts it is refused and
counted, never averaged. A young clock yields to a consistent majority; an established one only to
policy (`accept_step`) or to three agreeing sources.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from syncline.sync.events import Adjust, Event, SourceVerdict, StateChange, Step, Verdict
from syncline.sync.hard import HardInterval
from syncline.sync.measurement import UNUSABLE, Flag, Measurement, SourceKind
from syncline.sync.ratewatch import RateWatch
from syncline.sync.settings import EstimatorSettings
from syncline.sync.track import Block, Track
from syncline.sync.watch import Refused, Watch, agree
from syncline.sync.window import Line, Window
from syncline.timebase import NO_BOUND_NS, NS_PER_S, Clock, MappingSegment, TimeState

NORMAL_KINDS = (SourceKind.GNSS, SourceKind.PPS, SourceKind.CHRONY, SourceKind.LOGGER)


@dataclass(frozen=True, slots=True)
class LearnedOscillator:
    """What is kept of an oscillator across boots.

    Attributes:
        rate: dUTC/draw - 1.
        rate_sigma: One sigma of `rate` at the next boot.
        wander: Random-walk FM, 1/sqrt(s).
    """

    rate: float
    rate_sigma: float
    wander: float


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
    """

    def __init__(
        self,
        boot_id: str = "",
        settings: EstimatorSettings | None = None,
        learned: LearnedOscillator | None = None,
    ) -> None:
        self.boot_id = boot_id
        self.settings = settings or EstimatorSettings()
        self._learned = learned
        self._raw0_ns = self._utc0_ns = 0
        self._started = False
        self._window = self._fresh_window()
        self._hard = HardInterval()
        self._rates = RateWatch()
        self._watches: dict[str, Watch] = {}
        self._state = TimeState.COLD
        self._segment: MappingSegment | None = None
        self._next_id = 1
        self._now = 0.0
        self._born = 0.0
        self._accepted = 0
        self._last_accept = -1e18
        self._events: list[Event] = []
        self._held: Line | None = None

    # -- public ----------------------------------------------------------------------------------

    @property
    def state(self) -> TimeState:
        """What the service knows now."""
        return self._state

    @property
    def segment_id(self) -> int:
        """Id of the newest segment, 0 before the first."""
        return self._next_id - 1

    def update(self, m: Measurement) -> list[Event]:
        """Take one measurement (in order of arrival) and tell what changed."""
        self._events = []
        watch = self._watches.setdefault(m.source, Watch(m.source))
        if not self._started:
            self._start(m)
        t = self._seconds(m.raw_ns)
        self._now = max(self._now, self._seconds(m.known_raw_ns))
        watch.heard(t)
        if m.flags & UNUSABLE:
            self._verdict(watch, Verdict.UNUSABLE, f"flags {Flag(m.flags & UNUSABLE).name}")
        elif m.kind in NORMAL_KINDS:
            self._take_normal(watch, m, t)
        else:
            self._take_exchange(watch, m, t)
        self._settle()
        return self._events

    def advance(self, raw_ns: int) -> list[Event]:
        """Let time pass without a measurement: SYNCED becomes HOLDOVER, HOLDOVER expires."""
        self._events = []
        if self._started:
            self._now = max(self._now, self._seconds(raw_ns))
            self._settle()
        return self._events

    def segment(self, raw_ns: int) -> MappingSegment | None:
        """The mapping in force at `raw_ns` (at or after the last update); None while COLD."""
        if self._segment is not None and self._state != self._segment.state:
            self.advance(raw_ns)
        return self._segment

    def estimate(self, raw_ns: int) -> tuple[int, float, float] | None:
        """UTC (ns), statistical bound (s) and hard bound (s) at `raw_ns`, without a segment."""
        line = self._line()
        if line is None:
            return None
        t = self._seconds(raw_ns)
        x = line.at(t)
        drift = self._drift(line)
        hard = self._hard.bound(t, x, line.y, drift)
        floor = self.settings.stat_floor_ns * 1e-9
        stat = self.settings.coverage_z * math.sqrt(line.var(t)) + floor
        utc_ns = self._utc0_ns + (raw_ns - self._raw0_ns) + round(x * 1e9)
        return utc_ns, min(stat, hard), hard

    def accept_step(self, raw_ns: int, source: str | None = None) -> list[Event]:
        """Policy's word: adopt what the refused source(s) say, as a new segment."""
        self._events = []
        self._now = max(self._now, self._seconds(raw_ns))
        names = [source] if source else list(self._watches)
        items = [i for n in names if n in self._watches for i in self._watches[n].refused]
        if items:
            self._restart(sorted(items, key=lambda i: i.t), "accepted by policy")
            self._settle()
        return self._events

    def widen(self, raw_ns: int, bound_ns: int) -> list[Event]:
        """Time of unknown amount was lost (suspend, VM pause): grow bounds, keep the rate."""
        self._events = []
        self._now = max(self._now, self._seconds(raw_ns))
        self._hard.widen(bound_ns * 1e-9)
        self._window.widen((bound_ns * 1e-9) ** 2)
        for watch in self._watches.values():
            watch.track = None
        self._rates.clear()
        self._born, self._accepted = self._now, 0
        self._settle(force=True)
        return self._events

    def sources(self) -> list[SourceStatus]:
        """Status of every source."""
        line = self._line()
        sigma = math.sqrt(line.var(self._now)) * 1e9 if line else math.inf
        return [
            SourceStatus(
                w.name,
                w.verdict,
                round(w.offset_s * 1e9),
                sigma,
                round(w.min_delay_s * 1e9) if w.min_delay_s < 1e17 else 0,
                w.accepted + w.rejected,
                w.rejected,
                self._raw0_ns + round(w.last_t * 1e9),
                w.reason,
            )
            for w in self._watches.values()
        ]

    def snapshot(self) -> LearnedOscillator | None:
        """The learned oscillator, None while its rate is not known better than at the factory."""
        line = self._line()
        if line is None or line.yy > (0.2 * self.settings.rate_sigma) ** 2:
            return None
        reboot = self.settings.reboot_rate_sigma
        return LearnedOscillator(line.y, math.hypot(math.sqrt(line.yy), reboot), line.wander)

    def restore(self, learned: LearnedOscillator) -> None:
        """Take a stored oscillator; ignored after the first measurement."""
        self._learned = learned
        if not self._started:
            self._window = self._fresh_window()

    # -- time and windows ------------------------------------------------------------------------

    def _start(self, m: Measurement) -> None:
        self._started = True
        self._raw0_ns, self._utc0_ns = m.raw_ns, m.utc_ns

    def _seconds(self, raw_ns: int) -> float:
        return (raw_ns - self._raw0_ns) / NS_PER_S

    def _offset(self, m: Measurement) -> float:
        return ((m.utc_ns - self._utc0_ns) - (m.raw_ns - self._raw0_ns)) / NS_PER_S

    def _fresh_window(self) -> Window:
        if self._learned is None:
            return Window(self.settings)
        return Window(self.settings, self._learned.rate, self._learned.rate_sigma)

    def _line(self) -> Line | None:
        """The own clock: the best fresh track, else the window."""
        best = self._held or self._window.line
        for watch in self._watches.values():
            track = watch.track
            if track is None or track.count < 2 or watch.verdict != Verdict.SELECTED:
                continue
            bias = (self.settings.gnss_bias_ns * 1e-9) ** 2
            line = Line(
                track.t, track.x, track.y, track.xx + bias, track.xy, track.yy, self._wander()
            )
            if best is None or line.var(self._now) <= best.var(self._now):
                best = line
        return best

    def _wander(self) -> float:
        return self._window.wander

    def _drift(self, line: Line) -> float:
        return self.settings.drift_limit_ppb * 1e-9 + 5.0 * math.sqrt(line.yy)

    def _sigma(self, m: Measurement) -> float:
        default = self.settings.gnss_sigma_ns if m.kind in NORMAL_KINDS else self.settings.stamp_ns
        return max(m.uncertainty_ns or default, 1.0) * m.inflation * 1e-9

    # -- exchanges -------------------------------------------------------------------------------

    def _take_exchange(self, watch: Watch, m: Measurement, t: float) -> None:
        offset, half = self._offset(m), 0.5e-9 * m.delay_ns
        upper, lower = offset + half, offset - half
        root = m.root_bound_ns * 1e-9
        watch.min_delay_s = min(watch.min_delay_s, 2.0 * half)
        violation, shorter = self._violation(watch, m, t, upper, lower)
        line = self._line()
        watch.offset_s = offset - line.at(t) if line else 0.0
        if violation > 0.0 and shorter:
            watch.epoch += 1
        elif violation > 0.0:
            self._refuse(watch, Refused(t, lower - root, upper + root, m), violation)
            return
        self._window.add_exchange(watch.line, t, upper, lower, self._sigma(m))
        self._solve()
        self._accept(watch, t)
        self._prove_exchange(watch, t, lower - root, upper + root)
        self._check_rate()

    def _violation(
        self, watch: Watch, m: Measurement, t: float, upper: float, lower: float
    ) -> tuple[float, bool]:
        """How far (s) an exchange contradicts the own clock, and whether a shorter path explains it."""
        s, line = self.settings, self._held or self._window.line
        if line is None:
            return 0.0, False
        dt = abs(t - line.t)
        wander = max(line.wander, s.gate_wander)
        grown = dt * (2.0 * line.xy + dt * line.yy) + wander * wander * dt**3 / 3.0
        sigma2 = self._sigma(m) ** 2
        path = self._window.path(watch.line)
        move = line.at(t) - line.x
        if path is None or self._held is not None:
            var = line.xx + grown + sigma2
            room = s.gate_sigma * math.sqrt(max(var, 0.0)) + s.gate_floor_s
            return max(lower - line.at(t), line.at(t) - upper) - room, False
        top, top_var, bottom, bottom_var = path
        room = s.gate_floor_s + s.gate_share * (top - bottom)
        up = top + move - upper
        up -= room + s.gate_sigma * math.sqrt(max(top_var + grown, 0.0) + sigma2)
        down = lower - bottom - move
        down -= room + s.gate_sigma * math.sqrt(max(bottom_var + grown, 0.0) + sigma2)
        violation = max(up, down)
        shorter = (upper - lower) < (top - bottom) - 0.5 * violation - room
        inside = lower - room <= line.at(t) <= upper + room
        return violation, shorter and inside

    def _prove_exchange(self, watch: Watch, t: float, lower: float, upper: float) -> None:
        line = self._line()
        if line is None:
            return
        share = self.settings.min_one_way * watch.min_delay_s
        self._hard.move(t, line.y, self._drift(line))
        self._hard.prove(lower + share, upper - share)

    # -- one-way sources ---------------------------------------------------------------------------

    def _take_normal(self, watch: Watch, m: Measurement, t: float) -> None:
        s, offset, sigma = self.settings, self._offset(m), self._sigma(m)
        line = self._line()
        trust = max(s.gnss_trust_ns * 1e-9, 5.0 * sigma) + m.root_bound_ns * 1e-9
        watch.offset_s = offset - line.at(t) if line else 0.0
        if line is not None and not self._normal_fits(watch, line, t, offset, sigma, trust):
            self._refuse(watch, Refused(t, offset - trust, offset + trust, m), abs(watch.offset_s))
            return
        self._feed_track(watch, line, t, offset, sigma)
        if watch.verdict == Verdict.DRAGGING:
            return
        self._accept(watch, t)
        self._hard.move(t, line.y if line else 0.0, self._drift(line) if line else 0.0)
        self._hard.prove(offset - trust, offset + trust)

    def _normal_fits(
        self, watch: Watch, line: Line, t: float, offset: float, sigma: float, trust: float
    ) -> bool:
        dev = abs(offset - line.at(t))
        room = self.settings.gate_sigma * math.sqrt(line.var(t) + sigma * sigma)
        if watch.verdict == Verdict.DRAGGING:
            return self._drag_over(watch, line, t, offset) and dev < room
        hard = self._hard.bound(t, line.at(t), line.y, self._drift(line)) + trust
        return dev < max(room, hard)

    def _drag_over(self, watch: Watch, line: Line, t: float, offset: float) -> bool:
        """A source that dragged must run at the own clock's rate for a minute before it is heard."""
        old = next((i for i in watch.refused if t - i.t >= 20.0), None)
        if old is None:
            return False
        middle = 0.5 * (old.low + old.high)
        slope = ((offset - line.at(t)) - (middle - line.at(old.t))) / (t - old.t)
        return abs(slope) < self.settings.drag_limit + 3.0 * math.sqrt(line.yy)

    def _feed_track(
        self, watch: Watch, line: Line | None, t: float, offset: float, sigma: float
    ) -> None:
        s = self.settings
        track = watch.track
        if track is None:
            known = line is not None and line.yy < (0.1 * s.rate_sigma) ** 2
            rate_var = 4.0 * line.yy if line is not None and known else s.rate_sigma**2
            rate = line.y if line is not None else self._window.rate0
            watch.track = Track(t, offset, sigma, rate, rate_var)
            if self._window.line is None:
                self._feed_block(watch, Block(t, offset, sigma, 1))
            return
        wander = max(self._wander(), 1e-10)
        track.update(t, offset, sigma, wander, s.white_fm)
        step = track.drag(sigma, min(wander, s.drag_wander), s.drag_limit)
        if step != 0.0:
            self._drag_found(watch, track, step)
            return
        for block in track.ripe(t):
            self._feed_block(watch, block)

    def _feed_block(self, watch: Watch, block: Block) -> None:
        self._window.add_normal(watch.line, block.t, block.offset, block.sigma)
        self._solve()

    def _drag_found(self, watch: Watch, track: Track, step: float) -> None:
        mark = track.before_drag()
        watch.track = None
        reason = f"rate stepped by {step * 1e6:+.2f} ppm at once: no oscillator does that"
        self._verdict(watch, Verdict.DRAGGING, reason)
        if mark is None:
            return
        line = Line(mark.t, mark.x, mark.y, mark.xx, mark.xy, mark.yy, self._wander())
        window = self._window.line
        if window is None or line.var(self._now) < window.var(self._now):
            self._window.add_normal(f"{watch.line}!", mark.t, mark.x, math.sqrt(mark.xx) + 1e-7)
            self._solve()

    # -- accept, refuse, restart ---------------------------------------------------------------------

    def _solve(self) -> None:
        self._window.solve()
        self._rates.remember(self._window)

    def _accept(self, watch: Watch, t: float) -> None:
        watch.accept(t)
        self._accepted += 1
        self._last_accept = max(self._last_accept, t)
        self._verdict(watch, Verdict.SELECTED, "")

    def _refuse(self, watch: Watch, item: Refused, violation: float) -> None:
        watch.refuse(item)
        if watch.track is not None:
            self._darken(watch)
        if watch.verdict != Verdict.DRAGGING:
            verdict = Verdict.OUTLIER if watch.run < 2 else Verdict.FALSETICKER
            reason = f"contradicts the own clock by {violation * 1e3:.3g} ms"
            self._verdict(watch, verdict, reason)
        self._consider_restart(item.t)

    def _darken(self, watch: Watch) -> None:
        """The source left: what its track had gathered goes to the window."""
        assert watch.track is not None
        for block in watch.track.flush():
            self._feed_block(watch, block)
        watch.track = None

    def _young(self) -> bool:
        s = self.settings
        return self._accepted < s.young_count or self._now - self._born < s.young_s

    def _consider_restart(self, t: float) -> None:
        """Yield to a consistent majority: at once while young, else to three agreeing sources."""
        since = [[i for i in w.refused if i.t > w.last_accept_t] for w in self._watches.values()]
        items = sorted((i for group in since for i in group), key=lambda i: i.t)
        rate = 2.0 * self.settings.rate_sigma
        if self._young():
            need = max(2, min(self._accepted, self.settings.young_count))
            if len(items) >= need and agree(items, rate, 0.0):
                self._restart(items, f"{len(items)} replies against {self._accepted}")
            return
        voters = [g for g in since if len(g) >= 3]
        alone = all(i.t > self._last_accept for i in items)
        if len(voters) >= 3 and alone and agree(items, 1e-5, 0.0):
            self._restart(items, f"{len(voters)} sources agree against the own clock")

    def _restart(self, items: list[Refused], reason: str) -> None:
        """Begin a new timescale from refused measurements; only ever a new segment."""
        before = self._line()
        old_x = before.at(items[-1].t) if before else 0.0
        established = before is not None and before.yy < (0.1 * self.settings.rate_sigma) ** 2
        window = self._fresh_window()
        if established and before is not None:
            sigma = math.sqrt(before.yy) + 1e-6
            window = Window(self.settings, before.y, sigma)
        self._window, self._held = window, None
        self._hard = HardInterval()
        self._rates.clear()
        self._accepted, self._born = 0, items[0].t
        for watch in self._watches.values():
            watch.track = None
            watch.run = 0
            watch.refused.clear()
        for item in items:
            watch = self._watches[item.measurement.source]
            if item.measurement.kind in NORMAL_KINDS:
                watch.verdict = Verdict.CANDIDATE
                self._take_normal(watch, item.measurement, item.t)
            else:
                self._take_exchange(watch, item.measurement, item.t)
        after = self._line()
        size = (after.at(items[-1].t) - old_x) if after else 0.0
        self._publish(force=True)
        self._events.append(
            Step(
                self._raw0_ns + round(self._now * 1e9),
                Clock.UTC,
                round(size * 1e9),
                0,
                self._next_id - 1,
                reason,
            )
        )

    def _check_rate(self) -> None:
        """A rate step that no oscillator makes: go back and hold."""
        s, line = self.settings, self._window.line
        if line is None or self._young() or self._tracked():
            return
        step, memory = self._rates.step(line, s.rate_step_limit, s.rate_step_horizon_s)
        if memory is None:
            return
        since = memory.line.t
        self._window = memory.window.snapshot()
        self._window.wander = min(self._window.wander, max(memory.line.wander, 5e-9))
        self._window.cap_wander(2.0 * self._window.wander)
        reason = f"its rate stepped by {step * 1e6:+.2f} ppm: no oscillator does that"
        for watch in self._watches.values():
            if watch.last_accept_t > since:
                watch.run = 2
                watch.last_accept_t = min(watch.last_accept_t, since)
                self._verdict(watch, Verdict.DRAGGING, reason)
        self._last_accept = since
        self._hard.widen(abs(step) * (line.t - since))
        self._rates.clear()

    def _tracked(self) -> bool:
        return any(
            w.track is not None and w.verdict == Verdict.SELECTED for w in self._watches.values()
        )

    # -- state and segments ---------------------------------------------------------------------------

    def _verdict(self, watch: Watch, verdict: Verdict, reason: str) -> None:
        changed = watch.verdict != verdict
        watch.verdict, watch.reason = verdict, reason
        if changed:
            raw_ns = self._raw0_ns + round(self._now * 1e9)
            offset_ns = round(watch.offset_s * 1e9)
            self._events.append(SourceVerdict(raw_ns, watch.name, verdict, reason, offset_ns))

    def _settle(self, *, force: bool = False) -> None:
        """Retire silent tracks, set the state, publish."""
        for watch in self._watches.values():
            silent = self._now - watch.last_t > max(5.0, 4.0 * watch.interval_s)
            if watch.track is not None and silent and watch.track.count > 1:
                self._darken(watch)
        new, reason = self._judge_state()
        if new != self._state:
            raw_ns = self._raw0_ns + round(self._now * 1e9)
            self._events.append(StateChange(raw_ns, self._state, new, reason))
            self._state = new
            force = True
        self._publish(force=force)

    def _judge_state(self) -> tuple[TimeState, str]:
        line = self._line()
        if line is None:
            return TimeState.COLD, "no measurement"
        hard = self._hard.bound(self._now, line.at(self._now), line.y, self._drift(line))
        if hard * 1e9 > self.settings.expiry_bound_ns:
            return TimeState.COLD, f"bound {hard:.3g} s beyond the limit"
        watches = self._watches.values()
        dragging = [w.name for w in watches if w.verdict == Verdict.DRAGGING and w.run]
        fresh = [
            w
            for w in watches
            if w.verdict == Verdict.SELECTED
            and self._now - w.last_accept_t <= max(5.0, 4.0 * w.interval_s)
        ]
        if dragging and fresh:
            return TimeState.INTERFERENCE, f"dragged by {', '.join(dragging)}"
        if fresh:
            return TimeState.SYNCED, f"{len(fresh)} sources"
        refused = [w.name for w in watches if w.run >= 2]
        if refused:
            return TimeState.SUSPECT, f"only refused sources: {', '.join(refused)}"
        return TimeState.HOLDOVER, "no source heard"

    def _publish(self, *, force: bool) -> None:
        """A new segment when the mapping, its bound or the state changed enough to matter."""
        line = self._line()
        if line is None:
            return
        raw_ns = self._raw0_ns + round(self._now * 1e9)
        x, var = line.at(self._now), line.var(self._now)
        utc_ns = self._utc0_ns + (raw_ns - self._raw0_ns) + round(x * 1e9)
        drift = self._drift(line)
        hard = self._hard.bound(self._now, x, line.y, drift)
        bound_ns = min(math.ceil(hard * 1e9), NO_BOUND_NS) if self._hard.known else NO_BOUND_NS
        old = self._segment
        moved = utc_ns - old.utc_ns(raw_ns) if old else 0
        if old is not None and not force:
            gone = old.bound_ns(raw_ns)
            same = abs(moved) < 0.1 * math.sqrt(var) * 1e9 and abs(line.y - old.rate) < 1e-8
            if same and 0.9 * gone < bound_ns <= gone:
                return
        names = tuple(w.name for w in self._watches.values() if w.verdict == Verdict.SELECTED)
        dt = self._now - line.t
        cov = (var * 1e18, (line.xy + line.yy * dt) * 1e18, line.yy * 1e18)
        wander = (line.wander * 60.0) ** 2 * 1e18 / 3.0
        self._segment = MappingSegment(
            id=self._next_id,
            revision=0,
            boot_id=self.boot_id,
            raw0_ns=raw_ns,
            utc0_ns=utc_ns,
            rate=line.y,
            cov=cov,
            wander_ns2_per_s=wander,
            hard_bound_ns=bound_ns,
            drift_limit_ppb=drift * 1e9,
            state=self._state,
            sources=names,
        )
        self._next_id += 1
        if old is not None and moved:
            change = line.y - old.rate
            self._events.append(Adjust(raw_ns, self._segment.id, moved, change))
