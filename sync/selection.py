"""Selection: judge each measurement, feed the window, keep verdicts and proofs.

See estimator.py for the outer face. Everything here works in seconds since the first measurement.
"""

from __future__ import annotations

import math

from syncline.sync.drag import Memory, impossible
from syncline.sync.events import SourceVerdict, Step, Verdict
from syncline.sync.gate import Finding, against_path, against_proof
from syncline.sync.hard import HardInterval, Proof, intersect
from syncline.sync.line import Edges, Line
from syncline.sync.majority import Record, overruled
from syncline.sync.measurement import Measurement
from syncline.sync.ownclock import NORMAL_KINDS, OwnClock
from syncline.sync.track import Block, Track
from syncline.sync.watch import Refused, Watch
from syncline.sync.window import Window
from syncline.timebase import Clock


class Selection(OwnClock):
    """Judges measurements by the own clock, and the own clock by what it refused."""

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
            self._unbend(watch)
            return
        watch.min_delay_s = min(watch.min_delay_s, 2.0 * half)
        young = self.young()
        odd = young and self._contradicts(watch, edges).excess > 0.0
        self.changed()
        self.window.add_exchange(watch.line, edges, root, tested=not young, odd=odd)
        self.drags.note(watch.line, edges)
        if not self.follow():
            item = Refused(t, edges.lower - root, edges.upper + root, m)
            self.refuse(watch, item, abs(watch.offset_s))
            self._unbend(watch)
        elif watch.verdict != Verdict.DRAGGING or watch.fits:
            self.accept(watch, t)
            self._prove(watch, edges, root)
            gap = min(max(t - self._middle[0], 0.0), 4096.0)
            self._middle = (t, offset, gap)

    def _judge(self, watch: Watch, edges: Edges, line: Line | None) -> Finding:
        if watch.verdict == Verdict.DRAGGING:
            return against_path(self.window, watch.line, edges, self.settings, strict=True)
        if self.young():
            return against_proof(self.hard, line, edges, self.settings)
        return self._contradicts(watch, edges)

    def _contradicts(self, watch: Watch, edges: Edges) -> Finding:
        """The gate of an established clock."""
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
        share = root - self.settings.min_one_way * watch.min_delay_s
        proof = Proof(edges.t, edges.lower - share, edges.upper + share)
        drift = self.drift(line, proof=True)
        self.hard.move(edges.t, line.y, drift)
        self.hard.prove(proof.low, proof.high)
        if self.young():
            self.early.append(proof)
            self._review(line, drift)

    def _review(self, line: Line, drift: float) -> None:
        """Proofs of a young clock hold only while their stamps are believed."""
        doubted = self.window.doubted()
        if doubted == self.doubted or self.led():
            return
        self.doubted = doubted
        kept = [proof for proof in self.early if proof.t not in doubted]
        if kept:
            self.hard = intersect(kept, line.y, drift)

    def follow(self) -> bool:
        """Solve the window when due and let the drag tests look; False if it went astray."""
        window = self.window
        self.changed()
        line = window.line
        if line is None or (window.due and not (self.led() and window.can_wait)):
            line = window.solve()
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
        trust = max(self._gnss_trust, 5.0 * sigma) + m.root_bound_ns * 1e-9
        line, hard = self.line(), self.hard
        if line is None:
            watch.offset_s = 0.0
            if self._feed_track(watch, None, t, offset, sigma):
                self.accept(watch, t)
                hard.prove(offset - trust, offset + trust)
            return
        x = line.at(t)
        watch.offset_s = off = offset - x
        wide, narrow = self.drifts(line)
        if watch.verdict is Verdict.DRAGGING:
            fits = self._drag_over(watch, line, t, offset) and self._gated(line, t, off, sigma)
        else:
            room = hard.bound(t, x, line.y, wide) + trust
            fits = -room < off < room or self._gated(line, t, off, sigma)
        if not fits:
            self.refuse(watch, Refused(t, offset - trust, offset + trust, m), abs(off))
        elif self._feed_track(watch, line, t, offset, sigma):
            self.accept(watch, t)
            hard.move(t, line.y, narrow)
            hard.prove(offset - trust, offset + trust)

    def _gated(self, line: Line, t: float, off: float, sigma: float) -> bool:
        """True when a sample is no further off than noise explains."""
        return abs(off) < self.settings.gate_sigma * math.sqrt(line.var(t) + sigma * sigma)

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
        wander = self.window.wander
        line = Line(mark.t, mark.x, mark.y, mark.xx, mark.xy, mark.yy, wander, mark.xx)
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
        self.early.clear()
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
        if line is None or self.led():
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

    def _unbend(self, watch: Watch) -> None:
        """A sole source that is refused may have pulled the rate before: forget that stretch."""
        if watch.run != 2 or watch.verdict != Verdict.FALSETICKER or self.young() or self.led():
            return
        if any(w.verdict == Verdict.SELECTED for w in self.watches.values()):
            return
        heard = {e.t for e in self.drags.recent.get(watch.line, ())}
        for item in watch.refused:
            if item.t not in heard:
                edges = Edges(item.t, item.high, item.low, self.sigma(item.measurement))
                self.drags.note(watch.line, edges)
        memories = self.drags.suspects(self.now, [watch.line])
        _, memory = self.drags.rate_step(self.now, [watch.line], memories)
        self.drags.recent.pop(watch.line, None)  # a refused reply shall not accuse it later
        if memory is None or (line := self.window.line) is None:
            return
        old, age = memory.line, self.now - memory.line.t
        if abs(line.y - old.y) > 5.0 * math.sqrt(old.yy + old.wander**2 * age):
            self.hard.widen(abs(line.at(self.now) - old.at(self.now)) + 1e-6 * age)
            self.window = memory.window.snapshot()
            self.changed()

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
