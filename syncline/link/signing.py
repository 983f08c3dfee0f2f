"""Ed25519 keys that sign model bundles and campaigns; PEM files."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from syncline.errors import AuthenticationError, ConfigError
from syncline.link.keys import check_name, write_new


def new_signing_key(name: str, folder: Path) -> tuple[Path, Path]:
    """Draw a key and write NAME.sign.key (mode 0600) and NAME.sign.pub; returns both paths.

    Raises:
        ConfigError: The name cannot be used.
        ConflictError: One of the files exists.
    """
    check_name(name)
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    paths = folder / f"{name}.sign.key", folder / f"{name}.sign.pub"
    write_new(paths[0], secret.decode("ascii"), 0o600)
    write_new(paths[1], public.decode("ascii"), 0o644)
    return paths


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read NAME.sign.key.

    Raises:
        ConfigError: The file is absent or holds no Ed25519 key.
        AuthenticationError: Others may read it.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
        mode = path.stat().st_mode
    except (OSError, ValueError, TypeError) as error:
        raise _not_a_key(path, error) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds a key of another kind than Ed25519")
    if mode & 0o077:
        raise AuthenticationError(
            f"{path} can be read by other users", remedy=f"Run chmod 600 {path}; renew the key"
        )
    return key


def load_verify_key(path: Path) -> Ed25519PublicKey:
    """Read NAME.sign.pub.

    Raises:
        ConfigError: The file is absent or holds no Ed25519 key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _not_a_key(path, error) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} holds a key of another kind than Ed25519")
    return key


def _not_a_key(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"cannot read a signing key from {path}: {error}",
        remedy="Make one with: syncline keys signing NAME --out DIR",
    )
