"""The reader: maps files, reads chunk by chunk, yields records in order of time."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from syncline import topics as table
from syncline.errors import LogError, UsageError
from syncline.log.chunk import Wanted, by_time, load_records, read_messages
from syncline.log.decode import Decoder
from syncline.log.folder import log_groups
from syncline.log.index import ChunkRef, FileIndex
from syncline.log.mapped import MappedFile
from syncline.log.mapping import mapping_from_message, mapping_from_text
from syncline.log.pick import pick_groups
from syncline.log.records import ChannelInfo, Record
from syncline.log.revisions import read_revisions
from syncline.log.scan import read_index
from syncline.log.wire import REMEDY, Limits
from syncline.timebase import Timebase

MIN_NS, MAX_NS = 0, 1 << 64
_RECORD_BYTES = 200
_FEW = 8
"""So many segments are simply all opened."""


@dataclass(eq=False)
class LogFile:
    """One file of a log, mapped and indexed."""

    file: MappedFile
    index: FileIndex
    channels: dict[int, ChannelInfo]

    @classmethod
    def open(cls, path: Path, limits: Limits) -> LogFile:
        """Map a file and read its index.

        Raises:
            LogError: Not a log, or its index breaks a limit.
        """
        file = MappedFile(path)
        try:
            index = read_index(file, limits)
            return cls(file, index, index.channels())
        except LogError as error:
            raise LogError(f"{path}: {error.message}", remedy=error.remedy) from None

    @property
    def boot_id(self) -> str:
        """Boot of the file's raw times; empty for files that are not ours."""
        return self.index.meta("syncline").get("boot_id", "")


@dataclass(frozen=True, slots=True)
class _Part:
    """A chunk to be read, with what to take from it."""

    log: LogFile
    chunk: ChunkRef
    wanted: Wanted


@dataclass(eq=False)
class _Held:
    """What is left of a chunk that others overlap in time."""

    part: _Part
    records: list[Record]

    @property
    def size(self) -> int:
        """Bytes of memory; the records of an uncompressed chunk lie in the mapped file."""
        chunk = self.part.chunk
        return 0 if chunk.size == chunk.length else chunk.size


