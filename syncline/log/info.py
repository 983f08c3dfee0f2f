"""What a recording holds, mostly from its indexes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from syncline.errors import LogError
from syncline.log.index import FileIndex
from syncline.log.reader import LogFile, LogReader
from syncline.timebase import NS_PER_S

_DROPPED = "dropped."


class TopicInfo(msgspec.Struct, kw_only=True):
    """One topic. `rate_hz` is over the span of its boots; 0 for a single message."""

    topic: str
    schema: str
    encoding: str
    messages: int = 0
    rate_hz: float = 0.0


class BootInfo(msgspec.Struct, kw_only=True):
    """One boot. `start_utc_ns` is None where no mapping segment is known."""

    boot_id: str
    device: str
    start_raw_ns: int | None = None
    end_raw_ns: int | None = None
    duration_s: float = 0.0
    mapping_segments: int = 0
    start_utc_ns: int | None = None
    start_utc_bound_ns: int | None = None


class LogInfo(msgspec.Struct, kw_only=True):
    """A recording. `truncated` names files without their end, `dropped` counts per topic."""

    path: str
    files: int = 0
    bytes: int = 0
    profile: str = ""
    library: str = ""
    messages: int = 0
    topics: list[TopicInfo] = msgspec.field(default_factory=list)
    boots: list[BootInfo] = msgspec.field(default_factory=list)
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    truncated: list[str] = msgspec.field(default_factory=list)
    damaged_chunks: int = 0
    lost_bytes: int = 0


def read_info(path: Path) -> LogInfo:
    """Read what a recording holds.

    Raises:
        UsageError: Nothing there.
        LogError: Not a log.
    """
    info = LogInfo(path=str(path))
    topics: dict[str, TopicInfo] = {}
    boots: dict[str, BootInfo] = {}
    with LogReader(path) as reader:
        for log in reader.files():
            _add_file(info, log)
            counts = _counts(log)
            for channel in log.channels.values():
                row = topics.get(channel.topic)
                if row is None:
                    schema = channel.schema.name if channel.schema else ""
                    row = TopicInfo(topic=channel.topic, schema=schema, encoding=channel.encoding)
                    topics[channel.topic] = row
                row.messages += counts.get(channel.id, 0)
            _add_boot(boots, log)
        for boot in boots.values():
            _add_mapping(reader, boot)
    seconds = sum(boot.duration_s for boot in boots.values())
    for row in topics.values():
        row.rate_hz = (row.messages - 1) / seconds if seconds and row.messages > 1 else 0.0
    info.topics = [topics[name] for name in sorted(topics)]
    info.boots = list(boots.values())
    info.messages = sum(row.messages for row in info.topics)
    return info


def _add_file(info: LogInfo, log: LogFile) -> None:
    index = log.index
    info.files += 1
    info.bytes += len(log.file.view)
    info.profile, info.library = info.profile or index.profile, info.library or index.library
    info.damaged_chunks += index.damaged_chunks
    info.lost_bytes += index.lost_bytes
    if not index.complete:
        info.truncated.append(str(log.file.path))
    if index.meta("syncline").get("part", "tel") != "tel":
        return
    for key, value in index.meta("syncline.end").items():
        if key.startswith(_DROPPED) and value.isdecimal():
            topic = key.removeprefix(_DROPPED)
            info.dropped[topic] = info.dropped.get(topic, 0) + int(value)


def _counts(log: LogFile) -> dict[int, int]:
    """Messages per channel: from the statistics, or by reading where there are none."""
    stats = log.index.statistics
    if stats is not None and sum(stats.channel_counts.values()) == stats.message_count:
        return stats.channel_counts
    counts: dict[int, int] = {}
    for record in LogReader(log.file.path):
        counts[record.channel.id] = counts.get(record.channel.id, 0) + 1
    return counts


def _span(index: FileIndex) -> tuple[int, int] | None:
    chunks = [c for c in index.chunks if c.size]
    if not chunks:
        return None
    return min(c.start_ns for c in chunks), max(c.end_ns for c in chunks)


def _add_boot(boots: dict[str, BootInfo], log: LogFile) -> None:
    device = log.index.meta("syncline").get("device", "")
    boot = boots.setdefault(log.boot_id, BootInfo(boot_id=log.boot_id, device=device))
    span = _span(log.index)
    if span is None:
        return
    start_ns, end_ns = span
    start_ns = start_ns if boot.start_raw_ns is None else min(start_ns, boot.start_raw_ns)
    end_ns = end_ns if boot.end_raw_ns is None else max(end_ns, boot.end_raw_ns)
    boot.start_raw_ns, boot.end_raw_ns = start_ns, end_ns
    boot.duration_s = (end_ns - start_ns) / NS_PER_S


def _add_mapping(reader: LogReader, boot: BootInfo) -> None:
    try:
        timebase = reader.timebase(boot.boot_id)
    except LogError:
        return
    boot.mapping_segments = len(timebase.segments)
    if boot.mapping_segments and boot.start_raw_ns is not None:
        utc = timebase.utc(boot.start_raw_ns)
        boot.start_utc_ns, boot.start_utc_bound_ns = utc.utc_ns, utc.bound_ns
