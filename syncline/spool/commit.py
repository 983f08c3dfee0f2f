"""A thread that syncs a spool at a fixed interval: group commit."""

from __future__ import annotations

import logging
import threading

from syncline.errors import StorageError
from syncline.spool.queue import Spool

_LOG = logging.getLogger(__name__)


class Committer:
    """Calls `spool.sync()` every `interval_s` seconds until closed.

    Args:
        spool: What to sync.
        interval_s: Time that a record may wait before its sync begins.
    """

    def __init__(self, spool: Spool, interval_s: float = 0.05) -> None:
        self._spool = spool
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="spool-commit", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop after a last sync."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._sync()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._sync()

    def _sync(self) -> None:
        try:
            self._spool.sync()
        except StorageError as error:
            if not self._failed:
                _LOG.error("%s", error)
            self._failed = True
        else:
            self._failed = False
