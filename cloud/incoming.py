"""Files on their way in: partial files that grow by synced pieces and end as objects."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncline.cloud.catalog import Catalog, UploadRow
from syncline.cloud.objects import Objects
from syncline.errors import StorageError
from syncline.link.wire import Offer, Part, State

_LOG = logging.getLogger(__name__)
MAX_FILE_BYTES = 64 << 30
MAX_OPEN = 64
REFUSED = -1
_PIECE = 1 << 20


@dataclass
class _Partial:
    path: Path
    fd: int
    offer: Offer
    size: int
    hash: Any = field(default_factory=hashlib.sha256)


class Incoming:
    """Partial files of all devices.

    Memory: `MAX_OPEN` descriptors; the rest reopen (and are hashed again) when they go on.

    Args:
        catalog: Where finished uploads are noted.
        objects: Where they go.
    """

    def __init__(self, catalog: Catalog, objects: Objects) -> None:
        self._catalog = catalog
        self._objects = objects
        self._folder = catalog.data / "incoming"
        self._open: OrderedDict[tuple[str, str], _Partial] = OrderedDict()
        self._touched: dict[tuple[str, str], bytes] = {}
        self.stored = 0
        self.restarted = 0

    def offer(self, device: str, offer: Offer) -> State:
        """A device announces a file: how much of it is here.

        Raises:
            StorageError: The partial file cannot be opened.
        """
        if not _sound(offer):
            return State(offer.sha256[:64], REFUSED)
        if self._objects.has(offer.sha256):
            self._note(device, offer)
            return State(offer.sha256, offer.size)
        key = (device, offer.sha256)
        partial = self._open.get(key) or self._reopen(device, offer)
        if partial.size == offer.size:
            return self._finish(key, partial)
        return State(offer.sha256, partial.size)

    def part(self, device: str, peer: bytes, part: Part) -> None:
        """Append a piece, when it is the next one; `sync` answers.

        Raises:
            StorageError: The disk refused; the file is as it was.
        """
        key = (device, part.digest.hex())
        partial = self._open.get(key)
        if partial is None:
            return  # the device offers again when no answer comes
        self._touched[key] = peer
        if part.offset != partial.size or part.offset + len(part.body) > partial.offer.size:
            return
        try:
            done = 0
            while done < len(part.body):
                done += os.pwrite(partial.fd, part.body[done:], partial.size + done)
        except OSError as error:
            raise _storage(error, partial.path) from error
        partial.size += len(part.body)
        partial.hash.update(part.body)

    def sync(self) -> list[tuple[bytes, State]]:
        """Make the appended pieces durable; returns what to tell to whom.

        Raises:
            StorageError: The disk refused; nobody is told anything.
        """
        touched, self._touched = self._touched, {}
        out = []
        for key, peer in touched.items():
            partial = self._open.get(key)
            if partial is None:
                continue
            try:
                os.fdatasync(partial.fd)
            except OSError as error:
                self._close(key)
                raise _storage(error, partial.path) from error
            state = State(partial.offer.sha256, partial.size)
            if partial.size == partial.offer.size:
                state = self._finish(key, partial)
            out.append((peer, state))
        return out

    def _finish(self, key: tuple[str, str], partial: _Partial) -> State:
        offer = partial.offer
        if partial.hash.hexdigest() != offer.sha256:
            _LOG.error("upload has a wrong digest device=%s name=%s", key[0], offer.name)
            self.restarted += 1
            os.ftruncate(partial.fd, 0)
            partial.size, partial.hash = 0, hashlib.sha256()
            return State(offer.sha256, 0)
        os.fdatasync(partial.fd)
        self._objects.put_file(partial.path, offer.sha256)
        self._note(key[0], offer)
        self._close(key)
        partial.path.unlink(missing_ok=True)
        self.stored += 1
        return State(offer.sha256, offer.size)

    def _note(self, device: str, offer: Offer) -> None:
        row = UploadRow(offer.sha256, device, offer.name, offer.size, offer.meta)
        self._catalog.add_upload(row)

    def _reopen(self, device: str, offer: Offer) -> _Partial:
        path = self._folder / device / f"{offer.sha256}.part"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            partial = _Partial(path, fd, offer, os.fstat(fd).st_size)
            if partial.size > offer.size:
                os.ftruncate(fd, 0)
                partial.size = 0
            for at in range(0, partial.size, _PIECE):
                partial.hash.update(os.pread(fd, min(_PIECE, partial.size - at), at))
            os.fdatasync(fd)
        except OSError as error:
            raise _storage(error, path) from error
        self._open[device, offer.sha256] = partial
        while len(self._open) > MAX_OPEN:
            self._close(next(iter(self._open)))
        return partial

    def _close(self, key: tuple[str, str]) -> None:
        partial = self._open.pop(key, None)
        if partial is not None:
            os.close(partial.fd)

    def close(self) -> None:
        """Release all descriptors."""
        for key in list(self._open):
            self._close(key)


def _sound(offer: Offer) -> bool:
    digest_ok = len(offer.sha256) == 64 and not set(offer.sha256) - set("0123456789abcdef")
    meta_ok = len(offer.meta) <= 64 and sum(len(k) + len(v) for k, v in offer.meta.items()) < 16384
    return digest_ok and meta_ok and 0 < offer.size <= MAX_FILE_BYTES and len(offer.name) <= 255


def _storage(error: OSError, path: Path) -> StorageError:
    return StorageError(
        f"{path}: {error.strerror or error}", remedy="Free space on that disk or replace it"
    )
