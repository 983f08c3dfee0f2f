"""The collector's transaction: which records are new, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from syncline.cloud.bulk import ROWS, Row, inserting, setting
from syncline.cloud.frames import Placed
from syncline.cloud.tables import EXTENTS, QUARANTINE, STREAMS

Bad = tuple[int, int, str]
"""First seq, last seq and reason of records to quarantine."""

_ADD_EXTENTS = inserting(EXTENTS)
_ADD_BAD = inserting(QUARANTINE)
_MOVE_TAILS = setting(STREAMS.c.id, STREAMS.c.tail_seq)
_LOCKED = (
    sa.select(STREAMS.c.id, STREAMS.c.tail_seq)
    .where(STREAMS.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(STREAMS.c.id)
    .with_for_update()
    .subquery()
)
_TAILS = sa.select(
    sa.func.aggregate_strings(
        sa.cast(_LOCKED.c.id, sa.String) + " " + sa.cast(_LOCKED.c.tail_seq, sa.String), " "
    )
)
"""Tails of streams as one text: `sqlite3` gives up the interpreter's lock at each row it gives."""


class Commit:
    """One transaction: frames in, ranges that were not there out.

    Args:
        db: Connection in a transaction that may write.
        ids: Stream id of each frame, in order.
    """

    def __init__(self, db: sa.Connection, ids: Sequence[int]) -> None:
        self._db = db
        self._ids = ids
        self._tails = self._lock_tails()
        self._before = dict(self._tails)
        self._extents: list[Row] = []
        self._bad: list[Row] = []
        self._new = 0

    def _lock_tails(self) -> dict[int, int]:
        ids = sorted(set(self._ids))
        tails: dict[int, int] = {}
        for at in range(0, len(ids), 500):
            found = str(self._db.scalar(_TAILS, {"ids": ids[at : at + 500]})).split(" ")
            tails.update(zip(map(int, found[::2]), map(int, found[1::2]), strict=True))
        return tails

    def run(self, placed: Sequence[tuple[Placed, Sequence[Bad]]]) -> int:
        """Record the frames; returns the number of new records."""
        for stream_id, (one, bad) in zip(self._ids, placed, strict=True):
            for first, last in self._missing(stream_id, one):
                self._keep(stream_id, one, first, last, bad)
            end = one.frame.seq + one.frame.n - 1
            self._tails[stream_id] = max(self._tails[stream_id], end)
        self._flush()
        before = self._before
        _MOVE_TAILS.run(
            self._db, [(i, tail) for i, tail in self._tails.items() if tail != before[i]]
        )
        return self._new

    def _missing(self, stream_id: int, one: Placed) -> list[tuple[int, int]]:
        """Parts of a frame's range that are not stored."""
        first, last = one.frame.seq, one.frame.seq + one.frame.n - 1
        if first > self._tails[stream_id]:
            return [(first, last)]
        self._flush()
        query = (
            sa.select(EXTENTS.c.first_seq, EXTENTS.c.last_seq)
            .where(
                EXTENTS.c.stream_id == stream_id,
                EXTENTS.c.first_seq >= floor_of(stream_id, first),
                EXTENTS.c.first_seq <= last,
                EXTENTS.c.last_seq >= first,
            )
            .order_by(EXTENTS.c.first_seq)
        )
        out = []
        for low, high in self._db.execute(query):
            if low > first:
                out.append((first, low - 1))
            first = max(first, high + 1)
        if first <= last:
            out.append((first, last))
        return out

    def _keep(self, stream_id: int, one: Placed, first: int, last: int, bad: Sequence[Bad]) -> None:
        self._new += last - first + 1
        frame = one.frame
        self._extents.append(
            (stream_id, first, last, one.stored_id, one.offset, len(frame.body), frame.seq, frame.n)
        )
        for low, high, reason in bad:
            if low <= last and high >= first:
                self._bad.append((stream_id, max(low, first), min(high, last), reason))

    def _flush(self) -> None:
        _ADD_EXTENTS.run(self._db, self._extents)
        _ADD_BAD.run(self._db, self._bad)
        self._extents, self._bad = [], []


def floor_of(
    stream_id: int | sa.ColumnElement[int], seq: int | sa.ColumnElement[int]
) -> sa.ColumnElement[int]:
    """Start of the last range of a stream that begins at or before `seq`; `seq` without one.

    It keeps a search for ranges around `seq` from walking the stream from its beginning.
    """
    inner = EXTENTS.alias()
    found = (
        sa.select(sa.func.max(inner.c.first_seq))
        .where(inner.c.stream_id == stream_id, inner.c.first_seq <= seq)
        .scalar_subquery()
    )
    return sa.func.coalesce(found, seq)


def named(
    device: str, boot: str | sa.BindParameter[str], stream: str | sa.BindParameter[str]
) -> tuple[sa.ColumnElement[bool], ...]:
    """Conditions that pick one stream."""
    return STREAMS.c.device == device, STREAMS.c.boot == boot, STREAMS.c.stream == stream


Key = tuple[str, str, str]
"""Device, boot, stream."""
_KEY = (STREAMS.c.device, STREAMS.c.boot, STREAMS.c.stream)
_NUMBERS = sa.select(STREAMS.c.id, *_KEY).where(
    sa.tuple_(*_KEY).in_(sa.bindparam("keys", expanding=True))
)


def stream_ids(db: sa.Connection, classes: Mapping[Key, int]) -> dict[Key, int]:
    """Numbers of streams, by key; given on first sight, with the link class."""
    found = _numbers(db, list(classes))
    fresh = [key for key in classes if key not in found]
    if fresh:
        rows = [(*key, classes[key], -1) for key in fresh]
        names = [*[column.name for column in _KEY], "link_class", "tail_seq"]
        db.execute(STREAMS.insert(), [dict(zip(names, row, strict=True)) for row in rows])
        found |= _numbers(db, fresh)
    return found


def _numbers(db: sa.Connection, keys: Sequence[Key]) -> dict[Key, int]:
    out: dict[Key, int] = {}
    for at in range(0, len(keys), ROWS):
        for number, *key in db.execute(_NUMBERS, {"keys": keys[at : at + ROWS]}).all():
            out[key[0], key[1], key[2]] = number
    return out


def first_key(result: sa.CursorResult[tuple[()]]) -> int:
    """Primary key of the row just inserted."""
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])
