"""Finds the chunks of a file: from its summary, or by walking a file that has none."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from syncline.errors import LogError
from syncline.log.chunk import iter_others, load_records
from syncline.log.index import ChunkRef, FileIndex
from syncline.log.mapped import MappedFile
from syncline.log.wire import (
    FOOTER_SIZE,
    MAGIC,
    MESSAGE,
    MESSAGE_FIELDS,
    PLACEHOLDER,
    PREFIX,
    REMEDY,
    ChunkHead,
    ChunkIndexRecord,
    Limits,
    Op,
    iter_records,
    parse_channel,
    parse_chunk,
    parse_chunk_head,
    parse_chunk_index,
    parse_header,
    parse_metadata,
    parse_schema,
    parse_statistics,
)


def read_index(file: MappedFile, limits: Limits | None = None) -> FileIndex:
    """The index of a file; a file without footer or chunk index is walked.

    Raises:
        LogError: The file breaks a limit or contradicts itself.
    """
    limits = limits or Limits()
    if not file.has_footer():
        return Walk(file.view, limits).salvage()
    found = _from_summary(file.view, limits)
    if found is not None:
        return found
    return Walk(file.view, limits).run(len(file.view) - FOOTER_SIZE)


def _from_summary(view: memoryview, limits: Limits) -> FileIndex | None:
    foot = len(view) - FOOTER_SIZE
    start, _, crc = struct.unpack_from("<QQI", view, foot + PREFIX.size)
    if start == 0:
        return None
    if not len(MAGIC) <= start <= foot:
        raise LogError(f"summary_start {start} is outside the file of {len(view)} bytes")
    if crc and (made := zlib.crc32(view[start : foot + PREFIX.size + 16])) != crc:
        raise LogError(f"summary has CRC {made:08x}, the footer says {crc:08x}", remedy=REMEDY)
    index, chunks = FileIndex(), list[ChunkIndexRecord]()
    for op, pos, end in iter_records(view, start, foot, limits):
        if op == Op.CHUNK_INDEX:
            chunks.append(parse_chunk_index(view, pos, end))
            if len(chunks) > limits.chunks:
                raise LogError(f"more than {limits.chunks} chunks")
        elif op == Op.SCHEMA:
            index.add_schema(parse_schema(view, pos, end, limits), limits)
        elif op == Op.CHANNEL:
            index.add_channel(parse_channel(view, pos, end, limits), limits)
        elif op == Op.STATISTICS:
            index.statistics = parse_statistics(view, pos, end)
    stats = index.statistics
    if stats is None or not chunks or len(chunks) != stats.chunk_count:
        return None
    if len(index.raw_channels) != stats.channel_count or len(index.schemas) != stats.schema_count:
        return None
    _walk_gaps(view, index, sorted(chunks, key=lambda c: c.offset), start, limits)
    return index


def _walk_gaps(
    view: memoryview, index: FileIndex, chunks: list[ChunkIndexRecord], end: int, limits: Limits
) -> None:
    """Take the chunks from the summary and read only what lies between them."""
    walk = Walk(view, limits, index)
    pos = len(MAGIC)
    for chunk in chunks:
        if chunk.offset < pos or chunk.length > end - chunk.offset:
            raise LogError(
                f"chunk index says {chunk.length} bytes at byte {chunk.offset}: "
                f"the data lies in [{pos}, {end})",
                remedy=REMEDY,
            )
        if chunk.offset > pos:
            walk.records(pos, chunk.offset)
        index.chunks.append(_chunk_ref(chunk, limits))
        pos = chunk.offset + chunk.length
        if chunk.index_length <= end - pos:
            pos += chunk.index_length
    walk.records(pos, end)
    walk.finish()


def _chunk_ref(chunk: ChunkIndexRecord, limits: Limits) -> ChunkRef:
    if chunk.uncompressed_size > limits.chunk or chunk.length < PREFIX.size:
        raise LogError(
            f"chunk at byte {chunk.offset}: uncompressed_size {chunk.uncompressed_size}, "
            f"limit {limits.chunk}, length {chunk.length}"
        )
    return ChunkRef(
        chunk.start_ns,
        chunk.end_ns,
        chunk.offset + PREFIX.size,
        chunk.length - PREFIX.size,
        chunk.uncompressed_size,
        "unread",
        0,
        chunk.index_offsets,
    )


def chunk_offsets(file: MappedFile, limits: Limits) -> list[int]:
    """Where the summary says that chunks are; empty when there is none to believe."""
    if not file.has_footer():
        return []
    try:
        found = _from_summary(file.view, limits)
    except LogError:
        return []
    return [chunk.offset - PREFIX.size for chunk in found.chunks] if found else []


class Walk:
    """Reads the records of the data section one after another, into an index.

    Messages outside of chunks are gathered into spans that are read like uncompressed chunks.

    Args:
        view: The file.
        limits: What it may ask of us.
        index: Where to add what is found.
        names: Look into chunks for schemas and channels, which may stand there alone.
    """

    def __init__(
        self,
        view: memoryview,
        limits: Limits,
        index: FileIndex | None = None,
        *,
        names: bool = True,
    ) -> None:
        self._view, self._limits, self._names = view, limits, names
        self.index = index or FileIndex()
        self._span: list[int] = []
        self._lenient = False

    def run(self, end: int) -> FileIndex:
        """Walk the data section of a finished file.

        Raises:
            LogError: A record breaks a limit or contradicts another.
        """
        self.records(len(MAGIC), end)
        self.finish()
        return self.index

    def salvage(self, resume: Sequence[int] = ()) -> FileIndex:
        """Walk a file that may stop or be damaged anywhere; counts what cannot be read.

        Args:
            resume: Offsets of chunks that an index knows, to go on from behind damage.
        """
        self._lenient, self.index.complete = True, False
        pos, end = len(MAGIC), len(self._view)
        while True:
            stop, ended = self._until_damage(pos, end)
            again = next((offset for offset in resume if offset > stop), end)
            if ended or again >= end:
                self.index.lost_bytes += 0 if ended else end - stop
                break
            self.index.lost_bytes += again - stop
            pos = again
        self.finish()
        return self.index

    def _until_damage(self, pos: int, end: int) -> tuple[int, bool]:
        """Where reading stopped, and whether that was the end of the data section."""
        try:
            for op, body, stop in iter_records(self._view, pos, end, self._limits):
                if op in (Op.DATA_END, Op.FOOTER):
                    return stop, True
                if not 0 < op <= Op.DATA_END:
                    return pos, False
                self._tolerant(op, body, stop)
                pos = stop
        except LogError:
            pos = self._open_chunk(pos, end)
        return pos, False

    def _tolerant(self, op: int, body: int, stop: int) -> None:
        try:
            self._record(op, body, stop)
        except LogError:
            self.index.damaged_records += 1

    def records(self, start: int, end: int) -> None:
        """Walk [start, end) up to the end of the data section."""
        for op, body, stop in iter_records(self._view, start, end, self._limits):
            self._record(op, body, stop)
            if op == Op.DATA_END:
                return

    def _record(self, op: int, pos: int, end: int) -> None:
        view, limits, index = self._view, self._limits, self.index
        if op == Op.MESSAGE:
            self._loose_message(pos, end)
        elif op == Op.CHUNK:
            head = parse_chunk(view, pos, end, limits)
            self._chunk(head, pos)
        elif op in (Op.SCHEMA, Op.CHANNEL):
            self.learn(op, view, pos, end)
        elif op == Op.HEADER:
            index.profile, index.library = parse_header(view, pos, end)
        elif op == Op.METADATA:
            index.metadata.append(parse_metadata(view, pos, end, limits))
        elif op == Op.ATTACHMENT:
            index.attachments.append((pos, end))

    def _chunk(self, head: ChunkHead, pos: int) -> None:
        chunk = ChunkRef(
            head.start_ns, head.end_ns, head.data_offset, head.data_length,
            head.uncompressed_size, head.compression, head.crc, body=pos,
        )  # fmt: skip
        try:
            if self._names:
                self._chunk_names(chunk)
        except LogError:
            if not self._lenient:
                raise
            self.index.damaged_chunks += 1
        else:
            self.index.chunks.append(chunk)

    def _loose_message(self, pos: int, end: int) -> None:
        if end - pos < MESSAGE_FIELDS:
            raise LogError(f"message at byte {pos} has {end - pos} bytes, 22 are needed")
        log_ns = int.from_bytes(self._view[pos + 6 : pos + 14], "little")
        span = self._span
        if span and span[1] == pos - PREFIX.size and end - span[0] <= self._limits.chunk:
            span[1:] = [end, min(span[2], log_ns), max(span[3], log_ns)]
        else:
            self.finish()
            self._span = [pos - PREFIX.size, end, log_ns, log_ns]

    def finish(self) -> None:
        """Close the span of loose messages."""
        if self._span:
            start, end, first_ns, last_ns = self._span
            self.index.chunks.append(ChunkRef(first_ns, last_ns, start, end - start, end - start))
            self._span = []

    def _chunk_names(self, chunk: ChunkRef) -> None:
        """Schemas and channels may stand in chunks alone: learn them when there is no summary."""
        data = load_records(self._view, chunk, self._limits)
        for op, pos, end in iter_others(data):
            self.learn(op, data, pos, end)

    def learn(self, op: int, data: memoryview, pos: int, end: int) -> None:
        """Take a schema or channel.

        Raises:
            LogError: It breaks a limit or contradicts another.
        """
        if op == Op.SCHEMA:
            self.index.add_schema(parse_schema(data, pos, end, self._limits), self._limits)
        elif op == Op.CHANNEL:
            self.index.add_channel(parse_channel(data, pos, end, self._limits), self._limits)

    def _open_chunk(self, pos: int, end: int) -> int:
        """The chunk at `pos` that runs into the end of the file; returns where it stops."""
        view = self._view
        if end - pos < PREFIX.size or view[pos] != Op.CHUNK:
            return pos
        length = PREFIX.unpack_from(view, pos)[1]
        if length != PLACEHOLDER and length <= end - pos - PREFIX.size:
            return pos
        try:
            head = parse_chunk_head(view, pos + PREFIX.size, end, self._limits)
        except LogError:
            return pos
        if head.compression:
            return pos
        return self._open_records(head.data_offset, end)

    def _open_records(self, start: int, end: int) -> int:
        pos, first_ns, last_ns = start, PLACEHOLDER, 0
        try:
            for op, body, stop in iter_records(self._view, start, end, self._limits):
                if op == Op.MESSAGE and stop - body >= MESSAGE_FIELDS:
                    log_ns = MESSAGE.unpack_from(self._view, body - PREFIX.size)[4]
                    first_ns, last_ns = min(first_ns, log_ns), max(last_ns, log_ns)
                elif op in (Op.SCHEMA, Op.CHANNEL):
                    self._record(op, body, stop)
                else:
                    break
                pos = stop
        except LogError:
            pass
        if pos > start and last_ns >= first_ns:
            span = pos - start
            self.index.chunks.append(ChunkRef(first_ns, last_ns, start, span, span, open=True))
        return pos
