"""The reader: maps files, reads chunk by chunk, yields records in order of time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from syncline.log.records import ChannelInfo, Record
from syncline.timebase import Timebase


class LogReader:
    """A recording: one MCAP file, or a folder of segments.

    Args:
        path: File or folder.
        topics: Only these; None for all.
        from_raw_ns: First instant wanted (inclusive).
        to_raw_ns: End (exclusive).

    Raises:
        LogError: Not a log, or its index breaks a limit.
    """

    def __init__(
        self,
        path: Path,
        *,
        topics: Collection[str] | None = None,
        from_raw_ns: int | None = None,
        to_raw_ns: int | None = None,
    ) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Record]:
        """Records in order of boot, then raw_ns; can be started again."""
        raise NotImplementedError

    def decode(self, record: Record) -> Any:
        """The protobuf message of a record (a dict for JSON); types are made once per schema.

        Raises:
            LogError: The payload or its schema does not decode.
        """
        raise NotImplementedError

    @property
    def channels(self) -> tuple[ChannelInfo, ...]:
        """All channels of all files."""
        raise NotImplementedError

    @property
    def boot_ids(self) -> tuple[str, ...]:
        """Boots in order of recording."""
        raise NotImplementedError

    def timebase(self, boot_id: str | None = None) -> Timebase:
        """Mapping segments of one boot (the only one when not told), newest revisions."""
        raise NotImplementedError

    def close(self) -> None:
        """Unmap; views of records stay valid as long as they are held."""
        raise NotImplementedError

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
