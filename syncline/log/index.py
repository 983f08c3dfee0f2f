"""What is known of a file before its messages are read."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import NamedTuple

from syncline.errors import LogError
from syncline.log.records import ChannelInfo, SchemaRecord
from syncline.log.wire import CHANNEL_OFFSET, REMEDY, Limits, RawChannel, Statistics


class ChunkRef(NamedTuple):
    """Records that are read together.

    Attributes:
        start_ns: No message of it is earlier.
        end_ns: No message of it is later.
        offset: First byte of the records in the file.
        length: Bytes of the records in the file.
        size: Bytes of the records once expanded.
        compression: Empty, `zstd` or `lz4`.
        crc: CRC-32 of the expanded records, 0 for none.
        keys: The summary's raw map of the channels in it, None when nothing tells.
        body: First byte of the fields of the chunk record, None for loose messages.
        open: Its writer did not finish it: it is read up to the first record that does not fit.
    """

    start_ns: int
    end_ns: int
    offset: int
    length: int
    size: int
    compression: str = ""
    crc: int = 0
    keys: memoryview | None = None
    open: bool = False
    body: int | None = None

    def holds(self, channels: Set[int]) -> bool:
        """Whether one of these channels may be in it."""
        if not self.keys:
            return True
        return any(channel in channels for channel, _ in CHANNEL_OFFSET.iter_unpack(self.keys))


@dataclass
class FileIndex:
    """What is known of a file before its messages are read.

    Attributes:
        complete: The file has its end; False after a crash.
        lost_bytes: Bytes at the end that belong to no readable record.
        damaged_chunks: Chunks of an incomplete file that were left out.
        damaged_records: Other records of an incomplete file that were left out.
    """

    profile: str = ""
    library: str = ""
    schemas: dict[int, SchemaRecord] = field(default_factory=dict)
    raw_channels: dict[int, RawChannel] = field(default_factory=dict)
    chunks: list[ChunkRef] = field(default_factory=list)
    metadata: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    attachments: list[tuple[int, int]] = field(default_factory=list)
    statistics: Statistics | None = None
    complete: bool = True
    lost_bytes: int = 0
    damaged_chunks: int = 0
    damaged_records: int = 0

    def meta(self, name: str) -> dict[str, str]:
        """The last metadata record of that name, empty when there is none."""
        found: dict[str, str] = {}
        for key, values in self.metadata:
            if key == name:
                found = values
        return found

    def add_schema(self, schema: SchemaRecord, limits: Limits) -> None:
        """Take a schema; a repeat must be equal.

        Raises:
            LogError: The id is taken by another schema, or there are too many.
        """
        known = self.schemas.setdefault(schema.id, schema)
        if known != schema:
            raise LogError(f"schema {schema.id} is defined twice, differently", remedy=REMEDY)
        if len(self.schemas) > limits.ids:
            raise LogError(f"more than {limits.ids} schemas")

    def add_channel(self, channel: RawChannel, limits: Limits) -> None:
        """Take a channel; a repeat must be equal.

        Raises:
            LogError: The id is taken by another channel, or there are too many.
        """
        known = self.raw_channels.setdefault(channel.id, channel)
        if known != channel:
            raise LogError(f"channel {channel.id} is defined twice, differently", remedy=REMEDY)
        if len(self.raw_channels) > limits.ids:
            raise LogError(f"more than {limits.ids} channels")

    def channels(self) -> dict[int, ChannelInfo]:
        """Channels with their schemas.

        Raises:
            LogError: A channel names a schema that is not there.
        """
        boot_id = self.meta("syncline").get("boot_id", "")
        return {
            c.id: ChannelInfo(c.id, c.topic, c.encoding, self._schema_of(c), boot_id, c.metadata)
            for c in self.raw_channels.values()
        }

    def _schema_of(self, channel: RawChannel) -> SchemaRecord | None:
        if channel.schema_id == 0:
            return None
        schema = self.schemas.get(channel.schema_id)
        if schema is None:
            raise LogError(
                f"channel {channel.id} ({channel.topic!r}) names schema {channel.schema_id}, "
                "which is not in the file",
                remedy=REMEDY,
            )
        return schema
