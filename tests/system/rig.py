"""Real processes for system tests: collectors and daemons with their own folders and keys."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "syncline")
# A second of CPU here is worth several on a busy machine.
PATIENCE_S = 60.0


def syncline(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *(str(a) for a in arguments)], capture_output=True, text=True, timeout=110
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(what: str, test: Any, patience_s: float = PATIENCE_S) -> Any:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        found = test()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {patience_s} s")


class Process:
    """A syncline command in the background; its lines go to a file."""

    def __init__(self, log: Path, *arguments: object) -> None:
        self.log = log
        self._file = log.open("ab")
        self.popen = subprocess.Popen(
            [*COMMAND, *(str(a) for a in arguments)],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        """What went wrong, without the health messages."""
        rows = [row for row in self.text().splitlines() if not row.startswith("{")]
        return "\n".join(rows)[-3000:]

    def lines(self) -> list[dict[str, Any]]:
        rows = []
        for line in self.text().splitlines():
            if line.startswith("{") and line.endswith("}"):
                rows.append(json.loads(line))
        return rows

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._file.close()

    def stop(self, patience_s: float = PATIENCE_S) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        code = self.popen.wait(timeout=patience_s)
        self._file.close()
        return code


class Site:
    """A collector's folder, a device's folder, and keys for both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cloud = folder / "cloud"
        self.keys = folder / "keys"
        self.port = free_port()
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        syncline("keys", "new", "server", "--out", self.keys)
        syncline("keys", "new", "car-1", "--out", self.keys)
        syncline("keys", "enrol", self.keys / "car-1.pub", "--data", self.cloud)

    def collect(self) -> Process:
        process = Process(
            self.folder / "collect.log",
            "collect",
            f"--data={self.cloud}",
            f"--keys={self.keys}",
            f"--listen={self.endpoint}",
        )
        wait_for("the collector listens", lambda: "listening" in process.text())
        return process

    def edge(self, config: Path) -> Process:
        return Process(self.folder / "edge.log", "run", "--config", config, "--json")

    def config(self, clip: Path, *, extra: str = "", bundle: str, model: str = "") -> Path:
        path = self.folder / "edge.toml"
        path.write_text(
            f"""
[device]
name = "car-1"
data = "{self.folder / "device"}"
[[camera]]
name = "front"
kind = "video"
path = "{clip}"
loop = true
[model]
bundle = "{bundle}"
{model}
[link]
endpoint = "{self.endpoint}"
server_key = "{self.keys / "server.pub"}"
key = "{self.keys / "car-1.key"}"
drain_s = 20.0
[health]
interval_s = 0.5
[time]
page = ""
status = ""
{extra}
"""
        )
        return path
