"""A serial line, or a pipe of its bytes: opened raw, read without waiting, its loss told."""

from __future__ import annotations

import os
import stat
import termios
from pathlib import Path

from syncline.errors import DeviceError, PermissionDeniedError

CHUNK = 4096


class SerialLine:
    """The line of a receiver.

    Args:
        path: Device, pipe or file.
        baud: Line speed; 0 leaves the line as it is.
    """

    def __init__(self, path: Path, baud: int = 0) -> None:
        self.path = path
        self._baud = baud
        self._fd = -1

    def open(self) -> None:
        """Open it, raw 8N1 at its speed.

        Raises:
            DeviceError: It is absent, or the system does not know the speed.
            PermissionDeniedError: It may not be read.
        """
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            if self._baud and os.isatty(self._fd):
                _set_line(self._fd, self._baud)
        except PermissionError as error:
            raise PermissionDeniedError(
                f"no right to read {self.path}", remedy="Add the user to its group (dialout)"
            ) from error
        except (OSError, termios.error) as error:
            self.close()
            raise DeviceError(
                f"{self.path}: {error.args[-1]}", remedy="Check cable, path and baud"
            ) from error

    @property
    def is_open(self) -> bool:
        """Whether it is held."""
        return self._fd >= 0

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, which can be read through but not waited on."""
        return self._fd >= 0 and stat.S_ISREG(os.fstat(self._fd).st_mode)

    def read(self) -> bytes | None:
        """What is there; None when nothing is, no bytes at the end of a regular file.

        Raises:
            DeviceError: The line has hung up or is gone; it is closed.
        """
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            self.close()
            raise DeviceError(
                f"{self.path} is gone: {error.strerror}", remedy="Check cable and power"
            ) from error
        if not data and not self.is_file:
            # A pipe without a writer is readable for ever, so it too is closed and opened later.
            self.close()
            raise DeviceError(f"{self.path} hung up", remedy="Check cable and power")
        return data

    def fileno(self) -> int:
        """Descriptor to wait on; -1 when closed."""
        return self._fd

    def close(self) -> None:
        """Close it; twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _set_line(fd: int, baud: int) -> None:
    """Raw 8N1 at `baud`.

    Raises:
        OSError: The system does not know the speed.
    """
    speed = getattr(termios, f"B{baud}", None)
    if speed is None:
        raise OSError(f"{baud} baud is not a speed of this system")
    mode = termios.tcgetattr(fd)
    mode[0] = mode[1] = mode[3] = 0
    mode[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
    mode[4] = mode[5] = speed
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)
