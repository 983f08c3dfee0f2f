"""The disk queue of a device: bounded by bytes, four classes, the lowest gives way first."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from syncline.errors import MessageError, StorageError
from syncline.spool.disk import Disk, OsDisk
from syncline.spool.format import MAX_RECORD_BYTES, RECORD_BYTES
from syncline.spool.lane import MAX_STREAMS, Lane, Losses, Position, SpoolRecord, record_cost
from syncline.spool.lock import lock_folder
from syncline.spool.segment import Segment
from syncline.spool.stats import ClassStats, SpoolStats
from syncline.timebase import OsClock, RawClock
from syncline.topics import LinkClass

_LOG = logging.getLogger(__name__)
START = Position(0, 0, 0)
FLUSH_BYTES = 256 * 1024
MAX_MEMORY_BYTES = 8 * 1024 * 1024


class Spool:
    """A crash-safe queue on disk; safe to use from several threads.

    Memory is bounded by `MAX_MEMORY_BYTES` of records that wait for the disk plus the stream tables
    (`MAX_STREAMS` names per class).

    Args:
        folder: Folder of the spool; made when absent. One process at a time.
        quota_bytes: Bytes on disk and waiting that the spool may take.
        class_bytes: Byte caps of single classes, where wanted.
        clock: Where boot id and first sequence numbers come from.
        segment_bytes: Size of a segment; by default 1/32 of the quota, 64 kB to 4 MiB.
        disk: File operations; tests pass one that fails.

    Raises:
        StorageError: The folder cannot be used, or another process has it open.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quota_bytes: int = 1 << 30,
        class_bytes: Mapping[LinkClass, int] | None = None,
        clock: RawClock | None = None,
        segment_bytes: int | None = None,
        disk: Disk | None = None,
    ) -> None:
        clock = clock or OsClock()
        self.folder = folder
        self.quota_bytes = quota_bytes
        self.boot_id = clock.boot_id
        self._caps = dict(class_bytes or {})
        self._disk = disk or OsDisk()
        self._lock = threading.RLock()
        self._syncing = threading.Lock()
        self._failing = ""
        self._put = dict.fromkeys(LinkClass, 0)
        size = segment_bytes or min(max(quota_bytes // 32, 64 * 1024), 4 << 20)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._guard: int | None = lock_folder(folder)
            first = clock.raw_ns() // 1000
            self._lanes = {
                c: Lane(self._disk, folder / f"c{c.value}", c.value, self.boot_id, first, size)
                for c in LinkClass
            }
        except OSError as error:
            raise _storage(error, folder) from error
        self._bytes = sum(lane.total_bytes for lane in self._lanes.values())

    # -- writing ---------------------------------------------------------------------------------

    def put(self, link_class: LinkClass, stream: str, raw_ns: int, payload: bytes) -> int:
        """Queue a record; it is durable after the next `sync` that succeeds.

        A full disk or quota never raises here: something gives way and is counted, see the module.

        Args:
            link_class: Order of sending and of giving way.
            stream: Concrete topic name.
            raw_ns: CLOCK_MONOTONIC_RAW of the record, this boot.
            payload: Opaque bytes, at most 250 kB: one frame of the link.

        Returns:
            The record's number in its stream; a refused record has used its number up.

        Raises:
            MessageError: The payload is too large, or the class has too many streams.
        """
        if len(payload) > MAX_RECORD_BYTES:
            raise MessageError(
                f"record of {len(payload)} bytes on {stream!r} is over {MAX_RECORD_BYTES}",
                remedy="Send large things as files (upload)",
            )
        with self._lock:
            lane = self._lanes[link_class]
            if (seq := self._put_fast(link_class, lane, stream, raw_ns, payload)) is not None:
                return seq
            if stream not in lane.table and len(lane.table) >= MAX_STREAMS:
                raise MessageError(
                    f"stream {stream!r} is one more than {MAX_STREAMS} in class {link_class.name}",
                    remedy="Use fewer topic names",
                )
            stream_id, seq = lane.take_seq(stream)
            self._put[link_class] += 1
            if not self._admit(link_class, lane, record_cost(len(payload))):
                return seq
            self._append(link_class, lane, stream, (stream_id, seq, raw_ns, payload))
            return seq

    def _put_fast(
        self, link_class: LinkClass, lane: Lane, stream: str, raw_ns: int, payload: bytes
    ) -> int | None:
        """The common case: known stream, room everywhere, nothing failing."""
        entry = lane.table.get(stream)
        if entry is None or self._failing or link_class in self._caps or not lane.segments:
            return None
        newest, (stream_id, seq) = lane.segments[-1], entry
        cost = RECORD_BYTES + len(payload)
        if (
            newest.sealed
            or newest.end + newest.pending_bytes >= lane.segment_bytes
            or stream_id not in newest.names
            or newest.boot_id != self.boot_id
            or self._bytes + cost > self.quota_bytes
        ):
            return None
        lane.table[stream] = (stream_id, seq + 1)
        newest.append(stream_id, seq, raw_ns, payload)
        self._bytes += cost
        self._put[link_class] += 1
        if newest.pending_bytes >= FLUSH_BYTES:
            self._write(link_class)
        return seq

    def _append(
        self, link_class: LinkClass, lane: Lane, stream: str, row: tuple[int, int, int, bytes]
    ) -> None:
        while True:
            try:
                lane.append(stream, *row)
                break
            except OSError as error:
                self._fail(error)
                if not self._give_way(link_class, error):
                    lane.losses.refused += 1
                    return
        self._recount()
        if lane.pending_bytes >= FLUSH_BYTES:
            self._write(link_class)

    def _admit(self, link_class: LinkClass, lane: Lane, cost: int) -> bool:
        """Make room under the quota and the class's cap; False when the record is refused."""
        cap = self._caps.get(link_class)
        while cap is not None and lane.total_bytes + cost > cap:
            if lane.drop_oldest(keep_newest=True) is None:
                lane.losses.refused += 1
                return False
            self._recount()
        while self._bytes + cost > self.quota_bytes or self._memory_full(cost):
            if not self._drop_one(link_class):
                lane.losses.refused += 1
                return False
        return True

    def _memory_full(self, cost: int) -> bool:
        if not self._failing:
            return False
        waiting = sum(lane.pending_bytes for lane in self._lanes.values())
        return waiting + cost > MAX_MEMORY_BYTES

    def _drop_one(self, link_class: LinkClass) -> bool:
        """Remove one segment of the lowest class that has one and is not above `link_class`."""
        for victim in sorted(LinkClass, reverse=True):
            if victim < link_class:
                return False
            try:
                gone = self._lanes[victim].drop_oldest(keep_newest=victim == link_class)
            except OSError as error:
                self._fail(error)
                return False
            if gone is not None:
                self._recount()
                return True
        return False

    def _give_way(self, link_class: LinkClass, error: OSError) -> bool:
        return error.errno in _NO_SPACE and self._drop_one(link_class)

    def _recount(self) -> None:
        self._bytes = sum(lane.total_bytes for lane in self._lanes.values())

    def _fail(self, error: OSError) -> None:
        text = error.strerror or str(error)
        if text != self._failing:
            _LOG.error("spool cannot write: %s folder=%s", text, self.folder)
        self._failing = text

    def _write(self, link_class: LinkClass) -> bool:
        while True:
            try:
                self._lanes[link_class].write()
            except OSError as error:
                self._fail(error)
                if not self._give_way(link_class, error):
                    return False
            else:
                return True

    def sync(self) -> None:
        """Bring everything that was put to the disk.

        Raises:
            StorageError: Something is not durable yet; it is kept and tried again next time.
        """
        with self._syncing:
            with self._lock:
                written = [c for c in LinkClass if not self._write(c)] == []
                work = self._dirty()
                folders = [lane for lane in self._lanes.values() if lane.unsynced_folder]
            failed: OSError | None = None
            for lane in folders:
                failed = self._sync_folder(lane) or failed
            for lane, segment, fd, end in work:
                failed = self._sync_one(lane, segment, fd, end) or failed
            if failed is not None:
                self._fail(failed)
            if failed is not None or not written:
                raise StorageError(
                    f"spool {self.folder} is not synced: {self._failing}",
                    remedy="Free space on that disk or replace it; records are kept meanwhile",
                )
            self._failing = ""
        with self._lock:
            self._tidy()

    def _dirty(self) -> list[tuple[Lane, Segment, int, int]]:
        return [
            (lane, segment, os.dup(segment.fd()), segment.end)
            for lane in self._lanes.values()
            for segment in lane.segments[-_MAX_DIRTY:]
            if segment.synced < segment.end
        ]

    def _sync_folder(self, lane: Lane) -> OSError | None:
        try:
            lane.unsynced_folder = False
            self._disk.sync_folder(lane.folder)
        except OSError as error:
            lane.unsynced_folder = True
            return error
        return None

    def _sync_one(self, lane: Lane, segment: Segment, fd: int, end: int) -> OSError | None:
        try:
            self._disk.fdatasync(fd)
        except OSError as error:
            with self._lock:
                if segment in lane.segments:
                    self._rewrite(lane, segment)
            return error
        else:
            with self._lock:
                segment.mark_synced(end)
                if segment.sealed and not segment.dirty:
                    segment.close()
            return None
        finally:
            os.close(fd)

    def _rewrite(self, lane: Lane, segment: Segment) -> None:
        try:
            lane.rewrite_from(segment)
        except OSError as error:
            self._fail(error)
        self._recount()

    def _tidy(self) -> None:
        for lane in self._lanes.values():
            try:
                lane.save_acked()
            except OSError as error:
                self._fail(error)

    # -- reading ---------------------------------------------------------------------------------

    def read(
        self,
        link_class: LinkClass,
        after: Position = START,
        *,
        max_bytes: int = FLUSH_BYTES,
        max_records: int = 1024,
    ) -> tuple[list[tuple[SpoolRecord, Position]], Position]:
        """Written records behind `after`, oldest first, each with the place behind it.

        Returns:
            The records (none when the class is drained) and the place to go on from.

        Raises:
            StorageError: The disk cannot be read.
        """
        with self._lock:
            lane = self._lanes[link_class]
            try:
                return lane.read(max(after, lane.acked), max_bytes, max_records)
            except OSError as error:
                raise _storage(error, self.folder) from error

    def acked(self, link_class: LinkClass, position: Position) -> None:
        """Everything of a class before `position` is durable at the collector.

        Raises:
            StorageError: A segment that is done with cannot be removed.
        """
        with self._lock:
            try:
                self._lanes[link_class].ack(position)
            except OSError as error:
                raise _storage(error, self.folder) from error
            self._recount()

    def ack_position(self, link_class: LinkClass) -> Position:
        """The place up to which a class is acknowledged."""
        with self._lock:
            return self._lanes[link_class].acked

    def stats(self) -> SpoolStats:
        """Counters of every class."""
        with self._lock:
            classes = {c: self._class_stats(c, lane) for c, lane in self._lanes.items()}
            backlog = sum(c.backlog for c in classes.values())
            return SpoolStats(self._bytes, self.quota_bytes, backlog, self._failing, classes)

    def _class_stats(self, link_class: LinkClass, lane: Lane) -> ClassStats:
        lost: Losses = lane.losses
        return ClassStats(
            self._put[link_class],
            lane.backlog,
            lane.total_bytes,
            lost.dropped,
            lost.refused,
            lost.damaged,
            lost.damaged_bytes,
        )

    def close(self) -> None:
        """Sync what can be synced and release the folder.

        Raises:
            StorageError: Something could not be made durable; the folder is released all the same.
        """
        try:
            self.sync()
        finally:
            with self._lock:
                for lane in self._lanes.values():
                    for segment in lane.segments:
                        segment.close()
                if self._guard is not None:
                    os.close(self._guard)
                    self._guard = None


_NO_SPACE = (28, 122, 27)  # ENOSPC, EDQUOT, EFBIG
_MAX_DIRTY = 64


def _storage(error: OSError, folder: Path) -> StorageError:
    return StorageError(
        f"spool {folder}: {error.strerror or error}",
        remedy="Check the disk and the folder's rights",
    )
