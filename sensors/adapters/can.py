"""CAN frames, and candump's logs of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from syncline.errors import LogError
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.recorded import Recorded
from syncline.sensors.frame import FrameEvent, Stamp
from syncline.timebase import NS_PER_S, Clock

MAX_LINE_CHARS = 512
_ERR = 0x2000_0000
_CANDUMP = re.compile(
    r"^\((\d{1,10})\.(\d{1,9})\)\s+(\S{1,32})\s+([0-9A-Fa-f]{3}|[0-9A-Fa-f]{8})"
    r"(?:#(R\d?)?|##[0-9A-Fa-f])((?:[0-9A-Fa-f]{2}){0,64})(?:\s+[TR])?$"
)


@dataclass(frozen=True, slots=True)
class CanFrame:
    """One frame of a bus.

    Attributes:
        id: Identifier without flags.
        extended: 29-bit identifier.
        data: 0..8 bytes, up to 64 for CAN FD.
        error: An error frame of the controller; `data` tells which.
        remote: A request without data.
    """

    id: int
    extended: bool
    data: bytes
    error: bool = False
    remote: bool = False


class CandumpLog(Recorded[Sample[CanFrame]]):
    """Frames of a `candump -l` file in its order; each names its bus.

    Stamps are the kernel's, on REALTIME of the recording machine. Memory: one line. A damaged line
    is skipped and counted as an error.

    Args:
        path: The log.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file: TextIO | None = None

    def _open(self) -> None:
        """Open the file.

        Raises:
            LogError: It cannot be read.
        """
        try:
            self._file = self._path.open(encoding="ascii", errors="replace")
        except OSError as error:
            raise LogError(
                f"cannot read {self._path}: {error.strerror}", remedy="Check the path"
            ) from error

    def _read(self) -> Iterator[Sample[CanFrame]]:
        """Every line that is a frame.

        Raises:
            LogError: The file cannot be read, or not a single line is a frame.
        """
        assert self._file is not None
        try:
            while line := self._file.readline(MAX_LINE_CHARS):
                found = parse_candump(line)
                if found is None:
                    self._errors += bool(line.strip())
                    continue
                yield found
        except OSError as error:
            raise LogError(f"cannot read {self._path}: {error.strerror}") from error
        if not self._frames:
            raise LogError(
                f"{self._path}: none of {self._errors} lines is a CAN frame",
                remedy="Give a file written by: candump -l",
            )

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.REALTIME, FrameEvent.ARRIVAL

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def parse_candump(line: str) -> Sample[CanFrame] | None:
    """`(1436509052.249713) can0 123#DEADBEEF`; None for anything else."""
    match = _CANDUMP.match(line.strip())
    if match is None:
        return None
    seconds, fraction, channel, identifier, remote, data = match.groups()
    number, extended = int(identifier, 16), len(identifier) == 8
    frame = CanFrame(
        number & (0x1FFF_FFFF if extended else 0x7FF),
        extended,
        bytes.fromhex(data),
        error=extended and bool(number & _ERR),
        remote=remote is not None,
    )
    t_ns = int(seconds) * NS_PER_S + int(fraction.ljust(9, "0"))
    # What was cut off behind the last digit lies behind it: candump does not round.
    cut_ns = 10 ** (9 - len(fraction)) - 1
    stamp = Stamp(t_ns, Clock.REALTIME, FrameEvent.ARRIVAL, 0.0, (0, cut_ns))
    return Sample(channel, None, None, stamp, frame)
