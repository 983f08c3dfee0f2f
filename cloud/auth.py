"""The ZAP handler: which key may connect, and under which name. It fails closed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

import zmq
from zmq.utils import z85

from syncline.errors import StorageError
from syncline.link.sockets import ZAP_DOMAIN
from syncline.timebase import NS_PER_S, RawClock

_LOG = logging.getLogger(__name__)
_ADDRESS = "inproc://zeromq.zap.01"
_POLL_MS = 200
REFRESH_NS = NS_PER_S
_DEAD_AFTER_NS = 3 * NS_PER_S // 2


class Authenticator:
    """Answers ZAP requests on a thread of its own.

    Devices are read again every second; when they cannot be read, the last list stays in force.

    Args:
        context: Context of the socket that is guarded.
        allowed: Gives public key (Z85) to device name.
        clock: Raw clock.

    Raises:
        StorageError: The first list cannot be read.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        allowed: Callable[[], Mapping[str, str]],
        clock: RawClock,
    ) -> None:
        self._context = context
        self._allowed = allowed
        self._clock = clock
        self._keys = dict(allowed())
        self.names = frozenset(self._keys.values())
        self.refused = 0
        self.accepted = 0
        self._beat_ns = clock.raw_ns()
        self._stop = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zap", daemon=True)

    def start(self) -> None:
        """Begin; returns once the handler is in place."""
        self._thread.start()
        self._bound.wait(5.0)

    def close(self) -> None:
        """Stop: from now on nobody gets in."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        """False when the thread is gone or stuck."""
        fresh = self._clock.raw_ns() - self._beat_ns < _DEAD_AFTER_NS
        return self._thread.is_alive() and fresh

    def _run(self) -> None:
        with self._context.socket(zmq.REP) as socket:
            socket.set(zmq.LINGER, 0)
            socket.bind(_ADDRESS)
            self._bound.set()
            read_ns = self._clock.raw_ns()
            while not self._stop.is_set():
                self._beat_ns = self._clock.raw_ns()
                if self._beat_ns - read_ns >= REFRESH_NS:
                    self._refresh()
                    read_ns = self._beat_ns
                if socket.poll(_POLL_MS):
                    socket.send_multipart(self._answer(socket.recv_multipart()))

    def _refresh(self) -> None:
        try:
            self._keys = dict(self._allowed())
        except StorageError as error:
            _LOG.error("devices not read again: %s", error)
            return
        self.names = frozenset(self._keys.values())

    def _answer(self, request: list[bytes]) -> list[bytes]:
        """Reply to one ZAP request (RFC 27)."""
        number = request[1] if len(request) > 1 else b""
        name = self._name_of(request)
        if name is None:
            self.refused += 1
            return [b"1.0", number, b"400", b"key not enrolled", b"", b""]
        self.accepted += 1
        return [b"1.0", number, b"200", b"OK", name.encode(), b""]

    def _name_of(self, request: list[bytes]) -> str | None:
        if len(request) < 7 or request[0] != b"1.0" or request[2] != ZAP_DOMAIN:
            return None
        mechanism, key = request[5], request[6]
        if mechanism != b"CURVE" or len(key) != 32:
            return None
        return self._keys.get(z85.encode(key).decode())
