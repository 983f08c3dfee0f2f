"""One chunk: its bytes checked, its messages as records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    if PREFIX.unpack_from(view, chunk.offset - PREFIX.size) != (Op.CHUNK, chunk.length):
        at = chunk.offset - PREFIX.size
        raise LogError(f"no chunk at byte {at}, where the index has one", remedy=REMEDY)
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

    This is the hot loop: one unpack and one slice per message, literals for names of constants.

    Raises:
        LogError: A record does not fit, or names a channel that is not there.
    """
    found: list[Record] = []
    take, new, unpack = found.append, tuple.__new__, MESSAGE.unpack_from
    pos, size, ordered, last = 0, len(data), True, from_ns
    whole = size - MESSAGE.size
    while pos < size:
        if pos > whole:
            pos = _skip(data, pos, size)
            continue
        opcode, length, channel_id, sequence, log_ns, publish_ns = unpack(data, pos)
        end = pos + 9 + length
        if end > size:
            raise _misfit(pos, size)
        if opcode != 5 or length < 22:
            pos = _skip(data, pos, size)
            continue
        try:
            kind = wanted[channel_id]
        except KeyError:
            raise _no_channel(pos, channel_id) from None
        if kind is None or not from_ns <= log_ns < to_ns:
            pos = end
            continue
        if log_ns < last:
            ordered = False
        last = log_ns
        topic, schema, channel = kind
        payload = data[pos + 31 : end]
        take(new(Record, (topic, schema, log_ns, sequence, payload, channel, publish_ns)))
        pos = end
    return found, ordered


def iter_others(data: memoryview) -> Iterator[tuple[int, int, int]]:
    """(opcode, offset of the fields, end) of the records that are no messages.

    Raises:
        LogError: A record does not fit.
    """
    pos, size, unpack = 0, len(data), PREFIX.unpack_from
    while pos < size:
        if size - pos < 9:
            raise _misfit(pos, size)
        opcode, length = unpack(data, pos)
        end = pos + 9 + length
        if end > size:
            raise _misfit(pos, size)
        if opcode != 5:
            yield opcode, pos + 9, end
        pos = end


def index_messages(data: memoryview, last: dict[int, int]) -> dict[int, list[int]]:
    """Log time and offset of each message, flat, by channel; keeps the last sequences in `last`.

    Raises:
        LogError: A record does not fit.
    """
    entries: dict[int, list[int]] = {}
    pos, size, unpack = 0, len(data), MESSAGE.unpack_from
    whole = size - MESSAGE.size
    while pos < size:
        if pos > whole:
            pos = _skip(data, pos, size)
            continue
        opcode, length, channel, sequence, log_ns, _ = unpack(data, pos)
        end = pos + 9 + length
        if end > size:
            raise _misfit(pos, size)
        if opcode != 5 or length < 22:
            pos = _skip(data, pos, size)
            continue
        try:
            flat = entries[channel]
        except KeyError:
            flat = entries[channel] = []
        flat += (log_ns, pos)
        if sequence > last.get(channel, 0):
            last[channel] = sequence
        pos = end
    return entries


def _no_channel(pos: int, channel_id: int) -> LogError:
    return LogError(
        f"message at byte {pos} of its chunk names channel {channel_id}, which is not in the file",
        remedy=REMEDY,
    )


def _skip(data: memoryview, pos: int, size: int) -> int:
    """End of a record that is no message; a message that is too short to be one is an error."""
    if size - pos < PREFIX.size:
        raise _misfit(pos, size)
    opcode, length = PREFIX.unpack_from(data, pos)
    end: int = pos + PREFIX.size + length
    if end > size or (opcode == Op.MESSAGE and length < MESSAGE_FIELDS):
        raise _misfit(pos, size)
    return end


def _misfit(pos: int, size: int) -> LogError:
    return LogError(
        f"record at byte {pos} of its chunk does not fit the chunk's {size} bytes", remedy=REMEDY
    )
