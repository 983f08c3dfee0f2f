"""One writer per recording folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from syncline.errors import ConflictError, StorageError


class FolderLock:
    """Held as long as a process records to a folder or repairs it; gone when the process is.

    Raises:
        ConflictError: Another process, or another recorder of this one, holds it.
        StorageError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._fd = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(
                f"cannot write to {folder}: {error.strerror}", remedy="Fix its permissions"
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            self._fd = -1
            raise ConflictError(
                f"{folder} is being recorded to", remedy="Stop that recorder, or use another folder"
            ) from None

    def release(self) -> None:
        """Let others in."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
