"""The loop around the pure step: sources, jumps, page, status file, stored state, system clock.

The edge daemon owns a `TimeService` and calls `step()`; `run()` is the loop for a process of its
own. Whatever fails outside (a device, a disk, a missing right) becomes a line of `trouble` in
the status; nothing is raised out of `step`.
"""

from __future__ import annotations

import select
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy.ma  # noqa: F401  # numpy.unique loads it at its first call, which is within a step

from syncline.errors import ClockError, DeviceError, SynclineError
from syncline.sync.conductor import Conductor
from syncline.sync.discipline import Action, Discipline, Mode, SettableClock
from syncline.sync.floor import iso, save_floor
from syncline.sync.jumps import Jump, JumpWatch
from syncline.sync.learned import save_oscillator
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.notices import Notice, NoticeKind
from syncline.sync.page import PageWriter
from syncline.sync.source_rows import source_rows
from syncline.sync.sources.chrony import ChronySocket
from syncline.sync.sources.source import GnssSignals, Health, Source
from syncline.sync.sources.ubx import TimeMark
from syncline.sync.status import SourceRow, StatusReport, write_status
from syncline.sync.steps import StepInput, StepOutput
from syncline.timebase import NS_PER_S, MappingSegment, RawClock, TimeState

MAX_WAIT_NS = NS_PER_S // 4
STATUS_NS = NS_PER_S
SOURCES_NS = NS_PER_S
SAVE_NS = 600 * NS_PER_S
SAVE_BOUND_NS = NS_PER_S
FIX_APART_NS = 50_000_000
"""Messages of one epoch that come closer together than this make one fix."""
KEPT_EVENTS = 12
FAULTS = (
    SynclineError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    RuntimeError,
    AssertionError,
    struct.error,
)
"""What a fault in a driver or in the estimator raises; everything but exits and lost memory."""


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where the service's results go; each may be absent.

    Attributes:
        segment: Called with each segment and its scene.
        measurement: Called with each measurement, before it is judged.
        notice: Called with each notice.
        source: Called with each source row, once a second.
        sky: Called with the name of a receiver and what it newly says of sky and position.
        mark: Called with the name of a receiver and each edge on its EXTINT pin.
        page: Shared-memory page.
        status: Status file.
        state_dir: Folder of the floor and the oscillator.
        chrony: chrony's reference clock socket.
    """

    segment: Callable[[MappingSegment, str], None] | None = None
    measurement: Callable[[Measurement], None] | None = None
    notice: Callable[[Notice], None] | None = None
    source: Callable[[SourceRow, int], None] | None = None
    sky: Callable[[str, GnssSignals], None] | None = None
    mark: Callable[[str, TimeMark], None] | None = None
    page: PageWriter | None = None
    status: Path | None = None
    state_dir: Path | None = None
    chrony: ChronySocket | None = None


class TimeService:
    """Asks sources, steps the conductor, publishes.

    Args:
        sources: Drivers; the service closes them.
        conductor: The pure step with its state.
        clock: Raw clock.
        watch: Jumps of the system clock; None where it is not watched.
        outlets: Where results go.
        discipline: What may be done to the system clock.
        settable: The clock that is disciplined.
        wheel_speed_mps: The vehicle's speed, if known.
        trouble: Lines that the set-up already has to tell.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        conductor: Conductor,
        clock: RawClock,
        *,
        watch: JumpWatch | None = None,
        outlets: Outlets | None = None,
        discipline: Discipline | None = None,
        settable: SettableClock | None = None,
        wheel_speed_mps: Callable[[], float | None] = lambda: None,
        trouble: Sequence[str] = (),
    ) -> None:
        self.sources = list(sources)
        self.conductor = conductor
        self.discipline = discipline or Discipline(Mode.OBSERVE)
        self.trouble: dict[str, str] = {f"start{i}": text for i, text in enumerate(trouble)}
        self._clock, self._watch, self._outlets = clock, watch, outlets or Outlets()
        self._settable, self._wheel = settable, wheel_speed_mps
        self._events: deque[str] = deque(maxlen=KEPT_EVENTS)
        self._status_raw_ns = self._save_raw_ns = self._sources_raw_ns = clock.raw_ns()
        self._discipline_raw_ns = clock.raw_ns()
        self._poll_log2 = -1
        self._sky_raw_ns: dict[str, int] = {}

    # -- one step --------------------------------------------------------------------------------

    def step(self) -> StepOutput:
        """Gather, step, publish. Never raises for what happens outside."""
        now_ns = self._clock.raw_ns()
        measurements: list[Measurement] = []
        for source in self.sources:
            measurements += self._ask(source, now_ns)
        measurements.sort(key=lambda m: m.known_raw_ns)
        if self._outlets.measurement is not None:
            for measurement in measurements:
                self._outlets.measurement(measurement)
        jumps: list[Jump] = self._watch.poll() if self._watch is not None else []
        if jumps:
            self.discipline.forget()
        now_ns = max(now_ns, self._clock.raw_ns())
        output = self._conduct(
            StepInput(
                now_ns,
                tuple(measurements),
                tuple(jumps),
                self._signals(),
                self._has_receiver(),
                self._wheel(),
                tuple(leap for s in self.sources if (leap := s.leap()) is not None),
            )
        )
        self._publish(output, now_ns)
        self._steer(output)
        self._housekeeping(now_ns)
        return output

    def _ask(self, source: Source, now_ns: int) -> list[Measurement]:
        """A driver promises not to raise; one that breaks its promise is named, and we go on."""
        try:
            return source.poll(now_ns)
        except FAULTS as error:
            self.trouble[source.name] = f"{source.name}: driver failed: {error!r}"
            return []

    def _conduct(self, now: StepInput) -> StepOutput:
        """The pure step. A fault of ours in it costs the estimate, not the service."""
        try:
            return self.conductor.step(now)
        except FAULTS as error:
            self.trouble["step"] = f"estimator restarted after a fault: {error!r}; please report it"
            return self.conductor.restart(now.raw_ns, repr(error))

    def _signals(self) -> GnssSignals | None:
        seen = [(s.name, sky) for s in self.sources if (sky := s.signals()) is not None]
        for name, sky in seen:
            if sky.raw_ns - self._sky_raw_ns.get(name, -FIX_APART_NS) >= FIX_APART_NS:
                self._sky_raw_ns[name] = sky.raw_ns
                if self._outlets.sky is not None:
                    self._outlets.sky(name, sky)
        return max((sky for _, sky in seen), key=lambda sky: sky.raw_ns, default=None)

    def _has_receiver(self) -> bool:
        """A receiver that is there: one that is missing is no tunnel."""
        return any(
            s.kind is SourceKind.GNSS and s.health().health not in (Health.MISSING, Health.DENIED)
            for s in self.sources
        )

    def _publish(self, output: StepOutput, now_ns: int) -> None:
        out = self._outlets
        for segment in output.segments:
            if out.page is not None:
                out.page.write(segment, now_ns, output.decision.scene.value)
            if out.segment is not None:
                out.segment(segment, output.decision.scene.value)
        for notice in output.notices:
            if notice.kind is not NoticeKind.ADJUST:
                size = f" {notice.size_ns / 1e6:+.6f} ms" if notice.size_ns else ""
                self._events.append(
                    f"{notice.kind.name.lower()} {notice.source}{size}: {notice.detail}"
                )
            if out.notice is not None:
                out.notice(notice)

    def _steer(self, output: StepOutput) -> None:
        """Poll rates by the scene."""
        wanted = output.decision.row.ntp_poll_log2
        if wanted != self._poll_log2:
            self._poll_log2 = wanted
            for source in self.sources:
                source.set_poll(wanted)

    # -- once in a while -------------------------------------------------------------------------

    def _housekeeping(self, now_ns: int) -> None:
        if now_ns >= self._discipline_raw_ns:
            self._discipline_raw_ns = now_ns + NS_PER_S
            self._guard("clock", self._clock_work)
        if self._outlets.source is not None and now_ns >= self._sources_raw_ns:
            self._sources_raw_ns = now_ns + SOURCES_NS
            for row in self.rows():
                self._outlets.source(row, now_ns)
        if now_ns >= self._status_raw_ns:
            self._status_raw_ns = now_ns + STATUS_NS
            self._guard("status", self._write_status)
        if now_ns >= self._save_raw_ns + SAVE_NS:
            self._save_raw_ns = now_ns
            self._guard("state", self.save)

    def _guard(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (SynclineError, OSError) as error:
            self.trouble[what] = str(error)
        else:
            self.trouble.pop(what, None)

    def _system_error(self) -> tuple[int, int, int] | None:
        """(REALTIME, our UTC of that instant, bound); None without a watch or without time."""
        if self._watch is None:
            return None
        pair = self._watch.last_real
        known = self.conductor.utc(pair.raw_ns)
        return None if known is None else (pair.other_ns, known.utc_ns, known.bound_ns)

    def _clock_work(self) -> None:
        found = self._system_error()
        if found is None:
            return
        real_ns, utc_ns, bound_ns = found
        state = self.conductor.state
        if self._outlets.chrony is not None and state is TimeState.SYNCED:
            sent = self._outlets.chrony.send(real_ns, utc_ns)
            if not sent:
                self.trouble["chrony"] = self._outlets.chrony.error
            else:
                self.trouble.pop("chrony", None)
        action = self.discipline.decide(self._clock.raw_ns(), real_ns - utc_ns, bound_ns, state)
        if self._settable is not None:
            self._act(self._settable, action, state)

    def _act(self, clock: SettableClock, action: Action, state: TimeState) -> None:
        """Carry an action out.

        Raises:
            ClockError: The clock was left alone although it is wrong, or the kernel refused.
            PermissionDeniedError: No CAP_SYS_TIME.
        """
        if action.step_ns:
            try:
                clock.step(action.step_ns)
            except SynclineError:
                self.discipline.steps -= 1
                raise
        elif action.frequency_ppm is not None:
            clock.set_frequency(action.frequency_ppm)
        elif state is TimeState.SYNCED:
            raise ClockError(f"the system clock is left alone: {action.reason}")

    def save(self) -> None:
        """Store the time and the oscillator, while we are sure of them.

        Raises:
            StorageError: The folder cannot be written.
        """
        folder = self._outlets.state_dir
        known = self.conductor.utc(self._clock.raw_ns())
        if folder is None or known is None or known.state is not TimeState.SYNCED:
            return
        if known.bound_ns > SAVE_BOUND_NS:
            return
        save_floor(folder / "floor.json", known.utc_ns - known.bound_ns)
        learned = self.conductor.snapshot()
        if learned is not None:
            save_oscillator(folder / "oscillator.json", learned)

    # -- status ----------------------------------------------------------------------------------

    def rows(self) -> list[SourceRow]:
        """Every source, driver and estimate together."""
        return source_rows(self.sources, self.conductor)

    def report(self) -> StatusReport:
        """The service now."""
        raw_ns = self._clock.raw_ns()
        known = self.conductor.utc(raw_ns)
        segment = self.conductor.publication.segment
        decision = self.conductor.policy.decision(changed=False)
        found = self._system_error()
        floor = self.conductor.floor
        upcoming = (
            None if known is None else self.conductor.timeline.leaps.next_start_ns(known.utc_ns)
        )
        return StatusReport(
            boot_id=self._clock.boot_id,
            raw_ns=raw_ns,
            state=self.conductor.state.name,
            scene=decision.scene.value,
            reason=decision.reason,
            segment_id=0 if segment is None else segment.id,
            utc_ns=0 if known is None else known.utc_ns,
            sigma_ns=0.0 if known is None else known.sigma_ns,
            bound_ns=0 if known is None else known.bound_ns,
            rate_ppm=0.0 if segment is None else segment.rate * 1e6,
            rate_sigma_ppm=0.0 if segment is None else segment.cov[2] ** 0.5 * 1e-3,
            system_error_ns=0 if found is None else found[0] - found[1],
            discipline=self.discipline.mode.value,
            step_count=0 if self._watch is None else self._watch.detector.steps,
            floor_utc_ns=floor.utc_ns,
            leap="none known" if upcoming is None else f"at {iso(upcoming)[:19]}Z",
            sources=tuple(self.rows()),
            events=tuple(self._events),
            trouble=tuple(self.trouble.values()),
        )

    def _write_status(self) -> None:
        if self._outlets.status is not None:
            write_status(self._outlets.status, self.report())

    # -- the loop --------------------------------------------------------------------------------

    def wait_ns(self) -> int:
        """How long nothing is due."""
        due = min((s.due_raw_ns() for s in self.sources), default=self._clock.raw_ns())
        return min(max(due - self._clock.raw_ns(), 0), MAX_WAIT_NS)

    def wait(self) -> None:
        """Sleep until input, a clock step, or the next thing to do."""
        poller = select.poll()
        numbers = {s.fileno() for s in self.sources}
        if self._watch is not None:
            numbers.add(self._watch.fileno())
        for number in numbers:
            if number >= 0:
                poller.register(number, select.POLLIN)
        poller.poll(max(self.wait_ns() // 1_000_000, 1))

    def run(self, stopped: Callable[[], bool]) -> None:
        """Step until told to stop, then store the state and close everything."""
        try:
            while not stopped():
                self.step()
                self.wait()
        finally:
            self.close()

    def close(self) -> None:
        """Store the state; close sources, page and watch."""
        self._guard("state", self.save)
        for source in self.sources:
            source.close()
        if self._outlets.page is not None:
            self._outlets.page.close()
        if self._outlets.chrony is not None:
            self._outlets.chrony.close()
        if self._watch is not None:
            self._watch.close()


def open_page(path: str) -> tuple[PageWriter | None, str]:
    """The page at `path`, or None and why."""
    if not path:
        return None, ""
    try:
        return PageWriter(Path(path)), ""
    except DeviceError as error:
        return None, str(error)
