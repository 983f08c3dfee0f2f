"""The recorder: a queue per topic, a thread that writes, a thread that syncs.

Memory is bounded by `queue_bytes` and the 8 MiB of a segment that are not yet confirmed. See
docs/log-format.md for what it leaves on the disk.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from foxglove import Context

from syncline.errors import MessageError, StorageError, UsageError
from syncline.log.disk import Disk
from syncline.log.lanes import Item, Lane, LaneQueue, open_lane
from syncline.log.lock import FolderLock
from syncline.log.recovery import repair_folder
from syncline.log.ring import Pin, Ring
from syncline.log.schemas import LogMessage, payload_of, schema_name_of
from syncline.log.session import Session
from syncline.log.sync_thread import SyncThread
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import NS_PER_S, RawClock
from syncline.topics import DROPS

_LOG = logging.getLogger(__name__)
GIB = 1 << 30
_POLL_S = 0.02
"""How long a message may wait in memory, where a kill would take it: ten of 500 a second. Shorter
waits cost a wake-up each, on caches that pictures and models have emptied."""
_BATCH = 256
_JOIN_S = 60.0
_MAX_NS = 1 << 63
_REPAIR = 8
"""Segments looked at for a missing end when recording starts: a kill leaves one."""


@dataclass(frozen=True, slots=True)
class RecorderStats:
    """Counters since the start, per topic where it says so.

    Attributes:
        written: Messages that are whole in a file (not yet synced, perhaps).
        dropped: Messages that a full queue turned away.
        lost: Messages that the disk never took.
        queued: Messages that wait.
        queued_bytes: Their payload.
        segment: Name of the open segment, empty before the first message.
        ring_bytes: Unique bytes of closed segments, pinned ones too.
        failures: Segments given up because the disk failed.
        error: What the disk says, empty when all is well.
    """

    written: dict[str, int]
    dropped: dict[str, int]
    lost: dict[str, int]
    queued: int
    queued_bytes: int
    segment: str
    ring_bytes: int
    failures: int
    error: str


class Recorder:
    """Records messages into `folder` without making the caller wait for the disk.

    Any thread may call any method.

    Args:
        folder: Recording folder, made when missing. One recorder per folder.
        clock: Decides when segments rotate and chunks are flushed.
        device: Name of the device in the metadata.
        segment_s: Length of a segment.
        quota_bytes: Unique bytes of ring and pins before the oldest goes.
        reserve_bytes: Bytes of the file system that are left free.
        queue_bytes: Bytes of messages that may wait for the writer.
        repair: Recover segments that a killed recorder left open, before the first message.
        lossless: Make `write` wait for room instead of dropping: for replays and conversions that
            run faster than the disk, never for a vehicle.
        disk: File operations; a test may pass a failing one.

    Raises:
        UsageError: A number that cannot work.
        StorageError: The folder cannot be made or read.
        ConflictError: Another recorder uses the folder.
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
        queue_bytes: int = 128 << 20,
        repair: bool = True,
        lossless: bool = False,
        disk: Disk | None = None,
    ) -> None:
        if segment_s <= 0 or quota_bytes <= 0 or queue_bytes <= 0 or not device:
            raise UsageError(
                f"recorder: segment_s={segment_s}, quota_bytes={quota_bytes}, "
                f"queue_bytes={queue_bytes}, device={device!r}",
                remedy="The numbers must be above 0 and the device must have a name",
            )
        self._clock = clock
        self._context = Context()
        self._lanes: dict[str, Lane] = {}
        self._lanes_lock = threading.Lock()
        self._queue = LaneQueue(queue_bytes, lossless=lossless)
        self._flush_wanted: list[threading.Event] = []
        self._flush_lock = threading.Lock()
        self._stop = threading.Event()
        self._closed = False
        self._bug = ""
        self._report_ns = clock.raw_ns()
        disk = disk or Disk()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(folder)
        except OSError as error:
            raise _cannot_record(folder, error) from None
        try:
            if repair:
                repair_folder(folder, newest=_REPAIR)
            self._ring = Ring(folder, clock.boot_id, quota_bytes, reserve_bytes, disk)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise _cannot_record(folder, error) from None
            raise
        self._sync = SyncThread(lambda: self._session.live_files, self._ring.sweep)
        self._session = Session(
            self._ring, self._context, clock.boot_id, device,
            round(segment_s * NS_PER_S), disk, self._sync.retire, self._lanes,
        )  # fmt: skip
        self._drops = self._lane(DROPS.name, pb.Drop())
        self._thread = threading.Thread(target=self._run, name="log-write", daemon=True)
        self._thread.start()

    @property
    def context(self) -> Context:
        """The foxglove-sdk context of everything recorded; a live viewer joins it."""
        return self._context

    @property
    def ring(self) -> Ring:
        """Segments and pins on disk."""
        return self._ring

    def write(self, topic: str, message: LogMessage, raw_ns: int) -> bool:
        """Queue one message; never waits for the disk (topics with policy BLOCK: at most 0.2 s).

        Args:
            topic: Concrete topic such as `/camera/front/image`.
            message: Protobuf message, or one of foxglove-sdk's.
            raw_ns: Time of the record, CLOCK_MONOTONIC_RAW.

        Returns:
            False when a message was dropped, which is counted and recorded on /drops.

        Raises:
            MessageError: The topic is not in the table, the message is not of its schema, or the
                time is negative.
            UsageError: The recorder is closed.
        """
        lane = self._lanes.get(topic)
        if lane is None:
            lane = self._lane(topic, message)
        if type(message) is not lane.kind:
            raise MessageError(
                f"topic {topic!r} carries {lane.topic.schema}, not {schema_name_of(message)}"
            )
        if not 0 <= raw_ns < _MAX_NS:
            raise MessageError(f"topic {topic!r}: raw_ns {raw_ns} is outside [0, 2^63)")
        if self._closed:
            raise UsageError("the recorder is closed")
        return self._queue.put(Item(lane, payload_of(message), raw_ns))

    def _lane(self, topic: str, message: LogMessage) -> Lane:
        with self._lanes_lock:
            lane = self._lanes.get(topic)
            if lane is None:
                lane = open_lane(topic, len(self._lanes), message, self._context)
                self._lanes[topic] = lane
            return lane

    def pin(self, pre_s: float, post_s: float, reason: str) -> Pin:
        """Keep the segments around now, out of the ring's reach, by hard link.

        Args:
            pre_s: Seconds before now.
            post_s: Seconds after now; segments that open within are pinned as they do.
            reason: For those who look at the clip.

        Raises:
            QuotaError: Pins already hold their share of the quota.
            StorageError: The file system refused.
        """
        if not 0 <= pre_s <= 86_400 or not 0 <= post_s <= 3_600:
            raise UsageError(f"pin: pre_s={pre_s} (0 to 86400), post_s={post_s} (0 to 3600)")
        now_ns = self._clock.raw_ns()
        return self._ring.pin(now_ns, round(pre_s * NS_PER_S), round(post_s * NS_PER_S), reason)

    def flush(self) -> None:
        """Wait until everything written before is durable.

        Raises:
            StorageError: The disk refuses; what waits is kept and tried again.
        """
        done = threading.Event()
        with self._flush_lock:
            self._flush_wanted.append(done)
        if not done.wait(_JOIN_S):
            raise StorageError("the log writer does not answer", remedy="Look at the disk's health")
        self._sync.sync()
        if self._session.error:
            raise StorageError(
                f"recording failed: {self._session.error}", remedy="Free space on the disk"
            )

    def stats(self) -> RecorderStats:
        """Counters now."""
        lanes = list(self._lanes.values())
        return RecorderStats(
            written={lane.name: lane.written for lane in lanes if lane.written},
            dropped={lane.name: lane.dropped for lane in lanes if lane.dropped},
            lost={lane.name: lane.lost for lane in lanes if lane.lost},
            queued=len(self._queue),
            queued_bytes=self._queue.bytes,
            segment=self._session.segment.name if self._session.segment else "",
            ring_bytes=self._ring.used_bytes,
            failures=self._session.failures,
            error=self._bug or self._session.error,
        )

    def close(self) -> None:
        """Write what is queued, close the segment and stop the threads; may be called twice.

        Raises:
            StorageError: Messages were lost because the disk took no more, or by a bug.
        """
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._thread.join()
        self._sync.stop()
        self._lock.release()
        for lane in self._lanes.values():
            lane.channel.close()
        if self._bug:
            raise StorageError(
                f"{len(self._queue)} messages were lost: {self._bug}", remedy="Look at the log"
            )
        if lost := self.stats().lost:
            raise StorageError(
                f"{sum(lost.values())} messages were lost: {self._session.error}",
                remedy="Free space on the disk",
            )

    def _run(self) -> None:
        try:
            self._write_until_closed()
        except Exception as error:  # noqa: BLE001 - a writer that died unseen would lose all in silence
            _LOG.exception("the log writer ended by a bug")
            self._bug = f"internal error in the log writer: {type(error).__name__}: {error}"

    def _write_until_closed(self) -> None:
        while not self._stop.is_set():
            if not self._step():
                self._stop.wait(_POLL_S)
        while self._step():
            pass
        # A disk that took none a moment ago leaves messages in the queue: they get the last tries.
        self._session.finish(self._queue.take(len(self._queue)), self._clock.raw_ns())

    def _step(self) -> bool:
        """Write one batch; False when the queue had none or the disk takes none."""
        with self._flush_lock:  # before the batch: all that was written before it is in there
            wanted, self._flush_wanted = self._flush_wanted, []
        stalled = self._session.stalled
        batch = [] if stalled else self._queue.take(len(self._queue) if wanted else _BATCH)
        now_ns = self._clock.raw_ns()  # after the batch: what is in there belongs to this segment
        if now_ns - self._report_ns >= NS_PER_S or self._stop.is_set():
            self._report_ns = now_ns
            batch += self._drop_items(now_ns)
        self._session.step(batch, now_ns, flush=bool(wanted))
        for event in wanted:
            event.set()
        return bool(batch) and not stalled

    def _drop_items(self, now_ns: int) -> list[Item]:
        """A record on /drops for each topic that lost messages since the last one."""
        found: list[Item] = []
        for lane in list(self._lanes.values()):
            count = lane.dropped - lane.reported
            if count == 0:
                continue
            lane.reported += count
            head, _, tail = lane.topic.name.partition("{}")
            message = pb.Drop(
                camera=lane.name[len(head) : len(lane.name) - len(tail)],
                raw_ns=now_ns,
                stage="recorder",
                reason=f"{lane.name}: queue full, {lane.topic.drop.value}",
                count=count,
            )
            found.append(Item(self._drops, payload_of(message), now_ns))
        return found

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _cannot_record(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot record to {folder}: {error.strerror}",
        remedy="Choose another folder, free space or fix permissions",
    )
