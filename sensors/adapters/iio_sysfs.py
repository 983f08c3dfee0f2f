"""The settings of an industrial-I/O device in sysfs: found, read, set, given back."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from syncline.errors import DeviceError, PermissionDeniedError
from syncline.sensors.adapters.iio_scan import Element, ScanLayout, ScanType
from syncline.timebase import NS_PER_S, Clock

MAX_TEXT = 4096
BUFFER_SCANS = 256
"""Scans that the kernel keeps while nobody reads: over a second at 200 Hz."""
KINDS = ("anglvel", "accel")
_CLOCKS = {
    "monotonic_raw": (Clock.MONOTONIC_RAW, False),
    "monotonic": (Clock.MONOTONIC, False),
    "boottime": (Clock.BOOTTIME, False),
    "realtime": (Clock.REALTIME, False),
    "tai": (Clock.TAI, False),
    "monotonic_coarse": (Clock.MONOTONIC, True),
    "realtime_coarse": (Clock.REALTIME, True),
}


@dataclass(frozen=True, slots=True)
class ImuChannels:
    """What a prepared device delivers.

    Attributes:
        layout: Of a scan.
        stamp_clock: Clock of its timestamps.
        coarse: That clock stands still for a tick of the kernel.
        is_stamped: It has timestamps at all.
        period_ns: By its sampling frequency; 0.0 = not told.
        kinds: What it measures, `anglvel` and `accel`.
    """

    layout: ScanLayout
    stamp_clock: Clock
    coarse: bool
    is_stamped: bool
    period_ns: float
    kinds: tuple[str, ...]

    def meaning(self) -> str:
        """One line: what the stamps mark."""
        if not self.is_stamped:
            return "no timestamps: arrival only"
        tick = ", coarse: up to 10 ms early" if self.coarse else ""
        return f"stamp: the trigger, by the kernel, {self.stamp_clock.name}{tick}"


class IioDevice:
    """One `iio:deviceN`.

    Args:
        folder: In sysfs.
        node: In dev.
    """

    def __init__(self, folder: Path, node: Path) -> None:
        self.folder, self.node = folder, node
        self._started = False

    @classmethod
    def all(cls, root: Path = Path("/")) -> list[IioDevice]:
        """Devices of this machine, in order of their number."""
        folders = (root / "sys/bus/iio/devices").glob("iio:device*")
        ordered = sorted(folders, key=lambda p: (len(p.name), p.name))
        return [cls(folder, root / "dev" / folder.name) for folder in ordered]

    @classmethod
    def find(cls, wanted: str, root: Path = Path("/")) -> IioDevice:
        """By `iio:deviceN`, name or label.

        Raises:
            DeviceError: There is none, or several share that name.
        """
        devices = cls.all(root)
        found = [d for d in devices if wanted in (d.folder.name, d.text("name"), d.text("label"))]
        names = ", ".join(f"{d.folder.name} ({d.text('name')})" for d in devices) or "none"
        if not found:
            raise DeviceError(
                f"IIO device {wanted!r} is not there; found: {names}",
                remedy="Load its driver, or give one of those that were found",
            )
        if len(found) > 1:
            raise DeviceError(
                f"{len(found)} IIO devices are called {wanted!r}", remedy=f"Give one of: {names}"
            )
        return found[0]

    def text(self, name: str) -> str:
        """A setting; empty when it is not there."""
        try:
            with (self.folder / name).open(encoding="ascii", errors="replace") as file:
                # The kernel ends current_timestamp_clock with a line end and a NUL.
                return file.read(MAX_TEXT).strip(" \t\r\n\0")
        except OSError:
            return ""

    def number(self, *names: str) -> float | None:
        """The first of several settings that is there and is a number."""
        for name in names:
            try:
                return float(self.text(name))
            except ValueError:
                continue
        return None

    def kinds(self) -> tuple[str, ...]:
        """What of an inertial sensor it measures with a buffer: `anglvel`, `accel`."""
        there = self.folder / "scan_elements"
        return tuple(
            kind
            for kind in KINDS
            if all((there / f"in_{kind}_{axis}_en").exists() for axis in "xyz")
        )

    def timestamp_clock(self) -> tuple[Clock, bool]:
        """Clock of the timestamps and whether it is coarse; REALTIME where nothing tells."""
        return _CLOCKS.get(self.text("current_timestamp_clock"), (Clock.REALTIME, False))

    def prepare(self, rate_hz: float, trigger: str) -> ImuChannels:
        """Set the device up, buffer off.

        Raises:
            DeviceError: It has no inertial channels with a buffer, or refuses a setting.
            PermissionDeniedError: A setting may not be written.
        """
        kinds = self.kinds()
        if not kinds:
            raise DeviceError(
                f"IIO device {self.folder.name} ({self.text('name')}) has no buffered "
                "accelerometer or gyroscope",
                remedy="Give another device, or a kernel with its triggered buffer",
            )
        self._set("buffer/enable", "0")
        with contextlib.suppress(DeviceError):  # any clock will do, this one needs no conversion
            self._set("current_timestamp_clock", "monotonic_raw")
        if rate_hz:
            self._set_rate(rate_hz, kinds)
        if trigger:
            self._set("trigger/current_trigger", trigger)
        elements = self._enable(kinds)
        clock, coarse = self.timestamp_clock()
        rate = self.number("sampling_frequency", *(f"in_{k}_sampling_frequency" for k in kinds))
        stamped = any(e.name == "in_timestamp" for e in elements)
        period_ns = NS_PER_S / rate if rate is not None and 0.0 < rate < 1e6 else 0.0
        return ImuChannels(ScanLayout(elements), clock, coarse, stamped, period_ns, kinds)

    def _set_rate(self, rate_hz: float, kinds: tuple[str, ...]) -> None:
        names = ["sampling_frequency", *(f"in_{kind}_sampling_frequency" for kind in kinds)]
        there = [name for name in names if (self.folder / name).exists()]
        for name in there:
            self._set(name, f"{rate_hz:g}")
        if not there:
            raise DeviceError(
                f"IIO device {self.folder.name}: its rate cannot be set",
                remedy="Leave rate_hz away; set the rate of its trigger",
            )

    def _enable(self, kinds: tuple[str, ...]) -> list[Element]:
        """Enable the axes and the timestamp, and nothing else."""
        wanted = {f"in_{kind}_{axis}" for kind in kinds for axis in "xyz"} | {"in_timestamp"}
        elements = []
        for path in sorted((self.folder / "scan_elements").glob("*_en")):
            name = path.name.removesuffix("_en")
            self._set(f"scan_elements/{path.name}", "1" if name in wanted else "0")
            if name in wanted:
                elements.append(self._element(name))
        return elements

    def _element(self, name: str) -> Element:
        index = self.number(f"scan_elements/{name}_index")
        if index is None:
            raise DeviceError(f"IIO: {name} has no index", remedy="Update the driver")
        kind = ScanType.parse(self.text(f"scan_elements/{name}_type"))
        if name == "in_timestamp":
            return Element(name, int(index), kind)
        shared = name.rpartition("_")[0]
        scale = self.number(f"{name}_scale", f"{shared}_scale")
        offset = self.number(f"{name}_offset", f"{shared}_offset")
        if scale is None:
            raise DeviceError(f"IIO: {name} has no scale", remedy="Update the driver")
        return Element(name, int(index), kind, scale, offset or 0.0)

    def _set(self, name: str, value: str) -> None:
        """Write a setting, unless it is so already."""
        now, path = self.text(name), self.folder / name
        if now == value or not path.exists():
            return
        try:
            path.write_text(value, encoding="ascii")
        except PermissionError as error:
            raise PermissionDeniedError(
                f"IIO device {self.folder.name}: {name} may not be set to {value}",
                remedy="Let this user write it (udev rule), or set it before syncline starts",
            ) from error
        except OSError as error:
            raise DeviceError(
                f"IIO device {self.folder.name}: {name} = {value}: {error.strerror}",
                remedy="See what it takes in sysfs; another program may be using the device",
            ) from error

    def start(self) -> int:
        """Open the node and start the buffer; its file descriptor, non-blocking.

        Raises:
            DeviceError: Another program reads it, or it has no trigger.
            PermissionDeniedError: It may not be read.
        """
        self._set("buffer/length", str(BUFFER_SCANS))
        try:
            fd = os.open(self.node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as error:
            raise PermissionDeniedError(
                f"{self.node}: {error.strerror}", remedy="Let this user read it (udev rule)"
            ) from error
        except OSError as error:
            raise DeviceError(
                f"{self.node}: {error.strerror}", remedy="Close the other program that reads it"
            ) from error
        self._started = True
        try:
            self._set("buffer/enable", "1")
        except DeviceError as error:
            os.close(fd)
            remedy = "Choose a trigger: ls /sys/bus/iio/devices/trigger*/name"
            raise type(error)(error.message, remedy=remedy) from error
        return fd

    def stop(self) -> None:
        """Stop the buffer, if we started it and the device is still there."""
        if self._started:
            self._started = False
            with contextlib.suppress(DeviceError):
                self._set("buffer/enable", "0")
