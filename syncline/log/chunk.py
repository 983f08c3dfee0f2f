"""One chunk: its bytes checked, its messages as records."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter

from syncline.errors import LogError
from syncline.log.codec import check_crc, expand
from syncline.log.index import ChunkRef
from syncline.log.records import ChannelInfo, Record
from syncline.log.wire import MESSAGE, MESSAGE_FIELDS, PREFIX, REMEDY, Limits, Op, parse_chunk

Wanted = Mapping[int, tuple[str, str, ChannelInfo] | None]
"""Channel id -> topic, schema name and channel; None for a channel that nobody asked for."""

by_time = itemgetter(2)


def load_records(view: memoryview, chunk: ChunkRef, limits: Limits) -> memoryview:
    """The expanded records of a chunk, CRC checked.

    Raises:
        LogError: Damaged, or larger than it says.
    """
    if chunk.compression != "unread":
        data = view[chunk.offset : chunk.offset + chunk.length]
        data = expand(data, chunk.compression, chunk.size)
        check_crc(data, chunk.crc)
        return data
    head = parse_chunk(view, chunk.offset, chunk.offset + chunk.length, limits)
    if (head.start_ns, head.end_ns, head.uncompressed_size) != (
        chunk.start_ns, chunk.end_ns, chunk.size,
    ):  # fmt: skip
        raise LogError(f"chunk at byte {chunk.offset} is not what the index says", remedy=REMEDY)
    data = view[head.data_offset : head.data_offset + head.data_length]
    data = expand(data, head.compression, head.uncompressed_size)
    check_crc(data, head.crc)
    return data


def read_messages(
    data: memoryview, wanted: Wanted, from_ns: int, to_ns: int
) -> tuple[list[Record], bool]:
    """Messages of expanded records within [from_ns, to_ns), and whether they are in order of time.

    This is the hot loop: one unpack and one slice per message.

    Raises:
        LogError: A record does not fit, or names a channel that is not there.
    """
    found: list[Record] = []
    take, new, unpack = found.append, tuple.__new__, MESSAGE.unpack_from
    pos, size, ordered, last = 0, len(data), True, from_ns
    while pos < size:
        if data[pos] != Op.MESSAGE:
            pos = _skip(data, pos, size)
            continue
        if size - pos < MESSAGE.size:
            raise _misfit(pos, size)
        _, length, channel_id, sequence, log_ns, publish_ns = unpack(data, pos)
        end = pos + 9 + length
        if end > size or length < MESSAGE_FIELDS:
            raise _misfit(pos, size)
        try:
            kind = wanted[channel_id]
        except KeyError:
            raise LogError(
                f"message at byte {pos} of its chunk names channel {channel_id}, "
                "which is not in the file",
                remedy=REMEDY,
            ) from None
        if kind is not None and from_ns <= log_ns < to_ns:
            ordered = ordered and log_ns >= last
            last = log_ns
            topic, schema, channel = kind
            take(
                new(
                    Record,
                    (topic, schema, log_ns, sequence, data[pos + 31 : end], channel, publish_ns),
                )
            )
        pos = end
    return found, ordered


def _skip(data: memoryview, pos: int, size: int) -> int:
    if size - pos < PREFIX.size:
        raise _misfit(pos, size)
    length: int = PREFIX.unpack_from(data, pos)[1]
    end = pos + PREFIX.size + length
    if end > size:
        raise _misfit(pos, size)
    return end


def _misfit(pos: int, size: int) -> LogError:
    return LogError(
        f"record at byte {pos} of its chunk does not fit the chunk's {size} bytes", remedy=REMEDY
    )
