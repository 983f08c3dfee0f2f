"""Objects: immutable bytes under their sha256, in a folder or in S3, through obstore."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from syncline.errors import ConfigError, InputError, IntegrityError, StorageError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PIECE = 8 << 20


class Objects:
    """Create-only store keyed by sha256; any number of processes may use one.

    Args:
        where: Folder, or a URL such as `s3://bucket/prefix`.

    Raises:
        StorageError: The folder cannot be made.
        ConfigError: The URL is not one that obstore knows.
    """

    def __init__(self, where: Path | str) -> None:
        self._folder: Path | None = None
        if isinstance(where, Path):
            self._folder = where
            try:
                where.mkdir(parents=True, exist_ok=True)
                self._store: Any = LocalStore(where)
            except (OSError, BaseError) as error:
                raise StorageError(f"object folder {where}: {error}") from error
        else:
            try:
                self._store = from_url(where)
            except (BaseError, ValueError) as error:
                raise ConfigError(f"object store {where!r}: {error}") from error

    def put(self, data: bytes) -> str:
        """Store bytes; returns their sha256. Durable when it returns; repeating it is free.

        Raises:
            StorageError: The store refused.
        """
        digest = hashlib.sha256(data).hexdigest()
        try:
            with contextlib.suppress(AlreadyExistsError):
                obstore.put(self._store, _key(digest), data, mode="create")
            self._sync(digest)
        except (BaseError, OSError) as error:
            raise _refused(error) from error
        return digest

    def put_file(self, path: Path, sha256: str) -> None:
        """Store a file whose digest the caller has verified and whose bytes are synced.

        Raises:
            StorageError: The store refused.
        """
        key = _key(sha256)
        try:
            if self._folder is None:
                with contextlib.suppress(AlreadyExistsError), path.open("rb") as file:
                    obstore.put(self._store, key, file)
                return
            place = self._folder / key
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(path, place)
            self._sync(sha256)
        except (BaseError, OSError) as error:
            raise _refused(error) from error

    def _sync(self, digest: str) -> None:
        """Local files are not synced by obstore; the file and its folders must last."""
        if self._folder is None:
            return
        place = self._folder / _key(digest)
        for path in (place, place.parent, self._folder):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def get(self, sha256: str) -> bytes:
        """The bytes of an object, checked against their digest.

        Raises:
            InputError: There is no such object.
            IntegrityError: The stored bytes are damaged.
            StorageError: The store refused.
        """
        data = self._get(sha256)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise IntegrityError(
                f"object {sha256} is damaged", remedy="Restore it from a backup or another store"
            )
        return data

    def _get(self, sha256: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, _key(sha256)).bytes())
        except (NotFoundError, FileNotFoundError) as error:
            raise _absent(sha256) from error
        except (BaseError, OSError) as error:
            raise _refused(error) from error

    def get_range(self, sha256: str, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; not checked against the digest.

        Raises:
            InputError: There is no such object.
            StorageError: The store refused.
        """
        size = self.size(sha256)
        length = min(length, size - offset)
        if length <= 0:
            return b""
        try:
            return bytes(obstore.get_range(self._store, _key(sha256), start=offset, length=length))
        except (BaseError, OSError) as error:
            raise _refused(error) from error

    def size(self, sha256: str) -> int:
        """Bytes of an object.

        Raises:
            InputError: There is no such object.
            StorageError: The store refused.
        """
        try:
            return int(obstore.head(self._store, _key(sha256))["size"])
        except (NotFoundError, FileNotFoundError) as error:
            raise _absent(sha256) from error
        except (BaseError, OSError) as error:
            raise _refused(error) from error

    def has(self, sha256: str) -> bool:
        """True when the object is there."""
        try:
            self.size(sha256)
        except InputError:
            return False
        return True


def _key(sha256: str) -> str:
    if not _DIGEST.fullmatch(sha256):
        raise InputError(f"{sha256[:80]!r} is not a sha256", remedy="Give 64 hex digits")
    return f"{sha256[:2]}/{sha256}"


def _absent(sha256: str) -> InputError:
    return InputError(f"object {sha256} is not in the store")


def _refused(error: Exception) -> StorageError:
    return StorageError(f"object store: {error}".replace("\n", " "), remedy="Check the store")
