"""One process per spool."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from syncline.errors import StorageError


def lock_folder(folder: Path) -> int:
    """Hold the folder for this process, until the descriptor that this returns is closed.

    Raises:
        StorageError: Another process holds it.
        OSError: The folder cannot be written.
    """
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise StorageError(
            f"spool {folder} is in use by another process",
            remedy="Stop it or choose another folder",
        ) from error
    return fd
