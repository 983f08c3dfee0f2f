"""Ed25519 signature over the exact bytes of a manifest, which holds the digest of all the rest.

The keys that a device trusts are its own configuration; nothing in a bundle can add one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from syncline.edge.model.manifest import read_manifest_bytes
from syncline.errors import IntegrityError

SIGNATURE_NAME = "manifest.sig"
SIGNATURE_BYTES = 64
KEY_BYTES = 32


def sign(folder: Path, private_key: Ed25519PrivateKey | bytes) -> bytes:
    """Sign a bundle: writes `manifest.sig` and returns its 64 bytes.

    Args:
        folder: Bundle with its final manifest.
        private_key: Ed25519 key, or its raw 32 bytes.

    Raises:
        ManifestError: There is no manifest.
        IntegrityError: The key is not 32 bytes.
    """
    signature = _private(private_key).sign(read_manifest_bytes(folder))
    (folder / SIGNATURE_NAME).write_bytes(signature)
    return signature


def verify(manifest: bytes, signature: bytes, trusted_keys: Sequence[bytes]) -> bytes:
    """The trusted key that signed these manifest bytes.

    Args:
        manifest: Exact bytes of manifest.toml.
        signature: Raw 64 bytes.
        trusted_keys: Raw 32-byte Ed25519 public keys.

    Raises:
        IntegrityError: No trusted key made the signature.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise IntegrityError(f"{SIGNATURE_NAME} has {len(signature)} bytes, not {SIGNATURE_BYTES}")
    for key in trusted_keys:
        try:
            _public(key).verify(signature, manifest)
        except InvalidSignature:
            continue
        return key
    raise IntegrityError(
        f"the bundle's signature is of none of the {len(trusted_keys)} trusted keys",
        remedy="Sign the bundle with a trusted key, or add its public key to the configuration",
    )


def generate_key() -> tuple[bytes, bytes]:
    """A new key pair as raw 32-byte strings: (private, public)."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes_raw(), public_key(key)


def public_key(private_key: Ed25519PrivateKey | bytes) -> bytes:
    """Raw 32-byte public key of a private one."""
    return _private(private_key).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _private(key: Ed25519PrivateKey | bytes) -> Ed25519PrivateKey:
    if not isinstance(key, bytes):
        return key
    _check_length("private", key)
    return Ed25519PrivateKey.from_private_bytes(key)


def _public(key: bytes) -> Ed25519PublicKey:
    _check_length("public", key)
    return Ed25519PublicKey.from_public_bytes(key)


def _check_length(kind: str, key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise IntegrityError(
            f"the {kind} key has {len(key)} bytes, not {KEY_BYTES}",
            remedy="Give the raw Ed25519 key",
        )
