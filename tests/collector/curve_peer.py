"""An enrolled device by hand, over CURVE (RFC 26), that says what libzmq never would.

libzmq's own sockets send nothing of a message before its last frame is there; this one sends frames
with MORE for ever. `python curve_peer.py PORT SIZE TOTAL` with the keys on standard input.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
import struct
import sys
from pathlib import Path

import zmq
from zmq.utils import z85

MORE = b"\x01"
_LONG = 255


def sodium_path() -> str | None:
    """The libsodium that came with pyzmq, or the system's."""
    folder = Path(zmq.__file__).parents[1] / "pyzmq.libs"
    found = sorted(folder.glob("libsodium*"))
    return str(found[0]) if found else ctypes.util.find_library("sodium")


class Box:
    """`crypto_box` with the nonces of CURVE."""

    def __init__(self) -> None:
        self._sodium = ctypes.CDLL(sodium_path())

    def keys(self) -> tuple[bytes, bytes]:
        public, secret = ctypes.create_string_buffer(32), ctypes.create_string_buffer(32)
        self._sodium.crypto_box_keypair(public, secret)
        return public.raw, secret.raw

    def seal(self, data: bytes, nonce: bytes, to: bytes, secret: bytes) -> bytes:
        out = ctypes.create_string_buffer(len(data) + 16)
        size = ctypes.c_ulonglong(len(data))
        assert self._sodium.crypto_box_easy(out, data, size, nonce, to, secret) == 0
        return out.raw

    def open(self, data: bytes, nonce: bytes, by: bytes, secret: bytes) -> bytes:
        out = ctypes.create_string_buffer(len(data) - 16)
        size = ctypes.c_ulonglong(len(data))
        assert self._sodium.crypto_box_open_easy(out, data, size, nonce, by, secret) == 0
        return out.raw


class CurvePeer:
    """A connection that has shaken hands as a DEALER.

    Args:
        port: Of the collector, on this machine.
        server: Its public key (Z85).
        public: The device's.
        secret: The device's.
    """

    def __init__(self, port: int, server: str, public: str, secret: str) -> None:
        self._box = Box()
        self._n = 0
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._short, self._short_secret = self._box.keys()
        self._theirs = b""
        self._shake(z85.decode(server), z85.decode(public), z85.decode(secret))

    def _number(self) -> bytes:
        self._n += 1
        return struct.pack(">Q", self._n)

    def _shake(self, server: bytes, public: bytes, secret: bytes) -> None:
        box, mine = self._box, self._short_secret
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\0" + b"CURVE".ljust(20, b"\0") + bytes(32)
        self._socket.sendall(greeting)
        self._take(64)
        number = self._number()
        hello = box.seal(bytes(64), b"CurveZMQHELLO---" + number, server, mine)
        self._command(b"\x05HELLO\x01\0" + bytes(72) + self._short + number + hello)
        welcome = self._answer(b"\x07WELCOME")
        opened = box.open(welcome[16:], b"WELCOME-" + welcome[:16], server, mine)
        self._theirs, cookie = opened[:32], opened[32:]
        vouch_number = bytes(16)
        vouch = box.seal(self._short + server, b"VOUCH---" + vouch_number, self._theirs, secret)
        number = self._number()
        told = b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        initiate = box.seal(
            public + vouch_number + vouch + told,
            b"CurveZMQINITIATE" + number, self._theirs, mine,
        )  # fmt: skip
        self._command(b"\x08INITIATE" + cookie + number + initiate)
        self._answer(b"\x05READY")

    def _take(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = self._socket.recv(n - len(data))
            if not more:
                raise ConnectionError("the collector ended the connection")
            data += more
        return data

    def _command(self, data: bytes) -> None:
        self._socket.sendall(_framed(4, data))

    def _answer(self, name: bytes) -> bytes:
        flags = self._take(1)[0]
        n = struct.unpack(">Q", self._take(8))[0] if flags & 2 else self._take(1)[0]
        data = self._take(n)
        assert data.startswith(name), data[:20]
        return data[len(name) :]

    def send(self, body: bytes, flags: bytes = MORE) -> int:
        """One frame; the bytes that it took.

        Raises:
            OSError: The collector has ended the connection.
        """
        number = self._number()
        nonce = b"CurveZMQMESSAGEC" + number
        sealed = self._box.seal(flags + body, nonce, self._theirs, self._short_secret)
        frame = _framed(0, b"\x07MESSAGE" + number + sealed)
        self._socket.sendall(frame)
        return len(frame)


def _framed(flags: int, data: bytes) -> bytes:
    if len(data) > _LONG:
        return bytes([flags | 2]) + struct.pack(">Q", len(data)) + data
    return bytes([flags, len(data)]) + data


def flood(peer: CurvePeer, size: int, total: int) -> bool:
    """Frames without end until `total` bytes were sent (False) or the connection is cut (True)."""
    body, sent = b"x" * size, 0
    while sent < total:
        try:
            sent += peer.send(body)
        except OSError:
            return True
    return False


if __name__ == "__main__":
    _port, _size, _total = map(int, sys.argv[1:])
    sys.exit(not flood(CurvePeer(_port, *sys.stdin.read().split()), _size, _total))
