"""The collector's segment files: append, one sync per group, recovery after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from syncline.cloud.catalog import SEGMENT_FOLDER, Catalog
from syncline.cloud.commit import Bad
from syncline.cloud.frames import FILE_HEADER, Frame, Placed, pack_frame, read_frames
from syncline.cloud.validate import bad_ranges
from syncline.errors import MessageError, StorageError
from syncline.link.wire import unpack_body
from syncline.spool.disk import Disk, OsDisk, write_all

_LOG = logging.getLogger(__name__)
SEGMENT_BYTES = 64 << 20
_ADOPT = 256


class FrameStore:
    """Appends frames to the open segment file of one collector.

    Args:
        catalog: Where the ranges go.
        disk: File operations; tests pass one that fails.
        segment_bytes: Size at which a file is sealed.

    Raises:
        StorageError: The folder cannot be used.
    """

    def __init__(
        self, catalog: Catalog, disk: Disk | None = None, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._catalog = catalog
        self._disk = disk or OsDisk()
        self._segment_bytes = segment_bytes
        self._folder = catalog.data / SEGMENT_FOLDER
        self._fd: int | None = None
        self._path: Path | None = None
        self._stored_id = 0
        self._end = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _storage(error, self._folder) from error

    def store(self, frames: Iterable[tuple[Frame, list[Bad]]]) -> int:
        """Append, sync and record frames: when this returns they are durable and known.

        Returns:
            Records that are new.

        Raises:
            StorageError: Disk or database refused; none of these frames may be acknowledged.
        """
        rows = list(frames)
        if not rows:
            return 0
        placed = self._append([frame for frame, _ in rows])
        new = self._catalog.commit([(one, bad) for one, (_, bad) in zip(placed, rows, strict=True)])
        if self._end >= self._segment_bytes:
            self.seal()
        return new

    def _append(self, frames: list[Frame]) -> list[Placed]:
        if self._fd is None:
            self._open()
        assert self._fd is not None
        blocks, placed, at = [], [], self._end
        for frame in frames:
            block, body_at = pack_frame(frame)
            placed.append(Placed(frame, self._stored_id, at + body_at))
            blocks.append(block)
            at += len(block)
        try:
            write_all(self._disk, self._fd, b"".join(blocks), self._end)
            self._disk.fdatasync(self._fd)
        except OSError as error:
            self._abandon()
            raise _storage(error, self._folder) from error
        self._end = at
        return placed

    def _open(self) -> None:
        """Begin a file. Its name never repeats, so that two collectors may share a folder."""
        name = f"{uuid.uuid4().hex}.seg"
        path = self._folder / name
        try:
            fd = self._disk.create(path)
        except OSError as error:
            raise _storage(error, path) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_all(self._disk, fd, FILE_HEADER, 0)
            self._disk.fdatasync(fd)
            self._disk.sync_folder(self._folder)
            self._stored_id = self._catalog.new_file(name)
        except (OSError, StorageError) as error:
            self._disk.close(fd)
            with contextlib.suppress(OSError):
                self._disk.unlink(path)
            raise _storage(error, path) from error
        self._fd, self._path, self._end = fd, path, len(FILE_HEADER)

    def _abandon(self) -> None:
        """After a failed write or sync: cut the file back and never write to it again.

        A kernel may forget dirty pages after reporting a failed sync once, so a second sync of the
        same file proves nothing.
        """
        assert self._fd is not None
        with contextlib.suppress(OSError):
            self._disk.truncate(self._fd, self._end)
        self._disk.close(self._fd)
        self._fd = self._path = None

    def prove(self) -> None:
        """After a failure: begin a fresh file and sync 64 kB in it, or say why not.

        Raises:
            StorageError: Disk or database still refuse.
        """
        if self._fd is None:
            self._open()
        assert self._fd is not None
        try:
            write_all(self._disk, self._fd, b"\0" * 65536, self._end)
            self._disk.fdatasync(self._fd)
            self._disk.truncate(self._fd, self._end)
        except OSError as error:
            self._abandon()
            raise _storage(error, self._folder) from error

    def seal(self) -> None:
        """Close the open file and note its digest; an empty one is removed."""
        if self._fd is None or self._path is None:
            return
        self._disk.close(self._fd)
        path, self._fd, self._path = self._path, None, None
        self._seal(path)

    def _seal(self, path: Path) -> None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._catalog.seal_file(path.name, digest)

    def recover(self) -> int:
        """Take over files that a dead collector left open: cut torn ends, record what is missing.

        Returns:
            Records that were durable but not in the catalog.

        Raises:
            StorageError: A file cannot be read, or the database refused.
        """
        sealed = self._catalog.sealed_files()
        found = 0
        for path in sorted(self._folder.glob("*.seg")):
            if path.name not in sealed:
                try:
                    found += self._adopt(path)
                except OSError as error:
                    raise _storage(error, path) from error
        return found

    def _adopt(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return 0  # another collector is writing it
        try:
            found = self._adopt_frames(path, fd)
        finally:
            os.close(fd)
        self._seal(path)
        return found

    def _adopt_frames(self, path: Path, fd: int) -> int:
        stored_id = self._catalog.new_file(path.name)
        end, new = 0, 0
        group: list[tuple[Placed, list[Bad]]] = []
        for frame, body_at, behind in read_frames(path):
            end = behind
            group.append((Placed(frame, stored_id, body_at), _bad(frame)))
            if len(group) >= _ADOPT:
                new += self._catalog.commit(group)
                group = []
        new += self._catalog.commit(group)
        size = os.fstat(fd).st_size
        end = max(end, min(len(FILE_HEADER), size))
        if end < size:
            _LOG.warning("torn end cut path=%s bytes=%d", path, size - end)
            os.ftruncate(fd, end)
        os.fsync(fd)
        return new


def _bad(frame: Frame) -> list[Bad]:
    rows = unpack_body(frame.body, frame.n)
    return bad_ranges(frame.stream, frame.seq, [payload for _, payload in rows])


def checked(frame: Frame) -> tuple[Frame, list[Bad]] | str:
    """A frame with its ranges to quarantine, or why it cannot be stored at all."""
    try:
        return frame, _bad(frame)
    except MessageError as error:
        return error.message


def _storage(error: Exception, path: Path) -> StorageError:
    if isinstance(error, StorageError):
        return error
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StorageError(f"{path}: {text}", remedy="Free space on that disk or replace it")
