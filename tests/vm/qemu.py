"""Boots Debian's full kernel under QEMU on the host's own root file system and runs one program.

For devices that User-Mode Linux lacks: a virtual camera, a PTP clock, a real-time clock, suspend.
Without KVM on purpose (a /dev/kvm may be there and not boot a stock kernel); the processor is
emulated, which is some twenty times slower. Files of the host are read-only through 9p. The kernel
and its modules come from `scripts/vm-packages`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.vm.uml import GUEST, ROOT, Answer, GuestError, read_answer

PROGRAM = "qemu-system-x86_64"
MEMORY_MB = 768
FIRST_MODULES = ("virtio_pci", "9pnet_virtio", "9p")
_DEPENDS = re.compile(rb"\0depends=([a-z0-9_,-]*)\0")

_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
while read module; do $b insmod /modules/$module; done </modules/order
share() { $b mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,$3 $1 $2; }
share root /root ro,cache=loose
$b mount -t tmpfs -o mode=755 run /root/run
$b mkdir /root/run/exchange
share exchange /root/run/exchange cache=none
for at in proc sys dev; do $b umount /$at; done
echo "the host's files, with Python as init process"
exec $b switch_root /root @PYTHON@ -B @GUEST@ @ROOT@ @FOLDER@ @PROGRAM@ end
echo "no switch to the host's files"
$b poweroff -f
"""


def lab_folder() -> Path:
    """Where `scripts/vm-packages` puts the kernel."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("SYNCLINE_VM") or Path(cache, "syncline", "vm"))


def missing() -> str:
    """What is not here; empty when machines can be started."""
    if shutil.which(PROGRAM) is None:
        return f"no {PROGRAM} here: run scripts/vm-packages"
    if not (lab_folder() / "vmlinuz").exists():
        return f"no kernel in {lab_folder()}: run scripts/vm-packages"
    return ""


def module_table(folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """Name of each module -> its file and the names of those it needs (its own .modinfo)."""
    table = {}
    for path in sorted(folder.rglob("*.ko")):
        found = _DEPENDS.search(path.read_bytes())
        needs = found.group(1).decode().split(",") if found else []
        table[_name(path.stem)] = path, [_name(n) for n in needs if n]
    return table


def _name(text: str) -> str:
    return text.replace("-", "_")


def ordered(table: dict[str, tuple[Path, list[str]]], names: Iterable[str]) -> list[Path]:
    """Files in the order in which they can be loaded; what is built in has no file."""
    found: list[Path] = []

    def add(name: str) -> None:
        path, needs = table.get(_name(name), (None, []))
        for need in needs:
            add(need)
        if path is not None and path not in found:
            found.append(path)

    for name in names:
        add(name)
    return found


def write_dependencies(folder: Path) -> None:
    """The modules.dep that `tests.vm.guest` reads, once for a fetched kernel."""
    target = folder / "modules.dep"
    if target.exists():
        return
    table = module_table(folder)
    lines = []
    for name, (path, _) in table.items():
        needs = [p for p in ordered(table, [name]) if p != path]
        paths = [str(p.relative_to(folder)) for p in reversed(needs)]
        lines.append(f"{path.relative_to(folder)}: {' '.join(paths)}\n")
    target.write_text("".join(lines), encoding="ascii")


def archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A newc cpio archive: name -> (mode, content)."""
    parts = []
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))]):
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08x" % value for value in fields) + name.encode() + b"\0"
        parts += [_padded(head), _padded(data)]
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


@dataclass
class Machine:
    """One running machine; leaving the context cuts its power.

    Attributes:
        folder: Shared folder.
        program: Module that runs inside.
        arguments: Its arguments.
        devices: Further QEMU arguments.
        rtc: The `-rtc` argument.
    """

    folder: Path
    program: str
    arguments: Sequence[str] = ()
    devices: Sequence[str] = ()
    rtc: str = "base=utc"
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def initramfs(self) -> bytes:
        """BusyBox, the modules of the host's file system, and a script that switches to it."""
        (folder,) = (lab_folder() / "modules").iterdir()
        write_dependencies(folder)
        modules = ordered(module_table(folder), FIRST_MODULES)
        words = {
            "PYTHON": sys.executable, "GUEST": str(GUEST), "ROOT": str(ROOT),
            "FOLDER": str(self.folder), "PROGRAM": " ".join([self.program, *self.arguments]),
        }  # fmt: skip
        script = re.sub(r"@(\w+)@", lambda found: words[found.group(1)], _INIT)
        files = dict.fromkeys(("bin", "modules", "proc", "sys", "dev", "root"), (16877, b""))
        files["bin/busybox"] = 0o100755, (lab_folder() / "busybox").read_bytes()
        files["init"] = 0o100755, script.encode()
        files["modules/order"] = 0o100644, "".join(f"{p.name}\n" for p in modules).encode()
        files |= {f"modules/{p.name}": (0o100644, p.read_bytes()) for p in modules}
        return archive(files)

    def command(self) -> list[str]:
        """QEMU's command line."""
        (folder,) = (lab_folder() / "modules").iterdir()
        words = f"console=ttyS0 quiet panic=-1 net.ifnames=0 LAB_MODULES={folder.parent}"
        return [
            PROGRAM, "-machine", "pc,accel=tcg", "-cpu", "max", "-smp", "1", "-m", str(MEMORY_MB),
            "-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
            "-rtc", self.rtc,
            "-kernel", str(lab_folder() / "vmlinuz"), "-initrd", str(self.folder / "initrd"),
            "-append", words,
            "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
            "-fsdev", f"local,id=exchange,path={self.folder},security_model=none",
            "-device", "virtio-9p-pci,fsdev=exchange,mount_tag=exchange",
            "-device", "virtio-rng-pci", *self.devices,
        ]  # fmt: skip

    def __enter__(self) -> Machine:
        """Power on."""
        (self.folder / "initrd").write_bytes(self.initramfs())
        with (self.folder / "console.txt").open("wb") as console:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=console,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Power off, whatever is running."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)

    def line(self, start: str, timeout_s: float) -> str:
        """What follows `start` on the serial line, for programs that lose the host's files.

        Raises:
            GuestError: No such line in time.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            text = (self.folder / "console.txt").read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                if line.startswith(start) and text.endswith("\n"):
                    return line.removeprefix(start)
            time.sleep(0.2)
        raise GuestError(f"no line {start!r} within {timeout_s} s\n{text[-2000:]}")

    def answer(self, timeout_s: float) -> Answer:
        """Wait for the end and read what the program left.

        Raises:
            GuestError: No answer in time, or a fault inside.
        """
        assert self._process is not None
        return read_answer(self._process, self.folder, timeout_s)


def run(
    folder: Path,
    program: str,
    *arguments: str,
    devices: Sequence[str] = (),
    rtc: str = "base=utc",
    timeout_s: float = 200.0,
) -> Answer:
    """Boot, run, end; the answer."""
    with Machine(folder, program, arguments, devices, rtc) as machine:
        return machine.answer(timeout_s)


__all__ = ["GuestError", "Machine", "lab_folder", "missing", "run"]
