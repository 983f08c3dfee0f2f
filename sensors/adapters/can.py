"""CAN frames with their times: from SocketCAN with the kernel's stamps, and from candump logs."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from syncline.errors import DeviceError, LogError, PermissionDeniedError
from syncline.sensors.adapters.kernel_stamps import KernelStamps
from syncline.timebase import NS_PER_S, Clock, PairedRead, paired_read

MAX_LINE_CHARS = 512
SO_TIMESTAMPNS = 35
SO_RXQ_OVFL = 40
CAN_RAW_ERR_FILTER = 2  # linux/can/raw.h; Python's socket module has no name for it
_EVERY_ERROR = 0x1FFF_FFFF
_READ_SIGMA_NS = 1e6
"""Of a frame without a usable stamp, which was received some time before it was read."""
_EFF, _RTR, _ERR = 0x8000_0000, 0x4000_0000, 0x2000_0000
_CLASSIC = struct.Struct("=IB3x8s")
_FD = struct.Struct("=IBB2x64s")
_TIMESPEC = struct.Struct("=qq")
_COUNT = struct.Struct("=I")
_CANDUMP = re.compile(
    r"^\((\d{1,10})\.(\d{1,9})\)\s+(\S{1,32})\s+([0-9A-Fa-f]{3}|[0-9A-Fa-f]{8})"
    r"(?:#(R\d?)?|##[0-9A-Fa-f])((?:[0-9A-Fa-f]{2}){0,64})(?:\s+[TR])?$"
)


@dataclass(frozen=True, slots=True)
class CanFrame:
    """One frame of a bus.

    Attributes:
        t_ns: When it was received, nanoseconds on `clock`.
        clock: MONOTONIC_RAW for live frames, REALTIME or DEVICE for logs.
        channel: Bus or interface.
        id: Identifier without flags.
        extended: 29-bit identifier.
        data: 0..8 bytes, up to 64 for CAN FD.
        sigma_ns: Standard deviation of `t_ns` that the conversion between clocks leaves.
        error: An error frame of the controller; `data` tells which.
        remote: A request without data.
    """

    t_ns: int
    clock: Clock
    channel: str
    id: int
    extended: bool
    data: bytes
    sigma_ns: float = 0.0
    error: bool = False
    remote: bool = False


class CandumpLog:
    """Frames of a `candump -l` file.

    Memory: one line. A damaged line is skipped and counted in `errors`.

    Args:
        path: The log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.errors = 0

    def frames(self) -> Iterator[CanFrame]:
        """Frames in the order of the file; stamps are REALTIME of the recording machine.

        Raises:
            LogError: The file cannot be read, or not a single line is a frame.
        """
        good = 0
        try:
            with self._path.open(encoding="ascii", errors="replace") as file:
                while line := file.readline(MAX_LINE_CHARS):
                    frame = parse_candump(line)
                    if frame is None:
                        self.errors += bool(line.strip())
                        continue
                    good += 1
                    yield frame
        except OSError as error:
            raise LogError(f"cannot read {self._path}: {error.strerror}") from error
        if not good:
            raise LogError(
                f"{self._path}: none of {self.errors} lines is a CAN frame",
                remedy="Give a file written by: candump -l",
            )


def parse_candump(line: str) -> CanFrame | None:
    """`(1436509052.249713) can0 123#DEADBEEF`; None for anything else."""
    match = _CANDUMP.match(line.strip())
    if match is None:
        return None
    seconds, fraction, channel, identifier, remote, data = match.groups()
    number, extended = int(identifier, 16), len(identifier) == 8
    return CanFrame(
        int(seconds) * NS_PER_S + int(fraction.ljust(9, "0")),
        Clock.REALTIME,
        channel,
        number & (0x1FFF_FFFF if extended else 0x7FF),
        extended,
        bytes.fromhex(data),
        error=extended and bool(number & _ERR),
        remote=remote is not None,
    )


