"""What the collector has: devices, boots, streams, the ranges stored, and the way to the bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import sqlalchemy as sa

from syncline.cloud.commit import Bad, Commit, first_key, floor_of, named, stream_ids
from syncline.cloud.frames import Placed
from syncline.cloud.tables import (
    EXTENTS,
    META,
    QUARANTINE,
    SCHEMA_VERSION,
    SETTINGS,
    STORED,
    STREAMS,
    UPLOADS,
)
from syncline.cloud.truth import make_tables, refused, sqlite_url, truth_engine
from syncline.errors import StorageError
from syncline.link.wire import unpack_body

SEGMENT_FOLDER = "segments"
_PAGE = 512
MAX_SEQ = 2**63 - 1


class StoredRecord(NamedTuple):
    """One record of a stream."""

    seq: int
    raw_ns: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive numbers of a stream that are stored, both ends included."""

    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class UploadRow:
    """A file that a device sent; its bytes are the object `sha256`."""

    sha256: str
    device: str
    name: str
    size: int
    meta: dict[str, str]


class Catalog:
    """Truth about what is stored. Any number of threads and processes may use one database.

    Args:
        engine: From `truth_engine`; the tables are made when absent.
        data: Data folder, under which the segment files lie.

    Raises:
        StorageError: The database cannot be used or is of a newer version.
    """

    def __init__(self, engine: sa.Engine, data: Path) -> None:
        self.engine = engine
        self.data = data
        self._ids: dict[tuple[str, str, str], int] = {}
        self._readers = engine.execution_options(readonly=True)
        make_tables(engine, META)
        try:
            with engine.begin() as db:
                _check_version(db)
        except sa.exc.SQLAlchemyError as error:
            raise refused(error) from error

    @classmethod
    def open(cls, data: Path, url: str | None = None) -> Catalog:
        """The catalog of a data folder.

        Args:
            data: Folder given to `syncline collect --data`.
            url: Database URL, when it is not the SQLite file in that folder.

        Raises:
            StorageError: The database cannot be used.
        """
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {data}: {error.strerror}") from error
        return cls(truth_engine(url or sqlite_url(data)), data)

    def __enter__(self) -> Catalog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the connections."""
        self.engine.dispose()

    # -- reading ---------------------------------------------------------------------------------

    def devices(self) -> list[str]:
        """Devices that have sent records, by name."""
        return self._column(sa.select(STREAMS.c.device).distinct().order_by(STREAMS.c.device))

    def boots(self, device: str) -> list[str]:
        """Boots of a device, in the order in which they were first seen."""
        query = (
            sa.select(STREAMS.c.boot)
            .where(STREAMS.c.device == device)
            .group_by(STREAMS.c.boot)
            .order_by(sa.func.min(STREAMS.c.id))
        )
        return self._column(query)

    def streams(self, device: str, boot: str) -> list[str]:
        """Streams of a boot, by name."""
        query = (
            sa.select(STREAMS.c.stream)
            .where(STREAMS.c.device == device, STREAMS.c.boot == boot)
            .order_by(STREAMS.c.stream)
        )
        return self._column(query)

    def spans(self, device: str, boot: str, stream: str) -> list[Span]:
        """Ranges of numbers that are stored, in order, joined where they touch."""
        query = (
            sa.select(EXTENTS.c.first_seq, EXTENTS.c.last_seq)
            .join(STREAMS)
            .where(*named(device, boot, stream))
            .order_by(EXTENTS.c.first_seq)
        )
        out: list[Span] = []
        with self._readers.connect() as db:
            for first, last in db.execute(query):
                if out and out[-1].last_seq + 1 == first:
                    out[-1] = Span(out[-1].first_seq, last)
                else:
                    out.append(Span(first, last))
        return out

    def count(self, device: str, boot: str, stream: str) -> int:
        """Records stored, quarantined ones included."""
        return sum(s.last_seq - s.first_seq + 1 for s in self.spans(device, boot, stream))

    def quarantined(self, device: str, boot: str, stream: str) -> list[Bad]:
        """Ranges that readers leave out, with the reason."""
        query = (
            sa.select(QUARANTINE.c.first_seq, QUARANTINE.c.last_seq, QUARANTINE.c.reason)
            .join(STREAMS)
            .where(*named(device, boot, stream))
            .order_by(QUARANTINE.c.first_seq)
        )
        with self._readers.connect() as db:
            return [(row[0], row[1], row[2]) for row in db.execute(query)]

    def records(
        self,
        device: str,
        boot: str,
        stream: str,
        from_seq: int = 0,
        to_seq: int | None = None,
        *,
        with_quarantined: bool = False,
    ) -> Iterator[StoredRecord]:
        """Records of a stream in order of `seq`, both ends included.

        Memory: one stored frame (at most 256 kB) and a page of 512 index rows.

        Raises:
            StorageError: A stored file is gone or cannot be read.
        """
        last = MAX_SEQ if to_seq is None else to_seq
        bad = [] if with_quarantined else self.quarantined(device, boot, stream)
        skip = _Skips(bad)
        at = from_seq
        while rows := self._extents(device, boot, stream, at, last):
            for row in rows:
                body = self._body(row.name, row.offset, row.length)
                rows_in = unpack_body(body, row.frame_n)
                low = max(row.first_seq, from_seq) - row.frame_seq
                high = min(row.last_seq, last) - row.frame_seq
                for seq, (raw_ns, payload) in enumerate(
                    rows_in[low : high + 1], row.frame_seq + low
                ):
                    if not skip.has(seq):
                        yield StoredRecord(seq, raw_ns, payload)
            at = rows[-1].last_seq + 1

    def _extents(self, device: str, boot: str, stream: str, at: int, last: int) -> Sequence[Any]:
        query = (
            sa.select(
                STORED.c.name,
                EXTENTS.c.offset,
                EXTENTS.c.length,
                EXTENTS.c.first_seq,
                EXTENTS.c.last_seq,
                EXTENTS.c.frame_seq,
                EXTENTS.c.frame_n,
            )
            .join(STREAMS, STREAMS.c.id == EXTENTS.c.stream_id)
            .join(STORED, STORED.c.id == EXTENTS.c.stored_id)
            .where(*named(device, boot, stream))
            .where(EXTENTS.c.first_seq >= floor_of(STREAMS.c.id, at))
            .where(EXTENTS.c.last_seq >= at, EXTENTS.c.first_seq <= last)
            .order_by(EXTENTS.c.first_seq)
            .limit(_PAGE)
        )
        with self._readers.connect() as db:
            return db.execute(query).all()

    def _body(self, name: str, offset: int, length: int) -> bytes:
        path = self.data / SEGMENT_FOLDER / name
        try:
            with path.open("rb") as file:
                file.seek(offset)
                body = file.read(length)
        except OSError as error:
            raise StorageError(
                f"cannot read {path}: {error.strerror}", remedy="Restore it from a backup"
            ) from error
        if len(body) != length:
            raise StorageError(f"{path} is shorter than its index", remedy="Restore it")
        return body

    def uploads(self, device: str | None = None) -> list[UploadRow]:
        """Files that devices have sent, whole and verified."""
        query = sa.select(UPLOADS).order_by(UPLOADS.c.device, UPLOADS.c.name)
        if device is not None:
            query = query.where(UPLOADS.c.device == device)
        with self._readers.connect() as db:
            return [UploadRow(**row) for row in db.execute(query).mappings()]

    def _column(self, query: sa.Select[tuple[str]]) -> list[str]:
        with self._readers.connect() as db:
            return list(db.scalars(query))

    # -- writing, for the collector --------------------------------------------------------------

    def commit(self, placed: Sequence[tuple[Placed, Sequence[Bad]]]) -> int:
        """Record frames whose bytes are synced; what is there already is cut away.

        Returns:
            Records that are new.

        Raises:
            StorageError: The database refused; nothing of this call is recorded.
        """
        try:
            with self.engine.begin() as db:
                return Commit(db, self._stream_ids(db, [p for p, _ in placed])).run(placed)
        except sa.exc.SQLAlchemyError as error:
            self._ids.clear()
            raise refused(error) from error

    def _stream_ids(self, db: sa.Connection, placed: Sequence[Placed]) -> list[int]:
        if len(self._ids) > 100_000:
            self._ids.clear()
        keys = [(one.frame.device, one.frame.boot, one.frame.stream) for one in placed]
        fresh = {
            key: one.frame.link_class
            for key, one in zip(keys, placed, strict=True)
            if key not in self._ids
        }
        if fresh:
            self._ids |= stream_ids(db, fresh)
        return [self._ids[key] for key in keys]

    def next_missing(self, device: str, streams: Sequence[tuple[str, str, int]]) -> list[int]:
        """For each (boot, stream, seq): the first number from `seq` on that is not stored."""
        query = (
            sa.select(EXTENTS.c.last_seq)
            .join(STREAMS)
            .where(*named(device, sa.bindparam("b"), sa.bindparam("s")))
            .where(EXTENTS.c.first_seq <= sa.bindparam("at"))
            .order_by(EXTENTS.c.first_seq.desc())
            .limit(1)
        )
        out = []
        with self._readers.connect() as db:
            for boot, stream, seq in streams:
                at = seq
                while True:
                    last = db.scalar(query, {"b": boot, "s": stream, "at": at})
                    if last is None or last < at:
                        break
                    at = last + 1
                out.append(at)
        return out

    def new_file(self, name: str) -> int:
        """Give a segment file its number.

        Raises:
            StorageError: The database refused.
        """
        try:
            with self.engine.begin() as db:
                found = db.scalar(sa.select(STORED.c.id).where(STORED.c.name == name))
                if found is not None:
                    return int(found)
                result = db.execute(STORED.insert().values(name=name))
                return first_key(result)
        except sa.exc.SQLAlchemyError as error:
            raise refused(error) from error

    def seal_file(self, name: str, sha256: str) -> None:
        """A segment file is complete."""
        try:
            with self.engine.begin() as db:
                db.execute(STORED.update().where(STORED.c.name == name).values(sha256=sha256))
        except sa.exc.SQLAlchemyError as error:
            raise refused(error) from error

    def sealed_files(self) -> set[str]:
        """Names of complete segment files."""
        return set(self._column(sa.select(STORED.c.name).where(STORED.c.sha256.is_not(None))))

    def add_upload(self, row: UploadRow) -> None:
        """A file is stored as an object."""
        values = {
            "sha256": row.sha256,
            "device": row.device,
            "name": row.name,
            "size": row.size,
            "meta": row.meta,
        }
        try:
            with self.engine.begin() as db:
                if not _upload_there(db, row):
                    db.execute(UPLOADS.insert().values(**values))
        except sa.exc.SQLAlchemyError as error:
            raise refused(error) from error


class _Skips:
    """Answers, for rising numbers, whether they are in one of the ranges."""

    def __init__(self, bad: Sequence[Bad]) -> None:
        self._bad = bad
        self._at = 0

    def has(self, seq: int) -> bool:
        while self._at < len(self._bad) and self._bad[self._at][1] < seq:
            self._at += 1
        return self._at < len(self._bad) and self._bad[self._at][0] <= seq


def _upload_there(db: sa.Connection, row: UploadRow) -> bool:
    query = sa.select(UPLOADS.c.size).where(
        UPLOADS.c.sha256 == row.sha256, UPLOADS.c.device == row.device
    )
    return db.scalar(query) is not None


def _check_version(db: sa.Connection) -> None:
    found = db.scalar(sa.select(SETTINGS.c.value).where(SETTINGS.c.key == "schema"))
    if found is None:
        db.execute(SETTINGS.insert().values(key="schema", value=SCHEMA_VERSION))
    elif found != SCHEMA_VERSION:
        raise StorageError(
            f"the catalog is of version {found}, this program knows {SCHEMA_VERSION}",
            remedy="Use the program of that version",
        )
