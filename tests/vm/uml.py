"""Boots a User-Mode Linux kernel on the host's own root file system and runs one program in it.

The kernel is an ordinary program of an ordinary user: no rights, no image, no network. The host's
files are its root through hostfs, mounted read-only, so that this checkout and its environment run
inside unchanged; one folder of the test is shared for writing. The guest has clocks, PPS, CAN and
file systems of its own, which tests may set, break and fill.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
GUEST = Path(__file__).with_name("guest.py")

PACKAGE = "user-mode-linux"
MEMORY_MB = 512


def kernel() -> Path | None:
    """The User-Mode Linux kernel, where it is installed."""
    found = shutil.which("linux.uml")
    return Path(found) if found and Path("/usr/lib/uml/modules").is_dir() else None


class GuestError(AssertionError):
    """The program inside failed, or the machine gave no answer."""


class NoMachineError(RuntimeError):
    """The host does not let the kernel run: no ptrace, no executable shared memory."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run left behind.

    Attributes:
        figures: What the program returned.
        output: What it printed.
        folder: The shared folder, for files it left.
    """

    figures: Mapping[str, Any]
    output: str
    folder: Path


@dataclass
class Machine:
    """One running machine; leaving the context cuts its power.

    Attributes:
        folder: Shared folder.
        program: Module that runs inside.
        arguments: Its arguments.
        disks: Raw images that become /dev/ubda, ubdb...
    """

    folder: Path
    program: str
    arguments: Sequence[str] = ()
    disks: Sequence[Path] = ()
    memory_mb: int = MEMORY_MB
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def command(self) -> list[str]:
        """The kernel's command line."""
        disks = [f"ubd{chr(ord('a') + n)}={path}" for n, path in enumerate(self.disks)]
        return [
            str(kernel()),
            f"mem={self.memory_mb}M",
            f"uml_dir={self.folder}/uml",
            "umid=lab",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "con=null",
            "con0=null,fd:1",
            "panic=-1",
            *disks,
            f"init={sys.executable}",
            "--",
            "-B",
            str(GUEST),
            str(ROOT),
            str(self.folder),
            self.program,
            *self.arguments,
            "end",
        ]

    def __enter__(self) -> Machine:
        """Power on."""
        (self.folder / "uml").mkdir(exist_ok=True)
        with (self.folder / "console.txt").open("wb") as console:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "HOME": str(self.folder)},
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Power off, whatever is running."""
        self.cut()

    def cut(self) -> None:
        """Pull the plug: every process of the machine is killed at once."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)

    def wake(self) -> None:
        """What wakes a suspended machine: User-Mode Linux takes SIGUSR1 for it."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGUSR1)

    def answer(self, timeout_s: float) -> Answer:
        """Wait for the end and read what the program left.

        Raises:
            GuestError: No answer in time, or a fault inside.
        """
        assert self._process is not None
        return read_answer(self._process, self.folder, timeout_s)


def read_answer(process: subprocess.Popen[bytes], folder: Path, timeout_s: float) -> Answer:
    """Wait for a machine's end and read what its program left.

    Raises:
        GuestError: No answer in time, or a fault inside.
        NoMachineError: The kernel did not come as far as its first process.
    """
    try:
        process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise GuestError(f"no end within {timeout_s} s\n{_told(folder)}") from None
    result = folder / "result.json"
    if not result.exists():
        console = _read(folder / "console.txt")
        if "as init process" not in console:
            raise NoMachineError(console.strip().rpartition("\n")[2] or "it ended at once")
        raise GuestError(f"no answer\n{_told(folder)}")
    figures = json.loads(result.read_text(encoding="utf-8"))
    if "fault" in figures:
        raise GuestError(f"{figures['fault']}\n{_told(folder)}")
    return Answer(figures, _read(folder / "output.txt"), folder)


def _told(folder: Path) -> str:
    output, console = (_read(folder / name) for name in ("output.txt", "console.txt"))
    return f"{output[-4000:]}\nconsole:\n{console[-2000:]}"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def run(folder: Path, program: str, *arguments: str, timeout_s: float = 100.0) -> Answer:
    """Boot, run, end; the answer."""
    with Machine(folder, program, arguments) as machine:
        return machine.answer(timeout_s)
