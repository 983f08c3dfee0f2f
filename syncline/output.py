"""Files that a command writes: never over something that is there, and whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from syncline.errors import StorageError, UsageError
from syncline.files import replace_whole

_REMEDIES = {
    errno.ENOSPC: "Free space, or choose another disk",
    errno.EDQUOT: "Free space, or choose another disk",
    errno.EFBIG: "Choose a file system that holds larger files",
    errno.EACCES: "Choose a folder that you may write to",
    errno.EPERM: "Choose a folder that you may write to",
    errno.EROFS: "Choose a folder that you may write to",
    errno.ENOENT: "Make the folder first, or correct the path",
    errno.ENOTDIR: "Correct the path: a file stands where a folder should",
    errno.EEXIST: "Choose another output",
    errno.EISDIR: "Give a file: this is a folder",
    errno.EMFILE: "Raise the limit of open files: ulimit -n",
    errno.ENAMETOOLONG: "Choose a shorter name",
}


def reason_of(error: Exception) -> str:
    """Why the system refused, in its words and on one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]


def remedy_of(error: Exception) -> str:
    """What to do about it; of any error that carries the system's number, as FFmpeg's do."""
    number = getattr(error, "errno", None) or 0
    return _REMEDIES.get(number, "Look at the disk and at the system's log")


def cannot_write(path: Path, error: Exception) -> StorageError:
    """The error for a file or folder that could not be written, with the remedy that fits."""
    return StorageError(f"cannot write {path}: {reason_of(error)}", remedy=remedy_of(error))


def check_new(path: Path, what: str, *, source: Path | None = None) -> None:
    """Refuse an output that is there already, that is the input, or whose folder takes none.

    Args:
        path: File to be written.
        what: How the message names it, such as `--annotate`.
        source: What is read meanwhile.

    Raises:
        UsageError: It exists.
        StorageError: Its folder is not there, or not ours to write.
    """
    try:
        if source is not None and source.exists() and path.resolve() == source.resolve():
            raise UsageError(f"{what} {path} is the input", remedy="Choose another output")
        if os.path.lexists(path):
            raise UsageError(f"{what} {path} exists", remedy="Choose another output")
    except OSError as error:
        raise cannot_write(path, error) from error
    check_folder(path)


def check_folder(path: Path) -> None:
    """Refuse an output whose folder takes none, before the work and not after it.

    Raises:
        StorageError: The folder is not there, or not ours to write.
    """
    try:
        if not stat.S_ISDIR(path.parent.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise cannot_write(path, error) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write or replace a file in one step: the old one or the whole new one stands there.

    Raises:
        StorageError: It cannot be written; what was there stays.
    """
    try:
        replace_whole(path, data)
    except OSError as error:
        raise cannot_write(path, error) from error
