"""A receiver on a serial line, or a file or pipe of its bytes."""

from __future__ import annotations

import os
import stat
import termios
from pathlib import Path

from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.gnss_stream import GnssStream
from syncline.sync.sources.source import NEVER_RAW_NS, GnssSignals, Health, SourceHealth
from syncline.timebase import NS_PER_S, RawClock

RETRY_NS = 2 * NS_PER_S
SILENT_NS = 5 * NS_PER_S
CHUNK = 4096
CHUNKS_A_POLL = 16


class GnssSerial:
    """Reads a receiver; waits for it when it is absent, and comes back when it does.

    Args:
        path: Device, pipe or file.
        stream: What decodes; carries the source's name.
        clock: Raw clock.
        baud: Line speed; 0 leaves the line as it is.
    """

    kind = SourceKind.GNSS

    def __init__(self, path: Path, stream: GnssStream, clock: RawClock, baud: int = 0) -> None:
        self.name = stream.gate.name
        self.stream = stream
        self._path, self._clock, self._baud = path, clock, baud
        self._fd = -1
        self._retry_raw_ns = clock.raw_ns()
        self._heard_raw_ns: int | None = None
        self._health = Health.STARTING
        self._error = ""
        self._ended = False

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        """Read what is there; open the device when it is time to try again."""
        if self._fd < 0 and now_raw_ns >= self._retry_raw_ns and not self._ended:
            self._open(now_raw_ns)
        measured: list[Measurement] = []
        for _ in range(CHUNKS_A_POLL):
            data = self._read(now_raw_ns)
            if not data:
                break
            self._heard_raw_ns = self._clock.raw_ns()
            measured += self.stream.feed(data, self._heard_raw_ns)
        return measured

    def _open(self, now_raw_ns: int) -> None:
        self._retry_raw_ns = now_raw_ns + RETRY_NS
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            if self._baud and os.isatty(self._fd):
                _set_line(self._fd, self._baud)
            self._health, self._error = Health.OK, ""
        except PermissionError:
            self._give_up(
                Health.DENIED, f"no right to read {self._path}: add the user to its group"
            )
        except (OSError, termios.error) as error:
            self._give_up(
                Health.MISSING, f"{self._path}: {error.args[-1]}; check cable and [time] device"
            )

    def _read(self, now_raw_ns: int) -> bytes:
        if self._fd < 0:
            return b""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return b""
        except OSError as error:
            self._retry_raw_ns = now_raw_ns + RETRY_NS
            self._give_up(Health.MISSING, f"{self._path} is gone: {error.strerror}")
            return b""
        if not data:
            self._end(now_raw_ns)
        return data

    def _end(self, now_raw_ns: int) -> None:
        """Nothing more: a file is read through, a line or a pipe has hung up."""
        mode = os.fstat(self._fd).st_mode
        if stat.S_ISREG(mode):
            self._ended = True
            self._give_up(Health.SILENT, f"{self._path} has been read to its end")
        else:
            # A pipe without a writer is readable for ever, so it too is closed and opened later.
            self._retry_raw_ns = now_raw_ns + RETRY_NS
            self._give_up(Health.MISSING, f"{self._path} hung up; check cable and power")

    def _give_up(self, health: Health, message: str) -> None:
        self._health, self._error = health, message
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def due_raw_ns(self) -> int:
        """When to try the device again, or never: input wakes us."""
        return self._retry_raw_ns if self._fd < 0 and not self._ended else NEVER_RAW_NS

    def fileno(self) -> int:
        """The device, or -1. A regular file cannot be waited on; its poll reads it through."""
        if self._fd >= 0 and stat.S_ISREG(os.fstat(self._fd).st_mode):
            return -1
        return self._fd

    def health(self) -> SourceHealth:
        """Epochs, refusals, and whether the line is silent."""
        gate = self.stream.gate
        health, message = self._health, self._error
        heard = self._heard_raw_ns
        if health is Health.OK and heard is not None:
            if self._clock.raw_ns() - heard > SILENT_NS:
                health, message = Health.SILENT, f"{self._path}: no bytes for 5 s; check the baud"
            elif gate.epochs and not gate.usable:
                health, message = Health.DEGRADED, "no usable epoch yet"
        refused = dict(gate.tally.counts)
        if self.stream.bad:
            refused["checksum"] = self.stream.bad
        return SourceHealth(health, message, gate.epochs, refused)

    def signals(self) -> GnssSignals | None:
        """The sky."""
        return self.stream.signals()

    def set_poll(self, poll_log2: int) -> None:
        """A receiver keeps its own rhythm."""

    def leap(self) -> int | None:
        """Not announced here."""
        return None

    def close(self) -> None:
        """Close the device."""
        self._give_up(Health.STARTING, "")


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
