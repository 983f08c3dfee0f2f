"""The mapping in a shared-memory page: one writer, any number of readers, no lock.

Layout, little endian, in a file that all map (docs/time.md):

    0   8s magic "SLTIME02"    8  u32 counter    12  u32 state: 0 empty, 1 live, 2 closed
    64  slot 0                 64 + SLOT  slot 1

    slot: u32 CRC-32 of the rest, u32 counter, raw0_ns, utc0_ns, hard_bound_ns, id,
          published_raw_ns (i64), rate, var, cov, var_rate, wander, drift_limit (f64),
          revision u32, state u32, boot id 40s, policy 16s, sources 160s

The writer fills the slot that is not in force and then raises the counter, so a writer that is
preempted in the middle holds nobody up. A reader copies slot `counter & 1` and believes it when its
checksum and its own counter fit; order of memory is not relied on, which Python could not give
on ARM. A file lock keeps a second writer out.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from syncline.errors import ClockError, DeviceError
from syncline.timebase import MappingSegment, TimeState, UtcTime

MAGIC = b"SLTIME02"
_HEAD = struct.Struct("<8sII")
_COUNTER = struct.Struct("<I")
_PAIR = struct.Struct("<II")
_BODY = struct.Struct("<IqqqqqddddddII40s16s160s")
_SLOT0 = 64
SLOT = _COUNTER.size + _BODY.size
EMPTY, LIVE, CLOSED = 0, 1, 2
TRIES = 100
DEFAULT_PATH = Path("/dev/shm/syncline-time")  # noqa: S108  (the page is shared memory on purpose)


@dataclass(frozen=True, slots=True)
class PageContent:
    """What a page says.

    Attributes:
        segment: Mapping in force.
        published_raw_ns: When it was written.
        policy: Name of the scenario.
    """

    segment: MappingSegment
    published_raw_ns: int
    policy: str


class PageWriter:
    """Creates and writes the page.

    Args:
        path: File in a memory file system.

    Raises:
        DeviceError: The file cannot be made.
    """

    def __init__(self, path: Path = DEFAULT_PATH) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DeviceError(
                f"cannot make the time page {path}: {error.strerror}",
                remedy="Set [time] page to a writable path in a memory file system",
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, mmap.PAGESIZE)
            self._map = mmap.mmap(self._fd, mmap.PAGESIZE)
        except OSError as error:
            os.close(self._fd)
            raise DeviceError(
                f"time page {path} is in use: {error.strerror}",
                remedy="Stop the other time service, or give this one its own [time] page",
            ) from error
        # Readers keep the file mapped over a restart, so the counter goes on where it was.
        self._counter = int(_COUNTER.unpack_from(self._map, 8)[0])
        self._live = False
        self._map[0 : _HEAD.size] = _HEAD.pack(MAGIC, self._counter, EMPTY)

    def write(self, segment: MappingSegment, published_raw_ns: int, policy: str = "") -> None:
        """Replace the page's content."""
        s = segment
        counter = self._counter + 1 & 0xFFFFFFFF
        body = _BODY.pack(
            counter, s.raw0_ns, s.utc0_ns, s.hard_bound_ns, s.id, published_raw_ns,
            s.rate, *s.cov, s.wander_ns2_per_s, s.drift_limit_ppb,
            s.revision, s.state, s.boot_id.encode()[:40], policy.encode()[:16],
            _join(s.sources, 160),
        )  # fmt: skip
        at = _SLOT0 + (counter & 1) * SLOT
        self._map[at : at + SLOT] = _COUNTER.pack(zlib.crc32(body)) + body
        self._counter = counter
        # Slices, not pack_into: that one clears the bytes first, which a reader could see.
        self._map[8:12] = _COUNTER.pack(counter)
        if not self._live:
            self._map[12:16] = _COUNTER.pack(LIVE)
            self._live = True

    def close(self) -> None:
        """Mark the page as without a writer and release it; the file stays."""
        self._map[12:16] = _COUNTER.pack(CLOSED)
        self._map.close()
        os.close(self._fd)


class PageReader:
    """Reads the page; decodes it only when it changed.

    Args:
        path: The writer's file.

    Raises:
        DeviceError: There is no page, or it is not one.
    """

    def __init__(self, path: Path = DEFAULT_PATH) -> None:
        try:
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._map = mmap.mmap(number, mmap.PAGESIZE, prot=mmap.PROT_READ)
            finally:
                os.close(number)
        except (OSError, ValueError) as error:
            raise DeviceError(
                f"no time page at {path}: {error}",
                remedy="Start the time service: syncline run, or syncline time serve",
            ) from error
        if self._map[:8] != MAGIC:
            self._map.close()
            raise DeviceError(f"{path} is not a time page", remedy="Check [time] page")
        self._seen = b""
        self._content: PageContent | None = None

    def content(self) -> PageContent:
        """The page as it is now.

        Raises:
            ClockError: The writer is gone, or it never published.
        """
        if self._content is not None and self._map[8:16] == self._seen:
            return self._content
        for _ in range(TRIES):
            head = self._map[8:16]
            counter, state = _PAIR.unpack(head)
            if state != LIVE:
                break
            at = _SLOT0 + (counter & 1) * SLOT
            slot = self._map[at : at + SLOT]
            if _COUNTER.unpack_from(slot)[0] == zlib.crc32(slot[4:]):
                number, content = _decode(slot[4:])
                if number == counter:
                    self._content, self._seen = content, head
                    return content
        raise ClockError(
            "the time page has no content: its writer stopped or has no time yet",
            remedy="See syncline time status; start the time service if it is not running",
        )

    def segment(self) -> MappingSegment:
        """Mapping in force; see `content`."""
        return self.content().segment

    def utc(self, raw_ns: int) -> UtcTime:
        """UTC of a raw instant by the mapping in force; see `content`."""
        return self.content().segment.convert(raw_ns)

    def close(self) -> None:
        """Unmap the page."""
        self._map.close()


def _decode(body: bytes) -> tuple[int, PageContent]:
    (
        counter, raw0, utc0, hard, number, published, rate, var, cov, var_rate, wander, drift,
        revision, state, boot, policy, sources,
    ) = _BODY.unpack(body)  # fmt: skip
    segment = MappingSegment(
        number,
        revision,
        boot.rstrip(b"\0").decode(),
        raw0,
        utc0,
        rate,
        (var, cov, var_rate),
        wander,
        hard,
        drift,
        TimeState(state),
        tuple(sources.rstrip(b"\0").decode().split()),
    )
    return counter, PageContent(segment, published, policy.rstrip(b"\0").decode())


def _join(names: tuple[str, ...], limit: int) -> bytes:
    """Names separated by blanks, whole names only, within the page's field."""
    text = b""
    for name in names:
        word = name.replace(" ", "_").encode("ascii", "replace")
        if len(text) + len(word) + 1 > limit:
            break
        text += b" " + word if text else word
    return text
