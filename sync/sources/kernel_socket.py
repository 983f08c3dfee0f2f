"""A UDP socket whose packets are stamped by the kernel, sending and receiving (SO_TIMESTAMPING).

Stamps taken in Python wait for the interpreter: with two busy threads they were late by 10 to 20
ms; the kernel's were not. See Documentation/networking/timestamping.rst.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from syncline.errors import ClockError, DeviceError
from syncline.sync.jumps import SetNotice, TimerNotice
from syncline.sync.sources.pairing import real_to_raw
from syncline.timebase import NS_PER_S, Clock, PairedRead, RawClock, paired_read

_SO_TIMESTAMPING = 37
_TX_SOFTWARE, _RX_SOFTWARE, _SOFTWARE = 1 << 1, 1 << 3, 1 << 4
_OPT_ID, _OPT_TSONLY = 1 << 7, 1 << 11
_MSG_ERRQUEUE = 0x2000
_SCM_STAMP = struct.Struct("@6q")
_EXTENDED_ERROR = struct.Struct("@IBBBBII")
_RECVERR = ((socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25))
MAX_DATAGRAM = 2048
MAX_BATCH = 64
KERNEL_UNCERTAINTY_NS = 200
USER_UNCERTAINTY_NS = 50_000
"""One sigma of a stamp taken in Python; its late side is covered by the delay it adds."""


@dataclass(frozen=True, slots=True)
class Received:
    """A datagram with the stamps of its exchange.

    Attributes:
        data: Payload.
        t1_raw_ns: When the last request left, 0 when none was sent.
        t4_raw_ns: When this datagram arrived.
        uncertainty_ns: One sigma of the two stamps.
        clock_moved: The system clock was set in between: the stamps cannot be used.
    """

    data: bytes
    t1_raw_ns: int
    t4_raw_ns: int
    uncertainty_ns: int
    clock_moved: bool = False


@dataclass(slots=True)
class _Sent:
    pair: PairedRead
    user_raw_ns: int
    number: int
    real_ns: int | None = None


class KernelSocket:
    """One connected, non-blocking UDP socket. The port is random, chosen by the kernel.

    A clock that was set during an exchange, even when it was put back before its end, leaves stamps
    that cannot be told from true ones; the kernel's notice tells of it.

    Args:
        address: Numeric host and port.
        clock: Raw clock, for the fall-back stamps.

    Raises:
        OSError: No route, or no such address family.
    """

    def __init__(self, address: tuple[str, int], clock: RawClock) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._clock = clock
        self._sent: _Sent | None = None
        self._count = 0
        self._notice = _notice()
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self.stamped = self._enable_stamps()
            self._socket.connect(address)
        except OSError:
            self.close()
            raise

    def _enable_stamps(self) -> bool:
        flags = _TX_SOFTWARE | _RX_SOFTWARE | _SOFTWARE | _OPT_ID | _OPT_TSONLY
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, flags)
        except OSError:
            return False
        return True

    def fileno(self) -> int:
        """Descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        if self._notice is not None:
            self._notice.close()

    def send(self, data: bytes) -> None:
        """Send a request; its stamp is read together with the reply.

        Raises:
            OSError: No route, or the last request was refused by the host.
        """
        self._drain_errors()
        self._was_set()
        pair = paired_read(Clock.REALTIME)
        self._sent = _Sent(pair, self._clock.raw_ns(), self._count)
        self._socket.send(data)
        self._count += 1

    def receive(self) -> list[Received]:
        """All datagrams that are there, at most `MAX_BATCH`.

        Raises:
            OSError: The host refused the request (ICMP) or the interface is gone.
        """
        got: list[tuple[bytes, int | None, int]] = []
        for _ in range(MAX_BATCH):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(MAX_DATAGRAM, 256)
            except BlockingIOError:
                break
            got.append((data, _software_stamp(ancillary), self._clock.raw_ns()))
        self._drain_errors()
        if not got:
            return []
        after = paired_read(Clock.REALTIME)
        moved = self._was_set()
        return [
            Received(data, 0, user_ns, USER_UNCERTAINTY_NS, clock_moved=True)
            if moved
            else self._stamp(data, real_ns, user_ns, after)
            for data, real_ns, user_ns in got
        ]

    def _was_set(self) -> bool:
        """Whether the clock was set since the last question."""
        return self._notice is not None and self._notice.taken()

    def _stamp(self, data: bytes, real_ns: int | None, user_ns: int, after: PairedRead) -> Received:
        sent = self._sent
        if sent is None:
            return Received(data, 0, user_ns, USER_UNCERTAINTY_NS)
        try:
            t1, sigma1 = sent.user_raw_ns, USER_UNCERTAINTY_NS
            if sent.real_ns is not None:
                stamp = real_to_raw(sent.real_ns, sent.pair, after)
                t1, sigma1 = stamp.raw_ns, max(stamp.uncertainty_ns, KERNEL_UNCERTAINTY_NS)
            t4, sigma4 = user_ns, USER_UNCERTAINTY_NS
            if real_ns is not None:
                stamp = real_to_raw(real_ns, sent.pair, after)
                t4, sigma4 = stamp.raw_ns, max(stamp.uncertainty_ns, KERNEL_UNCERTAINTY_NS)
        except ClockError:
            return Received(data, sent.user_raw_ns, user_ns, USER_UNCERTAINTY_NS, clock_moved=True)
        return Received(data, t1, t4, max(sigma1, sigma4))

    def _drain_errors(self) -> None:
        for _ in range(MAX_BATCH):
            try:
                _, ancillary, _, _ = self._socket.recvmsg(64, 512, _MSG_ERRQUEUE)
            except OSError:
                return
            real_ns = _software_stamp(ancillary)
            sent = self._sent
            if sent is not None and real_ns is not None and _number(ancillary) == sent.number:
                sent.real_ns = real_ns


def _notice() -> SetNotice | None:
    """The kernel's notice; where it cannot be had, paired reads find all but what was undone."""
    try:
        return TimerNotice()
    except DeviceError:
        return None


_Ancillary = list[tuple[int, int, bytes]]


def _software_stamp(ancillary: _Ancillary) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING and len(data) >= 16:
            seconds, ns = struct.unpack_from("@2q", data)
            return int(seconds * NS_PER_S + ns) or None
    return None


def _number(ancillary: _Ancillary) -> int:
    """The kernel's count of the sent datagram that an error-queue entry speaks of, or -1."""
    for level, kind, data in ancillary:
        if (level, kind) in _RECVERR and len(data) >= _EXTENDED_ERROR.size:
            return int(_EXTENDED_ERROR.unpack_from(data)[6])
    return -1
