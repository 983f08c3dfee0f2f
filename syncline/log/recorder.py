"""The recorder: a queue per topic, one writer thread, one thread that syncs. See docs/log-format.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from syncline.log.schemas import LogMessage
from syncline.timebase import RawClock

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Pin:
    """Segments that a trigger keeps."""

    id: int
    reason: str
    from_raw_ns: int
    to_raw_ns: int
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecorderStats:
    """Counters since the start, per topic where it says so."""

    written: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    queued: int = 0
    queued_bytes: int = 0
    segment: str = ""
    ring_bytes: int = 0
    error: str = ""


class Recorder:
    """Records messages into `folder` without making the caller wait for the disk.

    Args:
        folder: Recording folder, made when missing.
        clock: Decides when segments rotate.
        device: Name of the device in the metadata.
        segment_s: Length of a segment.
        quota_bytes: Unique bytes of ring and pins before the oldest goes.
        reserve_bytes: Bytes of the file system that are left free.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: RawClock,
        device: str,
        segment_s: float = 10.0,
        quota_bytes: int = 8 * GIB,
        reserve_bytes: int = 64 << 20,
    ) -> None:
        raise NotImplementedError

    def write(self, topic: str, message: LogMessage, raw_ns: int) -> bool:
        """Queue one message; never waits for the disk (topics with policy BLOCK: at most 0.2 s).

        Returns:
            False when a message was dropped, which is counted and recorded on /drops.

        Raises:
            MessageError: The topic is not in the table, or the message is not of its schema.
        """
        raise NotImplementedError

    def pin(self, pre_s: float, post_s: float, reason: str) -> Pin:
        """Keep the segments around now, out of the ring's reach.

        Raises:
            QuotaError: Pins already hold their share of the quota.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Wait until everything written before is durable.

        Raises:
            StorageError: The disk refused; stats() counts what was lost.
        """
        raise NotImplementedError

    def stats(self) -> RecorderStats:
        """Counters now."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is queued, close the segment and stop the threads; may be called twice."""
        raise NotImplementedError

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
