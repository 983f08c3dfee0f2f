"""Bytes of connections that are in no message yet: a peer that sends too many of them is cut.

libzmq collects all frames of a message before it hands over the first, whatever `MAXMSGSIZE` and
`RCVHWM` say, so a peer that never ends a message fills the memory of its collector. The kernel
knows what came over each connection, and we know what was handed over: the rest is what libzmq
holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import struct
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq

_LOG = logging.getLogger(__name__)
MOST_BYTES = 16 << 20
"""A device may have 4 MiB under way, and `RCVHWM` messages of `MAXMSGSIZE` are half of this: a
device that a stalled collector holds back is not cut."""
GROWTH_BYTES = 32 << 20
"""Growth of the process's memory at which the connections are looked at."""
CURVE_BYTES = 33
"""What CURVE adds to a frame: its name, a nonce, a checksum and the flags (RFC 26)."""
_LONG_FRAME = 255
_AT_ONCE = struct.pack("ii", 1, 0)
"""Linger of no time: the peer is told of the end when libzmq closes, also while it cannot send."""
_RECEIVED = struct.Struct("<Q")
_RECEIVED_AT = 128
_INFO_BYTES = _RECEIVED_AT + _RECEIVED.size
"""`tcpi_bytes_received` of `struct tcp_info`; kernels before 4.1 give fewer bytes."""

Remote = tuple[str, int]


@dataclass(slots=True)
class _Row:
    fd: int
    remote: Remote | None
    bytes: int = 0


class Unfinished:
    """Compares what came over each connection of a listening port with what was handed over.

    Memory: one row for each peer that is connected or was since the last `check`.

    Args:
        port: Local TCP port of the socket that is watched.
        frame_bytes: What the mechanism adds to each frame; `CURVE_BYTES`, or 0 without one.
        most_bytes: Above it a connection is cut.
    """

    def __init__(
        self, port: int, frame_bytes: int = CURVE_BYTES, most_bytes: int = MOST_BYTES
    ) -> None:
        self._port, self._frame_bytes, self._most_bytes = port, frame_bytes, most_bytes
        self._rows: dict[bytes, _Row] = {}
        self._floor_bytes = resident_bytes()

    def handed(self, peer: bytes, frame: zmq.Frame, size: int) -> None:
        """A frame of `size` bytes was handed over.

        Args:
            peer: Routing id that our socket gave to the connection.
            frame: Any frame of that connection.
            size: Bytes of its body.
        """
        row = self._rows.get(peer)
        if row is None:
            fd = frame.get(zmq.SRCFD)
            row = self._rows[peer] = _Row(int(fd), _remote_of(int(fd)))
        size += self._frame_bytes
        row.bytes += size + (2 if size <= _LONG_FRAME else 9)

    def look(self) -> int:
        """Cheap and to be called often: `check` where the process has grown; connections cut."""
        now_bytes = resident_bytes()
        self._floor_bytes = min(self._floor_bytes, now_bytes)
        if now_bytes - self._floor_bytes < GROWTH_BYTES:
            return 0
        self._floor_bytes = now_bytes
        return self.check()

    def check(self) -> int:
        """Look at every connection; returns how many were cut."""
        known = {(row.fd, row.remote): row for row in self._rows.values()}
        live, cut = set(), 0
        for fd, remote, received in _connections(self._port):
            live.add((fd, remote))
            row = known.get((fd, remote))
            held = received - (row.bytes if row else 0)
            if held > self._most_bytes:
                _LOG.error("alarm unfinished: %s holds %d bytes in no message", remote, held)
                _shut(fd)
                cut += 1
        self._rows = {p: row for p, row in self._rows.items() if (row.fd, row.remote) in live}
        return cut

    def held_bytes(self) -> dict[Remote, int]:
        """What came and was not handed over, by connection; its handshake is part of it."""
        known = {(row.fd, row.remote): row.bytes for row in self._rows.values()}
        return {
            remote: received - known.get((fd, remote), 0)
            for fd, remote, received in _connections(self._port)
        }


def resident_bytes() -> int:
    """Memory that the process occupies now."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """A descriptor of libzmq as a socket; its owner closes it. IPv4 addresses fit into IPv6's."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


def _remote_of(fd: int) -> Remote | None:
    try:
        with _borrowed(fd) as sock:
            return _address(sock.getpeername())
    except OSError:  # it has gone meanwhile
        return None


def _address(found: tuple[object, ...]) -> Remote:
    return str(found[0]), int(str(found[1]))


def _connections(port: int) -> Iterator[tuple[int, Remote, int]]:
    """Descriptor, remote address and bytes taken from the kernel, of each connection to a port."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            with _borrowed(int(name)) as sock:
                if _address(sock.getsockname())[1] != port:
                    continue
                remote = _address(sock.getpeername())
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
                waiting = int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4), "little")
        except (OSError, IndexError, ValueError):
            continue  # no TCP socket, or it listens, or it has gone
        if len(info) == _INFO_BYTES:
            yield int(name), remote, _RECEIVED.unpack_from(info, _RECEIVED_AT)[0] - waiting


def _shut(fd: int) -> None:
    """End the connection: libzmq sees its end and throws away what it held of it.

    Should the descriptor be another one by now, then nothing happens, or another device connects
    again.
    """
    try:
        with _borrowed(fd) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.ENOTSOCK, errno.EBADF):
            raise
