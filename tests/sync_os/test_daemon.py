"""The loop with fakes: broken drivers, stored state, the system clock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from syncline.errors import PermissionDeniedError
from syncline.sync.conductor import Conductor
from syncline.sync.daemon import Outlets, TimeService
from syncline.sync.discipline import Discipline, Mode
from syncline.sync.jumps import ClockReads, JumpWatch
from syncline.sync.leap import built_in
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.notices import Notice, NoticeKind
from syncline.sync.page import PageReader, PageWriter
from syncline.sync.sources.chrony import ChronySocket
from syncline.sync.sources.ntp import NtpSource
from syncline.sync.sources.ntp_session import NtpOptions
from syncline.sync.sources.source import GnssSignals, Health, SourceHealth
from syncline.sync.status import SourceRow, read_status
from syncline.timebase import ManualClock, MappingSegment, PairedRead, TimeState
from tests.sync_os.ntp_fakes import FLOOR, UTC0_NS, FakePath, S

MS = 1_000_000


class System:
    """REALTIME that tests set, disciplined by the service; raw is the manual clock."""

    def __init__(self, clock: ManualClock, offset_ns: int) -> None:
        self.clock, self.offset_ns, self.allowed = clock, offset_ns, True
        self.ppm, self._since = 0.0, clock.raw_ns()
        self.slewed_ns = 0
        self.noticed = False

    def real_minus_raw(self) -> int:
        now = self.clock.raw_ns()
        slewed_ns = round((now - self._since) * self.ppm * 1e-6)
        self.offset_ns += slewed_ns
        self.slewed_ns += slewed_ns
        self._since = now
        return self.offset_ns

    def reads(self) -> ClockReads:
        raw, offset = self.clock.raw_ns(), self.real_minus_raw()
        same = PairedRead(raw, raw + self.slewed_ns, 100)
        return ClockReads(PairedRead(raw, raw + offset, 100), same, same)

    def step(self, ns: int) -> None:
        if not self.allowed:
            raise PermissionDeniedError("no right to set the system clock", remedy="observe")
        self.real_minus_raw()
        self.offset_ns += ns
        self.noticed = True

    def set_frequency(self, ppm: float) -> None:
        self.real_minus_raw()
        self.ppm = ppm

    def fileno(self) -> int:
        return -1

    def taken(self) -> bool:
        was, self.noticed = self.noticed, False
        return was

    def close(self) -> None:
        pass


class Broken:
    """A driver that raises, against its contract."""

    name, kind = "broken", SourceKind.GNSS

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        raise ValueError("bad driver")

    def due_raw_ns(self) -> int:
        return 2**62

    def fileno(self) -> int:
        return -1

    def health(self) -> SourceHealth:
        return SourceHealth(Health.MISSING, "bad")

    def signals(self) -> GnssSignals | None:
        return None

    def set_poll(self, poll_log2: int) -> None:
        pass

    def leap(self) -> int | None:
        return None

    def close(self) -> None:
        pass


def service(
    clock: ManualClock, system: System, mode: Mode = Mode.OBSERVE, **outlets: object
) -> TimeService:
    source = NtpSource(
        NtpOptions("192.0.2.1"),
        clock,
        FLOOR,
        connect=FakePath(clock, jitter_ns=200_000).connect,
        resolve=lambda host, _port: [host],
    )
    return TimeService(
        [source, Broken()],
        Conductor("manual", FLOOR, built_in()),
        clock,
        watch=JumpWatch(system, system.reads),
        outlets=Outlets(**outlets),  # type: ignore[arg-type]
        discipline=Discipline(mode),
        settable=None if mode is Mode.OBSERVE else system,
    )


def run(made: TimeService, clock: ManualClock, seconds: int, every_ms: int = 500) -> None:
    for _ in range(seconds * 1000 // every_ms):
        made.step()
        clock.advance(every_ms * MS)


def test_everything_comes_out_and_a_broken_driver_is_named(tmp_path: Path) -> None:
    clock = ManualClock(100 * S)
    system = System(clock, UTC0_NS)
    segments: list[MappingSegment] = []
    notices: list[Notice] = []
    rows: list[SourceRow] = []
    page = PageWriter(tmp_path / "page")
    made = service(
        clock, system, page=page, status=tmp_path / "status.json", state_dir=tmp_path,
        segment=lambda segment, _scene: segments.append(segment), notice=notices.append,
        source=lambda row, _raw: rows.append(row), chrony=ChronySocket(tmp_path / "none.sock"),
    )  # fmt: skip
    run(made, clock, 700)
    assert segments
    assert {n.kind for n in notices} >= {NoticeKind.STATE, NoticeKind.POLICY}
    assert {row.name for row in rows} == {"ntp:192.0.2.1", "broken"}
    report = read_status(tmp_path / "status.json")
    assert report.state == "SYNCED"
    assert any("broken: driver failed" in line for line in report.trouble)
    assert any("is chronyd running" in line for line in report.trouble)
    reader = PageReader(tmp_path / "page")
    assert reader.segment() == segments[-1]
    reader.close()
    assert json.loads((tmp_path / "floor.json").read_text())["utc_ns"] > UTC0_NS
    made.close()
    assert (tmp_path / "oscillator.json").exists()


def test_sync_20_somebody_steps_the_clock_and_only_policy_puts_it_back() -> None:
    """sync-20: +5 s from outside: an event of that size, the mapping does not move; in mode observe
    the clock is left alone, in mode step it is put back."""
    for mode in (Mode.OBSERVE, Mode.STEP):
        clock = ManualClock(100 * S)
        system = System(clock, UTC0_NS)
        notices: list[Notice] = []
        made = service(clock, system, mode, notice=notices.append)
        run(made, clock, 400)
        before = made.conductor.utc(clock.raw_ns())
        assert before is not None
        system.step(5 * S)
        run(made, clock, 4)
        found = [n for n in notices if n.kind is NoticeKind.STEP and n.source == "REALTIME"]
        assert found[0].size_ns == pytest.approx(5 * S, abs=1000)
        after = made.conductor.utc(clock.raw_ns())
        assert after is not None
        moved = (after.utc_ns - before.utc_ns) - 4 * S
        assert abs(moved) <= 50_000
        left = system.real_minus_raw() - UTC0_NS
        if mode is Mode.OBSERVE:
            assert left == 5 * S
        else:
            assert abs(left) < 5 * MS


def test_slew_brings_a_drifting_clock_to_utc() -> None:
    clock = ManualClock(100 * S)
    system = System(clock, UTC0_NS + 30 * MS)
    made = service(clock, system, Mode.SLEW)
    run(made, clock, 1200, every_ms=1000)
    assert abs(system.real_minus_raw() - UTC0_NS) < 2 * MS


def test_no_right_to_set_the_clock_is_a_line_of_trouble() -> None:
    clock = ManualClock(100 * S)
    system = System(clock, UTC0_NS - 3600 * S)
    system.allowed = False
    made = service(clock, system, Mode.STEP)
    run(made, clock, 300, every_ms=1000)
    assert made.conductor.state is TimeState.SYNCED
    assert "no right to set" in made.trouble["clock"]


def test_a_full_disk_is_trouble_and_not_the_end(tmp_path: Path) -> None:
    clock = ManualClock(100 * S)
    made = service(
        clock, System(clock, UTC0_NS), status=tmp_path / "no" / "s.json", state_dir=tmp_path / "no"
    )
    run(made, clock, 700, every_ms=1000)
    assert "cannot write" in made.trouble["status"]
    assert "cannot save" in made.trouble["state"]
    assert made.conductor.state is TimeState.SYNCED


def test_a_fault_in_the_estimator_costs_the_estimate_and_not_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock(100 * S)
    made = service(clock, System(clock, UTC0_NS))
    run(made, clock, 60)
    old = made.conductor.publication.segment
    assert old is not None

    def fails(_m: Measurement) -> list[object]:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(made.conductor.fine, "update", fails)
    run(made, clock, 100)
    assert "estimator restarted" in made.trouble["step"]
    assert made.conductor.state is TimeState.SYNCED
    new = made.conductor.publication.segment
    assert new is not None
    assert new.id > old.id
    assert new.raw0_ns > old.raw0_ns
