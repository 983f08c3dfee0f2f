"""A recording that must stay whole: no quota, nothing dropped, and a clear end when the disk fills.

A vehicle's ring gives up its oldest segments; what a replay or the demo writes must not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from syncline.edge.records import Output
from syncline.errors import StorageError
from syncline.log.disk import Disk
from syncline.log.recorder import Recorder
from syncline.timebase import RawClock

NO_QUOTA_BYTES = 1 << 62
LEAST_FREE_BYTES = 256 << 20
"""Left on the disk: more than the recorder's queue may hold, so that what is queued still fits."""

LOOK_EVERY = 64
"""Outputs between two looks at the disk; far less than the queue holds."""


def whole_recorder(folder: Path, clock: RawClock, device: str) -> Recorder:
    """A recorder that waits for the disk and never gives up a segment for a quota."""
    return Recorder(
        folder, clock=clock, device=device, lossless=True,
        quota_bytes=NO_QUOTA_BYTES, reserve_bytes=0,
    )  # fmt: skip


def check_room(folder: Path, free_bytes: Callable[[Path], int]) -> None:
    """Refuse to write to a disk that is nearly full.

    Raises:
        StorageError: Less than `LEAST_FREE_BYTES` are free.
    """
    free = free_bytes(folder)
    if free < LEAST_FREE_BYTES:
        raise StorageError(
            f"{folder}: {free >> 20} MiB are free, {LEAST_FREE_BYTES >> 20} are needed",
            remedy="Free space, or record to another disk; what was written is whole",
        )


class RoomGuard:
    """A sink that ends the work before the disk is full, or when a message was not taken.

    Args:
        recorder: Recorder that is guarded.
        folder: Its folder.
        free_bytes: Free bytes of a folder's file system; by default asked of the system.
    """

    def __init__(
        self,
        recorder: Recorder,
        folder: Path,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        self._recorder, self._folder = recorder, folder
        self._free_bytes = free_bytes or Disk().free_bytes
        self._count = 0

    def emit(self, output: Output) -> None:
        """Count one output; look now and then.

        Raises:
            StorageError: The disk is nearly full, or fails.
        """
        if self._count % LOOK_EVERY == 0:
            self._look()
        self._count += 1

    def _look(self) -> None:
        check_room(self._folder, self._free_bytes)
        stats = self._recorder.stats()
        if stats.dropped or stats.error:
            raise StorageError(
                f"{self._folder}: {sum(stats.dropped.values())} messages were not taken "
                f"{stats.error}".rstrip(),
                remedy="Look at the disk's health, or record to another one",
            )
