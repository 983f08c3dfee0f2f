"""Stored frames and the catalog: ranges, crashes, full disks, two collectors."""

from __future__ import annotations

import errno
import itertools
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from syncline.cloud import truth
from syncline.cloud.catalog import SEGMENT_FOLDER, Catalog, Span
from syncline.cloud.collector import Collector
from syncline.cloud.frames import Frame
from syncline.cloud.objects import Objects
from syncline.cloud.store import FrameStore, checked
from syncline.errors import InputError, IntegrityError, StorageError
from syncline.link.wire import pack_body
from syncline.spool import OsDisk

from ..link.records import PAYLOAD, STREAM  # noqa: TID252
from ..link.records import put as put_records  # noqa: TID252
from ..link.rig import Rig, wait  # noqa: TID252


class QuickDisk(OsDisk):
    """Files without syncs; may run out of room, or fail."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.fail = 0
        self.written = 0

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if self.fail:
            raise OSError(self.fail, "failing")
        if self.room is not None:
            data = data[: self.room - self.written]
            if not data:
                raise OSError(errno.ENOSPC, "no space left on device")
        done = super().pwrite(fd, data, offset)
        self.written += done
        return done

    def fdatasync(self, fd: int) -> None:
        if self.fail:
            raise OSError(self.fail, "failing")

    def sync_folder(self, path: Path) -> None:
        return


def frame(seq: int, n: int, stream: str = STREAM, device: str = "car") -> Frame:
    body = pack_body([(seq + i, PAYLOAD) for i in range(n)])
    return Frame(device, "boot", stream, 1, seq, n, body)


def put(store: FrameStore, frames: Iterable[Frame]) -> int:
    out = [checked(f) for f in frames]
    assert not any(isinstance(f, str) for f in out)
    return store.store([f for f in out if not isinstance(f, str)])


def seqs(catalog: Catalog, low: int = 0, high: int | None = None) -> list[int]:
    return [r.seq for r in catalog.records("car", "boot", STREAM, low, high)]


@settings(max_examples=30)
@given(
    groups=st.lists(
        st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), min_size=1, max_size=5),
        min_size=1,
        max_size=8,
    ),
    low=st.integers(0, 60),
    width=st.integers(0, 40),
)
def test_any_overlap_of_ranges_keeps_each_record_once(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[list[tuple[int, int]]],
    low: int,
    width: int,
) -> None:
    """Against a plain set: duplicates, gaps, spans, sub-ranges and what is missing next."""
    with Catalog.open(tmp_path_factory.mktemp("ranges")) as catalog:
        store = FrameStore(catalog, QuickDisk())
        model: set[int] = set()
        for group in groups:
            new = put(store, [frame(seq, n) for seq, n in group])
            before = len(model)
            for seq, n in group:
                model |= set(range(seq, seq + n))
            assert new == len(model) - before
        assert seqs(catalog) == sorted(model)
        assert seqs(catalog, low, low + width) == sorted(
            s for s in model if low <= s <= low + width
        )
        spans = catalog.spans("car", "boot", STREAM)
        assert [s for a in spans for s in range(a.first_seq, a.last_seq + 1)] == sorted(model)
        assert all(b.first_seq > a.last_seq + 1 for a, b in itertools.pairwise(spans))
        want = low
        while want in model:
            want += 1
        assert catalog.next_missing("car", [("boot", STREAM, low), ("x", "y", 3)]) == [want, 3]
        for record in catalog.records("car", "boot", STREAM):
            assert record.raw_ns == record.seq
            assert record.payload == PAYLOAD
        store.seal()


def test_a_dead_collectors_file_is_taken_over(tmp_path: Path) -> None:
    """Rows that the database lost (power cut, synchronous=NORMAL) come back from the segment."""
    with Catalog.open(tmp_path) as catalog:
        store = FrameStore(catalog, QuickDisk())
        put(store, [frame(0, 10)])
        catalog.engine.dispose()
        shutil.copy(tmp_path / "catalog.db", tmp_path / "old.db")
        put(store, [frame(10, 10), frame(0, 5, "/camera/b/detections")])
        assert store._fd is not None
        OsDisk().close(store._fd)
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"catalog.db{suffix}").unlink(missing_ok=True)
    shutil.move(tmp_path / "old.db", tmp_path / "catalog.db")
    (path,) = (tmp_path / SEGMENT_FOLDER).glob("*.seg")
    with path.open("ab") as file:
        file.write(b"SF torn end")
    with Catalog.open(tmp_path) as catalog:
        assert len(seqs(catalog)) == 10
        assert FrameStore(catalog).recover() == 15
        assert seqs(catalog) == list(range(20))
        assert catalog.streams("car", "boot") == [STREAM, "/camera/b/detections"]
        assert FrameStore(catalog).recover() == 0, "a sealed file is left alone"
        assert path.read_bytes()[-8:] != b"torn end"


@settings(max_examples=12)
@given(cut=st.integers(0, 4000))
def test_a_torn_file_gives_its_sound_frames(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    with Catalog.open(folder) as catalog:
        store = FrameStore(catalog, QuickDisk())
        put(store, [frame(i * 10, 10) for i in range(20)])
        assert store._fd is not None
        OsDisk().close(store._fd)
    for path in folder.glob("catalog.db*"):
        path.unlink()
    (segment,) = (folder / SEGMENT_FOLDER).glob("*.seg")
    size = segment.stat().st_size
    with segment.open("r+b") as file:
        file.truncate(max(size - cut, 0))
    with Catalog.open(folder) as catalog:
        FrameStore(catalog).recover()
        found = seqs(catalog)
        assert found == list(range(len(found)))
        assert len(found) % 10 == 0
        assert len(found) >= 200 - 10 * (cut // (size // 21) + 2)


def test_nothing_is_recorded_when_the_disk_is_full_and_space_cures_it(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        disk = QuickDisk()
        store = FrameStore(catalog, disk)
        put(store, [frame(0, 10)])
        disk.room = disk.written + 100
        for _ in range(3):
            with pytest.raises(StorageError, match="space"):
                put(store, [frame(10, 10)])
        with pytest.raises(StorageError):
            store.prove()
        assert seqs(catalog) == list(range(10))
        disk.room = None
        store.prove()
        put(store, [frame(10, 10)])
        assert seqs(catalog) == list(range(20))
        store.seal()
        assert FrameStore(catalog).recover() == 0


def test_a_full_disk_stops_the_acks_and_the_device_keeps_its_records(rig: Rig) -> None:
    """Collector on a failing disk: red, no ack, no loss; it recovers unaided (cf. link-43)."""
    disk = QuickDisk()
    collector = Collector(rig.folder / "data", rig.listen, rig.server, disk=disk)
    collector.start()
    rig.collector, rig.listen = collector, collector.endpoint
    spool, uplink = rig.device()
    put_records(spool, 100)
    wait(lambda: spool.stats().backlog == 0, 10)
    disk.fail = errno.ENOSPC
    put_records(spool, 100, 100)
    wait(lambda: collector.health().state == "red", 5)
    assert spool.stats().backlog == 100
    assert "storage refuses" in collector.health().reasons[0]
    disk.fail = 0
    wait(lambda: spool.stats().backlog == 0, 20)
    assert collector.health().state == "green"
    (boot,) = collector.catalog.boots("car")
    found = [r.raw_ns for r in collector.catalog.records("car", boot, STREAM)]
    assert found == list(range(200))
    assert uplink.stats().problem == ""


def test_link_43_a_database_that_refuses(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """link-43 with SQLite (locked by somebody else): no acks, no loss, recovers unaided."""
    monkeypatch.setattr("syncline.cloud.truth.BUSY_MS", 200)
    collector = rig.start()
    spool, _ = rig.device()
    put_records(spool, 50)
    wait(lambda: spool.stats().backlog == 0, 10)
    other = sqlite3.connect(rig.folder / "data" / "catalog.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    put_records(spool, 50, 50)
    wait(lambda: collector.health().state == "red", 10)
    time.sleep(1)
    assert spool.stats().backlog == 50
    other.execute("ROLLBACK")
    other.close()
    wait(lambda: spool.stats().backlog == 0, 20)
    assert collector.health().state == "green"
    (boot,) = collector.catalog.boots("car")
    found = [r.raw_ns for r in collector.catalog.records("car", boot, STREAM)]
    assert found == list(range(100))


def test_two_writers_of_the_same_records_keep_each_once(tmp_path: Path) -> None:
    """link-44, the race itself: two stores commit the same ranges at once."""
    catalogs = [Catalog.open(tmp_path) for _ in range(2)]
    new = [0, 0]

    def write(which: int) -> None:
        store = FrameStore(catalogs[which], QuickDisk())
        rng = random.Random(which)
        for _ in range(60):
            new[which] += put(store, [frame(rng.randrange(300), rng.randrange(1, 40))])
        store.seal()

    threads = [threading.Thread(target=write, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = seqs(catalogs[0])
    assert found == sorted(set(found))
    assert sum(new) == len(found)
    for catalog in catalogs:
        catalog.close()


def test_spans_join_and_gaps_show(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        store = FrameStore(catalog, QuickDisk())
        put(store, [frame(5, 5), frame(10, 5), frame(30, 1)])
        assert catalog.spans("car", "boot", STREAM) == [Span(5, 14), Span(30, 30)]
        assert catalog.count("car", "boot", STREAM) == 11
        assert catalog.count("car", "boot", "/none") == 0
        store.seal()


def test_a_missing_segment_is_one_clear_line(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        store = FrameStore(catalog, QuickDisk())
        put(store, [frame(0, 5)])
        store.seal()
        (path,) = (tmp_path / SEGMENT_FOLDER).glob("*.seg")
        path.unlink()
        with pytest.raises(StorageError, match="cannot read"):
            seqs(catalog)


# -- objects -------------------------------------------------------------------------------------


def test_objects_are_written_once_and_checked(tmp_path: Path) -> None:
    objects = Objects(tmp_path / "o")
    digest = objects.put(b"weights")
    assert objects.put(b"weights") == digest
    assert objects.get(digest) == b"weights"
    assert objects.get_range(digest, 2, 3) == b"igh"
    assert objects.get_range(digest, 5, 100) == b"ts"
    assert objects.get_range(digest, 99, 1) == b""
    assert objects.size(digest) == 7
    (place,) = [p for p in (tmp_path / "o").rglob("*") if p.is_file()]
    place.chmod(0o600)
    place.write_bytes(b"weighty")
    with pytest.raises(IntegrityError, match="damaged"):
        objects.get(digest)


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a" * 63, "A" * 64, "g" * 64])
def test_keys_that_are_no_digest_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match="not a sha256"):
        Objects(tmp_path).get(key)
    assert not Objects(tmp_path).has("0" * 64)


def test_a_file_becomes_an_object_without_a_copy(tmp_path: Path) -> None:
    objects = Objects(tmp_path / "o")
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    digest = objects.put(b"abc")
    objects.put_file(path, digest)
    assert objects.get(digest) == b"abc"


def test_two_collectors_may_begin_on_one_new_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """link-44: "locked" while another makes the tables is tried again, and told when it stays."""
    monkeypatch.setattr(truth, "_PAUSE_S", 0.0)
    tables = sa.MetaData()
    sa.Table("t", tables, sa.Column("id", sa.Integer))
    engine = truth.truth_engine(truth.sqlite_url(tmp_path))
    made, calls = tables.create_all, []

    def locked(times: int) -> Callable[[sa.Engine], None]:
        def create_all(bind: sa.Engine) -> None:
            calls.append(bind)
            if len(calls) <= times:
                raise sa.exc.OperationalError("CREATE", None, Exception("database is locked"))
            made(bind)

        return create_all

    monkeypatch.setattr(tables, "create_all", locked(2))
    truth.make_tables(engine, tables)
    assert len(calls) == 3
    assert sa.inspect(engine).get_table_names() == ["t"]
    calls.clear()
    monkeypatch.setattr(tables, "create_all", locked(99))
    with pytest.raises(StorageError, match=r"locked.*Another program holds the database"):
        truth.make_tables(engine, tables)
    engine.dispose()
