"""A file mapped into memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from syncline.errors import LogError, UsageError
from syncline.log.wire import FOOTER_SIZE, MAGIC, PREFIX, Op


class MappedFile:
    """A file in memory, as the reader sees it: its size is fixed when it is opened.

    Raises:
        LogError: Not an MCAP file.
        UsageError: There is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < len(MAGIC):
                    raise LogError(f"{path} has {size} bytes: not an MCAP file")
                self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise UsageError(f"cannot open {path}: {error.strerror}") from None
        self.view = memoryview(self._map)
        if self.view[: len(MAGIC)] != MAGIC:
            raise LogError(
                f"{path} does not begin as an MCAP file does",
                remedy="Give a recording, or try: syncline log recover",
            )

    def forget(self, offset: int, length: int) -> None:
        """Give the pages of a span back to the kernel; views of it stay good."""
        page = mmap.PAGESIZE
        first = -(-offset // page) * page
        whole = (offset + length) // page * page - first
        if whole > 0:
            self._map.madvise(mmap.MADV_DONTNEED, first, whole)

    def has_footer(self) -> bool:
        """Whether the file ends as a finished one does."""
        view = self.view
        return (
            len(view) >= len(MAGIC) + FOOTER_SIZE
            and view[-len(MAGIC) :] == MAGIC
            and PREFIX.unpack_from(view, len(view) - FOOTER_SIZE) == (Op.FOOTER, 20)
        )
