"""Opening a device of the kernel, with errors that say what to do."""

from __future__ import annotations

import os
from pathlib import Path

from syncline.errors import DeviceError, PermissionDeniedError


def open_device(path: Path, access: int, kind: str, remedy: str) -> int:
    """A descriptor of the device; the caller closes it.

    Args:
        path: Device.
        access: `os.O_RDONLY` or `os.O_RDWR`.
        kind: What it is, for the error.
        remedy: What to do when it is not there.

    Raises:
        PermissionDeniedError: No right to open it.
        DeviceError: No such device.
    """
    try:
        return os.open(path, access | os.O_CLOEXEC)
    except PermissionError as error:
        raise PermissionDeniedError(
            f"no right to open {path}", remedy="Add the user to the group of the device"
        ) from error
    except OSError as error:
        raise DeviceError(f"no {kind} {path}: {error.strerror}", remedy=remedy) from error
