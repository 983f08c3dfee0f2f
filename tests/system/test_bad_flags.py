"""Flags and values that cannot be meant: one line on stderr, the remedy, exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline import cli
from syncline.cli import main
from syncline.errors import UsageError
from syncline.link import check_endpoint
from syncline.sync.status import StatusReport, write_status
from syncline.timebase import NS_PER_S, OsClock

from .test_bad_input import handlers_kept
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


LISTENS = (
    "tcp://127.0.0.1:99999",
    "tcp://127.0.0.1",
    "127.0.0.1:5555",
    "tcp://:5",
    "udp://a:5",
    "",
)


@pytest.mark.parametrize("listen", LISTENS)
def test_addresses_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listen: str
) -> None:
    """ZeroMQ would listen on port 99999 modulo 65536."""
    with handlers_kept():
        code, line = refused(capsys, "collect", "--data", tmp_path / "d", f"--listen={listen}")
    assert code == 2
    assert repr(listen) in line


@pytest.mark.parametrize(
    "listen", ["tcp://*:5555", "tcp://[::1]:5555", "tcp://collector.lan:65535"]
)
def test_addresses_that_are_some(listen: str) -> None:
    assert check_endpoint(listen) == listen
    assert check_endpoint("tcp://127.0.0.1:0", listen=True)
    with pytest.raises(UsageError, match="a port is 1 to 65535"):
        check_endpoint("tcp://127.0.0.1:0")


@pytest.mark.parametrize(
    ("boot", "age_s", "code", "told"),
    [
        ("", 1, 0, ""),
        ("", 60, 7, "written 60 s ago"),
        ("another", 1, 7, "written in another boot"),
    ],
)
def test_the_status_of_a_dead_time_service_is_shown_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], boot: str, age_s: int, code: int, told: str
) -> None:
    clock = OsClock()
    report = StatusReport(
        boot or clock.boot_id, clock.raw_ns() - age_s * NS_PER_S, "SYNCED", "clear", "", 1,
        1_790_000_000 * NS_PER_S, 1e3, 10_000, 0.0, 0.0, 0, "none", 0, 0, "none",
    )  # fmt: skip
    write_status(tmp_path / "s.json", report)
    for arguments in ([], ["--json"]):
        assert main(["time", "status", "--status", str(tmp_path / "s.json"), *arguments]) == code
        shown = capsys.readouterr()
        assert "SYNCED" in shown.out
        assert told in shown.err
        assert bool(shown.err) == bool(code)
