"""Model updates: fetch what the channel points at, verify, prove, swap; on any doubt keep the old.

A bundle lies in `models/DIGEST/`; `models/current` names the digest that runs and
`models/previous` the one before, both replaced atomically. A fetch goes into `models/staging/` and
becomes a bundle folder by one rename after every digest and the signature were checked, so a power
cut at any moment leaves a valid model to load.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from syncline.edge.model.bundle import Bundle
from syncline.edge.refusals import Refusals
from syncline.edge.swap import SwapEvent
from syncline.errors import InputError, IntegrityError, LinkError, ModelError, StorageError
from syncline.files import replace_durably, sync_folder

_log = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES = 64 << 10
MAX_BUNDLE_BYTES = 1 << 30
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Fetch(Protocol):
    """Fetches over the link."""

    def __call__(self, resource: str, out_file: Path, /, *, max_bytes: int) -> None:
        """Fetch a resource by name into a file, which is there only when whole.

        A `.part` beside it lets a later call resume. Nothing is written of a resource that is
        announced with more than `max_bytes`.

        Raises:
            LinkError: No answer, or the collector refuses.
            IntegrityError: Larger than allowed, or not what was announced.
        """


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

    @property
    def offer(self) -> str:
        """Names what is offered: the digest does not cover the signature, which may come later."""
        text = f"{self.digest} {sorted(self.files.items())}"
        return hashlib.sha256(text.encode()).hexdigest()

    def refused_by(self, refusals: Refusals) -> bool:
        """Whether it, or any bundle of its digest, was refused."""
        return self.digest in refusals or self.offer in refusals


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
        replace_durably(self.folder / name, f"{digest}\n".encode())

    def admit(self, digest: str) -> Path:
        """Turn the staging folder into a bundle folder by one rename."""
        target = self.path(digest)
        if target.exists():
            shutil.rmtree(self.staging())
        else:
            staging = self.staging()
            sync_folder(staging)
            staging.rename(target)
            sync_folder(self.folder)
        return target

    def prune(self) -> None:
        """Remove bundles that neither pointer names."""
        keep = {self.pointer("current"), self.pointer("previous")}
        for path in self.folder.iterdir():
            if path.is_dir() and len(path.name) == 64 and path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)


class _DownloadError(IntegrityError):
    """What came is not what the channel announced: the fault of the way, not of the bundle."""


class ModelUpdater:
    """Follows one channel of one model.

    `update` belongs to one thread; `roll_back` may come from another. What is refused is kept in
    `models/refused.json`.

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
        self._refused = Refusals(store.folder / "refused.json", self._policy())
        self._owed: dict[str, str] = {}  # pointers that the disk has not taken yet
        self._lock = threading.Lock()  # a swap and a way back exclude each other

    def _policy(self) -> str:
        text = f"{self._floor} {sorted(key.hex() for key in self._keys)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

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
        self._settle()
        document = self._document()
        if document.digest == self.running_digest or document.refused_by(self._refused):
            return False
        try:
            bundle = self._bundle(document)
        except OSError as error:
            raise _unstored(error) from error
        except (ModelError, InputError) as error:
            self._refuse(document, error)
            return False
        return self._take(bundle, document)

    def _settle(self) -> None:
        """Write down what runs and what was refused; what the disk refuses is owed.

        Raises:
            StorageError: The disk is full or failing; the next `update` tries again.
        """
        try:
            with self._lock:
                self._pay()
        except OSError as error:
            raise _unstored(error) from error

    def _pay(self) -> None:
        self._refused.save()
        if not self._owed:
            return
        for name in ("previous", "current"):
            if name in self._owed:
                self._store.point(name, self._owed[name])
                del self._owed[name]
        self._store.prune()

    def _document(self) -> _Document:
        path = self._store.folder / "channel.json"
        try:
            for old in (path, path.with_name("channel.json.part")):
                old.unlink(missing_ok=True)
            self._fetch(self.topic, path, max_bytes=MAX_DOCUMENT_BYTES)
            data = path.read_bytes()
        except OSError as error:
            raise _unstored(error) from error
        except IntegrityError as error:  # says nothing about any bundle
            raise LinkError(f"{self.topic}: {error}") from error
        try:
            document = msgspec.json.decode(data, type=_Document)
        except msgspec.DecodeError as error:
            raise LinkError(
                f"{self.topic}: the collector's answer is no channel document ({error})",
                remedy="Update the collector",
            ) from error
        if not _DIGEST.fullmatch(document.digest):
            raise LinkError(f"{self.topic}: {document.digest[:80]!r} is no digest")
        if document.name != self._name or document.channel != self._channel:
            raise LinkError(f"asked for {self.topic}, got {document.name}/{document.channel}")
        with self._lock:
            self._refused.keep_only(document.digest, document.offer)
        return document

    def _bundle(self, document: _Document) -> Bundle:
        ready = self._store.path(document.digest)
        if ready.is_dir():
            try:
                return self._open(ready, document)
            except (ModelError, InputError, OSError) as error:
                _log.warning("stored model %s is fetched again: %s", document.digest[:12], error)
                shutil.rmtree(ready)
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
        sizes = [size for _, size in document.files.values()]
        if sum(sizes) > MAX_BUNDLE_BYTES or min(sizes, default=0) < 0:
            raise IntegrityError(f"bundle of {sum(sizes)} bytes, limit {MAX_BUNDLE_BYTES}")
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
            try:
                self._fetch(f"object/{sha256}", target, max_bytes=size)
            except IntegrityError as error:
                raise _DownloadError(f"bundle file {name}: {error}") from error
            if target.stat().st_size != size or _sha256(target) != sha256:
                target.unlink()
                raise _DownloadError(f"bundle file {name} does not have the digest of the channel")

    def _take(self, bundle: Bundle, document: _Document) -> bool:
        try:
            with self._lock:
                self._swap(bundle)
                self._owed = {"previous": self.running_digest, "current": document.digest}
                self.running_digest = document.digest
        except ModelError as error:
            self._refuse(document, error)
            return False
        self._report(self._event("swapped", document))
        self._settle()
        return True

    def roll_back(self, reason: str, bad: str | None = None) -> bool:
        """Go back to the bundle that ran before, because the new one proved bad in service.

        Never waits: while a swap is under way nothing is done.

        Args:
            reason: For the record; the bad digest is not tried again.
            bad: Digest that proved bad; None: the one that runs.

        Returns:
            False when a swap is under way or `bad` no longer runs; nothing was done.

        Raises:
            SynclineError: There is no bundle to go back to; the present one goes on.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if bad not in (None, self.running_digest):
                return False
            now = self._revert()
            self._refused.add(self.running_digest, reason, in_service=True)
            self.running_digest = now.digest
            self._owed["current"] = now.digest
            try:
                self._pay()
            except OSError as error:
                _log.error("%s; the next update tries again", _unstored(error))
        finally:
            self._lock.release()
        self._report(UpdateEvent("rolled-back", now.name, now.version, now.digest, reason))
        return True

    def _refuse(self, document: _Document, error: Exception) -> None:
        with self._lock:
            lasting = not isinstance(error, _DownloadError)
            self._refused.add(document.offer, str(error), lasting=lasting)
        shutil.rmtree(self._store.folder / "staging", ignore_errors=True)
        _log.error("model %s %s refused: %s", document.name, document.version, error)
        self._report(self._event("refused", document, str(error)))
        self._settle()

    def _event(self, action: str, document: _Document, reason: str = "") -> UpdateEvent:
        return UpdateEvent(action, document.name, document.version, document.digest, reason)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unstored(error: OSError) -> StorageError:
    return StorageError(
        f"cannot store the update: {error.strerror or error}", remedy="Free space on the device"
    )
