"""Recordings of a GNSS receiver, NMEA and UBX mixed: its epochs and the marks of trigger edges.

A recording of the line holds no arrivals, so the receiver's own UTC is the only time there is: it
is the stamp. What it is worth on a live line (rollovers, leap seconds, receivers that lie when they
wake) `syncline.sync` judges; here a recording is read as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from syncline.errors import DeviceError, LogError
from syncline.sensors.adapter import Health
from syncline.sensors.adapters.gnss_decoder import GnssDecoder, GnssSample
from syncline.sensors.adapters.recorded import Recorded
from syncline.sensors.adapters.ubx import SYNC
from syncline.sensors.frame import FrameEvent
from syncline.timebase import Clock

CHUNK_BYTES = 512
"""Read at a time; within it UBX comes before NMEA."""
SNIFF_BYTES = 1 << 16


class GnssLog(Recorded[GnssSample]):
    """Epochs (`GnssReading`) and trigger marks (`TriggerMark`) of a file.

    An epoch's stamp is the time its solution is valid for (`MID`), a mark's that of the edge
    (`TRIGGER`); both on UTC. Where UBX tells the time, NMEA is left out.
    Memory: one epoch and `CHUNK_BYTES`.

    Args:
        path: Bytes of the line, as `cat /dev/ttyACM0`, gpsd or u-center record them.
        sensor: Name given to the samples.
    """

    def __init__(self, path: Path, sensor: str = "gnss") -> None:
        super().__init__()
        self._path, self._sensor = path, sensor
        self._decoder = GnssDecoder(sensor)
        self._file: BinaryIO | None = None

    def _open(self) -> None:
        """Look at the beginning of the file.

        Raises:
            DeviceError: It is not there or may not be read.
            LogError: There is neither NMEA nor UBX at its beginning.
        """
        self._decoder = GnssDecoder(self._sensor)
        try:
            self._file = self._path.open("rb")
            head = self._file.read(SNIFF_BYTES)
            self._file.seek(0)
        except OSError as error:
            self._release()
            raise DeviceError(
                f"cannot read {self._path}: {error.strerror}", remedy="Check the path"
            ) from error
        if SYNC not in head and b"$" not in head:
            self._release()
            raise LogError(
                f"{self._path} holds neither NMEA nor UBX",
                remedy="Give the bytes of the receiver's line; other binary protocols are not read",
            )

    def _read(self) -> Iterator[GnssSample]:
        """Epochs and marks in the order of the file.

        Raises:
            LogError: Not one epoch and not one mark could be read.
        """
        assert self._file is not None
        while data := self._file.read(CHUNK_BYTES):
            yield from self._decoder.feed(data)
        yield from self._decoder.finish()
        if not self._frames:
            told = "; ".join(self._decoder.told()) or "no epoch in it"
            raise LogError(
                f"{self._path}: not one dated epoch: {told}",
                remedy="Record RMC or ZDA (NMEA) or NAV-PVT (UBX), with checksums",
            )

    def health(self) -> Health:
        """State and counters; `dropped` are trigger marks that the receiver could not send."""
        decoder = self._decoder
        return replace(super().health(), dropped=decoder.lost_marks, errors=decoder.bad)

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.UTC, FrameEvent.MID

    def _told(self) -> list[str]:
        told = ["stamp: UTC of the epoch, by the receiver; arrivals are not recorded"]
        marks = self._decoder.marks
        return told + ([f"{marks} trigger marks"] if marks else []) + self._decoder.told()

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
