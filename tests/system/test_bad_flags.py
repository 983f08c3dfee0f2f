"""Flags and values that cannot be meant: one line on stderr, the remedy, exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline import cli
from syncline.cli import main

from .test_bad_output import refused

NUMBERS = ("nan", "inf", "-1", "0", "1e-300", "fast")


@pytest.mark.parametrize(
    ("arguments", "named", "remedy"),
    [
        (["replay"], "--recording", "syncline replay --help"),
        (["replay", "x", "--form", "2"], "--from", "syncline replay --help"),
        (["replay", "x", "--from", "two"], '"two"', "syncline replay --help"),
        (["replay", "x", "y", "z"], "'y', 'z'", "syncline replay --help"),
        (["log", "convert", "a", "b", "--to", "avi"], '"avi"', "syncline log convert --help"),
        (["log", "bogus"], '"bogus"', "syncline log --help"),
        (["bogus"], '"bogus"', "syncline --help"),
    ],
)
def test_what_the_parser_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str, remedy: str
) -> None:
    code, line = refused(capsys, *arguments)
    assert code == 2
    assert named in line
    assert line.endswith(f". See: {remedy}")


@pytest.mark.parametrize("rate", NUMBERS)
def test_rates_that_are_none(capsys: pytest.CaptureFixture[str], rate: str) -> None:
    code, line = refused(capsys, "replay", "x", f"--rate={rate}")
    assert (code, "is no rate" in line) == (2, True)


@pytest.mark.parametrize("threads", [-1, 0, 65, 9999])
def test_threads_are_bounded_as_in_the_configuration(
    capsys: pytest.CaptureFixture[str], threads: int
) -> None:
    code, line = refused(capsys, "replay", "x", f"--threads={threads}")
    assert code == 2
    assert "Give 1 to 64" in line


@pytest.mark.parametrize("flag", ["--from", "--to"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_times_that_are_none(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    code, line = refused(capsys, "replay", "x", f"{flag}={value}")
    assert code == 2
    assert f"{flag} {value}" in line


def test_a_range_past_the_end_tells_where_the_end_is(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = refused(capsys, "replay", clip, "--from", "3600")
    assert code == 2
    assert "the last one lies at 1.950 s" in line
    assert "None" not in line


def test_the_secret_half_of_a_key_is_not_enrolled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "new", "car-1", "--out", str(tmp_path / "k")]) == 0
    capsys.readouterr()
    data = ("--data", tmp_path / "cloud")
    code, line = refused(capsys, "keys", "enrol", tmp_path / "k" / "car-1.key", *data)
    assert code == 2
    assert line.endswith(f"Give the public half: {tmp_path}/k/car-1.pub")
    assert not (tmp_path / "cloud").exists()


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".", "..", ".hidden", "a b", "x" * 129])
def test_names_of_datasets_are_plain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, line = refused(capsys, "dataset", "create", name, "--data", tmp_path)
    assert code == 2
    assert f"{name!r} is no name of a dataset" in line


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied. Choose"),
        (OSError(28, "No space left on device"), "No space left on device. Free space"),
        (OSError("odd"), "odd. Look at the disk"),
    ],
)
def test_what_the_system_refuses_unforeseen_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    """The net under all commands."""

    def build() -> object:
        def run(*_arguments: object, **_options: object) -> None:
            raise error

        return run

    monkeypatch.setattr(cli, "build_app", build)
    code, line = refused(capsys, "doctor")
    assert code == 5
    assert line.startswith(f"syncline: {told}")