class CanSocket(Protocol):
    """What `SocketCan` uses of a socket."""

    def recvmsg(
        self, bufsize: int, ancbufsize: int, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        """One frame with its control messages."""

    def settimeout(self, value: float | None, /) -> None:
        """Limit on waiting."""

    def close(self) -> None:
        """Release the socket."""


def open_can_socket(interface: str) -> CanSocket:
    """A raw SocketCAN socket: CAN FD, error frames, nanosecond stamps and the count of losses.

    Raises:
        DeviceError: No such interface, or the kernel has no CAN.
        PermissionDeniedError: The interface may not be used.
    """
    try:
        found = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        found.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
        found.setsockopt(socket.SOL_CAN_RAW, CAN_RAW_ERR_FILTER, struct.pack("=I", _EVERY_ERROR))
        found.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        found.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        found.bind((interface,))
    except PermissionError as error:
        raise PermissionDeniedError(
            f"CAN interface {interface}: {error.strerror}", remedy="Run with CAP_NET_RAW"
        ) from error
    except OSError as error:
        raise DeviceError(
            f"CAN interface {interface}: {error.strerror or error}",
            remedy=f"Bring it up with: ip link set {interface} up type can bitrate 500000",
        ) from error
    return found


class SocketCan:
    """Live frames of a SocketCAN interface.

    The kernel stamps frames on CLOCK_REALTIME with nanoseconds. `KernelStamps` moves them to
    MONOTONIC_RAW, so that a step of the system clock moves no frame; a stamp that fits nowhere is
    replaced by the reception and counted in `unstamped`. Frames that came faster than they were
    read, and were thrown away by the kernel, are counted in `dropped` at the next one that is not.

    Args:
        interface: Such as `can0`.
        connect: Opens the socket (tests pass their own).
        pair: Reads REALTIME and BOOTTIME against RAW.
    """

    def __init__(
        self,
        interface: str,
        *,
        connect: Callable[[str], CanSocket] = open_can_socket,
        pair: Callable[[Clock], PairedRead] = paired_read,
    ) -> None:
        self._interface, self._connect, self._pair = interface, connect, pair
        self._socket: CanSocket | None = None
        self._stamps: KernelStamps | None = None
        self.errors = 0
        self.unstamped = 0
        self.dropped = self._dropped_before = 0

    def open(self) -> None:
        """Open the socket; see `open_can_socket` for what it raises."""
        self._socket = self._connect(self._interface)
        self._stamps = KernelStamps(self._pair)
        self._dropped_before = self.dropped

    def read(self, timeout_s: float = 1.0) -> CanFrame | None:
        """The next frame; None after a silent `timeout_s` or for one that is no frame.

        Raises:
            DeviceError: The interface went away or down; `open` again.
        """
        if self._socket is None:
            self.open()
        assert self._socket is not None
        self._socket.settimeout(timeout_s)
        try:
            data, control, _, _ = self._socket.recvmsg(_FD.size, 64)
        except TimeoutError:
            return None
        except OSError as error:
            self.close()
            raise DeviceError(
                f"CAN interface {self._interface}: {error.strerror or error}",
                remedy="Plug it in and bring it up; reading goes on after the next open",
            ) from error
        return self._frame(data, control)

    def _frame(self, data: bytes, control: list[tuple[int, int, bytes]]) -> CanFrame | None:
        if len(data) == _CLASSIC.size:
            word, length, body = _CLASSIC.unpack(data)
        elif len(data) == _FD.size:
            word, length, _, body = _FD.unpack(data)
        else:
            self.errors += 1
            return None
        if length > len(body):
            self.errors += 1
            return None
        t_ns, sigma_ns = self._raw_time(control)
        extended = bool(word & _EFF)
        return CanFrame(
            t_ns,
            Clock.MONOTONIC_RAW,
            self._interface,
            word & (0x1FFF_FFFF if extended or word & _ERR else 0x7FF),
            extended,
            body[:length],
            sigma_ns,
            error=bool(word & _ERR),
            remote=bool(word & _RTR),
        )

    def _raw_time(self, control: list[tuple[int, int, bytes]]) -> tuple[int, float]:
        """When the frame was received, with its deviation; counts what the kernel threw away."""
        assert self._stamps is not None
        found = None
        for level, kind, data in control:
            if level != socket.SOL_SOCKET:
                continue
            if kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(data[: _TIMESPEC.size])
                found = self._stamps.convert(seconds * NS_PER_S + nanoseconds)
            elif kind == SO_RXQ_OVFL and len(data) >= _COUNT.size:
                self.dropped = self._dropped_before + _COUNT.unpack(data[: _COUNT.size])[0]
        if found is None:
            self.unstamped += 1
            return self._pair(Clock.REALTIME).raw_ns, _READ_SIGMA_NS
        return found

    def close(self) -> None:
        """Close the socket; closing twice is fine."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
