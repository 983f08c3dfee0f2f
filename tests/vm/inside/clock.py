"""The jump watch and the time service while another program sets and slews CLOCK_REALTIME."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from syncline.sync.conductor import Conductor
from syncline.sync.daemon import Outlets, TimeService
from syncline.sync.discipline import Discipline, Mode, SystemClock
from syncline.sync.events import Step
from syncline.sync.jumps import Jump, JumpWatch, TimerNotice, system_watch
from syncline.sync.leap import built_in
from syncline.sync.measurement import Measurement
from syncline.sync.notices import Notice, NoticeKind
from syncline.sync.sources.ntp import NtpSource
from syncline.sync.sources.ntp_session import NtpOptions
from syncline.timebase import Clock, OsClock, paired_read
from tests.sync_os.ntp_fakes import FLOOR
from tests.vm.inside.setter import ClockSetter, S, raw_ns
from tests.vm.inside.time_server import PORT, UTC_MINUS_RAW_NS, TimeServer

MS = 1_000_000
HOUR = 3600 * S
SIZES_NS = (HOUR, -HOUR, S, -S, -S // 2, S // 2, MS, -MS)
SERVICE_SIZES_NS = (HOUR, -HOUR, S, -S // 2)
SLEWS_PPM = (1000, -1000)
ENOUGH = 6
MONTHS_NS = 54 * 86_400 * S
MIDNIGHT_S = 1_814_400_000
"""2027-07-01T00:00:00Z."""
ENDS_S = {"2038-01-19": 2**31, "2036-02-07": 2**32 - 2_208_988_800, "2106-02-07": 2**32}
"""Seconds since 1970 at which time_t of 32 bits, the NTP era and its unsigned kin end."""


def described(jump: Jump) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": type(jump).__name__, "raw_ns": jump.raw_ns}
    if isinstance(jump, Step):
        found |= {"size_ns": jump.size_ns, "uncertainty_ns": jump.uncertainty_ns}
    return found


def watched(watch: JumpWatch, other: ClockSetter, what: str, value: int) -> dict[str, Any]:
    """One step by the other process, and all that the watch tells of it."""
    watch.poll()
    other.tell(what, value)
    ready, _, _ = select.select([watch.fileno()], [], [], 5.0)
    found = watch.poll() if ready else []
    step = other.answer()
    time.sleep(0.01)
    found += watch.poll()
    return {**asdict(step), "found": [described(jump) for jump in found]}


def steps(other: ClockSetter) -> dict[str, Any]:
    """Steps of a known size (ADJ_SETOFFSET), then an hour and back by clock_settime."""
    watch = JumpWatch(TimerNotice())
    try:
        exact = [watched(watch, other, "by", ns) for ns in SIZES_NS]
        now = time.clock_gettime_ns(time.CLOCK_REALTIME)
        return {"exact": exact, "set": [watched(watch, other, "to", now + n) for n in (HOUR, 0)]}
    finally:
        watch.close()


def slews(other: ClockSetter) -> dict[str, Any]:
    """The clock runs 1000 ppm fast, then slow, for 0.6 s each."""
    watch, lacks = system_watch()
    found: list[Jump] = []
    ppm: list[float] = []
    try:
        for wanted in SLEWS_PPM:
            other.tell("slew", wanted)
            other.answer()
            found += watch.poll()
            first = watch.last_real
            while raw_ns() < first.raw_ns + 600 * MS:
                time.sleep(0.01)
                found += watch.poll()
            last = watch.last_real
            took = last.raw_ns - first.raw_ns
            ppm.append((last.other_ns - first.other_ns - took) / took * 1e6)
    finally:
        watch.close()
    return {"lacks": lacks, "found": [described(jump) for jump in found], "ppm": ppm}


class Service:
    """A running time service with a real server over UDP; keeps what it told at each step."""

    def __init__(self, mode: Mode = Mode.OBSERVE) -> None:
        self.server = TimeServer()
        self.clock = OsClock()
        self.measured: list[Measurement] = []
        self.notices: list[Notice] = []
        self.rows: list[dict[str, Any]] = []
        self.source = NtpSource(
            NtpOptions("127.0.0.1", PORT, 0, 0, iburst=False), self.clock, FLOOR
        )
        watch, self.lacks = system_watch()
        self.service = TimeService(
            [self.source], Conductor(self.clock.boot_id, FLOOR, built_in()), self.clock,
            watch=watch,
            outlets=Outlets(measurement=self.measured.append, notice=self.notices.append),
            discipline=Discipline(mode), settable=None if mode is Mode.OBSERVE else SystemClock(),
        )  # fmt: skip

    def run(self, most_s: float, until: Callable[[], bool] = lambda: False) -> None:
        end = raw_ns() + round(most_s * S)
        while raw_ns() < end and not until():
            self.service.step()
            self._keep()
            self.service.wait()

    def _keep(self) -> None:
        now = raw_ns()
        known = self.service.conductor.utc(now)
        if known is None:
            return
        first_raw = int(self.rows[0]["raw_ns"]) if self.rows else now
        first = self.service.conductor.utc(first_raw)
        assert first is not None
        self.rows.append({
            "raw_ns": now,
            "error_ns": known.utc_ns - now - UTC_MINUS_RAW_NS,
            "bound_ns": known.bound_ns,
            "first_error_ns": first.utc_ns - first_raw - UTC_MINUS_RAW_NS,
            "measurements": len(self.measured),
            "steps": len(self.found_steps()),
        })  # fmt: skip

    def found_steps(self) -> list[Notice]:
        return [n for n in self.notices if n.kind is NoticeKind.STEP and n.source == "REALTIME"]

    def close(self) -> None:
        self.service.close()
        self.server.close()


def service(other: ClockSetter) -> dict[str, Any]:
    """The service gets its time; the clock is set four times; then it is slewed."""
    made = Service()
    done = []
    try:
        made.run(30.0, lambda: len(made.measured) >= ENOUGH)
        for size_ns in SERVICE_SIZES_NS:
            count = len(made.found_steps())
            other.tell("by", size_ns)
            made.run(3.0, lambda count=count: len(made.found_steps()) > count)  # type: ignore[misc]
            done.append(asdict(other.answer()))
            made.run(0.1)
        other.tell("slew", 1000)
        other.answer()
        made.run(1.0)
    finally:
        made.close()
    return {
        "state": made.service.conductor.state.name,
        "trouble": list(made.service.trouble.values()),
        "refused": made.source.session.tally.counts,
        "made": done,
        "rows": made.rows,
        "found": [(n.raw_ns, n.size_ns, n.sigma_ns) for n in made.found_steps()],
        "unknown": sum(n.kind is NoticeKind.UNKNOWN_STEP for n in made.notices),
    }


def system_error_ns() -> int:
    """REALTIME minus the server's truth."""
    pair = paired_read(Clock.REALTIME)
    return pair.other_ns - pair.raw_ns - UTC_MINUS_RAW_NS


