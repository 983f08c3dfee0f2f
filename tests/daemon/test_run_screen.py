"""The live screen: what a person sees, and that the terminal is given back."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.console import Console

from syncline.cli.run import health_line
from syncline.cli.run_screen import Screen, screen_of
from syncline.messages import syncline_pb2 as pb

from .test_metrics import message


def drawn(health: pb.Health, width: int = 130) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(screen_of(health))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, start: str) -> list[str]:
    rows = [line.split() for line in text.splitlines() if start in line]
    assert rows, text
    return rows[0]


def test_a_model_and_its_shadow_have_rows_and_counts_of_their_own() -> None:
    health = message()
    health.models[0].name, health.models[1].name = "road", "wide"
    text = drawn(health)
    counts = row(text, "road 1.1.0")[-8:]
    assert counts == ["10", "7", "late", "1,", "replaced", "2;", "1", "invalid"]
    shadow = next(line for line in text.splitlines() if "shadow of primary" in line)
    assert shadow.split()[-4:] == ["6", "2", "shed", "4"]
    assert "CPU (0 % of nodes on CUDA)" in text


def test_it_counts_from_the_daemons_start_not_the_machines() -> None:
    health = message()
    assert "up 15 s" in drawn(health)
    health.raw_ns += 3700 * 10**9
    assert "up 1 h 1 min" in drawn(health)


def test_cameras_clock_spool_and_reasons_are_there() -> None:
    health = message()
    health.counters["camera.front.errors"] = 5
    text = drawn(health)
    assert row(text, "front") == ["front", "ok", "10", "3", "1", "5"]
    assert row(text, "rear  ") == ["rear", "absent", "0", "0", "0", "0"]
    assert "4 records wait" in text
    assert "COLD" in text
    assert text.rstrip().endswith("camera rear: absent")


def test_latencies_have_a_row_per_slot() -> None:
    text = drawn(message()).partition("p50 / p99")[2]
    assert row(text, "primary   ")[-3:] == ["10", "/", "more"]
    assert row(text, "shadow   ")[-3:] == ["10", "/", "10"]


def test_a_message_that_says_next_to_nothing_is_drawn_too() -> None:
    assert "starting" in drawn(pb.Health(state="starting"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_terminal_is_given_back_and_log_lines_go_above(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, out = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler(errors)
    logging.getLogger().addHandler(handler)
    try:
        console = Console(file=out, force_terminal=True, width=120)
        with Screen(console) as screen:
            screen.show(message())
            assert "\x1b[?25l" in out.getvalue()  # the cursor is hidden meanwhile
            logging.getLogger("x").error("a line amid the screen")
            screen.show(message())
        logging.getLogger("x").error("a line after it")
    finally:
        logging.getLogger().removeHandler(handler)
    assert out.getvalue().rstrip().endswith("\x1b[?25h")
    assert "a line amid the screen" in out.getvalue()
    assert errors.getvalue() == "a line after it\n"


def test_a_log_in_a_file_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, out = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler(errors)
    logging.getLogger().addHandler(handler)
    try:
        with Screen(Console(file=out, force_terminal=True, width=120)) as screen:
            screen.show(message())
            logging.getLogger("x").error("for the file")
    finally:
        logging.getLogger().removeHandler(handler)
    assert errors.getvalue() == "for the file\n"


def test_a_line_names_the_models_that_serve() -> None:
    health = message()
    health.models[0].name = "road"
    health.models.add(slot="faces", name="face", version="2.0.0")
    assert "model=road-1.1.0,face-2.0.0 " in health_line(health)
