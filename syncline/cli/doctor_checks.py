"""The checks of `syncline doctor`; each looks at one part of the machine and changes nothing."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from syncline.errors import ClockError, SynclineError
from syncline.timebase import Clock, PairedRead, paired_read

if TYPE_CHECKING:
    from syncline.cli.doctor_plugins import Plugin

REQUIRED = (
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "av",
    "pyzmq",
    "msgspec",
    "protobuf",
    "foxglove-sdk",
    "zstandard",
)
OPTIONAL = {
    "linuxpy": ("sensors", "V4L2 cameras"),
    "rosbags": ("sensors", "ROS 2 bags"),
    "asammdf": ("sensors", "MF4 bus logs"),
    "cantools": ("sensors", "CAN signals"),
    "SQLAlchemy": ("cloud", "the collector"),
    "obstore": ("cloud", "the collector's objects"),
    "torch": ("train", "training"),
    "rerun-sdk": ("view", "conversion for Rerun"),
}
LEAST_FREE_BYTES = 2 << 30
WIDE_BRACKET_NS = 20_000
LEAST_TAI_S = 10
"""TAI was ahead of UTC by 10 s in 1972 and has only gained since."""
_ARPHRD_CAN = 280
_TIMEOUT_S = 1.0
_DEFAULT_STAMP = "end of readout on CLOCK_MONOTONIC, unless a buffer's flags say start of exposure"
_STAMPS = {
    "uvcvideo": "start of exposure on CLOCK_MONOTONIC, fitted from the camera's own clock",
    "vivid": "end of readout on CLOCK_MONOTONIC (a virtual camera)",
    "v4l2loopback": "whatever the writing program gave; not a camera's time",
}

State = Literal["ok", "note", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        area: Heading.
        what: The thing that was looked at.
        state: `ok`; `note`: absent but nobody said that it is needed; `warn`; `fail`: syncline
            cannot work.
        detail: What was found.
        remedy: What to do about it.
    """

    area: str
    what: str
    state: State
    detail: str
    remedy: str = ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpsd_banner() -> str:
    with socket.create_connection(("127.0.0.1", 2947), timeout=_TIMEOUT_S) as link:
        return link.recv(256).decode("ascii", "replace")


def _chrony_tracking() -> str:
    command = ("chronyc", "-c", "-n", "tracking")
    done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=True)
    return done.stdout[:4096].decode("ascii", "replace")


def _providers() -> tuple[str, ...]:
    from syncline.edge.session import available_providers

    return available_providers()


def _plugins() -> list[Plugin]:
    from syncline.cli.doctor_plugins import installed_plugins

    return installed_plugins()


