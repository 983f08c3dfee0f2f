"""The ring of segments on disk, and the pins that keep some of them."""

from __future__ import annotations

import shutil
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import msgspec

from syncline.errors import QuotaError, StorageError
from syncline.files import replace_whole
from syncline.log.disk import Disk
from syncline.log.folder import PINNED, PINS, RING, Segment, list_segments, segment_name
from syncline.log.span import segment_span

_PIN_SHARE = 0.5
_SPANS_AT_START = 64
_LATE_NS = 1_000_000_000
"""A record may wait this long for the writer and so land in the segment after its own."""


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger keeps.

    Attributes:
        id: Counts up within the recording folder.
        reason: Why, in the words of the trigger.
        boot_id: Boot of the raw times.
        raw_ns: Instant of the trigger.
        from_raw_ns: First instant kept.
        to_raw_ns: Last instant kept.
        segments: Names of the segments, oldest first; grows until `to_raw_ns` has passed.
    """

    id: int
    reason: str
    boot_id: str
    raw_ns: int
    from_raw_ns: int
    to_raw_ns: int
    segments: tuple[str, ...]


@dataclass(slots=True)
class _Known:
    """A segment of the ring, newest last."""

    size: int
    start_raw_ns: int | None
    end_raw_ns: int | None


class Ring:
    """Makes segments, deletes the oldest ones, and pins.

    All methods may be called from any thread.

    Args:
        folder: Recording folder.
        boot_id: Boot that is recording.
        quota_bytes: Unique bytes of ring and pins.
        reserve_bytes: Bytes of the file system that stay free.
        disk: File operations.
    """

    def __init__(
        self, folder: Path, boot_id: str, quota_bytes: int, reserve_bytes: int, disk: Disk
    ) -> None:
        self.folder = folder
        self._boot_id, self._quota, self._reserve = boot_id, quota_bytes, reserve_bytes
        self._disk = disk
        self._lock = threading.RLock()
        self._open: Segment | None = None
        self._ring: dict[str, _Known] = {}
        self._pinned: dict[str, int] = {}
        self._pins: dict[int, Pin] = {}
        self._doomed: deque[Path] = deque()
        self._number = 0
        for name in (RING, PINNED, PINS):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._load()

    def _load(self) -> None:
        segments = list_segments(self.folder / RING)
        for segment in segments:
            self._ring[segment.name] = _Known(_size_of(segment.path), None, None)
        for segment in list_segments(self.folder / PINNED):
            self._pinned[segment.name] = _size_of(segment.path)
        for path in (self.folder / PINS).glob("*.json"):
            pin = read_pin(path)
            self._pins[pin.id] = pin
        names = [*self._ring, *self._pinned]
        self._number = max((int(n.partition("-")[0]) for n in names), default=0)
        own = segment_name(0, self._boot_id).partition("-")[2]
        for segment in segments[-_SPANS_AT_START:]:
            if segment.name.endswith(f"-{own}"):
                known = self._ring[segment.name]
                known.start_raw_ns, known.end_raw_ns = segment_span(segment)

    @property
    def used_bytes(self) -> int:
        """Unique bytes of closed segments in ring and pins."""
        with self._lock:
            union = {name: known.size for name, known in self._ring.items()} | self._pinned
            return sum(union.values())

    @property
    def pins(self) -> tuple[Pin, ...]:
        """All pins, oldest first."""
        with self._lock:
            return tuple(self._pins[i] for i in sorted(self._pins))

    def open_segment(self, raw_ns: int) -> Segment:
        """Make the folder of the next segment.

        Raises:
            StorageError: It cannot be made.
        """
        with self._lock:
            self._number += 1
            name = segment_name(self._number, self._boot_id)
            segment = Segment(name, self.folder / RING / name)
            try:
                segment.path.mkdir()
            except OSError as error:
                raise StorageError(
                    f"cannot make {segment.path}: {error.strerror}",
                    remedy="Free space or fix permissions",
                ) from None
            self._ring[name] = _Known(0, raw_ns, None)
            self._open = segment
            return segment

    def files_ready(self) -> None:
        """The open segment has its files: pins that still run take them."""
        with self._lock:
            if self._open is None:
                return
            start_ns = self._ring[self._open.name].start_raw_ns or 0
            for pin in list(self._pins.values()):
                until_ns = pin.to_raw_ns + _LATE_NS
                if pin.boot_id == self._boot_id and pin.from_raw_ns <= start_ns <= until_ns:
                    self._extend(pin, self._open.name)

    def close_segment(self, raw_ns: int, *, keep: bool = True) -> None:
        """The open segment will not grow any more; without `keep` it holds nothing and goes."""
        with self._lock:
            if self._open is None:
                return
            if not keep and self._open.name not in self._pinned:
                del self._ring[self._open.name]
                shutil.rmtree(self._open.path, ignore_errors=True)
                self._open = None
                return
            known = self._ring[self._open.name]
            known.size, known.end_raw_ns = _size_of(self._open.path), raw_ns
            if self._open.name in self._pinned:
                self._pinned[self._open.name] = known.size
            self._open = None

    def make_room(self, need_bytes: int = 0) -> int:
        """Give up the oldest unpinned segments until quota and reserve hold; `sweep` deletes them.

        Args:
            need_bytes: Bytes to free at least, whatever quota and reserve say. The newest closed
                segment is spared then: on a disk that others fill, what was recorded last stays.

        Returns:
            Bytes that `sweep` will free.
        """
        freed = 0
        with self._lock:
            over = self.used_bytes - self._quota
            short = self._reserve - self._disk.free_bytes(self.folder)
            target = max(over, short, need_bytes)
            closed = [n for n in self._ring if self._open is None or n != self._open.name]
            for name in closed[:-1] if need_bytes else closed:
                if freed >= target:
                    break
                if name not in self._pinned:
                    freed += self._ring.pop(name).size
                    self._doomed.append(self.folder / RING / name)
        return freed

    def sweep(self) -> None:
        """Delete what was given up; slow on a busy disk, so the writer leaves it to others."""
        while self._doomed:
            shutil.rmtree(self._doomed.popleft(), ignore_errors=True)

    def pin(self, raw_ns: int, pre_ns: int, post_ns: int, reason: str) -> Pin:
        """Keep the segments that overlap [raw_ns - pre_ns, raw_ns + post_ns].

        Raises:
            QuotaError: Pins already hold their share of the quota.
            StorageError: The file system refused.
        """
        with self._lock:
            held, share = sum(self._pinned.values()), int(self._quota * _PIN_SHARE)
            if held >= share:
                raise QuotaError(
                    f"pins hold {held} bytes, their share is {share}",
                    remedy="Upload or unpin old pins, or raise quota_bytes",
                )
            start_ns, end_ns = raw_ns - pre_ns, raw_ns + post_ns
            pin = Pin(
                id=max(self._pins, default=0) + 1,
                reason=reason,
                boot_id=self._boot_id,
                raw_ns=raw_ns,
                from_raw_ns=start_ns,
                to_raw_ns=end_ns,
                segments=(),
            )
            self._pins[pin.id] = pin
            names = [n for n, known in self._ring.items() if _overlaps(known, start_ns, end_ns)]
            for name in names:
                pin = self._extend(pin, name)
            self._save(pin)
            return pin

    def unpin(self, pin_id: int) -> None:
        """Give a pin up; segments that no other pin holds return to the ring's reach."""
        with self._lock:
            pin = self._pins.pop(pin_id, None)
            if pin is None:
                return
            (self.folder / PINS / f"{pin_id:08d}.json").unlink(missing_ok=True)
            kept = {name for other in self._pins.values() for name in other.segments}
            for name in set(pin.segments) - kept:
                self._pinned.pop(name, None)
                shutil.rmtree(self.folder / PINNED / name, ignore_errors=True)

    def _extend(self, pin: Pin, name: str) -> Pin:
        if name in pin.segments:
            return pin
        self._link(name)
        grown = msgspec.structs.replace(pin, segments=(*pin.segments, name))
        self._pins[pin.id] = grown
        self._save(grown)
        return grown

    def _link(self, name: str) -> None:
        target = self.folder / PINNED / name
        try:
            target.mkdir(exist_ok=True)
            for source in Segment(name, self.folder / RING / name).files:
                if not (target / source.name).exists():
                    self._disk.link(source, target / source.name)
        except OSError as error:
            raise StorageError(f"cannot pin segment {name}: {error.strerror}") from None
        self._pinned[name] = self._ring[name].size

    def _save(self, pin: Pin) -> None:
        path = self.folder / PINS / f"{pin.id:08d}.json"
        try:
            replace_whole(path, msgspec.json.encode(pin))
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from None


def _overlaps(known: _Known, start_ns: int, end_ns: int) -> bool:
    if known.start_raw_ns is None or known.start_raw_ns > end_ns:
        return False
    return known.end_raw_ns is None or known.end_raw_ns >= start_ns


def _size_of(path: Path) -> int:
    return sum(p.stat().st_size for p in path.iterdir())


def read_pin(path: Path) -> Pin:
    """A pin's file.

    Raises:
        StorageError: It is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pin)
    except msgspec.MsgspecError as error:
        raise StorageError(
            f"{path} is no pin: {error}", remedy="Delete it; the pinned segments stay"
        ) from None
