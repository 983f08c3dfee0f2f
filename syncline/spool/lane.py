"""The segments of one link class, oldest first, and how far they are acknowledged."""

from __future__ import annotations

import contextlib
import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from syncline.spool.disk import Disk
from syncline.spool.format import DATA, RECORD_BYTES, Table, parse_records
from syncline.spool.segment import Segment, load

_LOG = logging.getLogger(__name__)
_SLOT = struct.Struct("<QQQQI")
_SUFFIX = ".seg"
MAX_STREAMS = 4096
MAX_PENDING_BYTES = 2 << 20


class Position(NamedTuple):
    """A place between two records of a class.

    Attributes:
        segment: Segment number.
        offset: Byte offset in the segment.
        nth: Data records of the segment that lie before it.
    """

    segment: int
    offset: int
    nth: int


class SpoolRecord(NamedTuple):
    """A record as it was put, with the boot it belongs to."""

    boot_id: str
    stream: str
    seq: int
    raw_ns: int
    payload: bytes


@dataclass(slots=True)
class Losses:
    """Records that will never be sent, by reason."""

    dropped: int = 0
    refused: int = 0
    damaged: int = 0
    damaged_bytes: int = 0


class Lane:
    """Segments of one class.

    Args:
        disk: File operations.
        folder: Folder of the class; made when absent.
        link_class: Number of the class.
        boot_id: Boot that new records belong to.
        first_seq: Number that a stream without history starts at.
        segment_bytes: Size at which a segment is sealed.

    Raises:
        OSError: The folder cannot be read.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        link_class: int,
        boot_id: str,
        first_seq: int,
        segment_bytes: int,
    ) -> None:
        self.disk, self.folder, self.link_class = disk, folder, link_class
        self.boot_id = boot_id
        self.first_seq = first_seq
        self.segment_bytes = segment_bytes
        self.segments: list[Segment] = []
        self.losses = Losses()
        self.table: Table = {}
        self.unsynced_folder = False
        self._next_number = 1
        self._slot = 0
        self._saved: Position | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._load()
        self.acked = self._load_acked()
        self._release()

    # -- opening ---------------------------------------------------------------------------------

    def _load(self) -> None:
        paths = sorted(self.folder.glob(f"*{_SUFFIX}"))
        intact = True
        for path in paths:
            number = int(path.stem) if path.stem.isdigit() else 0
            self._next_number = max(self._next_number, number + 1)
            segment = load(self.disk, path, number)
            if segment is None:
                self._lose_file(path)
                intact = False
                continue
            intact = self._adopt(segment)
        newest = self.segments[-1] if self.segments else None
        if newest is not None and newest.boot_id == self.boot_id:
            floor = 0 if intact else self.first_seq
            self.table = {n: (i, max(seq, floor)) for n, (i, seq) in newest.table.items()}

    def _adopt(self, segment: Segment) -> bool:
        self.segments.append(segment)
        if not segment.cut_bytes:
            return True
        self.losses.damaged_bytes += segment.cut_bytes
        _LOG.error("spool segment damaged path=%s cut_bytes=%d", segment.path, segment.cut_bytes)
        return False

    def _lose_file(self, path: Path) -> None:
        size = path.stat().st_size
        self.losses.damaged_bytes += size
        _LOG.error("spool segment lost: header damaged path=%s bytes=%d", path, size)
        self.disk.unlink(path)

    # -- writing ---------------------------------------------------------------------------------

    @property
    def total_bytes(self) -> int:
        """Bytes of all segments, written or waiting."""
        return sum(s.total_bytes for s in self.segments)

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait in memory."""
        return self.segments[-1].pending_bytes if self.segments else 0

    def take_seq(self, stream: str) -> tuple[int, int]:
        """Give the next number of a stream: (stream id, seq)."""
        entry = self.table.get(stream)
        if entry is None:
            entry = (len(self.table) + 1, self.first_seq)
        self.table[stream] = (entry[0], entry[1] + 1)
        return entry

    def append(self, stream: str, stream_id: int, seq: int, raw_ns: int, payload: bytes) -> None:
        """Queue a record in the newest segment; a new one is begun when that is full.

        Raises:
            OSError: A new segment could not be made, or a full one not written.
        """
        segment = self._writable()
        if stream_id not in segment.names:
            segment.name_stream(stream_id, stream)
        segment.append(stream_id, seq, raw_ns, payload)

    def _writable(self) -> Segment:
        """The newest segment, or a new one when that is full and the disk lets us."""
        newest = self.segments[-1] if self.segments else None
        if newest is None or newest.sealed or newest.boot_id != self.boot_id:
            return self._begin()
        if newest.total_bytes < self.segment_bytes:
            return newest
        return self._roll(newest)

    def _roll(self, newest: Segment) -> Segment:
        """Begin the next segment and seal `newest`; when the disk refuses, `newest` grows on.

        Raises:
            OSError: The disk refuses and too much waits in memory already.
        """
        try:
            newest.write()
            fresh = self._begin()
        except OSError:
            if newest.pending_bytes < MAX_PENDING_BYTES:
                return newest
            raise
        newest.table = dict(self.table)
        with contextlib.suppress(OSError):  # without a footer it is read through at the next start
            newest.seal()
        return fresh

    def _begin(self) -> Segment:
        path = self.folder / f"{self._next_number:020d}{_SUFFIX}"
        segment = Segment(self.disk, path, self._next_number, self.boot_id, self.table)
        segment.create(self.link_class)
        self._next_number += 1
        self.unsynced_folder = True
        self.segments.append(segment)
        self._release()
        return segment

    def write(self) -> None:
        """Bring what waits in memory to the files.

        Raises:
            OSError: The disk refused; nothing is lost.
        """
        if self.segments:
            self.segments[-1].write()

    def rewrite_from(self, failed: Segment) -> None:
        """After a failed sync of `failed`: queue what was not synced again, in fresh segments.

        Later segments move as well, so that a stream's order on disk stays that of its numbers.

        Raises:
            OSError: The fresh segment could not be made; nothing has changed.
        """
        old = self.segments[self.segments.index(failed) :]
        blocks = [pair for segment in old for pair in segment.give_up()]
        for segment in old:
            segment.retire()
        fresh = self._begin()
        for names, at, block in blocks:
            for stream_id, name in names.items():
                if stream_id not in fresh.names:
                    fresh.name_stream(stream_id, name)
            for record in parse_records(block, at):
                if record.kind == DATA:
                    fresh.append(record.stream_id, record.seq, record.raw_ns, record.payload)

    # -- reading ---------------------------------------------------------------------------------

    def read(
        self, after: Position, max_bytes: int, max_records: int
    ) -> tuple[list[tuple[SpoolRecord, Position]], Position]:
        """Written records behind `after`, each with the place behind it, and where to go on."""
        for segment in self.segments:
            if segment.number < after.segment:
                continue
            here = after if segment.number == after.segment else Position(segment.number, 0, 0)
            found = self._read_segment(segment, here, max_bytes, max_records)
            if found:
                return found, found[-1][1]
            if segment.sealed and not segment.dirty:
                segment.close()
        return [], after

    def _read_segment(
        self, segment: Segment, here: Position, max_bytes: int, max_records: int
    ) -> list[tuple[SpoolRecord, Position]]:
        out: list[tuple[SpoolRecord, Position]] = []
        index = here.nth
        here = here._replace(offset=max(here.offset, segment.start))
        while not out and here.offset < segment.end:
            raw = segment.records(here.offset, max_bytes)
            if not raw:
                self._damaged(segment, here)
                break
            for record in raw:
                if record.kind == DATA:
                    index += 1
                    place = Position(segment.number, record.end, index)
                    stream = segment.names[record.stream_id]
                    row = SpoolRecord(
                        segment.boot_id, stream, record.seq, record.raw_ns, record.payload
                    )
                    out.append((row, place))
                    if len(out) >= max_records:
                        break
                here = Position(segment.number, record.end, index)
        return out

    def _damaged(self, segment: Segment, here: Position) -> None:
        """What lies behind `here` does not check: count it once and end the segment there."""
        lost = segment.written_count - here.nth
        size = segment.end - max(here.offset, segment.start)
        self.losses.damaged += max(lost, 0)
        self.losses.damaged_bytes += size
        segment.count -= lost
        segment.written_count = here.nth
        segment.end = max(here.offset, segment.start)
        segment.cut_bytes += size
        _LOG.error("spool records lost path=%s records=%d bytes=%d", segment.path, lost, size)

    # -- giving up -------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Data records that are not acknowledged."""
        return sum(self._left(s) for s in self.segments)

    def _left(self, segment: Segment) -> int:
        if segment.number < self.acked.segment:
            return 0
        if segment.number == self.acked.segment:
            return max(segment.count - self.acked.nth, 0)
        return segment.count

    def drop_oldest(self, *, keep_newest: bool) -> int | None:
        """Remove the oldest segment to make room; returns the unacknowledged records lost.

        Returns:
            None when there is nothing to remove.
        """
        if not self.segments or (keep_newest and len(self.segments) == 1):
            return None
        segment = self.segments[0]
        if len(self.segments) == 1 and segment.count == 0:
            return None
        lost = self._left(segment)
        self.losses.dropped += lost
        if len(self.segments) == 1:
            self._replace_only(segment)
        else:
            self.segments.pop(0).remove()
        if lost:
            _LOG.error("spool full: dropped class=%d records=%d", self.link_class, lost)
        return lost

    def _replace_only(self, segment: Segment) -> None:
        """The newest segment carries the counters, so an empty successor takes its place first."""
        self.segments.clear()
        segment.remove()
        if segment.boot_id == self.boot_id:
            self._begin()

    def ack(self, position: Position) -> None:
        """Everything before `position` is safe elsewhere."""
        if position > self.acked:
            self.acked = position
            self._release()

    def _release(self) -> None:
        while len(self.segments) > 1 and self._left(self.segments[0]) == 0:
            if self.segments[0].number > self.acked.segment:
                break
            if self.segments[0].pending:
                break
            self.segments.pop(0).remove()

    def _load_acked(self) -> Position:
        best, counter = Position(0, 0, 0), 0
        try:
            data = (self.folder / "acked").read_bytes()
        except OSError:
            return best
        for at in range(0, len(data) - _SLOT.size + 1, _SLOT.size):
            *fields, crc = _SLOT.unpack_from(data, at)
            if crc32(data[at : at + _SLOT.size - 4]) == crc and fields[0] > counter:
                counter, best = fields[0], Position(*fields[1:])
        self._slot = counter
        return best

    def save_acked(self) -> None:
        """Write the acknowledged position; not synced, as losing it only costs resending.

        Raises:
            OSError: The disk refused.
        """
        if self.acked == self._saved:
            return
        self._slot += 1
        body = _SLOT.pack(self._slot, *self.acked, 0)[:-4]
        path = self.folder / "acked"
        fd = self.disk.open(path) if path.exists() else self.disk.create(path)
        try:
            self.disk.pwrite(
                fd, body + crc32(body).to_bytes(4, "little"), self._slot % 2 * _SLOT.size
            )
        finally:
            self.disk.close(fd)
        self._saved = self.acked


def record_cost(payload_bytes: int) -> int:
    """Bytes that a record of this payload takes in a segment."""
    return RECORD_BYTES + payload_bytes
