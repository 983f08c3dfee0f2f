"""A live SocketCAN interface: frames on the raw clock, losses counted, unplugging survived."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Protocol

from syncline.errors import DeviceError, PermissionDeniedError
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.kernel_stamps import KernelStamps
from syncline.sensors.adapters.reopening import Reopening
from syncline.sensors.frame import FrameEvent, Ns, Stamp
from syncline.timebase import NS_PER_S, Clock, PairedRead, RawClock, paired_read

SO_TIMESTAMPNS = 35
SO_RXQ_OVFL = 40
CAN_RAW_ERR_FILTER = 2  # linux/can/raw.h; Python's socket module has no name for it
READ_S = 0.2
"""Longest wait for a frame: `close` is noticed within it."""
_EVERY_ERROR = 0x1FFF_FFFF
_READ_SIGMA_NS = 1e6
"""Of a frame without a usable stamp, which was received some time before it was read."""
_EFF, _RTR, _ERR = 0x8000_0000, 0x4000_0000, 0x2000_0000
_CLASSIC = struct.Struct("=IB3x8s")
_FD = struct.Struct("=IBB2x64s")
_TIMESPEC = struct.Struct("=qq")
_COUNT = struct.Struct("=I")


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


class SocketCan(Reopening[Sample[CanFrame]]):
    """Live frames of a SocketCAN interface; the sensor's name is the bus.

    The kernel stamps frames on CLOCK_REALTIME with nanoseconds. `KernelStamps` moves them to
    MONOTONIC_RAW, so that a step of the system clock moves no frame; a stamp that fits nowhere is
    replaced by the reading, and the health says how many were. Frames that came faster than they
    were read, and were thrown away by the kernel, are counted as dropped at the next one that is
    not. An interface that goes down, or away, is opened again every half second. A bus may be
    silent, with its vehicle asleep: that is no trouble.

    Memory: one frame and the socket's own buffer.

    Args:
        interface: Such as `can0`.
        bus: Name given to the frames; empty for the interface's.
        clock: Paces retries.
        connect: Opens the socket (tests pass their own).
        pair: Reads REALTIME and BOOTTIME against RAW.
    """

    def __init__(
        self,
        interface: str,
        bus: str = "",
        *,
        clock: RawClock | None = None,
        connect: Callable[[str], CanSocket] = open_can_socket,
        pair: Callable[[Clock], PairedRead] = paired_read,
    ) -> None:
        super().__init__(clock)
        self._interface, self._bus = interface, bus or interface
        self._connect, self._pair = connect, pair
        self._socket: CanSocket | None = None
        self._stamps_of: KernelStamps | None = None
        self._unstamped = 0
        self._dropped_before = 0

    def _open(self) -> None:
        """Open the socket; see `open_can_socket` for what it raises."""
        found = self._connect(self._interface)
        found.settimeout(READ_S)
        self._socket, self._stamps_of = found, KernelStamps(self._pair)
        self._dropped_before = self._dropped

    @property
    def _is_open(self) -> bool:
        return self._socket is not None

    def _some(self) -> Iterator[Sample[CanFrame]]:
        """One frame, or none for a silence or for what is no frame."""
        assert self._socket is not None
        try:
            data, control, _, _ = self._socket.recvmsg(_FD.size, 64)
        except TimeoutError:
            return
        except OSError as error:
            self._lose(f"CAN interface {self._interface}: {error.strerror or error}")
            return
        frame = frame_of(data)
        if frame is None:
            self._errors += 1
            return
        t_ns, sigma_ns = self._received(control)
        arrival = Stamp(t_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, sigma_ns)
        yield Sample(self._bus, None, None, arrival, frame)

    def _received(self, control: list[tuple[int, int, bytes]]) -> tuple[Ns, float]:
        """When the frame was received, with its deviation; counts what the kernel threw away."""
        assert self._stamps_of is not None
        found = None
        for level, kind, data in control:
            if level != socket.SOL_SOCKET:
                continue
            if kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(data[: _TIMESPEC.size])
                found = self._stamps_of.convert(seconds * NS_PER_S + nanoseconds)
            elif kind == SO_RXQ_OVFL and len(data) >= _COUNT.size:
                self._dropped = self._dropped_before + _COUNT.unpack(data[: _COUNT.size])[0]
        if found is None:
            self._unstamped += 1
            return self._pair(Clock.REALTIME).raw_ns, _READ_SIGMA_NS
        return found

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL

    def _told(self) -> list[str]:
        return [f"{self._unstamped} frames timed by their reading"] if self._unstamped else []

    def _release(self) -> None:
        found, self._socket = self._socket, None
        if found is not None:
            found.close()


def frame_of(data: bytes) -> CanFrame | None:
    """A `can_frame` or `canfd_frame` of the kernel; None for what is none."""
    if len(data) == _CLASSIC.size:
        word, length, body = _CLASSIC.unpack(data)
    elif len(data) == _FD.size:
        word, length, _, body = _FD.unpack(data)
    else:
        return None
    if length > len(body):
        return None
    extended = bool(word & _EFF)
    return CanFrame(
        word & (0x1FFF_FFFF if extended or word & _ERR else 0x7FF),
        extended,
        body[:length],
        error=bool(word & _ERR),
        remote=bool(word & _RTR),
    )
