"""The ingestion service: receives, stores, acknowledges. See docs/wire.md."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import zmq

from syncline.cloud.auth import Authenticator
from syncline.cloud.catalog import Catalog
from syncline.cloud.devices import Devices
from syncline.cloud.incoming import Incoming
from syncline.cloud.objects import Objects
from syncline.cloud.service import Service
from syncline.cloud.sessions import Reply, Request, Sessions
from syncline.cloud.store import FrameStore
from syncline.cloud.unfinished import Unfinished
from syncline.cloud.writer import Outcome, Writer, size_of
from syncline.errors import LinkError
from syncline.link.endpoint import check_endpoint
from syncline.link.keys import KeyPair
from syncline.link.provider import Provider
from syncline.link.sockets import router
from syncline.link.wire import Fetch, pack
from syncline.spool.disk import Disk
from syncline.timebase import NS_PER_S, OsClock, RawClock

_LOG = logging.getLogger(__name__)
OBJECT_FOLDER = "objects"
BATCH = 256
LOOK_MS = 100
EXPIRE_NS = 10 * NS_PER_S


@dataclass(frozen=True, slots=True)
class CollectorOptions:
    """Settings of the collector.

    Attributes:
        budget_bytes: Bytes received and not stored; above it the socket is not read.
        segment_bytes: Size at which a stored file is sealed.
        catalog_url: Database, when it is not SQLite in the data folder.
        objects: Object store URL, when it is not the folder `objects` in the data folder.
    """

    budget_bytes: int = 64 << 20
    segment_bytes: int = 64 << 20
    catalog_url: str | None = None
    objects: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What the collector says of itself.

    Attributes:
        state: `green`, or `red`: then nothing new is taken or acknowledged as it should be.
        reasons: One line for each thing that is wrong.
        sessions: Devices connected.
        waiting_bytes: Received and not stored.
        counts: Counters since the start.
    """

    state: str
    reasons: tuple[str, ...]
    sessions: int
    waiting_bytes: int
    counts: dict[str, int]


