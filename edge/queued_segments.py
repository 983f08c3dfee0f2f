"""Which segments of the recording were queued for sending, remembered over restarts."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from syncline.errors import StorageError
from syncline.files import replace_durably

_log = logging.getLogger(__name__)


class QueuedSegments:
    """A set of names in one small file; bounded by the ring, because `keep` forgets the others.

    A file that cannot be read counts as empty: segments are queued again then, and the collector
    knows them by their digest.

    Args:
        path: The file, one name per line; made when there is something to remember.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        self._names: set[str] = set()
        try:
            self._names = set(path.read_text("utf-8").split())
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            _log.warning("%s cannot be read, its segments are queued again: %s", path, error)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str) -> None:
        """Remember a segment."""
        self._changed |= name not in self._names
        self._names.add(name)

    def keep(self, names: Collection[str]) -> None:
        """Forget every segment that is not among `names`: its name may come again."""
        gone = self._names.difference(names)
        self._changed |= bool(gone)
        self._names -= gone

    def save(self) -> None:
        """Write the file when something changed: whole, or as it was before.

        Raises:
            StorageError: The disk refuses; the names stay in memory, `save` may be tried again.
        """
        if not self._changed:
            return
        text = "".join(f"{name}\n" for name in sorted(self._names))
        try:
            replace_durably(self._path, text.encode())
        except OSError as error:
            raise StorageError(
                f"cannot write {self._path}: {error.strerror or error}",
                remedy="Free space on that disk",
            ) from error
        self._changed = False
