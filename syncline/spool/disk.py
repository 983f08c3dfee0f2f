"""The file operations the spool needs, as an argument: tests pass a disk that fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from syncline.files import sync_folder


class Disk(Protocol):
    """What the spool asks of a file system; every method may raise OSError."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist; returns a descriptor for reading and writing."""

    def open(self, path: Path) -> int:
        """Open an existing file for reading and writing."""

    def close(self, fd: int) -> None:
        """Close a descriptor."""

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset`; returns the bytes written, which may be fewer than given."""

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read at most `length` bytes at `offset`."""

    def size(self, fd: int) -> int:
        """Bytes in the file."""

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes."""

    def fdatasync(self, fd: int) -> None:
        """Bring the file's data to the disk."""

    def sync_folder(self, path: Path) -> None:
        """Bring a folder's entries to the disk."""

    def unlink(self, path: Path) -> None:
        """Remove a file."""


class OsDisk:
    """The operating system's files."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        """Open an existing file."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset`."""
        return os.pwrite(fd, data, offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read at `offset`."""
        return os.pread(fd, length, offset)

    def size(self, fd: int) -> int:
        """Bytes in the file."""
        return os.fstat(fd).st_size

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file."""
        os.ftruncate(fd, size)

    def fdatasync(self, fd: int) -> None:
        """Bring data to the disk."""
        os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """Bring a folder's entries to the disk."""
        sync_folder(path)

    def unlink(self, path: Path) -> None:
        """Remove a file; one that is gone already is fine."""
        path.unlink(missing_ok=True)


def write_all(disk: Disk, fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`; short writes are continued.

    Raises:
        OSError: The disk refused; some bytes may lie behind `offset`.
    """
    view = memoryview(data)
    while view:
        done = disk.pwrite(fd, view, offset)
        if done <= 0:
            raise OSError(5, "write returned no progress")
        view = view[done:]
        offset += done
