"""Model updates: fetch what the channel points at, verify, prove, swap; on any doubt keep the old.

A bundle lies in `models/DIGEST/`; `models/current` names the digest that runs and
`models/previous` the one before, both replaced atomically. A fetch goes into `models/staging/` and
becomes a bundle folder by one rename after every digest and the signature were checked, so a power
cut at any moment leaves a valid model to load.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from syncline.edge.model.bundle import Bundle
from syncline.edge.swap import SwapEvent
from syncline.errors import InputError, IntegrityError, LinkError, ModelError, StorageError

_log = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES = 64 << 10
MAX_BUNDLE_BYTES = 1 << 30
MAX_REFUSED = 1000

Fetch = Callable[[str, Path], None]
"""Fetch a resource by name into a file, which is there only when whole; a `.part` beside it lets a
later call resume. Raises LinkError."""

Swap = Callable[[Bundle], None]
"""Prove a bundle and swap it in between two frames; raises ModelError and keeps the old one."""


class _Document(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What `model/NAME/CHANNEL` holds."""

    name: str
    channel: str
    revision: int
    version: str
    digest: str
    files: dict[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class UpdateEvent:
    """What the updater did, for `/model/events`.

    Attributes:
        action: `fetched`, `refused`, `swapped`, `rolled-back` or `current`.
        name: Model name.
        version: Version that the channel points at.
        digest: Digest of its manifest.
        reason: Why it was refused or rolled back.
    """

    action: str
    name: str
    version: str
    digest: str
    reason: str = ""


class ModelStore:
    """Bundle folders by digest, and which of them runs.

    Args:
        folder: Made when absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Folder of a bundle."""
        return self.folder / digest

    def staging(self) -> Path:
        """Where a fetch in progress lies; kept across restarts so that it can resume."""
        path = self.folder / "staging"
        path.mkdir(exist_ok=True)
        return path

    def pointer(self, name: str) -> str:
        """Digest that `current` or `previous` names; empty when there is none."""
        try:
            return (self.folder / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def point(self, name: str, digest: str) -> None:
        """Make `current` or `previous` name a digest, atomically and durably."""
        target = self.folder / name
        fresh = self.folder / f".{name}.new"
        with fresh.open("w", encoding="ascii") as file:
            file.write(digest + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
        _sync_folder(self.folder)

    def admit(self, digest: str) -> Path:
        """Turn the staging folder into a bundle folder by one rename."""
        target = self.path(digest)
        if target.exists():
            shutil.rmtree(self.staging())
        else:
            staging = self.staging()
            _sync_folder(staging)
            staging.rename(target)
            _sync_folder(self.folder)
        return target

    def prune(self) -> None:
        """Remove bundles that neither pointer names."""
        keep = {self.pointer("current"), self.pointer("previous")}
        for path in self.folder.iterdir():
            if path.is_dir() and len(path.name) == 64 and path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class ModelUpdater:
    """Follows one channel of one model.

    Args:
        store: Where bundles lie.
        name: Model to follow.
        channel: Channel to follow.
        trusted_keys: Ed25519 public keys; never empty, an unsigned update is never taken.
        security_floor: Least security version accepted.
        fetch: See `Fetch`.
        swap: See `Swap`.
        revert: Go back to the bundle before; returns what serves now.
        report: Told of every act.
        running_digest: Digest of the bundle that runs now.
    """

    def __init__(
        self,
        store: ModelStore,
        *,
        name: str,
        channel: str,
        trusted_keys: Sequence[bytes],
        security_floor: int,
        fetch: Fetch,
        swap: Swap,
        revert: Callable[[], SwapEvent],
        report: Callable[[UpdateEvent], None],
        running_digest: str,
    ) -> None:
        self._store = store
        self._name = name
        self._channel = channel
        self._keys = tuple(trusted_keys)
        self._floor = security_floor
        self._fetch = fetch
        self._swap = swap
        self._revert = revert
        self._report = report
        self.running_digest = running_digest
        self._refused: dict[str, str] = {}  # bounded: cleared at MAX_REFUSED

    @property
    def topic(self) -> str:
        """Channel name of the notices that concern this model."""
        return f"model/{self._name}/{self._channel}"

    def update(self) -> bool:
        """Bring the running model to where the channel points.

        Returns:
            True when a new model was swapped in. A bundle that was refused once is not tried again
            until the channel points elsewhere.

        Raises:
            LinkError: The collector cannot be reached; try again later.
            StorageError: The disk is full or failing; the old model keeps serving.
        """
        try:
            document = self._document()
            if document.digest == self.running_digest or document.digest in self._refused:
                return False
            bundle = self._bundle(document)
        except OSError as error:
            raise StorageError(
                f"cannot store the update: {error.strerror}", remedy="Free space on the device"
            ) from error
        except (ModelError, InputError) as error:
            self._refuse(self._last_document, str(error))
            return False
        return self._take(bundle, document)

    _last_document: _Document | None = None

    def _document(self) -> _Document:
        path = self._store.folder / "channel.json"
        path.unlink(missing_ok=True)
        self._fetch(self.topic, path)
        data = path.read_bytes()[: MAX_DOCUMENT_BYTES + 1]
        try:
            document = msgspec.json.decode(data, type=_Document)
        except msgspec.DecodeError as error:
            raise LinkError(
                f"{self.topic}: the collector's answer is no channel document ({error})",
                remedy="Update the collector",
            ) from error
        if document.name != self._name or document.channel != self._channel:
            raise LinkError(f"asked for {self.topic}, got {document.name}/{document.channel}")
        self._last_document = document
        return document

    def _bundle(self, document: _Document) -> Bundle:
        ready = self._store.path(document.digest)
        if not ready.is_dir():
            self._download(document)
            self._open(self._store.staging(), document)
            ready = self._store.admit(document.digest)
            self._report(self._event("fetched", document))
        return self._open(ready, document)

    def _open(self, folder: Path, document: _Document) -> Bundle:
        bundle = Bundle.open(folder, trusted_keys=self._keys, min_security_version=self._floor)
        if bundle.digest != document.digest:
            raise IntegrityError(
                f"bundle has digest {bundle.digest[:12]}, the channel says {document.digest[:12]}"
            )
        if bundle.manifest.name != self._name:
            raise IntegrityError(f"bundle is of model {bundle.manifest.name!r}, not {self._name!r}")
        return bundle

    def _download(self, document: _Document) -> None:
        total = sum(size for _, size in document.files.values())
        if total > MAX_BUNDLE_BYTES:
            raise IntegrityError(f"bundle of {total} bytes, limit {MAX_BUNDLE_BYTES}")
        staging = self._store.staging()
        for path in staging.iterdir():
            if path.name.removesuffix(".part") not in document.files:
                path.unlink()
        for name, (sha256, size) in document.files.items():
            if Path(name).name != name or name.startswith("."):
                raise IntegrityError(f"bundle file {name!r} is no plain name")
            target = staging / name
            if target.is_file() and _sha256(target) == sha256:
                continue
            self._fetch(f"object/{sha256}", target)
            if target.stat().st_size != size or _sha256(target) != sha256:
                target.unlink()
                raise IntegrityError(f"bundle file {name} does not have the digest of the channel")

    def _take(self, bundle: Bundle, document: _Document) -> bool:
        previous = self.running_digest
        try:
            self._swap(bundle)
        except ModelError as error:
            self._refuse(document, str(error))
            return False
        self.running_digest = document.digest
        self._store.point("previous", previous)
        self._store.point("current", document.digest)
        self._store.prune()
        self._report(self._event("swapped", document))
        return True

    def roll_back(self, reason: str) -> None:
        """Go back to the bundle that ran before, because the new one proved bad in service.

        Args:
            reason: For the record; the bad digest is not tried again.

        Raises:
            SynclineError: There is no bundle to go back to; the present one goes on.
        """
        bad = self.running_digest
        now = self._revert()
        self._refused[bad] = reason
        self.running_digest = now.digest
        self._store.point("current", now.digest)
        self._report(UpdateEvent("rolled-back", now.name, now.version, now.digest, reason))

    def _refuse(self, document: _Document | None, reason: str) -> None:
        if document is None:
            return
        if len(self._refused) >= MAX_REFUSED:
            self._refused.clear()
        self._refused[document.digest] = reason
        shutil.rmtree(self._store.folder / "staging", ignore_errors=True)
        _log.error("model %s %s refused: %s", document.name, document.version, reason)
        self._report(self._event("refused", document, reason))

    def _event(self, action: str, document: _Document, reason: str = "") -> UpdateEvent:
        return UpdateEvent(action, document.name, document.version, document.digest, reason)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
