"""The device's end of the link as a pure step: no sockets, no clocks, no threads."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from syncline.errors import MessageError
from syncline.link.bucket import TokenBucket
from syncline.link.lanes import SendLane
from syncline.link.side import Side
from syncline.link.terms import LinkCaps, LinkState, LinkStats, Timing
from syncline.link.window import LEAST_BYTES, DelayWindow
from syncline.link.wire import (
    DATA_OVERHEAD,
    MAX_FRAME_BYTES,
    MAX_STREAMS_IN_HELLO,
    Ack,
    Bye,
    Chunk,
    Data,
    End,
    Error,
    Hello,
    Message,
    Notice,
    Refused,
    State,
    Welcome,
    pack,
    unpack,
)
from syncline.spool import Position, Spool
from syncline.timebase import NS_PER_S
from syncline.topics import LinkClass

_LOG = logging.getLogger(__name__)
WIRE_OVERHEAD = 80
"""Bytes that ZMTP, CURVE and TCP/IP add to a message, about."""
MAX_COMMANDS = 256


class Output(NamedTuple):
    """What a step wants done.

    Attributes:
        frames: Messages to send, in order.
        reset: Close the connection, throw away what waits in it, and make a new one.
        hold_ns: Wait this long before the new connection.
        wake_ns: Step again after this many nanoseconds at the latest.
    """

    frames: list[bytes]
    reset: bool
    hold_ns: int
    wake_ns: int


class _Sent(NamedTuple):
    tx: int
    sent_ns: int
    size: int
    n: int
    link_class: LinkClass
    mark: Position | None


IDLE_NS = NS_PER_S // 20
_AGAIN = ("session", "malformed")


class Sender:
    """State machine of the device.

    Args:
        spool: Where records come from and acknowledgements go to.
        device: Name that the collector knows our key by.
        caps: Byte caps.
        rng: Source of session numbers and jitter.
        on_notice: Called for each notice.
        on_fetch: Called for each answer to a fetch.
        side: File uploads, when there are any.
        timing: Timeouts.
    """

    def __init__(
        self,
        spool: Spool,
        device: str,
        *,
        caps: LinkCaps | None = None,
        rng: random.Random | None = None,
        on_notice: Callable[[Notice], None] | None = None,
        on_fetch: Callable[[Chunk | End | Refused], None] | None = None,
        side: Side | None = None,
        timing: Timing | None = None,
    ) -> None:
        caps = caps or LinkCaps()
        self.stats = LinkStats()
        self._spool, self._device = spool, device
        self._rng = rng or random.SystemRandom()
        self._on_notice, self._on_fetch, self._side = on_notice, on_fetch, side
        self._timing = timing or Timing()
        self._lanes = [SendLane(spool, c) for c in LinkClass]
        self._link_bucket = TokenBucket(caps.link)
        self._buckets = {c: TokenBucket(caps.classes.get(c)) for c in LinkClass}
        self._window = DelayWindow()
        self._flight: deque[_Sent] = deque()
        self._committed: dict[tuple[str, str], int] = {}
        self._commands: deque[bytes] = deque()
        self._session = 0
        self._tx = 0
        self._limit = 0
        self._since_ns = 0
        self._fails = 0
        self._frames: list[bytes] = []
        self._wait_ns = IDLE_NS

    # -- the step --------------------------------------------------------------------------------

    def step(self, now_raw_ns: int, inbox: Sequence[bytes], *, connected: bool) -> Output:
        """Take what came in and say what goes out.

        Args:
            now_raw_ns: CLOCK_MONOTONIC_RAW now.
            inbox: Messages received since the last step.
            connected: True while the transport has an authenticated connection.

        Raises:
            StorageError: The spool cannot be read.
        """
        self._frames, self._wait_ns = [], IDLE_NS
        if not connected:
            if self.stats.state is not LinkState.DOWN:
                self._drop_session()
            return Output([], False, 0, IDLE_NS)
        if self.stats.state is LinkState.DOWN:
            self._hello(now_raw_ns)
        for data in inbox:
            self._receive(data, now_raw_ns)
        if self._overdue(now_raw_ns):
            return self._reset()
        if self.stats.state is LinkState.OPEN:
            self._fill(now_raw_ns)
        self.stats.in_flight_bytes = self._in_flight()
        self.stats.window_bytes = min(self._window.size, self._limit)
        return Output(self._frames, False, 0, self._wait_ns)

    def command(self, message: Message) -> bool:
        """Queue a control message; False when too many wait already."""
        if len(self._commands) >= MAX_COMMANDS:
            return False
        self._commands.append(pack(message))
        return True

    def bye(self) -> bytes:
        """The message that ends the session."""
        return pack(Bye(self._session))

    @property
    def drained(self) -> bool:
        """True when nothing waits for an acknowledgement and the spool is empty."""
        return not self._flight and self._spool.stats().backlog == 0

    # -- sessions --------------------------------------------------------------------------------

    def _hello(self, now_ns: int) -> None:
        self._drop_session()
        self._session = self._rng.getrandbits(63) | 1
        self.stats.sessions += 1
        self.stats.state = LinkState.HELLO
        self._since_ns = now_ns
        first: dict[tuple[str, str], int] = {}
        for lane in self._lanes:
            lane.rewind()
            for key, seq in lane.first_seqs().items():
                first[key] = min(seq, first.get(key, seq))
        streams = [(boot, stream, seq) for (boot, stream), seq in first.items()]
        hello = Hello(
            self._session, self._device, self._spool.boot_id, streams[:MAX_STREAMS_IN_HELLO]
        )
        self._frames.append(pack(hello))

    def _drop_session(self) -> None:
        self._flight.clear()
        self._committed = {}
        self._tx = 0
        self._session = 0
        self.stats.state = LinkState.DOWN
        self.stats.in_flight_bytes = 0

    def _overdue(self, now_ns: int) -> bool:
        waited_ns = now_ns - self._since_ns
        patience = 1 << min(self._fails, 4)
        if self.stats.state is LinkState.HELLO:
            return waited_ns > self._timing.welcome_timeout_ns * patience
        if self._flight and self._limit > 0:
            return waited_ns > self._timing.ack_timeout_ns * patience
        return self._side is not None and self._limit > 0 and self._side.stalled(now_ns)

    def _reset(self) -> Output:
        self._fails += 1
        self.stats.resets += 1
        self.stats.problem = self.stats.problem or "no answer from the collector"
        _LOG.warning("link starts anew resets=%d", self.stats.resets)
        self._window = DelayWindow()
        self._drop_session()
        most = min(
            self._timing.backoff_least_ns << min(self._fails, 10), self._timing.backoff_most_ns
        )
        hold = int(self._rng.uniform(self._timing.backoff_least_ns / 4, most))
        return Output([], True, hold, hold)

    # -- receiving -------------------------------------------------------------------------------

    def _receive(self, data: bytes, now_ns: int) -> None:
        try:
            message = unpack(data)
        except MessageError as error:
            self.stats.malformed += 1
            _LOG.warning("message from the collector ignored: %s", error)
            return
        if isinstance(message, Ack):
            self._acked(message, now_ns)
        elif isinstance(message, Welcome):
            self._welcome(message, now_ns)
        elif isinstance(message, Error):
            self._error(message, now_ns)
        elif isinstance(message, Notice):
            self._notice(message)
        elif isinstance(message, State) and self._side is not None:
            self._side.on_state(message, now_ns)
        elif isinstance(message, Chunk | End | Refused) and self._on_fetch is not None:
            self._on_fetch(message)

    def _welcome(self, message: Welcome, now_ns: int) -> None:
        if message.session != self._session or self.stats.state is not LinkState.HELLO:
            return
        self.stats.state = LinkState.OPEN
        self.stats.problem = ""
        self._committed = {(boot, stream): seq for boot, stream, seq in message.committed}
        self._set_limit(message.window)
        self._since_ns = now_ns
        if self._side is not None:
            self._side.begin()
        for notice in message.notices:
            self._notice(notice)

    def _set_limit(self, window: int) -> None:
        self._limit = window
        self._window.most = max(window, LEAST_BYTES)

    def _notice(self, notice: Notice) -> None:
        if self._on_notice is not None:
            self._on_notice(notice)

    def _error(self, message: Error, now_ns: int) -> None:
        if message.session not in (self._session, 0):
            return
        text = f"{message.code}: {message.text}"
        if text != self.stats.problem:
            _LOG.error("collector refuses %s", text)
        self.stats.problem = text
        if message.code in _AGAIN:
            self._hello(now_ns)
        else:
            self._fails += 1
            self.stats.state = LinkState.HELLO  # nothing is sent until the timeout begins anew
            self._since_ns = now_ns

    def _acked(self, message: Ack, now_ns: int) -> None:
        if message.session != self._session or self.stats.state is not LinkState.OPEN:
            return
        if message.next_tx > self._tx:
            self.stats.malformed += 1
            return
        if self._limit == 0 < message.window:
            self._since_ns = now_ns
        self._set_limit(message.window)
        while self._flight and self._flight[0].tx < message.next_tx:
            sent = self._flight.popleft()
            self._since_ns, self._fails = now_ns, 0
            self.stats.acked_records += sent.n
            if sent.size:
                self._window.acked(sent.size, sent.sent_ns, now_ns)
            if sent.mark is not None:
                self._spool.acked(sent.link_class, sent.mark)

    # -- sending ---------------------------------------------------------------------------------

    def _in_flight(self) -> int:
        side = self._side.in_flight_bytes if self._side is not None else 0
        return sum(s.size for s in self._flight) + side

    def _fill(self, now_ns: int) -> None:
        room = min(self._window.size, self._limit) - self._in_flight()
        while self._link_bucket.ready(now_ns):
            if self._commands:
                self._emit(self._commands.popleft(), None)
                continue
            size = self._send_records(now_ns, room)
            if size == 0 and room > 0:
                size = self._send_side(now_ns)
            if size == 0:
                return
            room -= size
        self._wait_ns = min(self._wait_ns, self._link_bucket.wait_ns())

    def _emit(self, frame: bytes, link_class: LinkClass | None) -> int:
        size = len(frame)
        self._frames.append(frame)
        self._link_bucket.spend(size + WIRE_OVERHEAD)
        if link_class is not None:
            self._buckets[link_class].spend(size + WIRE_OVERHEAD)
        self.stats.sent_bytes += size
        return size

    def _send_records(self, now_ns: int, room: int) -> int:
        """Send one batch of the first class that has one and may; returns its bytes."""
        for lane in self._lanes:
            spare = LEAST_BYTES if lane.link_class is LinkClass.EVENTS and self._limit else 0
            if room + spare <= 0:
                continue
            bucket = self._buckets[lane.link_class]
            if not bucket.ready(now_ns):
                self._wait_ns = min(self._wait_ns, bucket.wait_ns())
                continue
            if size := self._send_batch(lane, now_ns):
                return size
        return 0

    def _send_batch(self, lane: SendLane, now_ns: int) -> int:
        link_class = lane.link_class
        most = self._link_bucket.batch_bytes(MAX_FRAME_BYTES)
        most = self._buckets[link_class].batch_bytes(min(most, max(self._window.size // 4, 16384)))
        while (batch := lane.peek(self._committed, most)) is not None:
            lane.pop()
            if batch.n:
                break
            self._note_mark(link_class, batch.mark)
        else:
            return 0
        data = Data(
            self._session, self._tx, link_class.value, batch.n, batch.seq,
            batch.boot_id, batch.stream, batch.body,
        )  # fmt: skip
        if not self._flight:
            self._since_ns = now_ns
        size = self._emit(pack(data), link_class)
        self._flight.append(_Sent(self._tx, now_ns, size, batch.n, link_class, batch.mark))
        self._tx += 1
        self.stats.sent_records += batch.n
        return size + DATA_OVERHEAD

    def _note_mark(self, link_class: LinkClass, mark: Position | None) -> None:
        """Records that the collector has already: acknowledged once what went before is."""
        if mark is None:
            return
        if self._flight:
            self._flight.append(_Sent(self._tx - 1, 0, 0, 0, link_class, mark))
        else:
            self._spool.acked(link_class, mark)

    def _send_side(self, now_ns: int) -> int:
        if self._side is None or not self._buckets[LinkClass.BULK].ready(now_ns):
            return 0
        most = self._link_bucket.batch_bytes(MAX_FRAME_BYTES)
        message = self._side.peek(self._buckets[LinkClass.BULK].batch_bytes(most))
        if message is None:
            return 0
        size = self._emit(pack(message), LinkClass.BULK)
        self._side.sent(now_ns)
        return size
