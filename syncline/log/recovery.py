"""Saves what can be read of a log that was not finished or is damaged."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from syncline.errors import LogError, SynclineError
from syncline.log.chunk import index_messages, iter_others, load_records
from syncline.log.exact import Entries, ExactWriter
from syncline.log.folder import CAM, PINNED, RING, TAIL, TEL, Segment, list_segments
from syncline.log.index import ChunkRef, FileIndex
from syncline.log.mapped import MappedFile
from syncline.log.records import SchemaRecord
from syncline.log.rewrite import new_file
from syncline.log.scan import Walk, chunk_offsets
from syncline.log.schemas import schema_named
from syncline.log.tail import TailMessage, read_tail
from syncline.log.wire import (
    MESSAGE,
    MESSAGE_FIELDS,
    PREFIX,
    Limits,
    Op,
    RawChannel,
    iter_records,
    parse_attachment,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a recovery saved.

    Attributes:
        path: Input.
        out: Output.
        complete: The input had its end: nothing was missing behind it.
        messages: Messages saved, all together.
        open_messages: Of these, from the chunk that was being written.
        journal_messages: Of these, from the telemetry journal.
        chunks: Whole chunks saved.
        damaged_chunks: Chunks left out: CRC wrong or not to be expanded.
        damaged_records: Other records left out.
        lost_bytes: Bytes that belong to no readable record.
    """

    path: Path
    out: Path
    complete: bool
    messages: int
    open_messages: int
    journal_messages: int
    chunks: int
    damaged_chunks: int
    damaged_records: int
    lost_bytes: int


def recover(path: Path, out: Path, *, limits: Limits | None = None) -> RecoveryReport:
    """Write what can be read of `path` to `out`, a complete file; `path` is not changed.

    A journal `tel.tail` beside the file is used.

    Raises:
        UsageError: `out` exists, or `path` does not.
        LogError: `path` is no MCAP file at all.
        StorageError: `out` cannot be written.
    """
    limits = limits or Limits()
    file = MappedFile(path)
    index = Walk(file.view, limits, names=False).salvage(chunk_offsets(file, limits))
    with new_file(out) as target:
        writer = ExactWriter(target, index.profile, packed=path.name != CAM)
        report = _Salvage(file.view, index, limits).write_to(writer, _tail_beside(path))
    return replace(report, path=path, out=out, complete=file.has_footer())


def _tail_beside(path: Path) -> list[TailMessage]:
    tail = path.with_name(TAIL)
    return list(read_tail(tail.read_bytes())) if path.name == TEL and tail.is_file() else []