@dataclass(frozen=True)
class Machine:
    """How the checks see the machine; tests give a folder and functions of their own.

    Attributes:
        data: Folder for recordings.
        root: Root of the file system that holds `dev`, `sys` and `proc`.
        version: Version of an installed distribution.
        pair: Reads a clock against RAW.
        gpsd: The first bytes gpsd says.
        chrony: What chronyc says.
        providers: Execution providers of the runtime.
        plugins: Packages that bring an execution provider as a library.
    """

    data: Path
    root: Path = Path("/")
    version: Callable[[str], str | None] = field(default=_version)
    pair: Callable[[Clock], PairedRead] = field(default=paired_read)
    gpsd: Callable[[], str] = field(default=_gpsd_banner)
    chrony: Callable[[], str] = field(default=_chrony_tracking)
    providers: Callable[[], tuple[str, ...]] = field(default=_providers)
    plugins: Callable[[], list[Plugin]] = field(default=_plugins)

    def nodes(self, pattern: str) -> list[Path]:
        """Device nodes by name, in order of their number."""
        found = (self.root / "dev").glob(pattern)
        return sorted(found, key=lambda p: (len(p.name), p.name))

    def text(self, path: str) -> str:
        """A small file of `sys` or `proc`; empty when it is not there."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""


def examine(machine: Machine) -> list[Finding]:
    """All findings, grouped by area."""
    from syncline.cli.doctor_sensors import inertial, receivers

    checks = (
        packages,
        runtime,
        cameras,
        inertial,
        receivers,
        buses,
        clocks,
        references,
        storage,
        models,
    )
    return [finding for check in checks for finding in check(machine)]


def packages(machine: Machine) -> Iterator[Finding]:
    """Python, what syncline needs, and the extras."""
    area, python = "software", platform.python_version()
    yield Finding(area, "python", "ok", f"{python} on {platform.machine()}")
    missing = [name for name in REQUIRED if machine.version(name) is None]
    present = f"{len(REQUIRED) - len(missing)} of {len(REQUIRED)} installed"
    if missing:
        remedy = "pip install syncline"
        yield Finding(area, "packages", "fail", f"{present}; no {', '.join(missing)}", remedy)
    else:
        yield Finding(area, "packages", "ok", present)
    for name, (extra, purpose) in OPTIONAL.items():
        version = machine.version(name)
        if version is None:
            remedy = f"pip install 'syncline[{extra}]'"
            yield Finding(area, name, "note", f"not installed; needed for {purpose}", remedy)
        else:
            yield Finding(area, name, "ok", f"{version}, {purpose}")


def runtime(machine: Machine) -> Iterator[Finding]:
    """What runs models, and how well this processor runs int8."""
    from syncline.edge.providers import Host

    area = "models run on"
    try:
        names = machine.providers()
        yield Finding(area, "onnxruntime", "ok", ", ".join(names))
    except (SynclineError, ImportError) as error:
        remedy = "pip install --force-reinstall onnxruntime"
        yield Finding(area, "onnxruntime", "fail", str(error), remedy)
    yield from _plugged(machine, area)
    host = Host.this(machine.root / "proc" / "cpuinfo")
    if "x86-64-vnni" in host.device_classes():
        yield Finding(area, "processor", "ok", "has VNNI: int8 builds run fast and exactly")
    elif host.machine in ("x86_64", "AMD64"):
        detail = "no VNNI: builds for `x86-64-vnni` are refused"
        remedy = "quantise with --target x86-64, or use the float build"
        yield Finding(area, "processor", "note", detail, remedy)
    else:
        yield Finding(area, "processor", "ok", host.machine)


def _plugged(machine: Machine, area: str) -> Iterator[Finding]:
    """Providers that come as libraries, and how to name them in edge.toml."""
    for plugin in machine.plugins():
        tried, what = plugin.tried, f"{plugin.name} {plugin.version}"
        if tried.problem:
            detail = f"{tried.provider or 'plug-in'}: {tried.problem}"
            yield Finding(area, what, "note", detail, tried.remedy)
            continue
        detail = f"{tried.provider} on {', '.join(tried.devices)}"
        remedy = f'to use it: [model] plugins = {{ {tried.provider} = "{tried.library}" }}'
        yield Finding(area, what, "ok", detail, remedy)


def cameras(machine: Machine) -> Iterator[Finding]:
    """Capture nodes and what the driver's stamp means."""
    area, nodes = "cameras", machine.nodes("video[0-9]*")
    if not nodes:
        detail = "no /dev/video*"
        remedy = "plug a camera in, or declare a video, folder or synthetic camera"
        yield Finding(area, "v4l2", "note", detail, remedy)
    for node in nodes:
        base = f"sys/class/video4linux/{node.name}"
        name = machine.text(f"{base}/name") or "unnamed"
        driver = (machine.root / base / "device" / "driver").resolve().name
        meaning = _STAMPS.get(driver, _DEFAULT_STAMP)
        if os.access(node, os.R_OK | os.W_OK):
            yield Finding(area, f"/dev/{node.name}", "ok", f"{name} ({driver}); stamp: {meaning}")
        else:
            remedy = "sudo usermod -aG video $USER, then log in again"
            yield Finding(area, f"/dev/{node.name}", "warn", f"{name}: not ours to open", remedy)


