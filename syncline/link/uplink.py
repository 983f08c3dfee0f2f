"""The device's end of the link: a thread with the socket, around the pure `Sender`."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from syncline.errors import LinkError, StorageError, UsageError
from syncline.link.endpoint import check_endpoint
from syncline.link.fetches import Fetches, Progress
from syncline.link.keys import KeyPair
from syncline.link.sender import Output, Sender
from syncline.link.sockets import Monitor, dealer
from syncline.link.terms import LinkCaps, LinkState, LinkStats, Timing
from syncline.link.uploads import Uploads
from syncline.link.wire import Fetch, Notice
from syncline.spool import Committer, Spool
from syncline.timebase import NS_PER_S, OsClock, RawClock

_LOG = logging.getLogger(__name__)
RECEIVE_BATCH = 64
REFUSED_HOLD_NS = 2 * NS_PER_S


@dataclass(frozen=True, slots=True)
class UplinkOptions:
    """Settings of the device's end.

    Attributes:
        caps: Bytes per second, for the link and for single classes.
        commit_s: Interval of the spool's group commit.
        timing: Timeouts of the session.
    """

    caps: LinkCaps = field(default_factory=LinkCaps)
    commit_s: float = 0.05
    timing: Timing = field(default_factory=Timing)


class Uplink:
    """Sends what is in a spool, for as long as it runs; an absent collector stops nothing.

    Args:
        spool: Records to send; the uplink syncs it, the caller closes it after the uplink.
        endpoint: `tcp://host:port` of the collector.
        server_key: The collector's public CURVE key (Z85, 40 characters).
        keys: This device's pair; the collector must have enrolled it.
        clock: Raw clock; timers follow nothing else.
        options: See `UplinkOptions`.
        on_notice: Called on the link's thread for each notice; must not block.
        rng: Source of session numbers and jitter.

    Raises:
        UsageError: The endpoint or a key cannot work.
        StorageError: The spool's folder cannot be used for uploads.
    """

    def __init__(
        self,
        spool: Spool,
        endpoint: str,
        server_key: str,
        keys: KeyPair,
        clock: RawClock | None = None,
        *,
        options: UplinkOptions | None = None,
        on_notice: Callable[[Notice], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        options = options or UplinkOptions()
        check_endpoint(endpoint)
        if len(server_key) != 40:
            raise UsageError(
                f"server key of {len(server_key)} characters is not Z85 of 40",
                remedy="Give the public key of the collector, from its server.pub",
            )
        self._clock = clock or OsClock()
        self._endpoint, self._server_key, self._keys = endpoint, server_key, keys
        self._committer = Committer(spool, options.commit_s)
        self._uploads = Uploads(spool.folder / "uploads")
        self._asks: deque[Fetch] = deque(maxlen=64)
        self._fetches = Fetches(self._ask, self._clock)
        self._sender = Sender(
            spool,
            keys.name,
            caps=options.caps,
            rng=rng,
            on_notice=on_notice,
            on_fetch=self._fetches.on_answer,
            side=self._uploads,
            timing=options.timing,
        )
        self._stopping = threading.Event()
        self._stop_by_ns = 0
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)
        self._context = zmq.Context()
        self._context.set(zmq.IO_THREADS, 1)
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: Monitor | None = None
        self._hold_until_ns = 0

    # -- for the caller --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send."""
        self._committer.start()
        self._thread.start()

    def close(self, drain_s: float = 0.0) -> None:
        """Send what is spooled, and files that wait, for at most `drain_s` seconds, then stop.

        The rest stays for the next time.
        """
        if self._stopping.is_set():
            return
        self._committer.close()
        self._stop_by_ns = self._clock.raw_ns() + int(drain_s * NS_PER_S)
        self._stopping.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        self._context.destroy(linger=200)
        os.close(self._wake_r)
        os.close(self._wake_w)

    def stats(self) -> LinkStats:
        """Counters and state; `problem` says in words what keeps the link from working."""
        return self._sender.stats

    def fetch(
        self,
        resource: str,
        out_file: Path,
        progress: Progress | None = None,
        *,
        timeout_s: float = 300.0,
        max_bytes: int | None = None,
    ) -> None:
        """Fetch a resource into a file, resuming a partial one; blocks the caller.

        Args:
            resource: Name that the collector's provider knows.
            out_file: Where it goes, once its SHA-256 is right; `.part` beside it until then.
            progress: Called with (bytes so far, size).
            timeout_s: Time after which to give up; the partial file stays.
            max_bytes: Nothing is written of a resource that is announced as larger.

        Raises:
            LinkError: Refused, or no answer in time.
            IntegrityError: Larger than `max_bytes`, or not of the announced digest.
            StorageError: The file cannot be written.
        """
        self._fetches.fetch(resource, out_file, progress, timeout_s, max_bytes)

    def upload(
        self, path: Path, *, name: str | None = None, meta: Mapping[str, str] | None = None
    ) -> str:
        """Queue a file for sending; it is remembered over restarts. Returns its SHA-256 (hex).

        Raises:
            MediaError: The file cannot be read.
            StorageError: The queue cannot be written.
        """
        digest = self._uploads.add(path, name or path.name, meta or {})
        self._wake()
        return digest

    @property
    def uploads(self) -> Uploads:
        """The queue of files."""
        return self._uploads

    def _ask(self, fetch: Fetch) -> bool:
        self._asks.append(fetch)
        self._wake()
        return True

    def _wake(self) -> None:
        try:
            os.write(self._wake_w, b"x")
        except BlockingIOError:
            return  # it is awake already

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._wake_r, zmq.POLLIN)
        try:
            while not self._done():
                self._guarded_turn(poller)
        except zmq.ZMQError as error:
            self._sender.stats.problem = str(LinkError(f"transport failed: {error}"))
            self._sender.stats.state = LinkState.DOWN
            _LOG.exception("link stopped")
        finally:
            self._say_bye()
            self._disconnect(poller)

    def _done(self) -> bool:
        if not self._stopping.is_set():
            return False
        drained = self._sender.drained and self._uploads.waiting == 0
        return drained or self._clock.raw_ns() >= self._stop_by_ns

    def _guarded_turn(self, poller: zmq.Poller) -> None:
        """A turn; what fails in it as nobody foresaw ends the session, not the thread.

        A thread that is gone would leave an open session in the books, and health at `ok`.
        """
        try:
            self._turn(poller)
        except zmq.ZMQError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the link begins anew and says so
            _LOG.exception("link begins anew after an error of its own")
            now_ns = self._clock.raw_ns()
            self._disconnect(poller)
            self._sender.step(now_ns, [], connected=False)
            self._sender.stats.problem = f"internal error: {type(error).__name__}: {error}"
            self._hold_until_ns = now_ns + REFUSED_HOLD_NS

    def _turn(self, poller: zmq.Poller) -> None:
        now_ns = self._clock.raw_ns()
        if self._socket is None and now_ns >= self._hold_until_ns:
            self._connect(poller)
        inbox = self._receive()
        connected = self._monitor is not None and self._monitor.read()
        if self._monitor is not None and self._monitor.problem:
            self._sender.stats.problem = self._monitor.problem
            if not connected:
                # libzmq gives a refused connection up for good; the key may be enrolled any time.
                self._disconnect(poller)
                self._hold_until_ns = now_ns + REFUSED_HOLD_NS
        while self._asks and connected:
            self._sender.command(self._asks.popleft())
        try:
            output = self._sender.step(now_ns, inbox, connected=connected)
        except StorageError as error:
            self._sender.stats.problem = str(error)
            output = Output([], False, 0, NS_PER_S)
        self._send(output)
        if output.reset:
            self._disconnect(poller)
            self._hold_until_ns = now_ns + output.hold_ns
        self._sleep(poller, output.wake_ns)

    def _sleep(self, poller: zmq.Poller, wake_ns: int) -> None:
        if self._stopping.is_set():
            wake_ns = min(wake_ns, max(self._stop_by_ns - self._clock.raw_ns(), 0))
        for handle, _ in poller.poll(max(wake_ns // 1_000_000, 1)):
            if handle == self._wake_r:
                os.read(self._wake_r, 4096)

    def _receive(self) -> list[bytes]:
        inbox: list[bytes] = []
        while self._socket is not None and len(inbox) < RECEIVE_BATCH:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            inbox.append(frames[0])
        return inbox

    def _send(self, output: Output) -> None:
        for frame in output.frames:
            if self._socket is not None:
                self._socket.send(frame, zmq.NOBLOCK, copy=len(frame) < 16384)

    def _connect(self, poller: zmq.Poller) -> None:
        self._socket = dealer(self._context, self._server_key, self._keys)
        self._monitor = Monitor(self._socket)
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor.socket, zmq.POLLIN)
        self._socket.connect(self._endpoint)

    def _disconnect(self, poller: zmq.Poller) -> None:
        if self._socket is None or self._monitor is None:
            return
        poller.unregister(self._socket)
        poller.unregister(self._monitor.socket)
        self._monitor.close(self._socket)
        self._socket.close(linger=0 if not self._stopping.is_set() else 200)
        self._socket = self._monitor = None

    def _say_bye(self) -> None:
        if self._socket is not None:
            try:
                self._socket.send(self._sender.bye(), zmq.NOBLOCK)
            except zmq.Again:
                return
