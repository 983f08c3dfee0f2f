"""ROS 2 bags: mcap and db3, whole or damaged. The only module that imports rosbags."""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncline.errors import LogError, UsageError
from syncline.log.reader import LogReader
from syncline.log.records import ChannelInfo, Record, SchemaRecord
from syncline.log.wire import Limits


@dataclass
class BagReport:
    """What reading a bag met.

    Attributes:
        messages: Messages read.
        damaged: One line for each file that could not be read to its end.
    """

    messages: int
    damaged: list[str]


def is_bag(path: Path) -> bool:
    """Whether `path` is a ROS 2 bag: a db3 file, an mcap of profile ros2, or a folder of these."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or any(path.glob("*.db3"))
    if path.suffix == ".db3":
        return True
    if path.suffix != ".mcap" or not path.is_file():
        return False
    try:
        with LogReader(path) as reader:
            return next(reader.files()).index.profile == "ros2"
    except LogError:
        return False


def bag_files(path: Path) -> list[Path]:
    """Files of a bag in order of recording.

    Raises:
        UsageError: None there.
    """
    if path.is_file():
        return [path]
    found = [p for p in path.glob("*") if p.suffix in (".mcap", ".db3")]
    if not found:
        raise UsageError(f"no .mcap or .db3 file in {path}")
    return sorted(found, key=lambda p: (len(p.name), p.name))


def read_bag(path: Path, report: BagReport) -> Iterator[Record]:
    """Messages of a bag, each file in order of time; damage ends a file, not the reading.

    Records carry the receive time as `raw_ns` and the CDR bytes as they are.
    """
    for file in bag_files(path):
        reader = _read_db3(file) if file.suffix == ".db3" else iter(LogReader(file))
        try:
            for record in reader:
                report.messages += 1
                yield record
        except (LogError, sqlite3.DatabaseError) as error:
            report.damaged.append(f"{file}: {error}")


def _read_db3(path: Path) -> Iterator[Record]:
    """Rows by page order of the table first, so that a truncated file gives what is left."""
    limits = Limits()
    base = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.chunk)
        # SQLite refuses a file shorter than its header says, unless the schema may be repaired.
        base.execute("PRAGMA writable_schema=ON")
        channels = {c.id: c for c in _db3_channels(base)}
        counts: dict[int, int] = {}
        query = "SELECT topic_id, timestamp, data FROM messages ORDER BY rowid"
        for topic_id, stamp_ns, data in base.execute(query):
            channel = channels.get(topic_id)
            if channel is None or not isinstance(data, bytes) or not isinstance(stamp_ns, int):
                raise LogError(f"{path}: a row of messages does not fit its table")
            counts[topic_id] = counts.get(topic_id, 0) + 1
            schema = channel.schema.name if channel.schema else ""
            yield Record(
                channel.topic,
                schema,
                stamp_ns,
                counts[topic_id],
                memoryview(data),
                channel,
                stamp_ns,
            )
    finally:
        base.close()


def _db3_channels(base: sqlite3.Connection) -> Iterator[ChannelInfo]:
    texts: dict[str, tuple[str, bytes]] = {}
    try:
        query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        for kind, encoding, text in base.execute(query):
            texts[kind] = (str(encoding), str(text).encode())
    except sqlite3.OperationalError:
        pass  # bags before Iron have no definitions: the well-known types are in rosbags
    rows = base.execute("SELECT id, name, type, serialization_format FROM topics")
    for number, name, kind, encoding in rows:
        form, text = texts.get(kind, ("ros2msg", b""))
        yield ChannelInfo(number, name, encoding, SchemaRecord(number, kind, form, text))


class BagDecoder:
    """From CDR bytes to message objects, types made once per schema.

    Raises:
        UsageError: rosbags is not installed.
    """

    def __init__(self) -> None:
        try:
            self._rosbags: Any = importlib.import_module("rosbags.typesys")
        except ImportError:
            raise UsageError(
                "ROS 2 messages need rosbags", remedy="pip install 'syncline[sensors]'"
            ) from None
        self._store = self._rosbags.get_typestore(self._rosbags.Stores.ROS2_HUMBLE)
        self._known: set[str] = set()

    def decode(self, record: Record) -> Any:
        """The message object.

        Raises:
            LogError: The type is unknown or the bytes do not fit it.
        """
        try:
            self._learn(record)
            return self._store.deserialize_cdr(bytes(record.data), record.schema)
        except Exception as error:  # noqa: BLE001 - generated code raises what it likes on bad bytes
            raise LogError(
                f"message {record.sequence} of {record.topic!r} does not decode as "
                f"{record.schema!r}: {error!r}"
            ) from None

    def _learn(self, record: Record) -> None:
        schema = record.channel.schema
        if schema is None or schema.name in self._known:
            return
        self._known.add(schema.name)
        if schema.name in self._store.types or not schema.data:
            return
        text = schema.data.decode("utf-8", "replace")
        found = self._rosbags.get_types_from_msg(text, schema.name)
        fresh = {name: kind for name, kind in found.items() if name not in self._store.types}
        self._store.register(fresh)
