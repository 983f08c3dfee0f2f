"""The file operations that recording needs, and a file that never raises into its writer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from syncline.errors import StorageError
from syncline.files import sync_folder


class Disk:
    """The operating system's files; tests pass one that fails or forgets."""

    def create(self, path: Path) -> int:
        """A new file, open for writing."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write some of `data`; returns how much."""
        return os.pwrite(fd, data, offset)

    def cut(self, fd: int, size: int) -> None:
        """Shorten the file."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Make what was written durable."""
        os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        sync_folder(path)

    def close(self, fd: int) -> None:
        """Close the file."""
        os.close(fd)

    def link(self, source: Path, target: Path) -> None:
        """Give the file a second name."""
        target.hardlink_to(source)

    def free_bytes(self, path: Path) -> int:
        """Bytes that may still be written on the file system of `path`."""
        return shutil.disk_usage(path).free


class RecordFile:
    """A file that is written by foxglove-sdk and synced by another thread.

    The SDK prints a line per message once a write has failed. So the first error is latched here
    and everything after it is swallowed; the recorder looks at `error` after each batch.

    Args:
        path: File to make; must not exist.
        disk: File operations.

    Raises:
        StorageError: It cannot be made.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self._pos = 0
        self._synced_size = -1
        self.size = 0
        self.confirmed = 0
        self.error: OSError | None = None
        try:
            self._fd = disk.create(path)
        except OSError as error:
            raise StorageError(
                f"cannot make {path}: {error.strerror}", remedy="Free space or fix permissions"
            ) from None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of `data` at the current position; never raises."""
        length, done = len(data), 0
        if self.error is None:
            try:
                done = self._disk.write_at(self._fd, bytes(data), self._pos)
                while done < length:
                    more = self._disk.write_at(self._fd, memoryview(data)[done:], self._pos + done)
                    if more == 0:
                        raise OSError(5, "the disk takes nothing")
                    done += more
            except OSError as error:
                self.error = error
        self._pos += length
        self.size = max(self.size, self._pos)
        return length

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position, as file objects do."""
        self._pos = (0, self._pos, self.size)[whence] + offset
        return self._pos

    def flush(self) -> None:
        """Nothing is held back here."""

    def confirm(self) -> None:
        """All that was written so far is whole: a failing segment is cut back to here."""
        if self.error is None:
            self.confirmed = self.size

    def sync(self) -> None:
        """Make what was written durable; a failure is latched like that of a write."""
        size = self.size
        if self.error is not None or size == self._synced_size:
            return
        try:
            self._disk.sync(self._fd)
            if self._synced_size < 0:
                self._disk.sync_folder(self.path.parent)
                self._disk.sync_folder(self.path.parent.parent)
            self._synced_size = size
        except OSError as error:
            self.error = error

    def cut(self, size: int, ending: bytes = b"") -> None:
        """Cut back to `size` and write `ending` there if the disk takes it; never raises."""
        try:
            self._disk.cut(self._fd, size)
            self._pos = self.size = size
            if ending:
                self._pos = self.size = size + self._disk.write_at(self._fd, ending, size)
        except OSError as error:
            self.error = self.error or error

    def close(self) -> None:
        """Close the file; it must have been synced before if it matters."""
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1
