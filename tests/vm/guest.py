"""First process of a test machine: makes a usable system, runs one program, powers off.

Started by the kernel itself, in place of an init, with the host's root file system read-only:

    python guest.py REPOSITORY EXCHANGE MODULE [ARGUMENT...] end

`MODULE` is a module under the repository with `main(arguments) -> dict`. Its answer is written to
`EXCHANGE/result.json`, what it prints to `EXCHANGE/output.txt`; a fault becomes `{"fault": text}`.
Only the standard library, because it also runs before anything is mounted.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import importlib
import json
import os
import socket
import struct
import sys
import traceback
from pathlib import Path

POWER_OFF = 0x4321FEDC
FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
UML_MODULES = "/usr/lib/uml/modules"
EXCHANGE = Path("/run/exchange")
SCRATCH = Path("/run/scratch")
_READ_ONLY, _NO_SUID = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """The C library's answer, or the error it left behind."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: Path, kind: str, options: str = "", flags: int = 0) -> None:
    """mount(2)."""
    data = options.encode() or None
    at = os.fsencode(target)
    check(_libc.mount(source.encode(), at, kind.encode(), flags, data), f"mount {kind} {target}")


def load_module(name: str, parameters: str = "") -> None:
    """Load a kernel module and what it depends on; one that is there already is fine.

    Raises:
        FileNotFoundError: The kernel has no such module.
    """
    folder = _module_folder()
    table = _dependencies(folder)
    wanted = name.replace("-", "_")
    path = next((p for p in table if _module_name(p) == wanted), None)
    if path is None:
        raise FileNotFoundError(f"{folder}: no module {name}")
    for needed in reversed(table[path]):
        _insert(folder / needed, "")
    _insert(folder / path, parameters)


def _module_folder() -> Path:
    # A word of the kernel's command line that is not the kernel's becomes its init's environment.
    return Path(os.environ.get("LAB_MODULES", UML_MODULES), os.uname().release)


def _dependencies(folder: Path) -> dict[str, list[str]]:
    """Module path -> paths it needs, the nearest first (modules.dep(5))."""
    lines = (folder / "modules.dep").read_text(encoding="ascii").splitlines()
    return {path: rest.split() for path, _, rest in (line.partition(":") for line in lines)}


def _module_name(path: str) -> str:
    return Path(path).name.split(".")[0].replace("-", "_")


def _insert(path: Path, parameters: str) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    number = FINIT_MODULE[os.uname().machine]
    try:
        check(_libc.syscall(number, file, parameters.encode(), 0), f"load {path.name}")
    except FileExistsError:
        return
    finally:
        os.close(file)


def raise_interface(name: str) -> None:
    """SIOCSIFFLAGS: up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        request = struct.pack("16sh14x", name.encode(), 0x41)
        fcntl.ioctl(asked, 0x8914, request)


def set_up() -> None:
    """What every program may expect: /proc, /sys, /dev, writable /run, the loopback interface."""
    mount("proc", Path("/proc"), "proc")
    mount("sysfs", Path("/sys"), "sysfs")
    if not os.path.ismount("/dev"):
        mount("devtmpfs", Path("/dev"), "devtmpfs")
    if not os.path.ismount("/run"):
        mount("tmpfs", Path("/run"), "tmpfs", "mode=755")
    shared_memory = Path("/dev/shm")
    shared_memory.mkdir(exist_ok=True)
    mount("tmpfs", shared_memory, "tmpfs")
    SCRATCH.mkdir(exist_ok=True)
    EXCHANGE.mkdir(exist_ok=True)
    Path("/proc/sys/vm/overcommit_memory").write_text("1", encoding="ascii")
    os.environ.update(TMPDIR=str(SCRATCH), HOME=str(SCRATCH), PATH="/usr/sbin:/usr/bin:/sbin:/bin")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise_interface("lo")


def share(exchange: str) -> None:
    """The folder that host and guest both write: hostfs under UML; QEMU's start mounts its own."""
    if not os.path.ismount(EXCHANGE):
        mount("none", EXCHANGE, "hostfs", exchange)


def answer(module: str, arguments: list[str]) -> dict[str, object]:
    """The program's answer, or its fault."""
    try:
        found: dict[str, object] = importlib.import_module(module).main(arguments)
        return found
    except BaseException:  # the machine ends here, so everything must be told
        return {"fault": traceback.format_exc()}


def main(repository: str, exchange: str, module: str, *arguments: str) -> None:
    """Set up, run, answer."""
    set_up()
    share(exchange)
    output = os.open(EXCHANGE / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    os.chdir(repository)
    sys.path.insert(0, repository)
    found = answer(module, list(arguments))
    part = EXCHANGE / "result.part"
    part.write_text(json.dumps(found), encoding="utf-8")
    part.rename(EXCHANGE / "result.json")


if __name__ == "__main__":
    try:
        # User-Mode Linux adds words of its own behind ours.
        main(*sys.argv[1 : sys.argv.index("end")])
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os.sync()
    _libc.reboot(POWER_OFF)
