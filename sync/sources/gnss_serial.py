"""A receiver on a serial line, or a file or pipe of its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from syncline.errors import DeviceError, PermissionDeniedError
from syncline.sensors.adapters.serial_line import SerialLine
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.gnss_stream import GnssStream
from syncline.sync.sources.source import NEVER_RAW_NS, GnssSignals, Health, SourceHealth
from syncline.sync.sources.ubx import TimeMark
from syncline.timebase import NS_PER_S, RawClock

RETRY_NS = 2 * NS_PER_S
SILENT_NS = 5 * NS_PER_S
CHUNKS_A_POLL = 16


class GnssSerial:
    """Reads a receiver; waits for it when it is absent, and comes back when it does.

    Args:
        path: Device, pipe or file.
        stream: What decodes; carries the source's name.
        clock: Raw clock.
        baud: Line speed; 0 leaves the line as it is.
        on_mark: Called with the source's name and each edge on the receiver's EXTINT pin.
    """

    kind = SourceKind.GNSS

    def __init__(
        self,
        path: Path,
        stream: GnssStream,
        clock: RawClock,
        baud: int = 0,
        on_mark: Callable[[str, TimeMark], None] | None = None,
    ) -> None:
        self.name = stream.gate.name
        self.stream = stream
        self._line, self._clock, self._on_mark = SerialLine(path, baud), clock, on_mark
        self._retry_raw_ns = clock.raw_ns()
        self._heard_raw_ns: int | None = None
        self._health = Health.STARTING
        self._error = ""
        self._ended = False

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        """Read what is there; open the device when it is time to try again."""
        if not self._line.is_open and now_raw_ns >= self._retry_raw_ns and not self._ended:
            self._open(now_raw_ns)
        measured: list[Measurement] = []
        for _ in range(CHUNKS_A_POLL):
            data = self._read(now_raw_ns)
            if not data:
                break
            self._heard_raw_ns = self._clock.raw_ns()
            measured += self.stream.feed(data, self._heard_raw_ns)
        for mark in self.stream.take_marks():
            if self._on_mark is not None:
                self._on_mark(self.name, mark)
        return measured

    def _open(self, now_raw_ns: int) -> None:
        self._retry_raw_ns = now_raw_ns + RETRY_NS
        try:
            self._line.open()
            self._health, self._error = Health.OK, ""
        except PermissionDeniedError as error:
            self._give_up(Health.DENIED, str(error))
        except DeviceError as error:
            self._give_up(Health.MISSING, str(error))

    def _read(self, now_raw_ns: int) -> bytes:
        if not self._line.is_open:
            return b""
        try:
            data = self._line.read()
        except DeviceError as error:
            self._retry_raw_ns = now_raw_ns + RETRY_NS
            self._give_up(Health.MISSING, str(error))
            return b""
        if data is None:
            return b""
        if not data:
            self._ended = True
            self._give_up(Health.SILENT, f"{self._line.path} has been read to its end")
        return data

    def _give_up(self, health: Health, message: str) -> None:
        self._health, self._error = health, message
        self._line.close()

    def due_raw_ns(self) -> int:
        """When to try the device again, or never: input wakes us."""
        return self._retry_raw_ns if not self._line.is_open and not self._ended else NEVER_RAW_NS

    def fileno(self) -> int:
        """The device, or -1. A regular file cannot be waited on; its poll reads it through."""
        return -1 if self._line.is_file else self._line.fileno()

    def health(self) -> SourceHealth:
        """Epochs, refusals, and whether the line is silent."""
        gate = self.stream.gate
        health, message = self._health, self._error
        heard = self._heard_raw_ns
        if health is Health.OK and heard is not None:
            if self._clock.raw_ns() - heard > SILENT_NS:
                health, message = (
                    Health.SILENT,
                    f"{self._line.path}: no bytes for 5 s; check the baud",
                )
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