class _Salvage:
    """Copies one indexed file into a writer."""

    def __init__(self, view: memoryview, index: FileIndex, limits: Limits) -> None:
        self._view, self._index, self._limits = view, index, limits
        self._last: dict[int, int] = {}
        self._damaged = index.damaged_chunks
        self._open = self._chunks = 0

    def write_to(self, writer: ExactWriter, tail: list[TailMessage]) -> RecoveryReport:
        """Copy everything; returns the counts."""
        index = self._index
        self._declare(writer)
        for name, values in index.metadata:
            writer.metadata(name, values)
        for chunk in index.chunks:
            self._chunk(writer, chunk)
        journal = self._journal(writer, tail)
        self._attachments(writer)
        writer.metadata(
            "syncline.recovered",
            {
                "lost_bytes": str(index.lost_bytes),
                "damaged_chunks": str(self._damaged),
                "open_messages": str(self._open),
                "journal_messages": str(journal),
            },
        )
        messages = writer.finish()
        return RecoveryReport(
            Path(), Path(), False, messages, self._open, journal, self._chunks,
            self._damaged, index.damaged_records, index.lost_bytes,
        )  # fmt: skip

    def _chunk(self, writer: ExactWriter, chunk: ChunkRef) -> None:
        try:
            data = load_records(self._view, chunk, self._limits)
            entries = index_messages(data, self._last)
            if chunk.body is not None:
                self._learn(writer, data, entries)
        except LogError:
            self._damaged += 1
            return
        if chunk.body is not None and self._true_to_head(chunk, entries):
            body = self._view[chunk.body : chunk.offset + chunk.length]
            writer.copy_chunk(body, chunk, entries)
            self._chunks += 1
            return
        count = self._messages(writer, data)
        self._open += count if chunk.open else 0

    def _true_to_head(self, chunk: ChunkRef, entries: Entries) -> bool:
        """Whether a chunk may be copied: its channels are there, its head tells its times."""
        if not entries or not all(channel in self._index.raw_channels for channel in entries):
            return False
        first = min(min(flat[::2]) for flat in entries.values())
        last = max(max(flat[::2]) for flat in entries.values())
        return (first, last) == (chunk.start_ns, chunk.end_ns)

    def _learn(self, writer: ExactWriter, data: memoryview, entries: Entries) -> None:
        """Schemas and channels that stand in chunks; they come before their first message."""
        first = min((flat[1] for flat in entries.values()), default=len(data))
        if first == 0 and all(channel in self._index.raw_channels for channel in entries):
            return
        walk = Walk(data, self._limits, self._index)
        for op, pos, end in iter_others(data):
            walk.learn(op, data, pos, end)
        self._declare(writer)

    def _declare(self, writer: ExactWriter) -> None:
        """Write the schemas and channels that are known and not written yet."""
        index = self._index
        for schema in index.schemas.values():
            writer.schema(schema)
        for channel in index.raw_channels.values():
            known = channel.schema_id in index.schemas
            writer.channel(channel if known else replace(channel, schema_id=0))

    def _messages(self, writer: ExactWriter, data: memoryview) -> int:
        count = 0
        for op, pos, end in iter_records(data, 0, len(data), self._limits):
            if op != Op.MESSAGE:
                continue
            _, _, channel, sequence, log_ns, publish_ns = MESSAGE.unpack_from(
                data, pos - PREFIX.size
            )
            if channel in self._index.raw_channels:
                payload = data[pos + MESSAGE_FIELDS : end]
                writer.message(channel, sequence, log_ns, publish_ns, payload)
                count += 1
        return count

    def _journal(self, writer: ExactWriter, tail: list[TailMessage]) -> int:
        """Messages that had not reached a chunk: those with a sequence above the last one."""
        ids = {c.topic: c.id for c in self._index.raw_channels.values()}
        count = 0
        for message in tail:
            channel = ids.get(message.topic)
            if channel is None:
                channel = ids[message.topic] = self._new_channel(writer, message)
            if message.sequence > self._last.get(channel, 0):
                writer.message(
                    channel, message.sequence, message.raw_ns, message.raw_ns, message.data
                )
                count += 1
        return count

    def _new_channel(self, writer: ExactWriter, message: TailMessage) -> int:
        index = self._index
        schema_id = next((s.id for s in index.schemas.values() if s.name == message.schema), 0)
        found = schema_named(message.schema)
        if schema_id == 0 and found is not None:
            schema_id = max(index.schemas, default=0) + 1
            schema = SchemaRecord(schema_id, found.name, found.encoding, found.data)
            index.schemas[schema_id] = schema
            writer.schema(schema)
        channel = RawChannel(
            max(index.raw_channels, default=0) + 1, schema_id, message.topic, "protobuf", {}
        )
        index.raw_channels[channel.id] = channel
        writer.channel(channel)
        return channel.id

    def _attachments(self, writer: ExactWriter) -> None:
        for pos, end in self._index.attachments:
            try:
                found = parse_attachment(self._view, pos, end, self._limits)
            except LogError:
                self._index.damaged_records += 1
                continue
            writer.attachment(
                self._view[pos:end],
                found.log_ns,
                found.create_ns,
                len(found.data),
                found.name,
                found.media_type,
            )


def repair_folder(folder: Path, *, newest: int | None = None) -> list[RecoveryReport]:
    """Finish the segments of a recording that a killed recorder left open; hold its lock.

    A repaired file takes the place of the damaged one, in the ring and in the pins. What cannot be
    repaired (disk full, no log at all) is left alone and logged.

    Args:
        folder: Recording folder.
        newest: Look at so many segments only.
    """
    reports: list[RecoveryReport] = []
    for segment in list_segments(folder / RING)[-(newest or 0) :]:
        tail = segment.path / TAIL
        _drop_unopened(segment)
        for path in segment.files:
            try:
                if _unfinished(path, tail):
                    reports.append(_replace(path, folder / PINNED / segment.name / path.name))
            except (SynclineError, OSError) as error:
                _log.warning("%s is left as it is: %s", path, error)
                break
        else:
            tail.unlink(missing_ok=True)
    return reports


def _unfinished(path: Path, tail: Path) -> bool:
    if path.name == TEL and tail.exists():
        return True
    return not MappedFile(path).has_footer()


def _replace(path: Path, pinned: Path) -> RecoveryReport:
    fresh = path.with_suffix(".recovered")
    fresh.unlink(missing_ok=True)
    report = recover(path, fresh)
    if pinned.exists():
        again = pinned.with_suffix(".recovered")
        again.unlink(missing_ok=True)
        again.hardlink_to(fresh)
        again.replace(pinned)
    fresh.replace(path)
    return replace(report, out=path)


def _drop_unopened(segment: Segment) -> None:
    """Delete files that were killed before their first byte, and a segment that has no other."""
    for name in (TEL, CAM):
        path = segment.path / name
        if path not in segment.files:
            path.unlink(missing_ok=True)
    if not segment.files:
        shutil.rmtree(segment.path, ignore_errors=True)
