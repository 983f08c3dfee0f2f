"""Chosen pictures, cut out of the segments of the recording once these are closed.

What was chosen stands in the recording itself, on `/camera/*/selected`: a restart loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syncline import topics
from syncline.edge.shadow_service import AROUND_NS
from syncline.errors import LogError, SynclineError, UsageError
from syncline.log.folder import Segment
from syncline.log.reader import LogReader
from syncline.log.records import Record
from syncline.log.rewrite import cut
from syncline.log.span import segment_span
from syncline.timebase import NS_PER_S

_log = logging.getLogger(__name__)

REACH_NS = AROUND_NS + 2 * NS_PER_S
"""A choice asks for pictures so far from its frame, and is recorded a little after it."""


@dataclass(frozen=True, slots=True)
class Window:
    """Pictures of one camera that are wanted: those of [from, to], raw nanoseconds."""

    camera: str
    from_ns: int
    to_ns: int


@dataclass(frozen=True, slots=True)
class _Closed:
    """What is known of a closed segment; without an end it holds nothing that can be read."""

    start_ns: int
    end_ns: int
    wanted: tuple[Window, ...]


_NOTHING = _Closed(0, 0, ())


class ChosenClips:
    """Cuts the chosen pictures out of closed segments, one file per segment that holds any.

    Memory: the choices of a few neighbouring segments. Disk: `limit_bytes`.

    Args:
        ring: Folder of the segments.
        folder: Where the files are put; whoever sends them deletes them.
        cameras: Names of the cameras.
        limit_bytes: Of all files; the oldest goes when there are more.

    Attributes:
        pictures: Pictures cut out since the start.
        lost: Files given up: for the limit, or because their segment could not be read.
    """

    def __init__(self, ring: Path, folder: Path, cameras: Sequence[str], limit_bytes: int) -> None:
        self._ring, self._folder, self._limit = ring, folder, limit_bytes
        self._selected = [topics.SELECTED.of(camera) for camera in cameras]
        self._images = {topics.IMAGE.of(camera): camera for camera in cameras}
        self._known: dict[str, _Closed] = {}
        self.pictures = 0
        self.lost = 0

    def files(self) -> list[Path]:
        """The files that wait to be sent, oldest first."""
        return sorted(self._folder.glob("*.mcap"))

    def take(self, name: str, closed: Sequence[str], *, final: bool) -> bool:
        """Cut the chosen pictures out of a segment, if all that may choose them is there.

        Args:
            name: The segment.
            closed: All closed segments, it among them, oldest first.
            final: Nothing more will be recorded: do not wait for it.

        Returns:
            False when a later segment must be waited for.

        Raises:
            StorageError: The file cannot be written.
        """
        self._known = {n: k for n, k in self._known.items() if n in closed}  # names come again
        before, after = _neighbours(name, closed)
        own = self._look(name)
        found = list(own.wanted)
        is_whole = final or closed[-1] not in (name, *after)
        for other in after:
            part = self._look(other)
            found += part.wanted
            if part.end_ns > own.end_ns + REACH_NS:
                is_whole = True
                break
        if not is_whole and own is not _NOTHING:
            return False
        for other in reversed(before):
            part = self._look(other)
            if part is not _NOTHING and part.end_ns < own.start_ns - REACH_NS:
                self._known.pop(other)
                break
            found += part.wanted
        wanted = [w for w in found if w.from_ns <= own.end_ns and w.to_ns >= own.start_ns]
        if wanted and own is not _NOTHING:
            self._cut(name, wanted)
            self._trim()
        return True

    def _look(self, name: str) -> _Closed:
        """What a closed segment holds; read once."""
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> _Closed:
        segment = Segment(name, self._ring / name)
        start_ns, end_ns = segment_span(segment)
        windows: list[Window] = []
        try:
            with LogReader(segment.path, topics=self._selected) as reader:
                for record in reader:
                    m = reader.decode(record)
                    begin, end = m.mid_raw_ns - m.before_ns, m.mid_raw_ns + m.after_ns
                    windows.append(Window(m.camera, begin, end))
        except SynclineError as error:
            if segment.path.is_dir():  # else the ring gave it up just now
                self._give_up(name, error)
        if start_ns is None or end_ns is None:
            return _NOTHING
        return _Closed(start_ns, end_ns, tuple(windows))

    def _cut(self, name: str, wanted: Sequence[Window]) -> None:
        path, out = self._ring / name, self._folder / f"{name}.mcap"
        self._folder.mkdir(parents=True, exist_ok=True)
        out.unlink(missing_ok=True)  # of a process that ended before it could say so

        def is_wanted(record: Record) -> bool:
            camera = self._images[record.topic]
            return any(w.camera == camera and w.from_ns <= record.raw_ns <= w.to_ns for w in wanted)

        try:
            report = cut(path, out, topics=list(self._images), keep=is_wanted, packed=False)
        except (LogError, UsageError) as error:
            self._give_up(name, error)
            return
        self.pictures += report.messages
        if not report.messages:
            out.unlink()

    def _give_up(self, name: str, error: SynclineError) -> None:
        self.lost += 1
        _log.error("chosen pictures of segment %s are lost: %s", name, error)

    def _trim(self) -> None:
        """Keep within the limit: the oldest goes first, as in the ring."""
        files = self.files()
        total = sum(path.stat().st_size for path in files)
        for path in files[:-1]:
            if total <= self._limit:
                return
            total -= path.stat().st_size
            path.unlink()
            self.lost += 1
            _log.warning("chosen pictures %s gave way to newer ones", path.name)


def _neighbours(name: str, closed: Sequence[str]) -> tuple[list[str], list[str]]:
    """The segments of the same boot before and after one: other boots count another time."""
    boot = name.partition("-")[2]
    own = [other for other in closed if other.partition("-")[2] == boot]
    at = own.index(name)
    return own[:at], own[at + 1 :]
