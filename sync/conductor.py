"""The time service's pure step: measurements, jumps and signals in; segments and notices out.

Two estimators run side by side. The fine one takes servers, pulses and hardware clocks; the
coarse one takes receivers' messages without a pulse, whose unknown latency is a bias and no
noise: averaging it would make the service sure of a wrong time. The one with the much smaller
hard bound is published, and each checks the other.

Inside, time is TAI and raw time counts on through suspends, so that neither a leap second nor a
sleep is a step; `Timeline` translates at the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from syncline.errors import ClockError
from syncline.sync.confusion import name_of
from syncline.sync.estimator import LearnedOscillator, SourceStatus, TimeEstimator
from syncline.sync.events import Event, Verdict
from syncline.sync.floor import Floor, iso
from syncline.sync.jumps import Jump, Suspended
from syncline.sync.leap import LeapTable, SmearDetector
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.notices import Notice, NoticeKind
from syncline.sync.policy import Decision, PolicyEngine, PolicyInput, Scene
from syncline.sync.publication import Publication
from syncline.sync.settings import EstimatorSettings
from syncline.sync.sources.source import Tally
from syncline.sync.steps import CoreOptions, StepInput, StepOutput
from syncline.sync.timeline import Timeline
from syncline.sync.translate import notice_of
from syncline.timebase import NS_PER_S, MappingSegment, TimeState, UtcTime

COARSE_EXPIRY_NS = 300e9
LEAP_GUARD_NS = 2 * NS_PER_S
"""Measurements this close to a leap second are dropped: POSIX UTC is ambiguous there."""
SLEEP_DRIFT_PPM = 200
STALE_OFFSET_NS = 5 * NS_PER_S
GNSS_KINDS = (SourceKind.GNSS, SourceKind.PPS)
MAX_SOURCES = 64
MAX_ERROR_NS = 60 * NS_PER_S
MIN_UNCERTAINTY_NS = 20
"""Nothing that we stamp is better; less would only cost digits."""


class Conductor:
    """State of the time service. No clock, no I/O; memory bounded by `MAX_SOURCES`.

    Args:
        boot_id: Boot whose raw time is mapped.
        floor: Earliest and latest possible time.
        leaps: TAI - UTC.
        options: The operator's choices.
        learned: Oscillator as stored at the last shutdown.
    """

    def __init__(
        self,
        boot_id: str,
        floor: Floor,
        leaps: LeapTable,
        options: CoreOptions | None = None,
        learned: LearnedOscillator | None = None,
    ) -> None:
        self.options = options or CoreOptions()
        self.floor = floor
        self.timeline = Timeline(leaps)
        self.policy = PolicyEngine(self.options.limits)
        self._learned = learned
        self.fine, self.coarse = self._estimators(boot_id)
        self.publication = Publication(boot_id)
        self.tallies: dict[str, Tally] = {}
        self._kinds: dict[str, SourceKind] = {}
        self._refusal: dict[str, str] = {}
        self._smears = SmearDetector(leaps)
        self._notices: list[Notice] = []
        self._gnss_offset: tuple[int, int, int] | None = None
        self._suspect_since_ns: int | None = None
        self._disagrees = False

    def _estimators(self, boot_id: str) -> tuple[TimeEstimator, TimeEstimator]:
        fine = replace(EstimatorSettings(), expiry_bound_ns=float(self.options.expiry_bound_ns))
        coarse = replace(EstimatorSettings(), expiry_bound_ns=COARSE_EXPIRY_NS)
        return (
            TimeEstimator(boot_id, fine, self._learned),
            TimeEstimator(boot_id, coarse, self._learned),
        )

    def restart(self, raw_ns: int, reason: str) -> StepOutput:
        """Begin to estimate anew, with the stored oscillator; segment ids go on."""
        self.fine, self.coarse = self._estimators(self.fine.boot_id)
        self._notices = []
        self._note(raw_ns, NoticeKind.UNKNOWN_STEP, "UTC", detail=f"estimator restarted: {reason}")
        decision = self.policy.decision(changed=False)
        segments = self._publish(raw_ns, decision)
        return StepOutput(tuple(segments), tuple(self._notices), decision)

    # -- the step --------------------------------------------------------------------------------

    def step(self, now: StepInput) -> StepOutput:
        """One step; see `StepInput` and `StepOutput`."""
        self._notices = []
        segments: list[MappingSegment] = []
        for jump in now.jumps:
            self._jump(jump)
        self._announce(now)
        decision = self._decide(now)
        for m in now.measurements:
            self._take(m, decision)
        inner_ns = self.timeline.inner_raw(now.raw_ns)
        for estimator in (self.fine, self.coarse):
            self._tell(estimator.advance(inner_ns))
        self._maybe_accept(now.raw_ns)
        segments += self._publish(now.raw_ns, decision)
        return StepOutput(tuple(segments), tuple(self._notices), decision)

    def utc(self, raw_ns: int) -> UtcTime | None:
        """UTC by the last published segment; None while there is none."""
        segment = self.publication.segment
        if segment is None or segment.state is TimeState.COLD:
            return None
        return segment.convert(raw_ns)

    @property
    def state(self) -> TimeState:
        """State of the last published segment."""
        segment = self.publication.segment
        return TimeState.COLD if segment is None else segment.state

    def sources(self) -> list[SourceStatus]:
        """Every source as its estimator sees it."""
        slept = self.timeline.slept_ns
        both = [*self.fine.sources(), *self.coarse.sources()]
        return [replace(s, last_raw_ns=s.last_raw_ns - slept) for s in both]

    def kind_of(self, source: str) -> SourceKind | None:
        """Kind of a source that was heard."""
        return self._kinds.get(source)

    def snapshot(self) -> LearnedOscillator | None:
        """The learned oscillator, to be stored."""
        return self.fine.snapshot()

    def accept(self, raw_ns: int, source: str | None = None) -> StepOutput:
        """A person's word: adopt what the refused source says, as a new segment."""
        self._notices = []
        inner_ns = self.timeline.inner_raw(raw_ns)
        self._tell(self.fine.accept_step(inner_ns, source))
        decision = self.policy.decision(changed=False)
        segments = self._publish(raw_ns, decision)
        return StepOutput(tuple(segments), tuple(self._notices), decision)

    # -- jumps, leap seconds, scenes
    # -----------------------------------------------------------------

    def _jump(self, jump: Jump) -> None:
        if not isinstance(jump, Suspended):
            self._tell([jump], inner=False)
            return
        self.timeline.slept_ns += jump.size_ns
        inner_ns = self.timeline.inner_raw(jump.raw_ns)
        lost_ns = jump.uncertainty_ns + jump.size_ns * SLEEP_DRIFT_PPM // 1_000_000
        for estimator in (self.fine, self.coarse):
            if estimator.state is not TimeState.COLD:
                estimator.widen(inner_ns, lost_ns)
        self._note(
            jump.raw_ns, NoticeKind.SUSPEND, "BOOTTIME", jump.size_ns, float(jump.uncertainty_ns),
            f"slept {jump.size_ns / NS_PER_S:.1f} s; bound grew by {lost_ns / NS_PER_S:.3f} s",
        )  # fmt: skip

    def _announce(self, now: StepInput) -> None:
        """A leap second that most servers announce enters the table (June and December only)."""
        known = self.utc(now.raw_ns)
        votes = [vote for vote in now.leap_votes if vote]
        if known is None or not votes or 2 * len(votes) <= len(now.leap_votes):
            return
        if iso(known.utc_ns)[5:7] not in ("06", "12"):
            return
        leap = max(set(votes), key=votes.count)
        leaps = self.timeline.leaps.announced(known.utc_ns, leap)
        if leaps is not self.timeline.leaps:
            self.timeline.leaps = leaps
            self._smears.leaps = leaps
            text = f"leap second {leap:+d} at the end of {iso(known.utc_ns)[:7]} announced"
            self._note(now.raw_ns, NoticeKind.POLICY, "leap", leap * NS_PER_S, 0.0, text)

    def _decide(self, now: StepInput) -> Decision:
        offset = self._gnss_offset
        if offset is not None and now.raw_ns - offset[2] > STALE_OFFSET_NS:
            offset = self._gnss_offset = None
        dragging = any(
            s.verdict is Verdict.DRAGGING and self._is_gnss(s.source) for s in self.fine.sources()
        )
        decision = self.policy.step(
            PolicyInput(
                now.raw_ns,
                now.has_gnss,
                self.utc(now.raw_ns) is not None,
                now.signals,
                now.wheel_speed_mps,
                offset[0] if offset else None,
                offset[1] if offset else 0,
                dragging,
            )
        )
        if decision.changed:
            self._note(now.raw_ns, NoticeKind.POLICY, decision.scene.value, detail=decision.reason)
        return decision

    # -- measurements ----------------------------------------------------------------------------

    def _take(self, m: Measurement, decision: Decision) -> None:
        if m.source not in self.tallies:
            if len(self.tallies) >= MAX_SOURCES:
                return
            self.tallies[m.source] = Tally()
            self._kinds[m.source] = m.kind
        reason, detail = self._inadmissible(m, decision)
        if reason:
            self._refuse(m, reason, detail)
            return
        self._refusal.pop(m.source, None)
        if m.kind in GNSS_KINDS:
            m = replace(m, inflation=max(m.inflation, decision.row.gnss_inflation))
        m = replace(
            m, uncertainty_ns=m.uncertainty_ns and max(m.uncertainty_ns, MIN_UNCERTAINTY_NS)
        )
        self._tell((self.coarse if m.coarse else self.fine).update(self.timeline.inward(m)))

    def _inadmissible(self, m: Measurement, decision: Decision) -> tuple[str, str]:
        """Why a measurement must not reach an estimator, ("", "") when it may."""
        try:
            self.floor.check(m.utc_ns)
        except ClockError as error:
            return "before the floor or beyond its ceiling", str(error)
        if max(m.uncertainty_ns, m.root_bound_ns) > MAX_ERROR_NS:
            return "admits an error of more than 60 s", ""
        starts = self.timeline.leaps.starts_utc_ns[-2:]
        if any(abs(m.utc_ns - start) <= LEAP_GUARD_NS for start in starts):
            return "within 2 s of a leap second", ""
        self._compare(m)
        if m.kind is SourceKind.NTP and self._smear(m):
            return "smears a leap second", "its UTC runs 11.6 ppm off near a leap second"
        if m.kind in GNSS_KINDS and not decision.row.use_gnss and not self._guarded(m.source):
            return f"GNSS is not used: {decision.scene.value}", decision.reason
        return "", ""

    def _compare(self, m: Measurement) -> None:
        """GNSS against our own clock, for the scene."""
        known = self.utc(m.raw_ns)
        if m.kind not in GNSS_KINDS or known is None:
            return
        room_ns = known.bound_ns + m.root_bound_ns + 6 * m.uncertainty_ns
        self._gnss_offset = (m.utc_ns - known.utc_ns, room_ns, m.known_raw_ns)

    def _smear(self, m: Measurement) -> bool:
        known = self.utc(m.raw_ns)
        if known is not None and self._smears.near(m.utc_ns):
            self._smears.take(m.source, m.raw_ns, m.utc_ns, m.utc_ns - known.utc_ns)
        return m.source in self._smears.smearing

    def _guarded(self, source: str) -> bool:
        """The estimator already refuses it, and must hear it to know when that is over."""
        return any(
            s.source == source and s.verdict in (Verdict.DRAGGING, Verdict.FALSETICKER)
            for s in self.fine.sources()
        )

    def _is_gnss(self, source: str) -> bool:
        return self._kinds.get(source) in GNSS_KINDS

    def _refuse(self, m: Measurement, reason: str, detail: str) -> None:
        self.tallies[m.source].add(reason)
        if self._refusal.get(m.source) != reason:
            self._refusal[m.source] = reason
            text = f"{reason}; {detail}" if detail else reason
            self._note(m.known_raw_ns, NoticeKind.SOURCE_VERDICT, m.source, detail=text)

    def _maybe_accept(self, raw_ns: int) -> None:
        """Policy's limit: a source that stays refused and steady for long is believed at last."""
        if self.fine.state is not TimeState.SUSPECT:
            self._suspect_since_ns = None
            return
        if self._suspect_since_ns is None:
            self._suspect_since_ns = raw_ns
        wait_ns = self.options.accept_after_ns
        if wait_ns and raw_ns - self._suspect_since_ns >= wait_ns:
            self._suspect_since_ns = None
            self._tell(self.fine.accept_step(self.timeline.inner_raw(raw_ns)))

    # -- publication -----------------------------------------------------------------------------

    def _publish(self, raw_ns: int, decision: Decision) -> list[MappingSegment]:
        inner_ns = self.timeline.inner_raw(raw_ns)
        fine, coarse = (_usable(e, inner_ns) for e in (self.fine, self.coarse))
        chosen = self._choose(raw_ns, fine, coarse)
        state = TimeState.COLD if chosen is None else chosen.state
        if chosen is not None and self._disagrees:
            state = TimeState.SUSPECT
        if chosen is not None and decision.scene is Scene.INTERFERENCE:
            state = TimeState.INTERFERENCE
        old = self.state
        segments = self.publication.publish(
            raw_ns, chosen, self.timeline, state, decision, which=0 if chosen is fine else 1
        )
        if old is not self.state:
            text = f"{old.name} -> {self.state.name}"
            self._note(raw_ns, NoticeKind.STATE, "service", detail=text)
        return segments

    def _choose(
        self, raw_ns: int, fine: MappingSegment | None, coarse: MappingSegment | None
    ) -> MappingSegment | None:
        """The estimator to publish, and whether the two contradict each other."""
        if fine is None or coarse is None:
            self._set_disagreement(raw_ns, 0, 0)
            return fine or coarse
        inner_ns = self.timeline.inner_raw(raw_ns)
        room_ns = fine.bound_ns(inner_ns) + coarse.bound_ns(inner_ns)
        apart_ns = coarse.utc_ns(inner_ns) - fine.utc_ns(inner_ns)
        self._set_disagreement(raw_ns, apart_ns, room_ns)
        if self._disagrees and len(fine.sources) < 2:
            return coarse if self.publication.which == 1 else fine
        better = 2 * coarse.bound_ns(inner_ns) < fine.bound_ns(inner_ns)
        return coarse if better and not self._disagrees else fine

    def _set_disagreement(self, raw_ns: int, apart_ns: int, room_ns: int) -> None:
        disagrees = abs(apart_ns) > room_ns
        if disagrees and not self._disagrees:
            named = name_of(apart_ns, room_ns)
            text = f"receiver messages and servers are {apart_ns / NS_PER_S:.3f} s apart"
            self._note(
                raw_ns, NoticeKind.SOURCE_VERDICT, "gnss", apart_ns, float(room_ns),
                f"{text}; {named}" if named else text,
            )  # fmt: skip
        self._disagrees = disagrees

    # -- notices
    # -------------------------------------------------------------------------------------

    def _tell(self, events: Sequence[Event], *, inner: bool = True) -> None:
        slept = self.timeline.slept_ns if inner else 0
        for event in events:
            notice = notice_of(event, slept, self.state)
            if notice is not None:
                self._notices.append(notice)

    def _note(
        self,
        raw_ns: int,
        kind: NoticeKind,
        source: str,
        size_ns: int = 0,
        sigma_ns: float = 0.0,
        detail: str = "",
    ) -> None:
        self._notices.append(Notice(raw_ns, kind, source, size_ns, sigma_ns, detail, self.state))


def _usable(estimator: TimeEstimator, inner_ns: int) -> MappingSegment | None:
    segment = estimator.segment(inner_ns)
    if segment is None or estimator.state is TimeState.COLD:
        return None
    return segment