def policy(other: ClockSetter) -> dict[str, Any]:
    """The service itself disciplines the real clock, which is off by months, 5 s and 100 ms."""
    other.tell("to", UTC_MINUS_RAW_NS + raw_ns() - MONTHS_NS)
    other.answer()
    made = Service(Mode.STEP)
    errors_ns = [system_error_ns()]
    try:
        made.run(30.0, lambda: abs(system_error_ns()) < S)
        made.run(2.0)
        errors_ns.append(system_error_ns())
        other.tell("by", 5 * S)
        other.answer()
        made.run(10.0, lambda: abs(system_error_ns()) < S)
        errors_ns.append(system_error_ns())
        other.tell("by", 100 * MS)
        other.answer()
        made.run(2.0)  # the slew begins
        first = paired_read(Clock.REALTIME)
        made.run(2.0)
        last = paired_read(Clock.REALTIME)
        errors_ns.append(system_error_ns())
    finally:
        made.close()
    took = last.raw_ns - first.raw_ns
    return {
        "errors_ns": errors_ns,
        "slewed_ppm": (last.other_ns - first.other_ns - took) / took * 1e6,
        "own_steps": made.service.discipline.steps,
        "found": [(n.size_ns, n.sigma_ns) for n in made.found_steps()],
        "rows": made.rows,
        "trouble": list(made.service.trouble.values()),
    }


def crossings(other: ClockSetter) -> list[dict[str, Any]]:
    """The clock runs over the ends of 32-bit counters, half a second after it was set there."""
    found = []
    for name, end_s in ENDS_S.items():
        watch = JumpWatch(TimerNotice())
        try:
            made = watched(watch, other, "to", end_s * S - S // 2)
            raw, real = watch.last_real.raw_ns, watch.last_real.other_ns
            later: list[Jump] = []
            while raw_ns() < raw + S:
                time.sleep(0.02)
                later += watch.poll()
            last = watch.last_real
            found.append({
                "name": name, "steps": len(made["found"]), "later": [described(j) for j in later],
                "before_s": real / S - end_s, "after_s": last.other_ns / S - end_s,
                "apart_ns": (last.other_ns - real) - (last.raw_ns - raw),
            })  # fmt: skip
        finally:
            watch.close()
    return found


def leaps(other: ClockSetter) -> list[dict[str, Any]]:
    """The kernel inserts a second at the end of a day, then leaves one out."""
    found = []
    for way in (1, -1):
        watch = JumpWatch(TimerNotice())
        try:
            watched(watch, other, "to", MIDNIGHT_S * S - 5 * S // 2)
            other.tell("leap", way)
            other.answer()
            jumps = watch.poll()
            first = watch.last_real
            while raw_ns() < first.raw_ns + 4 * S:
                select.select([watch.fileno()], [], [], 0.1)
                jumps += watch.poll()
            last = watch.last_real
            found.append({
                "way": way, "found": [described(jump) for jump in jumps],
                "at_s": [(jump.raw_ns - first.raw_ns + first.other_ns) / S - MIDNIGHT_S
                         for jump in jumps],
                "moved_ns": (last.other_ns - first.other_ns) - (last.raw_ns - first.raw_ns),
            })  # fmt: skip
        finally:
            watch.close()
            other.tell("leap", 0)
            other.answer()
        time.sleep(1.2)  # a second's end, at which the kernel sees that no more is wanted
    return found


def main(arguments: list[str]) -> dict[str, Any]:
    other = ClockSetter()
    parts: dict[str, Callable[[ClockSetter], object]] = {
        "steps": steps, "slews": slews, "crossings": crossings, "leaps": leaps,
        "service": service, "policy": policy,
    }  # fmt: skip
    try:
        return {name: parts[name](other) for name in arguments or parts}
    finally:
        other.close()
