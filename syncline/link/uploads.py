"""Files on their way to the collector: remembered over restarts, resumed where they were cut."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from syncline.errors import MediaError, StorageError
from syncline.link.wire import PIECE_BYTES, Message, Offer, Part, State
from syncline.timebase import NS_PER_S

_LOG = logging.getLogger(__name__)
FLIGHT_BYTES = 4 * PIECE_BYTES
STALL_NS = 5 * NS_PER_S
REFUSED = -1


class _Ticket(msgspec.Struct, frozen=True):
    path: str
    sha256: str
    size: int
    name: str
    meta: dict[str, str]


class Uploads:
    """Queue of files to send; the link's `Side`.

    Args:
        folder: Where tickets lie, one small file per upload; made when absent.

    Raises:
        StorageError: The folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._queue: deque[_Ticket] = deque()
        self._fd: int | None = None
        self.done = 0
        self.failed = 0
        self.resent_bytes = 0
        self.sent_bytes = 0
        self._forget()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime_ns):
                self._restore(path)
        except OSError as error:
            raise StorageError(f"upload queue {folder}: {error.strerror}") from error

    def _restore(self, path: Path) -> None:
        try:
            self._queue.append(msgspec.json.decode(path.read_bytes(), type=_Ticket))
        except msgspec.MsgspecError as error:
            _LOG.error("upload ticket unreadable, removed path=%s: %s", path, error)
            path.unlink(missing_ok=True)

    def add(self, path: Path, name: str, meta: Mapping[str, str]) -> str:
        """Queue a file; it must stay unchanged until it is sent. Returns its SHA-256 (hex).

        Raises:
            MediaError: The file cannot be read.
            StorageError: The ticket cannot be written.
        """
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            ticket = _Ticket(str(path.resolve()), digest, path.stat().st_size, name, dict(meta))
        except OSError as error:
            raise MediaError(f"cannot read {path}: {error.strerror}") from error
        place = self._folder / f"{digest}.json"
        with self._lock:
            if any(t.sha256 == digest for t in self._queue):
                return digest
            try:
                _write_synced(place, msgspec.json.encode(ticket))
            except OSError as error:
                with suppress(OSError):
                    place.unlink(missing_ok=True)  # half of one is none, and an error at the start
                raise StorageError(
                    f"cannot write {place}: {error.strerror}", remedy="Free space on that disk"
                ) from error
            self._queue.append(ticket)
        return digest

    @property
    def waiting(self) -> int:
        """Files not stored at the collector yet."""
        return len(self._queue)

    def is_waiting(self, path: Path) -> bool:
        """Whether a file is queued and neither stored nor refused yet."""
        place = str(path.resolve())
        with self._lock:
            return any(ticket.path == place for ticket in self._queue)

    # -- the link's side -------------------------------------------------------------------------

    def _forget(self) -> None:
        self._offered = self._known = False
        self._durable = self._sent = 0
        self._last_ns: int | None = None
        self._body = b""

    def begin(self) -> None:
        """A session is open: offer the first file again."""
        self.resent_bytes += max(self._sent - self._durable, 0)
        self._forget()

    @property
    def in_flight_bytes(self) -> int:
        """Bytes sent of the first file that are not durable yet."""
        return max(self._sent - self._durable, 0)

    def stalled(self, now_raw_ns: int) -> bool:
        """True when an answer is overdue."""
        waiting = self.in_flight_bytes > 0 or (self._offered and not self._known)
        return waiting and self._last_ns is not None and now_raw_ns - self._last_ns > STALL_NS

    def on_state(self, state: State, now_raw_ns: int) -> None:
        """The collector has `state.offset` durable bytes of a file."""
        ticket = self._queue[0] if self._queue else None
        if ticket is None or state.sha256 != ticket.sha256 or not self._offered:
            return
        self._last_ns = now_raw_ns
        if state.offset == ticket.size or state.offset == REFUSED:
            self._finish(ticket, stored=state.offset != REFUSED)
        elif state.offset < self._durable:  # the digest was wrong: from the start
            _LOG.error("upload begins again name=%s", ticket.name)
            self._durable = self._sent = max(state.offset, 0)
        else:
            self._durable = min(state.offset, ticket.size)
            if not self._known:
                self._sent = self._durable
        self._known = True

    def peek(self, max_bytes: int) -> Message | None:
        """OFFER of the first file, or its next PART."""
        if not self._queue:
            return None
        ticket = self._queue[0]
        if not self._offered:
            return Offer(ticket.sha256, ticket.size, ticket.name, ticket.meta)
        if not self._known or self._sent >= ticket.size or self.in_flight_bytes >= FLIGHT_BYTES:
            return None
        self._body = self._read(ticket, min(max_bytes, PIECE_BYTES, ticket.size - self._sent))
        if not self._body:
            return None
        return Part(bytes.fromhex(ticket.sha256), self._sent, self._body)

    def sent(self, now_raw_ns: int) -> None:
        """What `peek` gave is on its way."""
        if self.in_flight_bytes == 0:
            self._last_ns = now_raw_ns
        if not self._offered:
            self._offered = True
        else:
            self._sent += len(self._body)
            self.sent_bytes += len(self._body)

    def _read(self, ticket: _Ticket, length: int) -> bytes:
        try:
            if self._fd is None:
                self._fd = os.open(ticket.path, os.O_RDONLY | os.O_CLOEXEC)
            body = os.pread(self._fd, length, self._sent)
        except OSError as error:
            _LOG.error("upload given up path=%s: %s", ticket.path, error.strerror)
            body = b""
        if not body:
            self._finish(ticket, stored=False)
        return body

    def _finish(self, ticket: _Ticket, *, stored: bool) -> None:
        self.done += stored
        self.failed += not stored
        if not stored:
            _LOG.error("upload not stored name=%s sha256=%s", ticket.name, ticket.sha256)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        with self._lock:
            self._queue.popleft()
        self._forget()
        try:
            (self._folder / f"{ticket.sha256}.json").unlink(missing_ok=True)
        except OSError as error:  # offered once more after a restart; the collector knows it then
            _LOG.error("upload ticket stays sha256=%s: %s", ticket.sha256, error.strerror)


def _write_synced(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
