"""A live GNSS receiver on a serial line: its epochs and the marks of trigger edges.

The daemon's clock reads its receivers by itself (`[[time.gnss]]`, `syncline.sync.sources`) over the
same line and decoders, and judges what they say; this adapter gives what they say as it stands, to
programs that read a receiver themselves. Two readers of one line take each other's bytes away.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from syncline.errors import DeviceError
from syncline.sensors.adapter import Health, HealthState
from syncline.sensors.adapters.gnss_decoder import GnssDecoder, GnssSample
from syncline.sensors.adapters.reopening import Reopening
from syncline.sensors.adapters.serial_line import SerialLine
from syncline.sensors.frame import FrameEvent, Ns
from syncline.timebase import NS_PER_S, Clock, RawClock

QUIET_MS = 200
"""A receiver that pauses for so long has told its epoch; its messages come in one burst."""
STALE_NS = 5 * NS_PER_S
"""Longer than three periods of a receiver at 1 Hz."""


class GnssReceiver(Reopening[GnssSample]):
    """Epochs (`GnssReading`) and trigger marks (`TriggerMark`) of a line, NMEA and UBX mixed.

    Stamps are the receiver's own UTC (`MID` of an epoch, `TRIGGER` of a mark), arrivals the first
    byte of the message on RAW, up to a second late. Memory: one epoch and one read of the line.

    Args:
        path: Device, such as `/dev/ttyACM0`, or a pipe.
        sensor: Name given to the samples.
        baud: Line speed; 0 leaves the line as it is.
        clock: Stamps arrivals and paces retries.
    """

    def __init__(
        self, path: Path, sensor: str = "gnss", *, baud: int = 0, clock: RawClock | None = None
    ) -> None:
        super().__init__(clock)
        self._line, self._sensor, self._baud = SerialLine(path, baud), sensor, baud
        self._decoder = self._fresh()
        self._errors_before = self._lost_before = 0
        self._heard_ns: Ns = 0
        self._bytes = 0

    def _fresh(self) -> GnssDecoder:
        return GnssDecoder(self._sensor, baud=self._baud, live=True)

    def _open(self) -> None:
        """Open the line.

        Raises:
            DeviceError: It is absent, or a file.
            PermissionDeniedError: It may not be read.
        """
        self._line.open()
        if self._line.is_file:
            self._line.close()
            raise DeviceError(
                f"{self._line.path} is a file, no line", remedy="Read a recording by GnssLog"
            )
        self._errors_before += self._decoder.bad
        self._lost_before += self._decoder.lost_marks
        self._decoder = self._fresh()
        self._heard_ns, self._bytes = self._clock.raw_ns(), 0

    @property
    def _is_open(self) -> bool:
        return self._line.is_open

    def _some(self) -> Iterator[GnssSample]:
        """What one read brings; a pause completes the epoch that was being told."""
        poll = select.poll()
        poll.register(self._line.fileno(), select.POLLIN)
        ready = poll.poll(QUIET_MS)
        try:
            data = self._line.read()
        except DeviceError as error:
            yield from self._decoder.finish()
            self._lose(error.message)
            self._rest()
            return
        if data:
            self._bytes += len(data)
            yield from self._heard(self._decoder.feed(data, self._clock.raw_ns()))
        elif not ready:
            yield from self._heard(self._decoder.finish())
        self._note_silence()

    def _heard(self, samples: Iterator[GnssSample]) -> Iterator[GnssSample]:
        for sample in samples:
            self._heard_ns, self._bytes = self._clock.raw_ns(), 0
            self._state, self._detail = HealthState.OK, ""
            yield sample

    def _note_silence(self) -> None:
        if self._clock.raw_ns() - self._heard_ns <= STALE_NS:
            return
        self._state = HealthState.STALE
        what = f"{self._bytes} bytes, no epoch: check the baud" if self._bytes else "no bytes"
        self._detail = f"{self._line.path}: {what}"

    def health(self) -> Health:
        """State and counters; `dropped` are trigger marks that the receiver could not send."""
        return replace(
            super().health(),
            dropped=self._lost_before + self._decoder.lost_marks,
            errors=self._errors_before + self._decoder.bad,
        )

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.UTC, FrameEvent.MID

    def _told(self) -> list[str]:
        marks = [f"{self._decoder.marks} trigger marks"] if self._decoder.marks else []
        return ["stamp: UTC of the epoch, by the receiver", *marks, *self._decoder.told()]

    def _release(self) -> None:
        self._line.close()
