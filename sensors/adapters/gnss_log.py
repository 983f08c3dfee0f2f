"""Recordings of a GNSS receiver, NMEA and UBX mixed: its epochs and the marks of trigger edges.

A recording of the line holds no arrivals, so the receiver's own UTC is the only time there is: it
is the stamp. What it is worth on a live line (rollovers, leap seconds, receivers that lie when they
wake) `syncline.sync` judges; here a recording is read as it stands.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from syncline.errors import DeviceError, LogError
from syncline.sensors.adapter import Health, HealthState
from syncline.sensors.adapters.gnss_epochs import (
    GnssReading,
    NmeaAssembler,
    TriggerMark,
    Trouble,
    UbxAssembler,
)
from syncline.sensors.adapters.nmea import NmeaReader
from syncline.sensors.adapters.ubx import SYNC, UbxReader
from syncline.sensors.frame import FrameEvent, RawFrame, Stamp
from syncline.timebase import NS_PER_S, Clock

CHUNK_BYTES = 512
"""Read at a time; within it UBX comes before NMEA."""
LATE_NS = NS_PER_S
"""A receiver tells an epoch within a second of it, at its default rates."""
SNIFF_BYTES = 1 << 16


class GnssLog:
    """Epochs (`GnssReading`) and trigger marks (`TriggerMark`) of a file, as frames.

    An epoch's stamp is the time its solution is valid for (`MID`), a mark's that of the edge
    (`TRIGGER`); both on UTC. Where UBX tells the time, NMEA is left out.
    Memory: one epoch and `CHUNK_BYTES`.

    Args:
        path: Bytes of the line, as `cat /dev/ttyACM0`, gpsd or u-center record them.
        sensor: Name given to the frames.
    """

    def __init__(self, path: Path, sensor: str = "gnss") -> None:
        self._path, self._sensor = path, sensor
        self._state = HealthState.CLOSED
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._nmea_reader, self._ubx_reader = NmeaReader(), UbxReader()
        self.trouble: Counter[Trouble] = Counter()
        self._nmea, self._ubx = NmeaAssembler(self.trouble), UbxAssembler(self.trouble)
        self._frames = self._marks = self._lost_marks = 0
        self._last_ns: int | None = None
        self._last_count: int | None = None

    def open(self) -> None:
        """Look at the beginning of the file.

        Raises:
            DeviceError: It is not there or may not be read.
            LogError: There is neither NMEA nor UBX at its beginning.
        """
        try:
            with self._path.open("rb") as file:
                head = file.read(SNIFF_BYTES)
        except OSError as error:
            raise DeviceError(
                f"cannot read {self._path}: {error.strerror}", remedy="Check the path"
            ) from error
        if SYNC not in head and b"$" not in head:
            raise LogError(
                f"{self._path} holds neither NMEA nor UBX",
                remedy="Give the bytes of the receiver's line; other binary protocols are not read",
            )
        self._closed = False
        self._state = HealthState.OK

    def frames(self) -> Iterator[RawFrame]:
        """Epochs and marks in the order of the file.

        Raises:
            LogError: Not one epoch and not one mark could be read.
        """
        if self._state is not HealthState.OK:
            self.open()
        self._begin()
        with self._path.open("rb") as file:
            while not self._closed and (data := file.read(CHUNK_BYTES)):
                yield from self._chunk(data)
        for reading in filter(None, (self._ubx.finish(), self._left_over())):
            yield self._epoch(reading)
        if not self._frames + self._marks and not self._closed:
            told = self._told() or "no epoch in it"
            raise LogError(
                f"{self._path}: not one dated epoch: {told}",
                remedy="Record RMC or ZDA (NMEA) or NAV-PVT (UBX), with checksums",
            )
        self._state = HealthState.CLOSED if self._closed else HealthState.ENDED

    def _left_over(self) -> GnssReading | None:
        return None if self._ubx.tells_time else self._nmea.finish()

    def _chunk(self, data: bytes) -> Iterator[RawFrame]:
        for frame in self._ubx_reader.feed(data, 0):
            try:
                reading, marks = self._ubx.take(frame)
            except struct.error:
                self.trouble[Trouble.SHORT] += 1
                continue
            if reading is not None:
                yield self._epoch(reading)
            for mark in marks:
                yield self._mark(mark)
        for sentence in self._nmea_reader.feed(data, 0):
            reading = self._nmea.take(sentence)
            if reading is not None and not self._ubx.tells_time:
                yield self._epoch(reading)

    def _epoch(self, reading: GnssReading) -> RawFrame:
        if self._last_ns is not None and reading.utc_ns < self._last_ns:
            self.trouble[Trouble.BACKWARD] += 1
        self._last_ns = reading.utc_ns
        self._frames += 1
        stamp = Stamp(reading.utc_ns, Clock.UTC, FrameEvent.MID, float(reading.accuracy_ns))
        return self._raw(self._frames - 1, stamp, reading)

    def _mark(self, mark: TriggerMark) -> RawFrame:
        if mark.rising:
            if self._last_count is not None:
                self._lost_marks += max((mark.count - self._last_count) % 65536 - 1, 0)
            self._last_count = mark.count
        self._marks += 1
        stamp = Stamp(mark.utc_ns, Clock.UTC, FrameEvent.TRIGGER, float(mark.accuracy_ns))
        return self._raw(mark.count, stamp, mark)

    def _raw(self, number: int, stamp: Stamp, payload: GnssReading | TriggerMark) -> RawFrame:
        arrival = Stamp(stamp.t_ns, Clock.UTC, FrameEvent.ARRIVAL, 0.0, (0, LATE_NS))
        return RawFrame(self._sensor, number, None, stamp, arrival, (), payload)

    def health(self) -> Health:
        """State and counters; `dropped` are trigger marks that the receiver could not send."""
        told = ["stamp: UTC of the epoch, by the receiver; arrivals are not recorded"]
        if self._marks:
            told.append(f"{self._marks} trigger marks")
        return Health(
            self._state,
            frames=self._frames + self._marks,
            dropped=self._lost_marks,
            errors=self._nmea_reader.bad + self._ubx_reader.bad + self.trouble[Trouble.SHORT],
            last_ns=None,
            stamp_clock=Clock.UTC,
            stamp_event=FrameEvent.MID,
            detail="; ".join(filter(None, [*told, self._told()])),
        )

    def _told(self) -> str:
        bad = self._nmea_reader.bad + self._ubx_reader.bad
        counts = [f"{count} {trouble.value}" for trouble, count in self.trouble.items() if count]
        return "; ".join([*([f"{bad} with a wrong checksum"] if bad else []), *counts])

    def close(self) -> None:
        """End `frames` after the epoch in flight."""
        self._closed = True
        self._state = HealthState.CLOSED
