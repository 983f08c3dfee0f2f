"""Small states that outlive a boot, each in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from syncline.errors import StorageError
from syncline.files import replace_durably

MAX_SAVED_BYTES = 4096

State = TypeVar("State", bound=msgspec.Struct)


def load_saved(path: Path, kind: type[State], use: str) -> tuple[State | None, str]:
    """The saved state, and what is wrong with the file ("" when nothing is, or there is none).

    Args:
        path: File.
        kind: What it holds.
        use: What it would serve as, for the message about a bad file.
    """
    try:
        if path.stat().st_size > MAX_SAVED_BYTES:
            return None, f"{path} is larger than {MAX_SAVED_BYTES} bytes and was ignored"
        return msgspec.json.decode(path.read_bytes(), type=kind), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        return None, f"{path} cannot be used as {use}: {error}"


def save(path: Path, state: msgspec.Struct) -> None:
    """Replace the file so that a power cut leaves the old or the new one, never half.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        replace_durably(path, msgspec.json.encode(state))
    except OSError as error:
        raise StorageError(
            f"cannot save {path}: {error.strerror}", remedy="Check space and rights of that folder"
        ) from error