class LogReader:
    """A recording: one MCAP file, or a folder of segments.

    Holds two segments open at a time, and of these the chunks that overlap in time. A record that
    is written more than a whole segment late comes out with its segment, not in its place.

    Args:
        path: File or folder.
        topics: Only these; None for all.
        from_raw_ns: First instant wanted (inclusive).
        to_raw_ns: End (exclusive).
        limits: What a file may ask of us.

    Raises:
        UsageError: Nothing there to read.
        LogError: Not a log, or its index breaks a limit.
    """

    def __init__(
        self,
        path: Path,
        *,
        topics: Collection[str] | None = None,
        from_raw_ns: int | None = None,
        to_raw_ns: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.path = path
        self._topics = None if topics is None else frozenset(topics)
        self._from = MIN_NS if from_raw_ns is None else max(from_raw_ns, MIN_NS)
        self._to = MAX_NS if to_raw_ns is None else to_raw_ns
        self._limits = limits or Limits()
        self._all = log_groups(path)
        self._groups = self._pick()
        self._decoder = Decoder()
        self._first: list[LogFile] | None = self._open(0)

    def _pick(self) -> list[tuple[Path, ...]]:
        if len(self._all) <= _FEW or (self._from == MIN_NS and self._to == MAX_NS):
            return self._all
        return pick_groups(self._all, self._start_of, self._from, self._to) or self._all[:1]

    def _start_of(self, group: tuple[Path, ...]) -> int | None:
        logs = [LogFile.open(path, self._limits) for path in group]
        starts = [c.start_ns for log in logs for c in log.index.chunks if c.size]
        return min(starts, default=None)

    def _open(self, number: int) -> list[LogFile]:
        return [LogFile.open(path, self._limits) for path in self._groups[number]]

    def files(self) -> Iterator[LogFile]:
        """Each file of the recording in turn, one segment open at a time."""
        for group in self._all:
            for path in group:
                yield LogFile.open(path, self._limits)

    def __iter__(self) -> Iterator[Record]:
        """Records in order of boot, then raw_ns; can be started again.

        Raises:
            LogError: A chunk is damaged; the message names the file.
        """
        held: dict[int, _Held] = {}
        boot_id: str | None = None
        for serial, part, horizon_ns in self._parts():
            if boot_id is not None and part.log.boot_id != boot_id:
                held = {}
            boot_id = part.log.boot_id
            held[serial] = _Held(part, self._load(part))
            yield from self._until(held, horizon_ns)
            self._account(held, part)
            part.log.file.forget(part.chunk.offset, part.chunk.length)

    @staticmethod
    def _until(held: dict[int, _Held], horizon_ns: int) -> list[Record]:
        """Take what is earlier than the horizon; equal times come in order of writing."""
        heads: list[list[Record]] = []
        for serial in sorted(held):
            records = held[serial].records
            cut = bisect_left(records, horizon_ns, key=by_time)
            heads.append(records[:cut])
            if cut == len(records):
                del held[serial]
            else:
                held[serial].records = records[cut:]
        if len(heads) == 1:
            return heads[0]
        return sorted(chain.from_iterable(heads), key=by_time)

    def _load(self, part: _Part) -> list[Record]:
        chunk = part.chunk
        try:
            data = load_records(part.log.file.view, chunk, self._limits)
            found, ordered = read_messages(data, part.wanted, self._from, self._to)
            if not ordered:
                found.sort(key=by_time)
            if found and found[0][2] < chunk.start_ns:
                raise LogError(
                    f"chunk at byte {chunk.offset} holds messages before its start", remedy=REMEDY
                )
        except LogError as error:
            name = part.log.file.path
            raise LogError(f"{name}: {error.message}", remedy=error.remedy) from None
        return found

    def _account(self, held: dict[int, _Held], part: _Part) -> None:
        """Refuse a file whose chunks overlap so much that memory would not be bounded."""
        total = sum(h.size + len(h.records) * _RECORD_BYTES for h in held.values())
        if total > self._limits.held:
            raise LogError(
                f"{part.log.file.path}: chunks that overlap in time hold {total} bytes, "
                f"limit {self._limits.held}"
            )

    def _parts(self) -> Iterator[tuple[int, _Part, int]]:
        """Chunks in order of start, each with the instant before which nothing more can come."""
        last: tuple[int, _Part] | None = None
        for serial, part in self._ordered():
            if last is not None:
                same = part.log.boot_id == last[1].log.boot_id
                yield *last, part.chunk.start_ns if same else MAX_NS
            last = (serial, part)
        if last is not None:
            yield *last, MAX_NS

    def _ordered(self) -> Iterator[tuple[int, _Part]]:
        """Merge the chunks of each segment with those of the next one."""
        heap: list[tuple[int, int, int, int, _Part]] = []
        left: dict[int, int] = {}
        boots: list[str] = []
        ahead = serial = 0
        while True:
            while len(left) < 2 and ahead < len(self._groups):
                for part in self._group_parts(ahead):
                    if not boots or boots[-1] != part.log.boot_id:
                        boots.append(part.log.boot_id)
                    key = (len(boots), part.chunk.start_ns, serial)
                    heapq.heappush(heap, (*key, ahead, part))
                    left[ahead] = left.get(ahead, 0) + 1
                    serial += 1
                ahead += 1
            if not heap:
                return
            *_, found, number, part = heapq.heappop(heap)
            left[number] -= 1
            if not left[number]:
                del left[number]
            yield found, part

    def _group_parts(self, number: int) -> Iterator[_Part]:
        logs = self._first if number == 0 and self._first else self._open(number)
        for log in logs:
            yield from self._wanted_parts(log)

    def _wanted_parts(self, log: LogFile) -> Iterator[_Part]:
        wanted = {c.id: self._kind(c) for c in log.channels.values()}
        ids = {i for i, kind in wanted.items() if kind is not None}
        for chunk in log.index.chunks:
            if chunk.start_ns >= self._to or chunk.end_ns < self._from:
                continue
            if self._topics is not None and not chunk.holds(ids):
                continue
            yield _Part(log, chunk, wanted)

    def _kind(self, channel: ChannelInfo) -> tuple[str, str, ChannelInfo] | None:
        if self._topics is not None and channel.topic not in self._topics:
            return None
        return channel.topic, channel.schema.name if channel.schema else "", channel

    def decode(self, record: Record) -> Any:
        """The protobuf message of a record (a dict for JSON); types are made once per schema.

        Raises:
            LogError: The payload or its schema does not decode.
        """
        return self._decoder.decode(record)

    @property
    def channels(self) -> tuple[ChannelInfo, ...]:
        """All channels of all files."""
        return tuple(c for log in self.files() for c in log.channels.values())

    @property
    def boot_ids(self) -> tuple[str, ...]:
        """Boots in order of recording."""
        return tuple(dict.fromkeys(log.boot_id for log in self.files()))

    def timebase(self, boot_id: str | None = None) -> Timebase:
        """Mapping segments of one boot (the only one when not told), newest revisions.

        Raises:
            UsageError: There are several boots, and none was named.
            LogError: A mapping record does not decode.
        """
        if boot_id is None:
            boots = self.boot_ids
            if len(boots) != 1:
                raise UsageError(f"{self.path} holds {len(boots)} boots", remedy="Name one of them")
            boot_id = boots[0]
        timebase = Timebase(boot_id)
        for log in self.files():
            if log.boot_id == boot_id:
                for name, values in log.index.metadata:
                    if name == "syncline.mapping":
                        timebase.add(mapping_from_text(values))
        with LogReader(self.path, topics=[table.MAPPING.name], limits=self._limits) as reader:
            for record in reader:
                segment = mapping_from_message(reader.decode(record))
                if segment.boot_id == boot_id:
                    timebase.add(segment)
        for segment in read_revisions(self.path):
            if segment.boot_id == boot_id:
                timebase.add(segment)
        return timebase

    def close(self) -> None:
        """Unmap; views of records stay valid as long as they are held."""
        self._first = None

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
