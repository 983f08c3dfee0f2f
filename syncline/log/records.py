"""What the reader yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class SchemaRecord:
    """Schema of a file. `data` is the FileDescriptorSet for encoding `protobuf`."""

    id: int
    name: str
    encoding: str
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class ChannelInfo:
    """Topic of one file.

    Attributes:
        id: Number within the file.
        topic: Topic name.
        encoding: Encoding of the messages: `protobuf`, `json`, `cdr`, ...
        schema: Schema, None where the file has none for this topic.
        boot_id: Boot that the file's raw times count in; empty for files that are not ours.
        metadata: Free text of the channel.
    """

    id: int
    topic: str
    encoding: str
    schema: SchemaRecord | None
    boot_id: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


class Record(NamedTuple):
    """One message of a log.

    Attributes:
        topic: Topic name.
        schema: Full schema name, empty where there is none.
        raw_ns: `log_time`: CLOCK_MONOTONIC_RAW in our files, whatever the writer used in others.
        sequence: Counts within topic and file.
        data: Payload; a view that keeps its chunk or map alive, copy it to keep it long.
        channel: Channel with schema and boot id.
        publish_ns: `publish_time`; equals raw_ns in our files.
    """

    topic: str
    schema: str
    raw_ns: int
    sequence: int
    data: memoryview
    channel: ChannelInfo
    publish_ns: int

    @property
    def boot_id(self) -> str:
        """Boot that raw_ns counts in; empty for files that are not ours."""
        return self.channel.boot_id