class Collector:
    """Threads: receiver (this one owns the socket), writer, ZAP, service.

    Args:
        data: Folder for segments, catalog, objects.
        listen: `tcp://address:port`; port 0 takes a free one, see `endpoint`.
        keys: The collector's own pair.
        clock: Raw clock.
        options: See `CollectorOptions`.
        provider: What devices may fetch, and their notices.
        disk: File operations of the segment files; tests pass one that fails.

    Raises:
        UsageError: `listen` is no address.
        LinkError: The address cannot be bound.
        StorageError: Folder or database cannot be used.
    """

    def __init__(
        self,
        data: Path,
        listen: str,
        keys: KeyPair,
        *,
        clock: RawClock | None = None,
        options: CollectorOptions | None = None,
        provider: Provider | None = None,
        disk: Disk | None = None,
    ) -> None:
        options = options or CollectorOptions()
        check_endpoint(listen, listen=True)  # before anything is opened
        self._clock = clock or OsClock()
        self.catalog = Catalog.open(data, options.catalog_url)
        self.objects = Objects(options.objects or data / OBJECT_FOLDER)
        store = FrameStore(self.catalog, disk, options.segment_bytes)
        self.recovered = store.recover()
        self._budget = options.budget_bytes
        self._sessions = Sessions(options.budget_bytes)
        self._incoming = Incoming(self.catalog, self.objects)
        self._writer = Writer(self.catalog, store, self._incoming, self._clock, self._on_outcome)
        self._service = Service(provider, self._clock, self._on_replies, self._connected)
        self._outcomes: deque[Outcome] = deque()
        self._replies: deque[list[Reply]] = deque()
        self._waiting = 0
        self._unroutable = 0
        self._stop = threading.Event()
        self._expire_ns = self._look_ns = 0
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 65_000)
        self.auth = Authenticator(self._context, Devices(self.catalog).allowed, self._clock)
        self.auth.start()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._socket = self._bind(listen, keys)
        self._unfinished = Unfinished(int(self.endpoint.rpartition(":")[2]))

    def _bind(self, listen: str, keys: KeyPair) -> zmq.Socket[bytes]:
        socket = router(self._context, keys)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        try:
            socket.bind(listen.replace(":0", ":*") if listen.endswith(":0") else listen)
        except zmq.ZMQError as error:
            socket.close()
            self.auth.close()
            self._context.destroy(linger=0)
            self.catalog.close()
            os.close(self._wake_r)
            os.close(self._wake_w)
            raise LinkError(
                f"cannot listen on {listen}: {error}", remedy="Choose another address or port"
            ) from error
        self.endpoint = socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
        return socket

    # -- for the caller --------------------------------------------------------------------------

    def serve(self, provider: Provider) -> None:
        """Set what devices may fetch; before `start`."""
        self._service.provider = provider

    def start(self) -> None:
        """Begin to receive."""
        self._writer.start()
        self._service.start()
        self._thread.start()

    def close(self) -> None:
        """Store and acknowledge what was received, then stop."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        self._service.close()
        self.auth.close()
        self._socket.close(linger=500)
        self._context.destroy(linger=500)
        self.catalog.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def health(self) -> Health:
        """State and counters now."""
        reasons = []
        if not self.auth.alive:
            reasons.append("authentication thread is gone: new connections are refused")
        if not self._thread.is_alive():
            reasons.append("receiving thread is gone")
        if not self._writer.alive:
            reasons.append("writing thread is gone")
        if not self._service.alive:
            reasons.append("service thread is gone: fetches are not answered")
        if self._writer.problem:
            reasons.append(f"storage refuses: {self._writer.problem}")
        counts = dict(self._sessions.counts + self._writer.counts)
        counts |= {
            "keys_accepted": self.auth.accepted,
            "keys_refused": self.auth.refused,
            "unroutable": self._unroutable,
            "uploads_stored": self._incoming.stored,
            "records_recovered": self.recovered,
        }
        sessions = len(self._connected())
        state = "red" if reasons else "green"
        return Health(state, tuple(reasons), sessions, self._waiting, counts)

    # -- from the other threads ------------------------------------------------------------------

    def _on_outcome(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._wake()

    def _on_replies(self, replies: list[Reply]) -> None:
        self._replies.append(replies)
        self._wake()

    def _connected(self) -> list[tuple[bytes, str]]:
        try:
            return self._sessions.connected
        except RuntimeError:  # the receiver changed it while we looked
            return []

    def _wake(self) -> None:
        try:
            os.write(self._wake_w, b"x")
        except BlockingIOError:
            return  # it is awake already

    # -- the receiving thread --------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._wake_r, zmq.POLLIN)
        poller.register(self._socket, zmq.POLLIN)
        reading = True
        while not self._stop.is_set():
            want = self._waiting < self._budget
            if want != reading:
                poller.modify(self._socket, zmq.POLLIN if want else 0)
                reading = want
            ready = dict(poller.poll(LOOK_MS))
            self._after_poll(ready)
        self._drain()

    def _after_poll(self, ready: dict[object, int]) -> None:
        if self._wake_r in ready:
            os.read(self._wake_r, 4096)
        self._settle()
        if self._socket in ready:
            self._receive()
        now_ns = self._clock.raw_ns()
        if now_ns >= self._look_ns:
            self._look(now_ns)

    def _look(self, now_ns: int) -> None:
        """Cut peers that never end a message, forget those that are silent."""
        self._look_ns = now_ns + LOOK_MS * 1_000_000
        cut = self._unfinished.look()
        if now_ns >= self._expire_ns:
            self._expire_ns = now_ns + EXPIRE_NS
            self._sessions.expire(now_ns)
            cut += self._unfinished.check()
        if cut:
            self._sessions.counts["alarm_unfinished"] += cut

    def _receive(self) -> None:
        for _ in range(BATCH):
            if self._waiting >= self._budget:
                return
            try:
                peer = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(peer)

    def _take(self, peer: bytes) -> None:
        frame = self._socket.recv(copy=False)
        device, body = _user_of(frame), [frame.bytes]
        self._unfinished.handed(peer, frame, len(body[0]))
        while frame.more:  # one frame a message is allowed: the rest is counted, not kept
            frame = self._socket.recv(copy=False)
            self._unfinished.handed(peer, frame, len(frame))
            body.append(b"")
        if device not in self.auth.names:
            self._sessions.counts["alarm_revoked"] += 1
            self._sessions.forget(peer)
            return
        replies, work = self._sessions.receive(peer, device, body, self._clock.raw_ns())
        self._send(replies)
        if isinstance(work, Request) and isinstance(work.message, Fetch):
            self._service.put(work)
        elif work is not None:
            self._waiting += size_of(work)
            self._writer.put(work)

    def _settle(self) -> None:
        """Turn what the other threads finished into messages."""
        while self._outcomes:
            outcome = self._outcomes.popleft()
            self._waiting -= outcome.size
            self._sessions.failing = bool(outcome.problem)
            if outcome.recovered:
                self._send(self._sessions.recovered())
            self._send(self._sessions.stored(outcome.stored))
            if outcome.refused:
                self._send(self._sessions.refused(outcome.refused, outcome.problem[:500]))
            for greeting, missing in outcome.greetings:
                self._send(self._sessions.welcome(greeting, missing, []))
                self._service.put(greeting)
            self._send([(peer, pack(state)) for peer, state in outcome.states])
        while self._replies:
            self._send(self._replies.popleft())

    def _send(self, replies: list[Reply]) -> None:
        for peer, message in replies:
            try:
                self._socket.send(peer, zmq.SNDMORE | zmq.NOBLOCK)
                self._socket.send(message, zmq.NOBLOCK)
            except zmq.Again:
                self._unroutable += 1  # a peer that does not read; it will time out
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._unroutable += 1
                self._sessions.forget(peer)

    def _drain(self) -> None:
        self._writer.close()
        self._settle()


def _user_of(frame: zmq.Frame) -> str:
    """Name that the ZAP handler gave to the key of the connection that a frame came by."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""