def clocks(machine: Machine) -> Iterator[Finding]:
    """How closely the kernel's clocks can be read against each other."""
    area, real_s = "clocks", math.nan
    source = machine.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
    for clock in (Clock.MONOTONIC, Clock.BOOTTIME, Clock.REALTIME, Clock.TAI):
        try:
            pair = machine.pair(clock)
        except (ClockError, OSError) as error:
            yield Finding(
                area, clock.name, "fail", str(error), "use a Linux kernel with this clock"
            )
            continue
        ahead_s = (pair.other_ns - pair.raw_ns) / 1e9
        if clock is Clock.REALTIME:
            real_s = ahead_s
        detail = f"{ahead_s:+.6f} s from RAW, read within {pair.bracket_ns} ns"
        if pair.bracket_ns > WIDE_BRACKET_NS:
            remedy = f"clock source is {source or 'unknown'}; prefer tsc or arch_sys_counter"
            yield Finding(area, clock.name, "warn", detail, remedy)
        elif clock is Clock.TAI and abs(ahead_s - real_s) < LEAST_TAI_S / 2:
            detail += "; it equals REALTIME: nobody told the kernel the offset of TAI"
            remedy = "set `leapsectz right/UTC` in chrony.conf, or let ptp4l and phc2sys set it"
            yield Finding(area, clock.name, "note", detail, remedy)
        else:
            yield Finding(area, clock.name, "ok", detail)
    if source:
        yield Finding(area, "clock source", "ok", source)


def references(machine: Machine) -> Iterator[Finding]:
    """What could tell UTC: pulses, hardware clocks, gpsd, chrony."""
    area = "time references"
    for pattern, what, remedy in (
        ("pps[0-9]*", "pulse per second", "wire a receiver's PPS, or set the pps-gpio overlay"),
        ("ptp[0-9]*", "PTP hardware clock", "use a network card with hardware time stamps"),
    ):
        nodes = machine.nodes(pattern)
        if not nodes:
            yield Finding(area, what, "note", "none", remedy)
        for node in nodes:
            allowed = os.access(node, os.R_OK)
            state: State = "ok" if allowed else "warn"
            fix = "" if allowed else f"let this user read /dev/{node.name} (udev rule)"
            yield Finding(area, f"/dev/{node.name}", state, what, fix)
    yield _asked(area, "gpsd", machine.gpsd, '"VERSION"', "start gpsd if a receiver is attached")
    yield _asked(
        area, "chrony", machine.chrony, ",", "start chronyd, or let syncline ask NTP itself"
    )


def _asked(area: str, what: str, ask: Callable[[], str], expected: str, remedy: str) -> Finding:
    try:
        answer = ask()
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return Finding(area, what, "note", f"does not answer ({reason})", remedy)
    if expected not in answer:
        return Finding(area, what, "warn", f"answers with {answer[:60]!r}", remedy)
    return Finding(area, what, "ok", "answers")


def buses(machine: Machine) -> Iterator[Finding]:
    """CAN interfaces."""
    area, found = "CAN", False
    for path in sorted((machine.root / "sys" / "class" / "net").glob("*")):
        name = path.name
        if machine.text(f"sys/class/net/{name}/type") != str(_ARPHRD_CAN):
            continue
        found = True
        state = machine.text(f"sys/class/net/{name}/operstate") or "unknown"
        if state == "down":
            remedy = f"ip link set {name} up type can bitrate 500000"
            yield Finding(area, name, "warn", "is down", remedy)
        else:
            yield Finding(area, name, "ok", f"{state}; stamp: reception, by the kernel, REALTIME")
    if not found:
        yield Finding(area, "interfaces", "note", "none")


def storage(machine: Machine) -> Iterator[Finding]:
    """Room for recordings."""
    folder = machine.data.resolve()
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    detail = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB"
    if not os.access(folder, os.W_OK):
        yield Finding("disk", str(folder), "warn", "not ours to write", "choose another --data")
    elif usage.free < LEAST_FREE_BYTES:
        yield Finding("disk", str(folder), "warn", detail, "free some, or lower record.quota_mb")
    else:
        yield Finding("disk", str(folder), "ok", detail)


def models(_machine: Machine) -> Iterator[Finding]:
    """Bundles that come with syncline."""
    from syncline.edge.shipped import shipped_bundles

    names = shipped_bundles()
    if names:
        yield Finding("model bundles", "shipped", "ok", ", ".join(names))
    else:
        remedy = "install from a wheel, or give --model a bundle"
        yield Finding("model bundles", "shipped", "warn", "none", remedy)
