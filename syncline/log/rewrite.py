"""Writes part of a recording, or all of it, into one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from syncline.errors import LogError, UsageError
from syncline.log.exact import ExactWriter
from syncline.log.reader import LogFile, LogReader
from syncline.log.records import ChannelInfo, Record, SchemaRecord
from syncline.log.wire import RawChannel
from syncline.output import cannot_write


@dataclass(frozen=True, slots=True)
class RewriteReport:
    """What was written."""

    out: Path
    messages: int
    bytes: int


@contextmanager
def new_file(out: Path) -> Iterator[BinaryIO]:
    """A new file that is durable when the block ends, and gone when it fails.

    Raises:
        UsageError: It exists.
        StorageError: It cannot be written.
    """
    try:
        file = out.open("xb")
    except FileExistsError:
        raise UsageError(f"{out} exists", remedy="Choose another output") from None
    except OSError as error:
        raise cannot_write(out, error) from None
    done = False
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        done = True
    except OSError as error:
        raise cannot_write(out, error) from None
    finally:
        if not done:
            out.unlink(missing_ok=True)


class Merger:
    """Gives the channels of many files one set of ids."""

    def __init__(self, writer: ExactWriter) -> None:
        self._writer = writer
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        self._channels: dict[tuple[str, str, int], int] = {}
        self._known: dict[ChannelInfo, int] = {}

    def channel(self, info: ChannelInfo) -> int:
        """Id of a channel in the output; written when it is new."""
        known = self._known.get(info)
        if known is None:
            known = self._known[info] = self.add(
                info.topic, info.encoding, info.schema, info.metadata
            )
        return known

    def add(
        self, topic: str, encoding: str, schema: SchemaRecord | None, metadata: dict[str, str]
    ) -> int:
        """Id of the channel with these properties.

        Raises:
            LogError: More than 65,535 channels.
        """
        schema_id = 0 if schema is None else self._schema(schema)
        key = (topic, encoding, schema_id)
        if key not in self._channels:
            number = len(self._channels) + 1
            if number > 0xFFFF:
                raise LogError("more than 65535 channels")
            self._channels[key] = number
            self._writer.channel(RawChannel(number, schema_id, topic, encoding, metadata))
        return self._channels[key]

    def _schema(self, schema: SchemaRecord) -> int:
        key = (schema.name, schema.encoding, schema.data)
        if key not in self._schemas:
            number = len(self._schemas) + 1
            self._schemas[key] = number
            self._writer.schema(SchemaRecord(number, *key))
        return self._schemas[key]

    def record(self, record: Record) -> None:
        """Write a message as it is."""
        self._writer.message(
            self.channel(record.channel),
            record.sequence,
            record.raw_ns,
            record.publish_ns,
            record.data,
        )


def cut(
    path: Path,
    out: Path,
    *,
    from_raw_ns: int | None = None,
    to_raw_ns: int | None = None,
    topics: Collection[str] | None = None,
    keep: Callable[[Record], bool] = lambda _: True,
    packed: bool = True,
) -> RewriteReport:
    """Write the records of [from, to) of a recording into one new file.

    Messages keep their bytes, times and sequences; the file carries the metadata and all mapping
    segments of the recording, so that UTC is known in it.

    Args:
        path: MCAP file, segment or recording folder.
        out: New file.
        from_raw_ns: First instant wanted.
        to_raw_ns: End.
        topics: Only these; None for all.
        keep: Which of the records then.
        packed: Compress; without, a picture lies in the file as a range of bytes.

    Raises:
        UsageError: The recording holds several boots, or `out` exists.
        LogError: A damaged recording.
        StorageError: `out` cannot be written.
    """
    with LogReader(path, topics=topics, from_raw_ns=from_raw_ns, to_raw_ns=to_raw_ns) as reader:
        if len(reader.boot_ids) > 1:
            raise UsageError(
                f"{path} holds {len(reader.boot_ids)} boots, whose times cannot be joined",
                remedy="Name one of its segments",
            )
        with new_file(out) as file:
            first = next(reader.files())
            writer = ExactWriter(file, first.index.profile, packed=packed)
            _copy_metadata(writer, reader.files())
            messages = _copy(writer, filter(keep, reader))
        return RewriteReport(out, messages, out.stat().st_size)


def _copy(writer: ExactWriter, records: Iterable[Record]) -> int:
    merger = Merger(writer)
    for record in records:
        merger.record(record)
    return writer.finish()


def _copy_metadata(writer: ExactWriter, files: Iterator[LogFile]) -> None:
    """Each different metadata record once; what is true of one segment alone is left out."""
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for log in files:
        for name, values in log.index.metadata:
            kept = dict(values)
            if name == "syncline":
                kept = {k: v for k, v in values.items() if k not in ("segment", "part")}
                kept.pop("start_raw_ns", None)
            key = (name, tuple(sorted(kept.items())))
            if name != "syncline.end" and key not in seen:
                seen.add(key)
                writer.metadata(name, kept)
