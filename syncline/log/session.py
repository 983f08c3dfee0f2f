"""Writes batches of messages into segments: a pure step, no threads, no waiting.

`Session.step` takes what the queue held and the clock's reading; it opens, flushes, rotates and,
when the disk fails, gives a segment up and begins a new one with what was not yet confirmed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from foxglove import ChannelDescriptor, Context, MCAPWriter, open_mcap
from foxglove.mcap import MCAPCompression, MCAPWriteOptions

from syncline.errors import StorageError
from syncline.log.disk import Disk, RecordFile
from syncline.log.folder import CAM, TAIL, TEL, Segment
from syncline.log.lanes import Item, Lane
from syncline.log.mapping import mapping_to_text
from syncline.log.ring import Ring
from syncline.log.tail import Tail
from syncline.log.wire import MAGIC, PREFIX, Op
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import NS_PER_S
from syncline.topics import EVENTS, LogFile, topic_of

FORMAT_VERSION = 1
FLUSH_NS = NS_PER_S // 4
_RETRY_NS = NS_PER_S // 2
_LAST_TRIES = 3
_OPENING_BYTES = 64 << 10
"""What a new segment takes before its first message, and for its summary."""
_CONFIRM_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 20
_STEPS = (pb.CLOCK_EVENT_STEP, pb.CLOCK_EVENT_UNKNOWN_STEP)
_ENDING = PREFIX.pack(Op.DATA_END, 4) + bytes(4) + PREFIX.pack(Op.FOOTER, 20) + bytes(20) + MAGIC

_log = logging.getLogger(__name__)


@dataclass
class _Part:
    """One of the two files of a segment."""

    file: RecordFile
    writer: MCAPWriter


def _options(part: LogFile) -> MCAPWriteOptions:
    packed = MCAPCompression.Zstd if part is LogFile.TELEMETRY else None
    return MCAPWriteOptions(
        compression=packed, profile="syncline", chunk_size=_CHUNK_BYTES, compression_threads=0
    )


def _filter(part: LogFile) -> Callable[[ChannelDescriptor], bool]:
    return lambda channel: topic_of(channel.topic).file is part


class Session:
    """The open segment of a recording and how it follows the one before.

    Args:
        ring: Where segments come from.
        context: foxglove-sdk context that the lanes' channels live in.
        device: Name of the device in the metadata.
        segment_ns: Length of a segment.
        disk: File operations.
        retire: Takes files that are finished, to be synced and closed.
        lanes: All lanes by topic; grows while recording.
    """

    def __init__(
        self,
        ring: Ring,
        context: Context,
        boot_id: str,
        device: str,
        segment_ns: int,
        disk: Disk,
        retire: Callable[[RecordFile], None],
        lanes: Mapping[str, Lane],
    ) -> None:
        self._lanes = lanes
        self._dropped: dict[str, int] = {}
        self._ring, self._context, self._disk, self._retire = ring, context, disk, retire
        self._boot_id, self._device, self._segment_ns = boot_id, device, segment_ns
        self._parts: dict[LogFile, _Part] = {}
        self._tail: Tail | None = None
        self._tail_file: RecordFile | None = None
        self.segment: Segment | None = None
        self._start_ns = self._flush_ns = 0
        self._unconfirmed: list[Item] = []
        self._unconfirmed_bytes = 0
        self._mappings: dict[int, pb.MappingSegment] = {}
        self._latest: pb.MappingSegment | None = None
        self._jumped = False
        self._holds = False
        self._retry_ns: int | None = None
        self._logged_ns: int | None = None
        self.error = ""
        self.failures = 0

    @property
    def stalled(self) -> bool:
        """The disk takes nothing: leave messages in the queue until the next try."""
        return self._retry_ns is not None

    @property
    def live_files(self) -> list[RecordFile]:
        """Files that grow and want to be synced."""
        return [part.file for part in self._parts.values()]

    def step(self, batch: list[Item], now_ns: int, *, flush: bool = False) -> None:
        """Write a batch, then flush, rotate or begin anew as the clock and the disk say.

        Args:
            batch: Messages in order.
            now_ns: Reading of the clock, CLOCK_MONOTONIC_RAW.
            flush: Flush in any case.
        """
        if self._retry_ns is not None:
            if now_ns < self._retry_ns:
                self._keep(batch)
                return
            self._retry_ns = None
            self._restart(now_ns)
        if self.segment is not None and now_ns - self._start_ns >= self._segment_ns:
            self.rotate(now_ns)
        if self.stalled:  # what waits longest is not written: nothing may pass it
            self._keep(batch)
            return
        if batch and self._ready(now_ns):
            self._write(batch)
        else:
            self._keep(batch)
        due = now_ns - self._flush_ns >= FLUSH_NS or self._unconfirmed_bytes >= _CONFIRM_BYTES
        if due or flush:
            self._flush(now_ns)
        if self._failed():
            self._give_up(now_ns)
        elif self._jumped:
            self.rotate(now_ns)

    def _flush(self, now_ns: int) -> None:
        """Close the open chunks, so that what was written needs no journal any more."""
        self._flush_ns = now_ns
        for part in self._parts.values():
            _quietly(part.writer.flush)
        if self._failed():
            return  # neither is confirmed: what one of them took is written again with the other's
        for part in self._parts.values():
            part.file.confirm()
        if self._tail is not None:
            self._tail.reset()
        self._holds = self._holds or bool(self._unconfirmed)
        self._confirmed()

    def rotate(self, now_ns: int) -> None:
        """Finish the open segment; the next message opens another."""
        if self.segment is None:
            return
        self._jumped = False
        self._flush(now_ns)
        if self._failed():
            self._give_up(now_ns)
            return
        for part in self._parts.values():
            part.writer.write_metadata("syncline.end", self._end(now_ns))
            for mapping in self._mappings.values():
                part.writer.write_metadata("syncline.mapping", mapping_to_text(mapping))
            _quietly(part.writer.close)
        if self._failed():
            self._give_up(now_ns)
            return
        self._leave(now_ns)
        self._ring.make_room()

    def finish(self, rest: list[Item], now_ns: int) -> None:
        """Last call: finish the segment; what the disk never took is counted as lost.

        Args:
            rest: Messages that still waited, in order.
            now_ns: Reading of the clock, CLOCK_MONOTONIC_RAW.
        """
        for _ in range(_LAST_TRIES):
            if self._retry_ns is not None:
                self._retry_ns = None
                self._restart(now_ns)
            if rest and not self.stalled:
                self.step(rest, now_ns)
                rest = []
            self.rotate(now_ns)
            if not self._unconfirmed and not rest:
                break
        self._keep(rest)
        for item in self._unconfirmed:
            item.lane.lost += 1
        self._unconfirmed.clear()

    def _ready(self, now_ns: int) -> bool:
        if self.segment is None:
            try:
                self._open(now_ns)
            except StorageError as error:
                self._abandon(now_ns)
                self._stall(now_ns, str(error))
                return False
        return True

    def _open(self, now_ns: int) -> None:
        segment = self._ring.open_segment(now_ns)
        self.segment, self._start_ns, self._flush_ns = segment, now_ns, now_ns
        for part, name in ((LogFile.TELEMETRY, TEL), (LogFile.CAMERA, CAM)):
            file = RecordFile(segment.path / name, self._disk)
            writer = open_mcap(
                file,
                context=self._context,
                channel_filter=_filter(part),
                writer_options=_options(part),
            )
            self._parts[part] = _Part(file, writer)
            for key, values in self._metadata(segment, part, now_ns):
                writer.write_metadata(key, values)
            _quietly(writer.flush)
            file.confirm()
        self._tail_file = RecordFile(segment.path / TAIL, self._disk)
        self._tail = Tail(self._tail_file)
        for lane in list(self._lanes.values()):
            lane.sequence = 0
            self._dropped[lane.name] = lane.dropped
        try:
            self._ring.files_ready()
        except StorageError as error:
            self.error = str(error)

    def _abandon(self, now_ns: int) -> None:
        """Undo an opening that failed half way."""
        for part in self._parts.values():
            _quietly(part.writer.close)
        self._leave(now_ns)

    def _metadata(
        self, segment: Segment, part: LogFile, now_ns: int
    ) -> list[tuple[str, dict[str, str]]]:
        own = {
            "version": str(FORMAT_VERSION),
            "boot_id": self._boot_id,
            "device": self._device,
            "segment": segment.name,
            "part": part.value,
            "clock": "CLOCK_MONOTONIC_RAW",
            "start_raw_ns": str(now_ns),
        }
        found = [("syncline", own), ("foxglove", {"deviceName": self._device})]
        if self._latest is not None:
            found.append(("syncline.mapping", mapping_to_text(self._latest)))
        return found

    def _write(self, batch: list[Item]) -> None:
        journal: list[tuple[Item, int]] = []
        for item in batch:
            lane, payload, raw_ns = item
            lane.log(payload, raw_ns)
            lane.sequence += 1
            if lane.is_tel:
                journal.append((item, lane.sequence))
            if lane.watched:
                self._watch(item)
        self._keep(batch)
        if journal and self._tail is not None:
            self._tail.add(journal)

    def _watch(self, item: Item) -> None:
        if item.lane.topic is EVENTS:
            event = pb.ClockEvent.FromString(item.payload)
            self._jumped = self._jumped or event.kind in _STEPS
            return
        mapping = pb.MappingSegment.FromString(item.payload)
        self._mappings[mapping.id] = mapping
        if self._latest is None or mapping.raw0_ns >= self._latest.raw0_ns:
            self._latest = mapping

    def _keep(self, batch: list[Item]) -> None:
        self._unconfirmed += batch
        self._unconfirmed_bytes += sum([len(item.payload) for item in batch])

    def _confirmed(self) -> None:
        for item in self._unconfirmed:
            item.lane.written += 1
        self._unconfirmed.clear()
        self._unconfirmed_bytes = 0

    def _end(self, now_ns: int) -> dict[str, str]:
        found = {"end_raw_ns": str(now_ns)}
        for lane in list(self._lanes.values()):
            if dropped := lane.dropped - self._dropped.get(lane.name, 0):
                found[f"dropped.{lane.name}"] = str(dropped)
        return found

    def _leave(self, now_ns: int) -> None:
        for part in self._parts.values():
            self._retire(part.file)
        self._parts.clear()
        if self._tail_file is not None:
            self._tail_file.close()
            self._tail_file.path.unlink(missing_ok=True)
        self._tail = self._tail_file = None
        self._mappings.clear()
        self._ring.close_segment(now_ns, keep=self._holds)
        self._holds = False
        self.segment = None

    def _failed(self) -> bool:
        return any(part.file.error is not None for part in self._parts.values())

    def _give_up(self, now_ns: int) -> None:
        """Cut the segment back to what is whole, make room, and begin anew."""
        self.failures += 1
        errors = [part.file.error for part in self._parts.values() if part.file.error]
        text = errors[0].strerror or str(errors[0])
        for part in self._parts.values():
            _quietly(part.writer.close)
            part.file.cut(part.file.confirmed, _ENDING)
        self._leave(now_ns)
        self._stall(now_ns, text)

    def _stall(self, now_ns: int, text: str) -> None:
        self.error = text
        if self._logged_ns is None or now_ns - self._logged_ns >= NS_PER_S:
            self._logged_ns = now_ns
            _log.error("recording to %s failed: %s", self._ring.folder, text)
        freed = self._ring.make_room(need_bytes=self._unconfirmed_bytes + _OPENING_BYTES)
        self._ring.sweep()
        self._retry_ns = now_ns if freed else now_ns + _RETRY_NS

    def _restart(self, now_ns: int) -> None:
        """Write again what the failed segment had not confirmed."""
        again, self._unconfirmed = self._unconfirmed, []
        self._unconfirmed_bytes = 0
        if not again or not self._ready(now_ns):
            self._keep(again)
            return
        self._write(again)
        self._flush(now_ns)
        if not self._failed():
            self.error = ""


def _quietly(call: Callable[[], None]) -> None:
    """The SDK repeats an error that our file has latched already."""
    try:
        call()
    except RuntimeError as error:
        _log.debug("foxglove-sdk: %s", error)
