"""The line that `syncline run` prints: the backlog, and new problems at once."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from syncline.cli.run import _Lines, _shown, health_line
from syncline.messages import syncline_pb2 as pb


def test_the_line_shows_the_backlog_and_not_the_disk() -> None:
    message = pb.Health(state="ok", spool_bytes=123_456)
    message.counters["spool.backlog"] = 17
    assert "backlog=17" in health_line(message)
    assert "123456" not in health_line(message)


def test_a_new_problem_is_printed_without_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _Lines()
    details = ["", "", "link: refused", "link: refused", "", "camera c: 3 lost", "camera c: 4 lost"]
    for detail in details:
        lines.show(pb.Health(state="degraded" if detail else "ok", detail=detail))
    lines.show(pb.Health(state="degraded", detail="link: refused"))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert "link: refused" in printed[-1]


def test_the_last_state_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A recording of a few seconds: not only the line of its first second, all zeros."""
    lines = _Lines()
    for captured in (0, 20, 40):
        lines.show(pb.Health(state="ok", frames_captured=captured))
    lines.end()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in printed] == ["captured=0", "captured=40"]
    lines = _Lines()
    lines.show(pb.Health(state="ok"))
    lines.end()
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("as_json", [True, False])
def test_a_log_on_a_full_disk_ends_no_daemon(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, as_json: bool
) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr("sys.stdout", full)
        with _shown(as_json=as_json) as show:
            show(pb.Health(state="ok"))
            show(pb.Health(state="degraded"))
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    assert "standard output: No space left on device" in caplog.text


@pytest.mark.parametrize("as_json", [True, False])
def test_who_looks_on_may_leave(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, as_json: bool
) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        with _shown(as_json=as_json) as show:
            show(pb.Health(state="ok"))
            first = os.read(read, 65536).decode()
            os.close(read)
            for state in ("degraded", "ok", "degraded"):
                show(pb.Health(state=state))
    assert json.loads(first)["state"] == "ok" if as_json else first.startswith("state=ok")
    told = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.message for r in told] == [
        "nothing is shown from here on: standard output: Broken pipe"
    ]
