"""Selection: judge each measurement, feed the window, keep verdicts and proofs.

See estimator.py for the outer face. Everything here works in seconds since the first measurement.
"""

from __future__ import annotations

import math

from syncline.sync.drag import DragWatch, Memory, hidden, impossible
from syncline.sync.events import Event, SourceVerdict, Step, Verdict
from syncline.sync.gate import Edges, Finding, against_path, against_proof
from syncline.sync.hard import HardInterval
from syncline.sync.line import Line
from syncline.sync.majority import Record, overruled
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.oscillator import LearnedOscillator
from syncline.sync.settings import EstimatorSettings
from syncline.sync.track import Block, Track
from syncline.sync.watch import Refused, Watch
from syncline.sync.window import Window
from syncline.timebase import NS_PER_S, Clock

NORMAL_KINDS = (SourceKind.GNSS, SourceKind.PPS, SourceKind.CHRONY, SourceKind.LOGGER)


class Selection:
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
        self._own_at = math.nan
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
        if self._own_at != self.now:
            self._own, self._own_at = self._choose(), self.now
        return self._own

    def changed(self) -> None:
        """The own clock may be another one from now on."""
        self._own_at = math.nan

    def _choose(self) -> Line | None:
        best = self.window.line
        for watch in self.watches.values():
            track = watch.track
            if track is None or track.count < 2 or watch.verdict is not Verdict.SELECTED:
                continue
            xx = track.xx + self._gnss_bias_var
            wander = self.window.wander
            line = Line(track.t, track.x, track.y, xx, track.xy, track.yy, wander)
            # a fresh track that is the surer at its own time stays so for the next seconds
            if (
                best is None
                or (xx <= best.xx and self.now - track.t < 2.0)
                or line.var(self.now) <= best.var(self.now)
            ):
                best = line
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

    # -- exchanges -------------------------------------------------------------------------------

    def take_exchange(self, watch: Watch, m: Measurement, t: float) -> None:
        """Judge and use an exchange."""
        offset, half = self.offset(m), 0.5e-9 * m.delay_ns
        edges = Edges(t, offset + half, offset - half, self.sigma(m))
        root = m.root_bound_ns * 1e-9
        line = self.line()
        watch.offset_s = offset - line.at(t) if line else 0.0
        finding = self._judge(watch, edges, line)
        caught = watch.verdict in (Verdict.DRAGGING, Verdict.FALSETICKER)
        if caught and finding.excess <= 0.0 and not watch.redeemed():
            return
        if finding.excess > 0.0 and finding.shorter:
            watch.epoch += 1
        elif finding.excess > 0.0:
            self.refuse(
                watch, Refused(t, edges.lower - root, edges.upper + root, m), finding.excess
            )
            return
        watch.min_delay_s = min(watch.min_delay_s, 2.0 * half)
        self.changed()
        self.window.add_exchange(watch.line, t, edges.upper, edges.lower, edges.sigma)
        self.drags.note(watch.line, edges)
        if not self.follow():
            item = Refused(t, edges.lower - root, edges.upper + root, m)
            self.refuse(watch, item, abs(watch.offset_s))
        elif watch.verdict != Verdict.DRAGGING or watch.fits:
            self.accept(watch, t)
            self._prove(watch, edges, root)
            gap = min(max(t - self._middle[0], 0.0), 4096.0)
            self._middle = (t, offset, gap)

    def doubt(self, line: Line, t: float) -> float:
        """What a change of rate may have hidden behind the newest exchange's queue, s."""
        at, middle, gap = self._middle
        if at < -1e17 or line.t > at + 1.0:
            return 0.0
        return hidden(abs(middle - line.at(at)), gap, max(t - at, 0.0), self.settings.ramp_rate)

    def _judge(self, watch: Watch, edges: Edges, line: Line | None) -> Finding:
        if watch.verdict == Verdict.DRAGGING:
            return against_path(self.window, watch.line, edges, self.settings, strict=True)
        if self.young():
            return against_proof(self.hard, line, edges, self.settings)
        return against_path(
            self.window,
            watch.line,
            edges,
            self.settings,
            strict=False,
            optimism=self.optimism(2.0),
        )

    def _prove(self, watch: Watch, edges: Edges, root: float) -> None:
        if (line := self.line()) is None:
            return
        share = self.settings.min_one_way * watch.min_delay_s
        self.hard.move(edges.t, line.y, self.drift(line, proof=True))
        self.hard.prove(edges.lower - root + share, edges.upper + root - share)

    def follow(self) -> bool:
        """Solve the window when due and let the drag tests look; False if it went astray."""
        window = self.window
        self.changed()
        line = window.solve() if window.due or window.line is None else window.line
        good = not self._astray(line)
        if not good and window.pending:
            good = not self._astray(window.solve())
        if not good and self.drags.history:
            self.window = self.drags.history[-1].window.snapshot()
        remembered = good and self.drags.remember(self.window)
        if (remembered or not good) and not self.young():
            self._check_drags()
        return good

    def _astray(self, line: Line) -> bool:
        """True when a solve left what is proved or possible: contradicting sources do that."""
        if not math.isfinite(line.x + line.y):
            return True
        if self.young() or not self.hard.known or not self.drags.history:
            return False
        return impossible(line, self.drags.history[-1].line, self.hard)

    # -- one-way sources -------------------------------------------------------------------------

    def take_normal(self, watch: Watch, m: Measurement, t: float) -> None:
        """Judge and use a sample of a one-way source."""
        offset, sigma = self.offset(m), self.sigma(m)
        line = self.line()
        trust = max(self._gnss_trust, 5.0 * sigma) + m.root_bound_ns * 1e-9
        watch.offset_s = offset - line.at(t) if line is not None else 0.0
        if line is not None and not self._normal_fits(watch, line, t, offset, sigma, trust):
            self.refuse(watch, Refused(t, offset - trust, offset + trust, m), abs(watch.offset_s))
            return
        if self._feed_track(watch, line, t, offset, sigma):
            self.accept(watch, t)
            if line is not None:
                self.hard.move(t, line.y, self.drift(line, proof=True))
            self.hard.prove(offset - trust, offset + trust)

    def _normal_fits(
        self, watch: Watch, line: Line, t: float, offset: float, sigma: float, trust: float
    ) -> bool:
        dev = abs(watch.offset_s)
        if watch.verdict is Verdict.DRAGGING:
            room = self.settings.gate_sigma * math.sqrt(line.var(t) + sigma * sigma)
            return self._drag_over(watch, line, t, offset) and dev < room
        if dev < self.hard.bound(t, line.at(t), line.y, self.drift(line)) + trust:
            return True
        return dev < self.settings.gate_sigma * math.sqrt(line.var(t) + sigma * sigma)

    def _drag_over(self, watch: Watch, line: Line, t: float, offset: float) -> bool:
        """A source that dragged must run at the own clock's rate before it is heard again."""
        old = next((i for i in watch.refused if t - i.t >= 20.0), None)
        if old is None:
            return False
        middle = 0.5 * (old.low + old.high)
        slope = ((offset - line.at(t)) - (middle - line.at(old.t))) / (t - old.t)
        return abs(slope) < self.settings.drag_limit + 3.0 * math.sqrt(line.yy)

    def _feed_track(
        self, watch: Watch, line: Line | None, t: float, offset: float, sigma: float
    ) -> bool:
        """Give a sample to its track; False when that found a drag."""
        s = self.settings
        track = watch.track
        if track is None:
            rate, rate_var = (line.y, 4.0 * line.yy) if line else (self.window.rate0, 1.0)
            rate_var = min(rate_var, s.rate_sigma**2)
            self.changed()
            watch.track = Track(t, offset, sigma, rate, rate_var)
            if self.window.line is None:
                self._feed_block(watch, Block(t, offset, sigma))
            return True
        self.changed()
        wander = max(self.window.wander, 1e-10)
        track.update(t, offset, sigma, wander, s.white_fm)
        step = track.drag(sigma, min(wander, s.drag_wander), s.drag_limit)
        if step != 0.0:
            self._drag_found(watch, track, step)
            return False
        for block in track.ripe(t):
            self._feed_block(watch, block)
        return True

    def _feed_block(self, watch: Watch, block: Block) -> None:
        self.window.add_normal(watch.line, block.t, block.offset, block.sigma)
        self.follow()

    def _drag_found(self, watch: Watch, track: Track, step: float) -> None:
        mark, watch.track = track.before_drag(), None
        self.changed()
        reason = f"rate stepped by {step * 1e6:+.2f} ppm at once: no oscillator does that"
        self.verdict(watch, Verdict.DRAGGING, reason)
        if mark is None:
            return
        line = Line(mark.t, mark.x, mark.y, mark.xx, mark.xy, mark.yy, self.window.wander)
        window = self.window.line
        if window is None or line.var(self.now) < window.var(self.now):
            name = f"{watch.line}!"
            self.window.add_normal(name, mark.t, mark.x, math.sqrt(mark.xx) + 1e-7)
            self.follow()

    def darken(self, watch: Watch) -> None:
        """A one-way source left: what its track had gathered goes to the window."""
        assert watch.track is not None
        for block in watch.track.flush():
            self.window.add_normal(watch.line, block.t, block.offset, block.sigma)
            self.window.due = True
        watch.track = None
        self.changed()
        if self.window.due:
            self.follow()

    # -- accept, refuse, restart -----------------------------------------------------------------

    def accept(self, watch: Watch, t: float) -> None:
        """Note that a measurement was used."""
        watch.accept(t)
        self.accepted += 1
        if t > self.last_accept:
            self.last_accept = t
        if watch.verdict is not Verdict.SELECTED:
            self.verdict(watch, Verdict.SELECTED, "")

    def refuse(self, watch: Watch, item: Refused, violation: float) -> None:
        """Note that a measurement contradicts the own clock."""
        watch.refuse(item)
        if watch.track is not None:
            self.darken(watch)
        if watch.verdict != Verdict.DRAGGING:
            verdict = Verdict.OUTLIER if watch.run < 2 else Verdict.FALSETICKER
            reason = f"contradicts the own clock by {violation * 1e3:.3g} ms"
            self.verdict(watch, verdict, reason)
        record = Record(self.now, self.born, self.accepted, self.last_accept, self.young())
        items, why = overruled(list(self.watches.values()), record, self.settings)
        if items:
            self.restart(items, why)

    def verdict(self, watch: Watch, verdict: Verdict, reason: str) -> None:
        """Set a source's verdict and tell when it changed."""
        changed = watch.verdict != verdict
        watch.verdict, watch.reason = verdict, reason
        if changed:
            self.changed()
            offset_ns = round(watch.offset_s * 1e9)
            event = SourceVerdict(self.now_ns(), watch.name, verdict, reason, offset_ns)
            self.events.append(event)

    def restart(self, items: list[Refused], reason: str) -> None:
        """Begin a new timescale from refused measurements; only ever a new segment."""
        before = self.line()
        old_x = before.at(items[-1].t) if before else 0.0
        if before is not None and before.yy < (0.1 * self.settings.rate_sigma) ** 2:
            sigma = 10.0 * math.sqrt(before.yy) + 2e-6
            if self.keep and not self.young():
                self.finished.append(self.window)
            self.window = Window(self.settings, before.y, sigma, keep=self.keep)
        else:
            self.window = self.fresh_window()
        self.changed()
        self.hard = HardInterval()
        self.drags.clear()
        self.accepted, self.born = 0, items[0].t
        for watch in self.watches.values():
            watch.track, watch.run, watch.min_delay_s = None, 0, 1e18
            watch.refused.clear()
            watch.verdict = Verdict.CANDIDATE
        for item in items:
            watch = self.watches[item.measurement.source]
            if item.measurement.kind in NORMAL_KINDS:
                self.take_normal(watch, item.measurement, item.t)
            else:
                self.take_exchange(watch, item.measurement, item.t)
        after = self.line()
        size = after.at(items[-1].t) - old_x if after else 0.0
        self.restarted = True
        self.events.append(Step(self.now_ns(), Clock.UTC, round(size * 1e9), 0, -1, reason))

    # -- drags -----------------------------------------------------------------------------------

    def _check_drags(self) -> None:
        line = self.window.line
        leads = any(w.track and w.verdict == Verdict.SELECTED for w in self.watches.values())
        if line is None or leads:
            return
        selected = {w.line: w for w in self.watches.values() if w.verdict == Verdict.SELECTED}
        names = list(selected)
        suspects = self.drags.suspects(self.now, names)
        if not suspects:
            return
        left, memory = self.drags.conflict(self.now, names, suspects)
        if memory is not None:
            reason = "leaves the own clock while other sources stay with it"
            self._go_back(memory, [selected[name] for name in left], reason)
            return
        left, memory = self.drags.rate_step(self.now, names, suspects)
        if memory is not None:
            reason = "leaves the own clock faster than an oscillator can change its rate"
            age = self.now - memory.line.t
            self.hard.widen(abs(line.at(self.now) - memory.line.at(self.now)) + 1e-6 * age)
            self._go_back(memory, list(selected.values()), reason)
            self.last_accept = memory.line.t

    def _go_back(self, memory: Memory, accused: list[Watch], reason: str) -> None:
        """Return to the remembered window; the accused are judged strictly from now on."""
        self.window = memory.window.snapshot()
        self.changed()
        self.window.cap_wander(max(2.0 * memory.line.wander, 5e-9))
        for watch in accused:
            watch.run = 2
            watch.last_accept_t = min(watch.last_accept_t, memory.line.t)
            self.verdict(watch, Verdict.DRAGGING, reason)
        self.drags.clear()
