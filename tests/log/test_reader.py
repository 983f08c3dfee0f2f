"""Reading: the conformance set, order, filters, limits, several boots."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import LogError, UsageError
from syncline.log.exact import ExactWriter
from syncline.log.index import ChunkRef
from syncline.log.reader import LogFile, LogReader
from syncline.log.records import Record, SchemaRecord
from syncline.log.wire import MAGIC, PREFIX, Limits, Op, RawChannel
from syncline.timebase import ManualClock

from .helpers import SECOND_NS, START_NS, read_all, record_drive

Fields = dict[str, Any]


def test_conformance_set(shared_data: Path) -> None:
    """All 416 files of the official set: every message, attachment and metadata record."""
    files = sorted((shared_data / "mcap" / "conformance").glob("*/*.mcap"))
    assert len(files) == 416
    for path in files:
        records = json.loads(path.with_suffix(".json").read_text())["records"]
        want = [dict(r["fields"]) for r in records if r["type"] == "Message"]
        got = [_as_fields(r) for r in read_all(path)]
        assert sorted(got, key=_key) == sorted(want, key=_key), path.name
        index = LogFile.open(path, Limits()).index
        named = [dict(r["fields"]) for r in records if r["type"] == "Metadata"]
        assert [{"name": n, "metadata": v} for n, v in index.metadata] == named, path.name
        kept = [r for r in records if r["type"] == "Attachment"]
        assert len(index.attachments) == len(kept), path.name


def _key(fields: Fields) -> str:
    return str(sorted(fields.items()))


def _as_fields(record: Record) -> Fields:
    return {
        "channel_id": str(record.channel.id),
        "sequence": str(record.sequence),
        "log_time": str(record.raw_ns),
        "publish_time": str(record.publish_ns),
        "data": [str(b) for b in record.data],
    }


def write_log(path: Path, times: list[list[int]], *, packed: bool = True, boot: str = "b") -> None:
    """One chunk per list of times; channel 1 and 2 in turn."""
    with path.open("wb") as file:
        writer = ExactWriter(file, "syncline", packed=packed)
        writer.metadata("syncline", {"boot_id": boot})
        writer.schema(SchemaRecord(1, "x.Y", "protobuf", b""))
        for channel in (1, 2):
            writer.channel(RawChannel(channel, 1, f"/t{channel}", "protobuf", {}))
        sequence = 0
        for chunk in times:
            for time_ns in chunk:
                sequence += 1
                data = time_ns.to_bytes(8, "little")
                writer.message(1 + sequence % 2, sequence, time_ns, time_ns + 1, data)
            writer.finish_chunk()
        writer.finish()


chunks = st.lists(st.lists(st.integers(0, 50), max_size=8), max_size=8)


@given(chunks, st.booleans())
def test_order_is_by_time_then_place(
    tmp_path_factory: pytest.TempPathFactory, times: list[list[int]], packed: bool
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.mcap"
    write_log(path, times, packed=packed)
    flat = [t for chunk in times for t in chunk]
    expected = sorted(enumerate(flat, 1), key=lambda pair: pair[1])
    records = read_all(path)
    assert [(r.sequence, r.raw_ns) for r in records] == expected
    assert [bytes(r.data) for r in records] == [t.to_bytes(8, "little") for _, t in expected]


@given(chunks, st.integers(0, 50), st.integers(0, 50), st.sampled_from(["/t1", "/t2", "/none"]))
def test_filters_equal_filtering_afterwards(
    tmp_path_factory: pytest.TempPathFactory,
    times: list[list[int]],
    start: int,
    end: int,
    topic: str,
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.mcap"
    write_log(path, times)
    everything = read_all(path)
    got = read_all(path, topics=[topic], from_raw_ns=start, to_raw_ns=end)
    want = [r for r in everything if r.topic == topic and start <= r.raw_ns < end]
    assert [(r.sequence, r.raw_ns) for r in got] == [(r.sequence, r.raw_ns) for r in want]


def test_same_file_twice_gives_the_same(tmp_path: Path) -> None:
    """link-13: identical output digest."""
    record_drive(tmp_path)
    with LogReader(tmp_path) as reader:
        digests = []
        for _ in range(2):
            digest = zlib.crc32(b"")
            for r in reader:
                digest = zlib.crc32(r.data, zlib.crc32(repr(r[:4]).encode(), digest))
            digests.append(digest)
    assert digests[0] == digests[1]


def test_boots_follow_each_other(tmp_path: Path) -> None:
    """A later boot counts from zero again; its records still come behind those of the first."""
    record_drive(tmp_path, 1.0, clock=ManualClock(50 * SECOND_NS, "first"))
    record_drive(tmp_path, 1.0, clock=ManualClock(1 * SECOND_NS, "second"))
    with LogReader(tmp_path) as reader:
        assert reader.boot_ids == ("first", "second")
        boots = [r.boot_id for r in reader]
        with pytest.raises(UsageError, match="holds 2 boots"):
            reader.timebase()
    assert boots == sorted(boots)
    assert len(boots) == 220


def test_seek_in_a_folder(tmp_path: Path) -> None:
    record_drive(tmp_path, 5.0)
    got = read_all(tmp_path, from_raw_ns=START_NS + SECOND_NS, to_raw_ns=START_NS + 2 * SECOND_NS)
    assert len(got) == 110
    assert got[0].raw_ns == START_NS + SECOND_NS


def test_views_outlive_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    write_log(path, [[1, 2, 3]], packed=False)
    reader = LogReader(path)
    records = list(reader)
    reader.close()
    del reader
    assert bytes(records[2].data) == (3).to_bytes(8, "little")


def _no_file(path: Path) -> None:
    path.unlink(missing_ok=True)


def _text(path: Path) -> None:
    path.write_text("hello, this is no log")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (_no_file, LogError, "does not exist"),
        (_text, LogError, "does not begin as an MCAP file does"),
        (_empty, LogError, "has 0 bytes"),
    ],
)
def test_what_is_no_log(
    tmp_path: Path, make: Callable[[Path], None], error: type[Exception], text: str
) -> None:
    path = tmp_path / "a.mcap"
    make(path)
    with pytest.raises(error, match=text):
        LogReader(path)


def test_folder_without_logs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no MCAP file in"):
        LogReader(tmp_path)


def _raw_file(*records: tuple[Op, bytes]) -> bytes:
    body = b"".join(PREFIX.pack(op, len(data)) + data for op, data in records)
    footer = PREFIX.pack(Op.FOOTER, 20) + bytes(20)
    header = PREFIX.pack(Op.HEADER, 8) + bytes(8)
    return MAGIC + header + body + PREFIX.pack(Op.DATA_END, 4) + bytes(4) + footer + MAGIC


def _chunk(data: bytes, packed: bytes, name: bytes, size: int | None = None) -> bytes:
    head = struct.pack("<QQQI", 0, 9, len(data) if size is None else size, zlib.crc32(data))
    return head + struct.pack("<I", len(name)) + name + struct.pack("<Q", len(packed)) + packed


def _channel(channel: int, schema: int) -> bytes:
    return struct.pack("<HHI", channel, schema, 1) + b"t" + struct.pack("<II", 0, 0)


def _message(channel: int) -> bytes:
    return struct.pack("<HIQQ", channel, 1, 5, 5)


HUGE = 1 << 40


def _bomb(size: int) -> bytes:
    machine = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    block = bytes(1 << 20)
    return b"".join(machine.compress(block) for _ in range(size >> 20)) + machine.flush()


BOMB = _bomb(300 << 20)
HOSTILE = {
    "record of 1 TiB": (MAGIC + PREFIX.pack(Op.HEADER, HUGE) + _raw_file()[8:], "1099511627776"),
    "text of 4 GiB": (_raw_file((Op.CHANNEL, struct.pack("<HHI", 1, 0, 0xFFFFFFFF))), "4294967295"),
    "zstd bomb with a true size": (
        _raw_file((Op.CHUNK, _chunk(b"", BOMB, b"zstd", 300 << 20))),
        "uncompressed_size 314572800, limit",
    ),
    "zstd bomb with a false size": (
        _raw_file((Op.CHUNK, _chunk(b"", BOMB, b"zstd", 100))),
        "zstd frame says 314572800 bytes, its chunk 100",
    ),
    "chunk data beyond its record": (
        _raw_file((Op.CHUNK, _chunk(b"", b"", b"", 9)[:-8] + struct.pack("<Q", HUGE))),
        "records of 1099511627776 bytes",
    ),
    "wrong crc": (_raw_file((Op.CHUNK, _chunk(b"abc", b"abd", b""))), "has CRC"),
    "unknown compression": (_raw_file((Op.CHUNK, _chunk(b"", b"", b"rar"))), "'rar' is unknown"),
    "channel without schema": (_raw_file((Op.CHANNEL, _channel(1, 9))), "names schema 9"),
    "message without channel": (_raw_file((Op.MESSAGE, _message(7))), "names channel 7"),
    "channel defined twice": (
        _raw_file((Op.CHANNEL, _channel(1, 0)), (Op.CHANNEL, _channel(1, 3))),
        "channel 1 is defined twice",
    ),
    "schema id 0": (_raw_file((Op.SCHEMA, struct.pack("<HIII", 0, 0, 0, 0))), "id 0 is reserved"),
    "message too short": (_raw_file((Op.MESSAGE, b"abc")), "22 are needed"),
    "name that is no UTF-8": (
        _raw_file((Op.CHANNEL, struct.pack("<HHI", 1, 0, 1) + b"\xff" + bytes(8))),
        "not UTF-8",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_get_a_typed_error(tmp_path: Path, case: str) -> None:
    """link-16: 1 TiB lengths, zstd bomb, ids that lead nowhere."""
    data, text = HOSTILE[case]
    path = tmp_path / "a.mcap"
    path.write_bytes(data)
    with pytest.raises(LogError, match=text) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_chunks_that_overlap_too_much(tmp_path: Path) -> None:
    """link-16: memory stays bounded when all chunks cover the same time."""
    path = tmp_path / "a.mcap"
    write_log(path, [[0, 100]] * 50)
    read_all(path)
    with pytest.raises(LogError, match="chunks that overlap in time hold"):
        read_all(path, limits=Limits(held=4000))


def test_chunk_index_that_repeats_a_chunk(tmp_path: Path) -> None:
    """link-16: one chunk named many times would multiply work."""
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = ExactWriter(file, "")
        writer.channel(RawChannel(1, 0, "t", "", {}))
        writer.message(1, 1, 5, 5, b"abc")
        writer.finish_chunk()
        writer._summary.chunks *= 100
        writer.finish()
    with pytest.raises(LogError, match="chunk index says"):
        read_all(path)


def test_copied_chunks_keep_their_bytes(tmp_path: Path) -> None:
    data = struct.pack("<BQ", 5, 23) + _message(1) + b"z"
    body = _chunk(data, data, b"")
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = ExactWriter(file, "")
        writer.channel(RawChannel(1, 0, "t", "", {}))
        writer.copy_chunk(memoryview(body), ChunkRef(0, 9, 0, 32, 32), {1: [5, 0]})
        assert writer.finish() == 1
    assert body in path.read_bytes()
    assert [bytes(r.data) for r in read_all(path)] == [b"z"]


def test_seek_opens_few_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """link-15: a span of a long recording is found by halving; same result as a full scan."""
    record_drive(tmp_path, 12.0, segment_s=0.25, clock=ManualClock(START_NS, "first"))
    record_drive(tmp_path, 6.0, segment_s=0.25, clock=ManualClock(START_NS, "second"))
    everything = read_all(tmp_path)
    opened: list[Path] = []
    really = LogFile.open.__func__  # type: ignore[attr-defined]

    def counting(cls: type[LogFile], path: Path, limits: Limits) -> LogFile:
        opened.append(path)
        return cast("LogFile", really(cls, path, limits))

    monkeypatch.setattr(LogFile, "open", classmethod(counting))
    total = len(list(tmp_path.glob("ring/*/*.mcap")))
    for start_s, end_s in ((0, 0.5), (3.0, 3.1), (5.9, 6.5), (11.9, 99), (50, 60)):
        opened.clear()
        start, end = (START_NS + round(s * SECOND_NS) for s in (start_s, end_s))
        got = [(r.boot_id, *r[:4]) for r in read_all(tmp_path, from_raw_ns=start, to_raw_ns=end)]
        want = [(r.boot_id, *r[:4]) for r in everything if start <= r.raw_ns < end]
        assert got == want
        assert len(opened) < total * 0.8
    assert len(set(opened)) < total / 3
