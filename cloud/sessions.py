"""The collector's end of the protocol as a pure step: no sockets, no disk, no threads."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from syncline.cloud.frames import Frame
from syncline.errors import MessageError
from syncline.link.wire import (
    Ack,
    Bye,
    Data,
    Error,
    Fetch,
    Hello,
    Message,
    Notice,
    Offer,
    Part,
    Welcome,
    pack,
    unpack,
)
from syncline.timebase import NS_PER_S

_LOG = logging.getLogger(__name__)
MAX_PEERS = 20_000
WINDOW_BYTES = 4 << 20
LEAST_WINDOW_BYTES = 64 << 10
MAX_NAME_BYTES = 255

Reply = tuple[bytes, bytes]
"""Routing id of the peer, message."""


class Accepted(NamedTuple):
    """A DATA message to be stored."""

    peer: bytes
    session: int
    tx: int
    frame: Frame


class Greeting(NamedTuple):
    """A HELLO to be answered once what the device sent before is stored."""

    peer: bytes
    device: str
    hello: Hello


class Request(NamedTuple):
    """Something for the upload or fetch service."""

    peer: bytes
    device: str
    message: Offer | Part | Fetch


Work = Accepted | Greeting | Request


@dataclass(slots=True)
class _Peer:
    device: str
    session: int = 0
    expected: int = 0
    committed: int = 0
    seen_ns: int = 0


class Sessions:
    """Who is connected and how far each has come.

    Memory: `MAX_PEERS` small rows; the one not heard for longest goes first.

    Args:
        budget_bytes: Bytes that all devices together may have in flight.
    """

    def __init__(self, budget_bytes: int = 64 << 20) -> None:
        self._budget = budget_bytes
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()
        self._current: dict[str, bytes] = {}
        self.counts: Counter[str] = Counter()
        self.failing = False

    @property
    def connected(self) -> list[tuple[bytes, str]]:
        """Routing id and device of every session that is open."""
        return [(peer, p.device) for peer, p in self._peers.items() if p.session]

    @property
    def window(self) -> int:
        """Bytes that one device may have in flight: its share of the budget."""
        if self.failing:
            return 0
        share = self._budget // max(len(self._current), 1)
        return max(min(share, WINDOW_BYTES), LEAST_WINDOW_BYTES)

    # -- from the devices ------------------------------------------------------------------------

    def receive(
        self, peer: bytes, device: str, frames: Sequence[bytes], now_ns: int
    ) -> tuple[list[Reply], Work | None]:
        """Take one message.

        Args:
            peer: Routing id, given by our socket.
            device: Name that belongs to the key of the connection.
            frames: Frames of the message behind the routing id.
            now_ns: CLOCK_MONOTONIC_RAW.

        Returns:
            Replies to send at once, and work for the writer.
        """
        if peer[:1] != b"\0":
            self._alarm("declared_routing_id", device, "a peer declared a routing id")
            return [_error(peer, 0, "identity", "routing ids are not to be declared")], None
        if len(frames) != 1:
            self._alarm("multipart", device, f"message of {len(frames)} frames")
            return [_error(peer, 0, "malformed", "one frame per message")], None
        try:
            message = unpack(frames[0])
        except MessageError as error:
            self._alarm("malformed", device, error.message)
            return [_error(peer, 0, "malformed", error.message)], None
        row = self._row(peer, device, now_ns)
        if isinstance(message, Data):
            return self._data(peer, row, message)
        if isinstance(message, Hello):
            return self._hello(peer, row, message)
        if isinstance(message, Offer | Part | Fetch):
            return self._request(peer, row, message)
        if isinstance(message, Bye):
            self._forget(peer)
        else:
            self._alarm("malformed", device, "a message that only collectors send")
        return [], None

    def _row(self, peer: bytes, device: str, now_ns: int) -> _Peer:
        row = self._peers.get(peer)
        if row is None or row.device != device:
            row = self._peers[peer] = _Peer(device)
            while len(self._peers) > MAX_PEERS:
                self._forget(next(iter(self._peers)))
        row.seen_ns = now_ns
        self._peers.move_to_end(peer)
        return row

    def _forget(self, peer: bytes) -> None:
        row = self._peers.pop(peer, None)
        if row is not None and self._current.get(row.device) == peer:
            del self._current[row.device]

    def forget(self, peer: bytes) -> None:
        """The peer cannot be reached any more."""
        self._forget(peer)

    def expire(self, now_ns: int, after_ns: int = 600 * NS_PER_S) -> None:
        """Drop peers that were not heard for long."""
        while self._peers:
            peer, row = next(iter(self._peers.items()))
            if now_ns - row.seen_ns < after_ns:
                return
            self._forget(peer)

    def _hello(self, peer: bytes, row: _Peer, hello: Hello) -> tuple[list[Reply], Work | None]:
        if hello.device != row.device:
            self._alarm("identity", row.device, f"claims to be {hello.device[:64]!r}")
            text = "the claimed name is not that of the key"
            return [_error(peer, hello.session, "identity", text)], None
        if _too_long(hello.boot_id, *[part for b, s, _ in hello.streams for part in (b, s)]):
            return [_error(peer, hello.session, "malformed", "a name is too long")], None
        if any(not 0 <= seq < 2**62 for _, _, seq in hello.streams):
            return [_error(peer, hello.session, "malformed", "a number is out of range")], None
        old = self._current.get(row.device)
        if old is not None and old != peer:
            self.counts["superseded"] += 1
            self._forget(old)
        self._current[row.device] = peer
        row.session, row.expected, row.committed = hello.session, 0, 0
        self.counts["sessions"] += 1
        return [], Greeting(peer, row.device, hello)

    def _data(self, peer: bytes, row: _Peer, data: Data) -> tuple[list[Reply], Work | None]:
        if data.session != row.session or self._current.get(row.device) != peer:
            self.counts["stale"] += 1
            return [_error(peer, data.session, "session", "unknown session")], None
        if data.tx != row.expected:
            self.counts["duplicates" if data.tx < row.expected else "gaps"] += 1
            if data.tx > row.expected:
                return [_error(peer, data.session, "session", "a message is missing")], None
            return [self._ack(peer, row)], None
        if _too_long(data.boot_id, data.stream) or self.failing:
            code = "busy" if self.failing else "malformed"
            return [_error(peer, data.session, code, "not taken")], None
        row.expected += 1
        self.counts["frames"] += 1
        self.counts["bytes"] += len(data.body)
        frame = Frame(
            row.device, data.boot_id, data.stream, data.link_class, data.seq, data.n, data.body
        )
        return [], Accepted(peer, data.session, data.tx, frame)

    def _request(
        self, peer: bytes, row: _Peer, message: Offer | Part | Fetch
    ) -> tuple[list[Reply], Work | None]:
        if not row.session:
            return [_error(peer, 0, "session", "say HELLO first")], None
        return [], Request(peer, row.device, message)

    def _alarm(self, kind: str, device: str, text: str) -> None:
        self.counts[f"alarm_{kind}"] += 1
        if self.counts[f"alarm_{kind}"] & (self.counts[f"alarm_{kind}"] - 1) == 0:
            _LOG.error(
                "alarm %s device=%s count=%d: %s",
                kind, device, self.counts[f"alarm_{kind}"], text,
            )  # fmt: skip

    # -- from the writer -------------------------------------------------------------------------

    def stored(self, done: Sequence[Accepted]) -> list[Reply]:
        """These are durable: one ACK per session."""
        touched: dict[bytes, _Peer] = {}
        for one in done:
            row = self._peers.get(one.peer)
            if row is not None and row.session == one.session:
                row.committed = max(row.committed, one.tx + 1)
                touched[one.peer] = row
        window = self.window
        return [
            (peer, pack(Ack(row.session, row.committed, window))) for peer, row in touched.items()
        ]

    def refused(self, lost: Sequence[Accepted], text: str) -> list[Reply]:
        """These could not be stored: nothing is taken until `recovered`."""
        self.counts["refused_frames"] += len(lost)
        return [
            _error(peer, session, "busy", text)
            for peer, session in {(a.peer, a.session) for a in lost}
        ]

    def recovered(self) -> list[Reply]:
        """The storage works again: every session begins anew."""
        self.failing = False
        replies = []
        for peer, row in self._peers.items():
            if row.session:
                replies.append(_error(peer, row.session, "session", "storage works again"))
                row.session = 0
        return replies

    def welcome(
        self, greeting: Greeting, next_missing: Sequence[int], notices: Sequence[Notice]
    ) -> list[Reply]:
        """Answer a HELLO, unless another one has come since."""
        row = self._peers.get(greeting.peer)
        hello = greeting.hello
        if row is None or row.session != hello.session:
            return []
        committed = [
            (boot, stream, seq)
            for (boot, stream, _), seq in zip(hello.streams, next_missing, strict=True)
        ]
        message = Welcome(hello.session, committed, self.window, list(notices))
        return [(greeting.peer, pack(message))]

    def _ack(self, peer: bytes, row: _Peer) -> Reply:
        return peer, pack(Ack(row.session, row.committed, self.window))


def _too_long(*names: str) -> bool:
    return any(len(name.encode()) > MAX_NAME_BYTES for name in names)


def _error(peer: bytes, session: int, code: str, text: str) -> Reply:
    message: Message = Error(session, code, text)
    return peer, pack(message)
