"""Queues between those who record and the thread that writes: one lane per topic."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from foxglove import Channel, Context

from syncline.errors import MessageError
from syncline.log.schemas import LogMessage, schema_name_of, schema_of
from syncline.topics import EVENTS, MAPPING, DropPolicy, LogFile, Topic, topic_of

_BLOCK_S = 0.2
_LOSSLESS_S = 60.0
_BLOCK_STEP_S = 0.001


@dataclass(eq=False, slots=True)
class Lane:
    """One topic: its channel, what waits, and what became of the rest.

    Attributes:
        log: Hands a payload and its time to foxglove-sdk.
        limit: Messages that may wait.
        is_tel: The topic goes to the telemetry file.
        watched: The session looks into these messages: mappings and clock events.
        sequence: Of the last message in the open file; foxglove-sdk counts the same from 1.
        reported: Of dropped and lost, what /drops has told already.
        full: It stayed full through a wait: the next message does not wait.
    """

    name: str
    number: int
    topic: Topic
    kind: type[LogMessage]
    channel: Channel
    log: Callable[[bytes, int], None]
    limit: int
    is_tel: bool
    watched: bool
    items: deque[Item] = field(default_factory=deque)
    sequence: int = 0
    written: int = 0
    dropped: int = 0
    lost: int = 0
    reported: int = 0
    full: bool = False


class Item(NamedTuple):
    """One message that waits."""

    lane: Lane
    payload: bytes
    raw_ns: int


def open_lane(name: str, number: int, message: LogMessage, context: Context) -> Lane:
    """A lane for a topic of the table.

    Raises:
        MessageError: The topic is not in the table, or the message is not of its schema.
    """
    topic = topic_of(name)
    found = schema_name_of(message)
    if found != topic.schema:
        raise MessageError(
            f"topic {name!r} carries {topic.schema}, not {found}",
            remedy="See docs/log-format.md for the table of topics",
        )
    channel = Channel(name, schema=schema_of(message), message_encoding="protobuf", context=context)
    return Lane(
        name, number, topic, type(message), channel, channel.base.log, topic.queue,
        topic.file is LogFile.TELEMETRY, topic in (MAPPING, EVENTS),
    )  # fmt: skip


class LaneQueue:
    """Messages of all lanes in order of arrival, within a count per lane and a total of bytes.

    Args:
        max_bytes: Bytes of payload that may wait.
        lossless: Wait up to a minute for room, whatever the topic's policy.
    """

    def __init__(self, max_bytes: int, *, lossless: bool = False) -> None:
        self._lossless = lossless
        self._lock = threading.Lock()
        self._order: deque[Lane] = deque()
        self._max_bytes = max_bytes
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    def put(self, item: Item) -> bool:
        """Queue a message by the drop policy of its topic; False when one was dropped."""
        lane, size = item.lane, len(item.payload)
        with self._lock:
            if len(lane.items) < lane.limit and self.bytes + size <= self._max_bytes:
                self._append(item)
                return True
            policy = DropPolicy.BLOCK if self._lossless else lane.topic.drop
            if policy is DropPolicy.DROP_OLDEST and lane.items:
                lane.dropped += 1
                self.bytes += size - len(lane.items.popleft().payload)
                lane.items.append(item)
                return False
        if policy is DropPolicy.BLOCK and not lane.full and self._wait(item):
            return True
        with self._lock:
            lane.full = True
            lane.dropped += 1
        return False

    def _wait(self, item: Item) -> bool:
        """Wait a little for room; a lane that stays full is not waited for again."""
        limit_s = _LOSSLESS_S if self._lossless else _BLOCK_S
        for _ in range(int(limit_s / _BLOCK_STEP_S)):
            time.sleep(_BLOCK_STEP_S)
            if self._has_room(item) and self._put_now(item):
                return True
        return False

    def _append(self, item: Item) -> None:
        lane = item.lane
        lane.items.append(item)
        lane.full = False
        self._order.append(lane)
        self.bytes += len(item.payload)

    def _has_room(self, item: Item) -> bool:
        return (
            len(item.lane.items) < item.lane.limit
            and self.bytes + len(item.payload) <= self._max_bytes
        )

    def _put_now(self, item: Item) -> bool:
        with self._lock:
            if not self._has_room(item):
                return False
            self._append(item)
            return True

    def take(self, limit: int) -> list[Item]:
        """Up to `limit` messages, oldest first."""
        with self._lock:
            count = min(limit, len(self._order))
            order = self._order
            batch = [order.popleft().items.popleft() for _ in range(count)]
            self.bytes -= sum([len(item.payload) for item in batch])
        return batch
