"""Small files that are whole or as they were, never half."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def replace_whole(path: Path, data: bytes) -> None:
    """Replace a file in one step; a power cut soon after may leave either, or none.

    Raises:
        OSError: The disk refuses; the file is as it was.
    """
    _replace(path, data, synced=False)


def replace_durably(path: Path, data: bytes) -> None:
    """Replace a file in one step; it is on the disk when this returns.

    Raises:
        OSError: The disk refuses; the file is as it was, or whole and new.
    """
    _replace(path, data, synced=True)
    sync_folder(path.parent)


def _replace(path: Path, data: bytes, *, synced: bool) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last.

    Raises:
        OSError: The disk refuses.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
