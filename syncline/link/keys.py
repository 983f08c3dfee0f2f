"""CURVE key pairs of devices and collectors, and the files they lie in."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import zmq

from syncline.errors import AuthenticationError, ConfigError, ConflictError, StorageError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
MAX_KEY_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One end's CURVE keys, Z85 text of 40 characters each.

    Attributes:
        name: Name of the device or collector.
        public: Key to be given to the other end.
        secret: Key that never leaves this machine; not shown by repr.
    """

    name: str
    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Name and public key of one end."""

    name: str
    public: str


class _KeyFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: str
    public: str
    secret: str | None = None


def check_name(name: str) -> str:
    """Return `name` when it can name a device.

    Raises:
        ConfigError: It is empty, too long or has other characters than a-z 0-9 . _ -
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"name {name!r} is not a device name",
            remedy="Use 1 to 64 characters of a-z 0-9 . _ - and begin with a letter or digit",
        )
    return name


def new_keypair(name: str) -> KeyPair:
    """Draw a new pair.

    Raises:
        ConfigError: The name cannot name a device.
    """
    public, secret = zmq.curve_keypair()
    return KeyPair(check_name(name), public.decode(), secret.decode())


def save_keypair(keys: KeyPair, folder: Path) -> tuple[Path, Path]:
    """Write NAME.key (secret, mode 0600) and NAME.pub; returns both paths.

    Raises:
        ConflictError: One of the files exists.
    """
    secret, public = folder / f"{keys.name}.key", folder / f"{keys.name}.pub"
    text = f'name = "{keys.name}"\npublic = "{keys.public}"\n'
    write_new(secret, text + f'secret = "{keys.secret}"\n', 0o600)
    write_new(public, text, 0o644)
    return secret, public


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a file that must not exist, with the given mode from its first byte on.

    Raises:
        ConflictError: The file exists.
        StorageError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise ConflictError(
            f"{path} exists already", remedy="Choose another name; keys are never overwritten"
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}", remedy="Choose a folder that you may write to"
        ) from error
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def load_keypair(path: Path) -> KeyPair:
    """Read NAME.key.

    Raises:
        ConfigError: The file is absent or not a key file.
        AuthenticationError: Others may read the secret.
    """
    found = _load(path)
    if found.secret is None:
        raise ConfigError(f"{path} holds no secret key", remedy="Give the .key file, not the .pub")
    if path.stat().st_mode & 0o077:
        raise AuthenticationError(
            f"{path} can be read by other users", remedy=f"Run chmod 600 {path}; renew the key"
        )
    return KeyPair(found.name, found.public, found.secret)


def load_public(path: Path) -> PublicKey:
    """Read NAME.pub (or the public half of NAME.key).

    Raises:
        ConfigError: The file is absent or not a key file.
    """
    found = _load(path)
    return PublicKey(found.name, found.public)


def holds_secret(path: Path) -> bool:
    """Whether a key file is a NAME.key, which stays on its machine.

    Raises:
        ConfigError: The file is absent or not a key file.
    """
    return _load(path).secret is not None


def _load(path: Path) -> _KeyFile:
    try:
        data = path.read_bytes()[: MAX_KEY_FILE_BYTES + 1]
        found = msgspec.convert(tomllib.loads(data.decode("ascii")), _KeyFile)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        raise ConfigError(
            f"cannot read key file {path}: {error.strerror}",
            remedy="Make one with: syncline keys new NAME --out DIR"
            if absent
            else f"Let this user read it: ls -l {path}",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"{path} is not a key file: {error}",
            remedy="Make one with: syncline keys new NAME --out DIR",
        ) from error
    for key in (found.public, found.secret):
        if key is not None and not _Z85.fullmatch(key):
            raise ConfigError(f"{path} holds a key that is not 40 characters of Z85")
    check_name(found.name)
    return found
