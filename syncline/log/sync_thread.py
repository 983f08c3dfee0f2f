"""The thread that makes recorded bytes durable, so that the writer never waits for the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from syncline.log.disk import RecordFile

SYNC_S = 0.5


class SyncThread:
    """Syncs the growing files each 0.5 s, and syncs and closes those that are finished.

    Args:
        live: The files that grow now.
        sweep: Deletes what the ring gave up.
    """

    def __init__(self, live: Callable[[], list[RecordFile]], sweep: Callable[[], None]) -> None:
        self._live, self._sweep = live, sweep
        self._retired: deque[RecordFile] = deque()
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-sync", daemon=True)
        self._thread.start()

    def retire(self, file: RecordFile) -> None:
        """Sync and close `file` soon."""
        self._retired.append(file)

    def sync(self) -> None:
        """Sync everything now, in the caller's thread."""
        with self._busy:
            for file in self._live():
                file.sync()
            while self._retired:
                file = self._retired.popleft()
                file.sync()
                file.close()
            self._sweep()

    def stop(self) -> None:
        """Sync a last time and end."""
        self._stop.set()
        self._thread.join()
        self.sync()

    def _run(self) -> None:
        while not self._stop.wait(SYNC_S):
            self.sync()
