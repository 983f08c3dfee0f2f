"""One segment file of the spool: append, sync, seal, read."""

from __future__ import annotations

from pathlib import Path

from syncline.spool.disk import Disk, write_all
from syncline.spool.format import (
    DATA,
    FOOTER,
    MAX_RECORD_BYTES,
    MAX_TABLE_BYTES,
    NAME,
    RECORD_BYTES,
    TAIL_BYTES,
    Footer,
    RawRecord,
    Table,
    footer_offset,
    pack_footer,
    pack_header,
    pack_record,
    parse_footer,
    parse_header,
    parse_records,
)

READ_BYTES = 256 * 1024


class Segment:
    """A numbered file of records of one class and one boot.

    `end` is the offset behind the last whole record written, `synced` the offset up to which the
    disk has promised to keep it. Records put since the last write wait in `pending`; written ones
    that are not synced yet are kept in `unsynced`, so that a failed sync loses nothing.
    """

    def __init__(self, disk: Disk, path: Path, number: int, boot_id: str, table: Table) -> None:
        self.disk = disk
        self.path = path
        self.number = number
        self.boot_id = boot_id
        self.table: Table = dict(table)
        self.names: dict[int, str] = {i: name for name, (i, _) in table.items()}
        self.start = self.end = self.synced = 0
        self.count = 0
        self.written_count = 0
        self.pending: list[bytes] = []
        self.pending_bytes = 0
        self.unsynced: list[tuple[int, bytes]] = []
        self.sealed = False
        self.cut_bytes = 0
        self._fd: int | None = None

    @property
    def total_bytes(self) -> int:
        """Bytes the segment takes or will take on disk."""
        return self.end + self.pending_bytes

    @property
    def dirty(self) -> bool:
        """True while something is not synced."""
        return bool(self.pending) or self.synced < self.end

    def create(self, link_class: int) -> None:
        """Make the file and write its header.

        Raises:
            OSError: The disk refused; no file is left.
        """
        self._fd = self.disk.create(self.path)
        header = pack_header(link_class, self.number, self.boot_id, self.table)
        try:
            write_all(self.disk, self._fd, header, 0)
        except OSError:
            self.close()
            self.disk.unlink(self.path)
            raise
        self.start = self.end = len(header)

    def append(self, stream_id: int, seq: int, raw_ns: int, payload: bytes) -> None:
        """Queue one data record."""
        record = pack_record(DATA, stream_id, seq, raw_ns, payload, self.end + self.pending_bytes)
        self.pending.append(record)
        self.pending_bytes += len(record)
        self.count += 1

    def name_stream(self, stream_id: int, stream: str) -> None:
        """Queue the record that gives a stream its id."""
        self._queue(pack_record(NAME, stream_id, 0, 0, stream.encode(), self.total_bytes))
        self.names[stream_id] = stream

    def _queue(self, record: bytes) -> None:
        self.pending.append(record)
        self.pending_bytes += len(record)

    def write(self) -> None:
        """Bring queued records to the file.

        Raises:
            OSError: The disk refused; the file ends where it did and the records stay queued.
        """
        if not self.pending:
            return
        block = b"".join(self.pending)
        try:
            write_all(self.disk, self.fd(), block, self.end)
        except OSError:
            self._cut_back()
            raise
        self.unsynced.append((self.end, block))
        self.end += len(block)
        self.written_count = self.count
        self.pending.clear()
        self.pending_bytes = 0

    def _cut_back(self) -> None:
        try:
            self.disk.truncate(self.fd(), self.end)
        except OSError:
            return  # the next write starts at the same offset and covers the rest

    def mark_synced(self, end: int) -> None:
        """A sync that began when the file ended at `end` has succeeded."""
        self.synced = max(self.synced, end)
        self.unsynced = [(at, b) for at, b in self.unsynced if at + len(b) > self.synced]

    def give_up(self) -> list[tuple[dict[int, str], int, bytes]]:
        """Forget what is not synced and return it as (names, offset it was made for, bytes)."""
        blocks = list(self.unsynced)
        if self.pending:
            blocks.append((self.end, b"".join(self.pending)))
        for at, block in blocks:
            self.count -= sum(1 for r in parse_records(block, at) if r.kind == DATA)
        self.end = min([at for at, _ in blocks] + [self.end])
        self.synced, self.written_count = self.end, self.count
        self.unsynced, self.pending, self.pending_bytes = [], [], 0
        return [(dict(self.names), at, block) for at, block in blocks]

    def retire(self) -> None:
        """Write to this file no more, and cut off what it may hold behind its end."""
        self._cut_back()
        self.sealed = True

    def seal(self) -> None:
        """Write what is queued and the footer; no record follows.

        Raises:
            OSError: The disk refused; the segment is as it was.
        """
        self.write()
        footer = pack_footer(Footer(self.count, self.names, self.table), self.end)
        try:
            write_all(self.disk, self.fd(), footer, self.end)
        except OSError:
            self._cut_back()
            raise
        self.sealed = True

    def fd(self) -> int:
        """Descriptor, opened when needed."""
        if self._fd is None:
            self._fd = self.disk.open(self.path)
        return self._fd

    def close(self) -> None:
        """Release the descriptor; it opens again when needed."""
        if self._fd is not None:
            self.disk.close(self._fd)
            self._fd = None

    def remove(self) -> None:
        """Close and unlink."""
        self.close()
        self.disk.unlink(self.path)

    def records(self, offset: int, max_bytes: int) -> list[RawRecord]:
        """Whole records from `offset`, about `max_bytes`, at least one where there is one."""
        offset = max(offset, self.start)
        want = min(self.end - offset, max(max_bytes, RECORD_BYTES))
        if want <= 0:
            return []
        found = list(parse_records(self.disk.pread(self.fd(), want, offset), offset))
        if not found and want < self.end - offset:
            want = min(self.end - offset, RECORD_BYTES + MAX_RECORD_BYTES)
            found = list(parse_records(self.disk.pread(self.fd(), want, offset), offset))[:1]
        return found


