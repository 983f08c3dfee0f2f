"""The collector's writing thread: groups, one sync each, then the acknowledgements."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from syncline.cloud.catalog import Catalog
from syncline.cloud.commit import Bad
from syncline.cloud.frames import Frame
from syncline.cloud.incoming import Incoming
from syncline.cloud.sessions import Accepted, Greeting, Request, Work
from syncline.cloud.store import FrameStore, checked
from syncline.errors import StorageError
from syncline.link.wire import Offer, Part, State
from syncline.timebase import NS_PER_S, RawClock

_LOG = logging.getLogger(__name__)
GROUP_ITEMS = 1024
GROUP_BYTES = 16 << 20
RETRY_NS = NS_PER_S
LINGER_S = 0.001


@dataclass(slots=True)
class Outcome:
    """What a group led to, for the receiving thread."""

    stored: list[Accepted] = field(default_factory=list)
    refused: list[Accepted] = field(default_factory=list)
    problem: str = ""
    recovered: bool = False
    greetings: list[tuple[Greeting, list[int]]] = field(default_factory=list)
    states: list[tuple[bytes, State]] = field(default_factory=list)
    size: int = 0


class Writer:
    """Stores what the receiver accepted.

    Args:
        catalog: Truth store.
        store: Segment files.
        incoming: Partial files.
        clock: Raw clock.
        post: Called with each outcome; wakes the receiver.
    """

    def __init__(
        self,
        catalog: Catalog,
        store: FrameStore,
        incoming: Incoming,
        clock: RawClock,
        post: Callable[[Outcome], None],
    ) -> None:
        self._catalog, self._store, self._incoming = catalog, store, incoming
        self._clock, self._post = clock, post
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.counts: Counter[str] = Counter()
        self.problem = ""
        self._retry_ns = 0
        self._last_group_ns = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, work: Work) -> None:
        """Queue work; the receiver bounds the bytes."""
        self._queue.put(work)

    def close(self) -> None:
        """Store what is queued, then stop."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._store.seal()
        self._incoming.close()

    @property
    def alive(self) -> bool:
        """False when the thread is gone."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            group = self._drain()
            if group or self.problem:
                began_ns = self._clock.raw_ns()
                self._post(self._do(group))
                self._last_group_ns = self._clock.raw_ns() - began_ns

    def _drain(self) -> list[Work]:
        """Wait for work and take all that is there, up to a bound."""
        group: list[Work] = []
        size = 0
        try:
            item = self._queue.get(timeout=0.2)
            if self._last_group_ns < 2_000_000:
                self._stopping.wait(LINGER_S)  # a fast disk would commit single records
            while True:
                if item is None:
                    self._stopping.set()
                    break
                group.append(item)
                size += size_of(item)
                if len(group) >= GROUP_ITEMS or size >= GROUP_BYTES:
                    break
                item = self._queue.get_nowait()
        except queue.Empty:
            pass
        return group

    def _do(self, group: Sequence[Work]) -> Outcome:
        out = Outcome(size=sum(size_of(item) for item in group))
        accepted = [item for item in group if isinstance(item, Accepted)]
        if self.problem:
            self._retry(out)
        if self.problem:
            out.refused = accepted
        elif accepted:
            self._store_frames(accepted, out)
        self._greet([item for item in group if isinstance(item, Greeting)], out)
        if not self.problem:
            self._files([item for item in group if isinstance(item, Request)], out)
        out.problem = self.problem
        return out

    def _store_frames(self, accepted: list[Accepted], out: Outcome) -> None:
        good: list[tuple[Frame, list[Bad]]] = []
        for one in accepted:
            found = checked(one.frame)
            if isinstance(found, str):
                self.counts["frames_unreadable"] += 1
                _LOG.error("frame does not decode device=%s: %s", one.frame.device, found)
                continue  # its checksum was right: the device made it so, again and again
            good.append(found)
            self.counts["quarantined"] += sum(last - first + 1 for first, last, _ in found[1])
        try:
            new = self._store.store(good)
        except StorageError as error:
            self._fail(error)
            out.refused = accepted
            return
        self.counts["groups"] += 1
        self.counts["records"] += new
        self.counts["records_known"] += sum(frame.n for frame, _ in good) - new
        out.stored = accepted

    def _fail(self, error: StorageError) -> None:
        if not self.problem:
            _LOG.error("nothing is acknowledged: %s", error)
        self.problem = str(error)
        self.counts["failures"] += 1
        self._retry_ns = self._clock.raw_ns() + RETRY_NS

    def _retry(self, out: Outcome) -> None:
        """Prove that disk and database work again before anything is taken."""
        if self._clock.raw_ns() < self._retry_ns:
            return
        try:
            self._store.prove()
        except StorageError as error:
            self._fail(error)
            return
        _LOG.warning("storage works again after: %s", self.problem)
        self.problem = ""
        out.recovered = True

    def _greet(self, greetings: list[Greeting], out: Outcome) -> None:
        for one in greetings:
            try:
                found = self._catalog.next_missing(one.device, one.hello.streams)
            except StorageError as error:
                self._fail(error)
                found = [seq for _, _, seq in one.hello.streams]
            out.greetings.append((one, found))

    def _files(self, requests: list[Request], out: Outcome) -> None:
        try:
            for one in requests:
                if isinstance(one.message, Offer):
                    out.states.append((one.peer, self._incoming.offer(one.device, one.message)))
                elif isinstance(one.message, Part):
                    self._incoming.part(one.device, one.peer, one.message)
            out.states += self._incoming.sync()
        except StorageError as error:
            self._fail(error)


def size_of(item: Work) -> int:
    """Bytes that a piece of work holds while it waits."""
    if isinstance(item, Accepted):
        return len(item.frame.body) + 512
    if isinstance(item, Request) and isinstance(item.message, Part):
        return len(item.message.body) + 512
    return 512
