"""The collector's answering thread: fetches and notices, so that a slow provider stalls nothing."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from syncline.cloud.sessions import Greeting, Request
from syncline.errors import SynclineError
from syncline.link.provider import Provider
from syncline.link.wire import PIECE_BYTES, Chunk, End, Fetch, Message, Refused, pack
from syncline.timebase import NS_PER_S, RawClock

_LOG = logging.getLogger(__name__)
MAX_WAITING = 1024
MAX_TOLD = 10_000
ASK_NS = NS_PER_S


class Service:
    """Serves a `Provider` to devices.

    Args:
        provider: What is served; None: every fetch is refused.
        clock: Raw clock.
        post: Called with (peer, message) pairs to send; wakes the receiver.
        connected: Gives the sessions that are open: (peer, device).
    """

    def __init__(
        self,
        provider: Provider | None,
        clock: RawClock,
        post: Callable[[list[tuple[bytes, bytes]]], None],
        connected: Callable[[], Sequence[tuple[bytes, str]]],
    ) -> None:
        self.provider, self._clock = provider, clock
        self._post, self._connected = post, connected
        self._queue: queue.Queue[Request | Greeting] = queue.Queue(MAX_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)
        self._revision: int | None = None
        self._told: dict[tuple[str, str], str] = {}  # by device and resource: what was logged last
        self.dropped = 0
        self.failures = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        """False when the thread is gone."""
        return self._thread.is_alive()

    def put(self, request: Request | Greeting) -> None:
        """Queue a fetch, or a device to be told its notices; a full queue drops it."""
        try:
            self._queue.put_nowait(request)
        except queue.Full:
            self.dropped += 1

    def _notices(self, peer: bytes, device: str) -> list[tuple[bytes, bytes]]:
        if self.provider is None:
            return []
        try:
            notices = [(peer, pack(notice)) for notice in self.provider.notices(device)]
            self._told.pop((device, "notices"), None)
            return notices
        except (SynclineError, SQLAlchemyError) as error:
            self._failed(device, "notices", error)
            return []

    def _run(self) -> None:
        self._look()
        ask_ns = self._clock.raw_ns()
        while not self._stop.is_set():
            try:
                one = self._queue.get(timeout=0.2)
            except queue.Empty:
                pass
            else:
                self._post(self._answer(one))
            if self._clock.raw_ns() - ask_ns >= ASK_NS:
                self._look()
                ask_ns = self._clock.raw_ns()

    def _answer(self, one: Request | Greeting) -> list[tuple[bytes, bytes]]:
        if isinstance(one, Greeting):
            return self._notices(one.peer, one.device)
        assert isinstance(one.message, Fetch)
        return [(one.peer, pack(self._fetch(one.device, one.message)))]

    def _fetch(self, device: str, fetch: Fetch) -> Message:
        if self.provider is None:
            return Refused(fetch.request, "this collector serves nothing")
        if fetch.offset < 0 or not 0 <= fetch.length <= PIECE_BYTES or len(fetch.name) > 512:
            return Refused(fetch.request, f"a piece has at most {PIECE_BYTES} bytes")
        try:
            if fetch.length == 0:
                found = self.provider.list_resource(device, fetch.name)
                self._told.pop((device, fetch.name), None)
                return End(fetch.request, found.size, found.sha256)
            body = self.provider.read(device, fetch.name, fetch.offset, fetch.length)
        except (SynclineError, SQLAlchemyError) as error:
            self._failed(device, fetch.name, error)
            return Refused(fetch.request, str(error).replace("\n", " ")[:1000])
        return Chunk(fetch.request, fetch.offset, body)

    def _look(self) -> None:
        """Tell every device its notices when the provider says that they changed."""
        if self.provider is None:
            return
        try:
            revision = self.provider.revision()
        except (SynclineError, SQLAlchemyError) as error:
            self._failed("", "revision", error)
            return
        self._told.pop(("", "revision"), None)
        if self._revision is not None and revision != self._revision:
            for peer, device in self._connected():
                self._post(self._notices(peer, device))
        self._revision = revision

    def _failed(self, device: str, what: str, error: Exception) -> None:
        """Count it; log it where it is news, for devices ask again and again."""
        self.failures += 1
        text = str(error).replace("\n", " ")
        if self._told.get((device, what)) == text:
            return
        if len(self._told) >= MAX_TOLD:
            self._told.clear()
        self._told[device, what] = text
        _LOG.warning("provider: %s%s", f"{device}: " if device else "", text)
