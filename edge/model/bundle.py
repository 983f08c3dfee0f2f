"""A model bundle: a folder whose every byte is vouched for before any weight is loaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from syncline.edge.model.golden import GOLDEN_NAME, Golden, unpack_golden
from syncline.edge.model.manifest import (
    MANIFEST_NAME,
    Manifest,
    encode_manifest,
    parse_manifest,
    read_manifest_bytes,
)
from syncline.edge.model.signature import SIGNATURE_BYTES, SIGNATURE_NAME, verify
from syncline.errors import IntegrityError, ManifestError
from syncline.output import cannot_write

MODEL_NAME = "model.onnx"
MAX_FILE_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """One verified build of one model.

    Attributes:
        folder: Where its files lie.
        digest: SHA-256 hex of manifest.toml, which names the digest of every other file.
        manifest: Its parsed manifest.
        signer: Raw public key that signed it, or None when no signature was required.
    """

    folder: Path
    digest: str
    manifest: Manifest
    signer: bytes | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        trusted_keys: Sequence[bytes] | None,
        min_security_version: int = 0,
    ) -> Bundle:
        """Verify a bundle: names, sizes, digests, signature, security version.

        Args:
            folder: The bundle.
            trusted_keys: Raw Ed25519 public keys; None = a signature is not required.
            min_security_version: Older builds are refused, so that a withdrawn model stays so.

        Raises:
            ManifestError: The manifest is absent or wrong, or a file is missing or unknown.
            IntegrityError: A digest or the signature does not match, or the build is too old.
        """
        data = read_manifest_bytes(folder)
        signer = _check_signature(folder, data, trusted_keys)
        manifest = parse_manifest(data)
        if manifest.security_version < min_security_version:
            raise IntegrityError(
                f"security_version={manifest.security_version} is below this device's minimum "
                f"{min_security_version}",
                remedy="Roll out a newer build of the model",
            )
        _check_names(folder, manifest)
        for name, digest in manifest.files.items():
            _check_digest(folder / name, _hash_file(folder / name), digest)
        return cls(folder, hashlib.sha256(data).hexdigest(), manifest, signer)

    def read(self, name: str) -> bytes:
        """One file of the bundle, its digest checked on these very bytes.

        Raises:
            ManifestError: The manifest names no such file.
            IntegrityError: The file changed since the bundle was opened.
        """
        digest = self.manifest.files.get(name)
        if digest is None:
            raise ManifestError(f"the bundle {self.manifest.name!r} has no file {name!r}")
        data = _read_file(self.folder / name)
        _check_digest(self.folder / name, hashlib.sha256(data).hexdigest(), digest)
        return data

    def model_bytes(self) -> bytes:
        """The ONNX file; see `read`."""
        return self.read(MODEL_NAME)

    def golden(self) -> Golden:
        """The golden frame and outputs; see `read`."""
        return unpack_golden(self.read(GOLDEN_NAME))


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle; `manifest.files` is filled in from `files`.

    Args:
        folder: Made when absent; must be empty.
        manifest: All but `files`.
        files: Contents by name; `model.onnx` and `golden.npz` are needed.

    Raises:
        ManifestError: The folder is not empty, a file is missing, or the manifest is wrong.
        StorageError: It cannot be written; of what was begun nothing stays.
    """
    check_new_folder(folder)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    encoded = encode_manifest(msgspec.structs.replace(manifest, files=digests))
    was_there = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in [*files.items(), (MANIFEST_NAME, encoded)]:
            (folder / name).write_bytes(data)
    except OSError as error:
        _take_back(folder, (*files, MANIFEST_NAME), keep_folder=was_there)
        raise cannot_write(folder, error) from error
    return Bundle.open(folder, trusted_keys=None)


def check_new_folder(folder: Path) -> None:
    """Refuse a folder that a bundle cannot be written to, before the work is done.

    Raises:
        ManifestError: It is not empty.
        StorageError: It cannot be looked into.
    """
    try:
        is_used = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise cannot_write(folder, error) from error
    if is_used:
        raise ManifestError(f"{folder} is not empty", remedy="Give a new folder for the bundle")


def _take_back(folder: Path, names: Sequence[str], *, keep_folder: bool) -> None:
    with contextlib.suppress(OSError):
        for name in names:
            (folder / name).unlink(missing_ok=True)
        if not keep_folder:
            folder.rmdir()


def _check_signature(
    folder: Path, manifest: bytes, trusted_keys: Sequence[bytes] | None
) -> bytes | None:
    if trusted_keys is None:
        return None
    path = folder / SIGNATURE_NAME
    if not path.is_file():
        raise IntegrityError(
            f"{folder} has no {SIGNATURE_NAME}", remedy="Sign the bundle with a trusted key"
        )
    with path.open("rb") as stream:
        return verify(manifest, stream.read(SIGNATURE_BYTES + 1), trusted_keys)


def _check_names(folder: Path, manifest: Manifest) -> None:
    """Exactly the named files, each a plain one: no links, no folders, nothing extra."""
    reserved = {MANIFEST_NAME, SIGNATURE_NAME}
    if clash := reserved & manifest.files.keys():
        raise ManifestError(f"files names {sorted(clash)}, which cannot hold its own digest")
    for needed in (MODEL_NAME, GOLDEN_NAME):
        if needed not in manifest.files:
            raise ManifestError(f"files does not name {needed}")
    found = {entry.name: entry for entry in folder.iterdir()}
    if missing := manifest.files.keys() - found.keys():
        raise ManifestError(f"the bundle lacks {sorted(missing)}", remedy="Fetch it again")
    if unknown := found.keys() - manifest.files.keys() - reserved:
        raise ManifestError(
            f"the bundle holds {sorted(unknown)}, which its manifest does not name",
            remedy="Remove it, or build the bundle again",
        )
    for name, entry in found.items():
        if entry.is_symlink() or not entry.is_file():
            raise ManifestError(f"{name} in the bundle is not a plain file")
        if entry.stat().st_size > MAX_FILE_BYTES:
            raise ManifestError(f"{name} is larger than {MAX_FILE_BYTES} bytes")


def _check_digest(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise IntegrityError(
            f"{path.name} has SHA-256 {found[:12]}..., the manifest says {wanted[:12]}...",
            remedy="The file was changed or cut short; fetch the bundle again",
        )


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise IntegrityError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            # A limit alone would set aside a GiB at once, which a small device does not have.
            size = min(os.fstat(stream.fileno()).st_size, MAX_FILE_BYTES)
            return stream.read(size + 1)
    except OSError as error:
        raise IntegrityError(f"cannot read {path}: {error.strerror}") from error
