"""Turns spooled records into DATA messages: runs of one stream with consecutive numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from syncline.link.wire import MAX_FRAME_BYTES, pack_body
from syncline.spool import START, Position, Spool, SpoolRecord
from syncline.topics import LinkClass

READ_RECORDS = 1024
_ROW_BYTES = 12
_FRAME_ROOM = 1024

Committed = Mapping[tuple[str, str], int]


class Batch(NamedTuple):
    """Records that go in one DATA message.

    Attributes:
        mark: Place in the spool that is acknowledged with this batch, or None when others must too.
    """

    boot_id: str
    stream: str
    seq: int
    n: int
    body: bytes
    mark: Position | None


class SendLane:
    """Cursor of one class in the spool, with the batches made but not sent."""

    def __init__(self, spool: Spool, link_class: LinkClass) -> None:
        self.link_class = link_class
        self._spool = spool
        self._cursor = START
        self._ready: deque[Batch] = deque()

    def rewind(self) -> None:
        """Begin again at what the spool knows as acknowledged."""
        self._ready.clear()
        self._cursor = self._spool.ack_position(self.link_class)

    def first_seqs(self) -> dict[tuple[str, str], int]:
        """First unacknowledged number of each stream among the next records."""
        rows, _ = self._spool.read(self.link_class, self._cursor, max_records=READ_RECORDS)
        first: dict[tuple[str, str], int] = {}
        for record, _ in rows:
            first.setdefault((record.boot_id, record.stream), record.seq)
        return first

    def peek(self, committed: Committed, max_bytes: int) -> Batch | None:
        """The next batch, left in place; None when the class is drained.

        A batch with `n == 0` carries only a mark: its records are at the collector already.
        """
        if not self._ready:
            rows, self._cursor = self._spool.read(
                self.link_class, self._cursor, max_records=READ_RECORDS
            )
            if rows:
                self._ready.extend(_batches(rows, committed, min(max_bytes, MAX_FRAME_BYTES)))
        return self._ready[0] if self._ready else None

    def pop(self) -> Batch:
        """Take the batch that `peek` showed."""
        return self._ready.popleft()


def _batches(
    rows: list[tuple[SpoolRecord, Position]], committed: Committed, max_bytes: int
) -> Iterator[Batch]:
    """Group a window of records by stream; the last batch carries the window's end as its mark."""
    streams: dict[tuple[str, str], list[SpoolRecord]] = {}
    for record, _ in rows:
        key = (record.boot_id, record.stream)
        if record.seq >= committed.get(key, 0):
            streams.setdefault(key, []).append(record)
    held: Batch | None = None
    for records in streams.values():
        for run in _runs(records, max_bytes):
            if held is not None:
                yield held
            body = pack_body([(r.raw_ns, r.payload) for r in run])
            held = Batch(run[0].boot_id, run[0].stream, run[0].seq, len(run), body, None)
    mark = rows[-1][1]
    yield Batch("", "", 0, 0, b"", mark) if held is None else held._replace(mark=mark)


def _runs(records: list[SpoolRecord], max_bytes: int) -> Iterator[list[SpoolRecord]]:
    """Split at gaps and at `max_bytes`; a record larger than that goes alone."""
    run: list[SpoolRecord] = []
    size = _FRAME_ROOM if max_bytes > 4 * _FRAME_ROOM else 0
    room = size
    for record in records:
        cost = len(record.payload) + _ROW_BYTES
        if run and (record.seq != run[-1].seq + 1 or size + cost > max_bytes):
            yield run
            run, size = [], room
        run.append(record)
        size += cost
    if run:
        yield run