def load(disk: Disk, path: Path, number: int) -> Segment | None:
    """Open an existing segment: by its footer when sealed, else by reading it through.

    A tail that does not check is cut off and its length kept in `cut_bytes`.

    Returns:
        The segment, or None when its header is damaged.
    """
    fd = disk.open(path)
    size = disk.size(fd)
    header = parse_header(disk.pread(fd, MAX_TABLE_BYTES + 256, 0))
    if header is None or header.number != number:
        disk.close(fd)
        return None
    segment = Segment(disk, path, number, header.boot_id, header.table)
    segment._fd = fd
    segment.start = segment.end = header.size
    place = footer_offset(disk.pread(fd, TAIL_BYTES, max(size - TAIL_BYTES, 0)))
    footer = None
    if place is not None and header.size <= place < size:
        footer = parse_footer(disk.pread(fd, size - place, place), place)
    if footer is not None and place is not None:
        segment.end = place
        segment.count = footer.count
        segment.table, segment.names = dict(footer.table), dict(footer.names)
        segment.sealed = True
    else:
        _scan(segment, size)
    segment.synced = segment.end
    segment.written_count = segment.count
    segment.close()
    return segment


def _scan(segment: Segment, size: int) -> None:
    """Walk the records of an unsealed segment and cut off what does not check."""
    fd = segment.fd()
    while segment.end < size:
        before = segment.end
        want = min(size - before, READ_BYTES)
        found = list(parse_records(segment.disk.pread(fd, want, before), before))
        if not found and want < size - before:
            want = min(size - before, RECORD_BYTES + MAX_RECORD_BYTES)
            found = list(parse_records(segment.disk.pread(fd, want, before), before))
        for record in found:
            if record.kind == FOOTER:
                break
            _take(segment, record)
        if segment.end == before:
            break
    if segment.end < size:
        segment.cut_bytes = size - segment.end
        segment.disk.truncate(fd, segment.end)


def _take(segment: Segment, record: RawRecord) -> None:
    segment.end = record.end
    if record.kind == NAME:
        stream = record.payload.decode()
        segment.names[record.stream_id] = stream
        segment.table.setdefault(stream, (record.stream_id, 0))
    elif record.kind == DATA:
        segment.count += 1
        stream = segment.names.get(record.stream_id, "")
        segment.table[stream] = (record.stream_id, record.seq + 1)
