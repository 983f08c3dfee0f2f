"""`syncline keys`, `syncline collect` and the word to the service manager."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from syncline.cli import main
from syncline.systemd import notify, watchdog_interval_s

from .rig import wait


def test_keys_from_making_to_revoking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, data = tmp_path / "keys", tmp_path / "data"
    assert main(["keys", "new", "car1", "--out", str(keys)]) == 0
    assert main(["keys", "enrol", str(keys / "car1.pub"), "--data", str(data)]) == 0
    assert main(["keys", "revoke", "car1", "--data", str(data)]) == 0
    capsys.readouterr()
    assert main(["keys", "list", "--data", str(data), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["revoked"]) == ("car1", True)
    assert main(["keys", "list", "--data", str(data)]) == 0
    assert "revoked" in capsys.readouterr().out
    assert main(["keys", "signing", "models", "--out", str(keys)]) == 0
    assert (keys / "models.sign.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["keys", "new", "Not A Name"], 2, "device name"),
        (["keys", "enrol", "/nowhere/car.pub", "--data", "DATA"], 2, "cannot read key file"),
        (["keys", "revoke", "nobody", "--data", "DATA"], 3, "not enrolled"),
        (["collect", "--data", "DATA", "--listen", "tcp://1.2.3.4:1"], 6, "cannot listen"),
        (["collect", "--data", "/proc/none"], 5, ""),
        (["collect", "--data", "DATA", "--config", "/nowhere.toml"], 2, "cannot read"),
    ],
)
def test_errors_are_one_line_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, word: str
) -> None:
    filled = [str(tmp_path) if a == "DATA" else a for a in args]
    assert main(filled) == code
    err = capsys.readouterr().err
    assert err.startswith("syncline: ")
    assert err.count("\n") == 1
    assert word in err


def test_a_wrong_configuration_key_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text("budget_gb = 1\n")
    assert main(["collect", "--data", str(tmp_path), "--config", str(config)]) == 2
    assert "budget_gb" in capsys.readouterr().err


def test_collect_tells_the_service_manager_and_ends_on_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)
        args = ["collect", "--data", str(tmp_path / "data"), "--listen", "tcp://127.0.0.1:0"]
        code = f"import sys, syncline.cli; sys.exit(syncline.cli.main({args}))"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": str(path)},
        )
        assert manager.recv(100) == b"READY=1"
        wait((tmp_path / "data" / "health.json").exists, 10)
        assert b"WATCHDOG=1" in manager.recv(200)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
        words: list[bytes] = []
        while not words or words[-1] != b"STOPPING=1":
            words.append(manager.recv(200))
    assert process.returncode == 0
    assert "listening on tcp://127.0.0.1:" in out
    assert "public key " in out


def test_no_service_manager_is_fine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify("READY=1")
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    assert watchdog_interval_s() == 1.0
    monkeypatch.setenv("WATCHDOG_USEC", "junk")
    assert watchdog_interval_s() is None
