"""The clock in the daemon: a bug in it ends neither the daemon nor the word of it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from syncline.edge.pipeline import Pipeline, PipelineOptions
from syncline.edge.time_part import TimePart
from syncline.errors import StorageError
from syncline.messages import syncline_pb2 as pb
from syncline.sync.config import TimeConfig
from syncline.timebase import OsClock


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


def test_a_folder_that_cannot_be_made_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot make"):
        a_part(tmp_path / "file" / "time")
