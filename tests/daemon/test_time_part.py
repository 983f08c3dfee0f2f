"""The clock in the daemon: a bug in it ends neither the daemon nor the word of it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from syncline.edge.pipeline import Pipeline, PipelineOptions
from syncline.edge.records import Output
from syncline.edge.time_part import TimePart
from syncline.errors import StorageError
from syncline.messages import syncline_pb2 as pb
from syncline.sync.config import TimeConfig
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.source import NEVER_RAW_NS, GnssSignals, Health, SourceHealth
from syncline.sync.steps import StepInput, StepOutput
from syncline.timebase import ManualClock, OsClock


def a_part(folder: Path) -> TimePart:
    clock = OsClock()
    pipeline = Pipeline(clock.boot_id, PipelineOptions())
    return TimePart(TimeConfig(page="", status=""), folder, clock, pipeline, lambda _: None)


def test_a_bug_in_the_clock_is_a_line_in_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    part = a_part(tmp_path)
    called = threading.Event()

    def bug() -> None:
        called.set()
        raise KeyError("a bug of ours")

    monkeypatch.setattr(part._service, "step", bug)
    part.start()
    assert called.wait(5.0)
    part.close()
    message = pb.Health(state="ok", detail="slot: slow")
    part.add_to(message)
    assert message.state == "degraded"
    assert message.detail.startswith("slot: slow; time: the time service ended")
    assert "KeyError: 'a bug of ours'" in message.detail
    assert "ended by a bug" in caplog.text


def test_a_clock_that_works_says_nothing(tmp_path: Path) -> None:
    part = a_part(tmp_path)
    part.start()
    part.close()
    message = pb.Health(state="ok")
    part.add_to(message)
    assert (message.state, message.detail) == ("ok", "")


def test_a_receiver_is_recorded_once_an_epoch_and_wheels_reach_the_clock(tmp_path: Path) -> None:
    clock = ManualClock(10**9, "boot")
    out: list[Output] = []
    part = TimePart(
        TimeConfig(page="", status=""), tmp_path, clock, Pipeline("boot"), out.extend, lambda: 12.5
    )
    receiver = Receiver()
    part._service.sources.append(receiver)
    seen: list[float | None] = []
    step = part._service.conductor.step

    def watched(now: StepInput) -> StepOutput:
        seen.append(now.wheel_speed_mps)
        return step(now)

    part._service.conductor.step = watched  # type: ignore[method-assign]
    for raw_ns in (10**9, 10**9 + 20_000_000, 2 * 10**9):
        receiver.sky = GnssSignals(raw_ns, fix_mode=3, latitude_deg=47.5, longitude_deg=8.5)
        part._service.step()
        part._service.step()
    fixes = [o for o in out if o.topic == "/gnss/gps"]
    assert [o.raw_ns for o in fixes] == [10**9, 2 * 10**9]
    assert isinstance(fixes[0].message, pb.GnssFix)
    assert (fixes[0].message.latitude_deg, fixes[0].message.mode) == (47.5, 3)
    assert seen == [12.5] * 6
    part.close()


class Receiver:
    """A receiver of which only the sky is asked."""

    name = "gps"
    kind = SourceKind.GNSS
    sky: GnssSignals | None = None

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        return []

    def signals(self) -> GnssSignals | None:
        return self.sky

    def leap(self) -> None:
        return None

    def health(self) -> SourceHealth:
        return SourceHealth(Health.OK)

    def set_poll(self, poll_log2: int) -> None:
        return

    def due_raw_ns(self) -> int:
        return NEVER_RAW_NS

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        return


def test_a_folder_that_cannot_be_made_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot make"):
        a_part(tmp_path / "file" / "time")
