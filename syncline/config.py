"""One TOML file, checked on load: a wrong key is named with its path.

Each part of the system defines its section as a frozen `msgspec.Struct` with
`forbid_unknown_fields=True`; `load` turns the file into one. Every key stands in docs/config.md.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from syncline.errors import ConfigError

MAX_CONFIG_BYTES = 1 << 20

T = TypeVar("T")


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every configuration section: immutable, unknown keys refused."""


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file as `kind`.

    Raises:
        ConfigError: The file is absent, too large, not TOML, or a key is wrong; the message holds
            the path of the key.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", remedy="Check the path given to --config"
        ) from error
    return parse(data, kind, str(path))


def parse(data: bytes, kind: type[T], name: str = "configuration") -> T:
    """Check TOML bytes against `kind`; see `load`."""
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not TOML: {error}", remedy="Correct that line") from error
    try:
        return msgspec.convert(table, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{name}: {error}", remedy="docs/config.md lists every key, its unit and its default"
        ) from error
