"""Bytes of a receiver's line, NMEA and UBX mixed, into samples: epochs and trigger marks."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.gnss_epochs import (
    GnssReading,
    Heard,
    NmeaAssembler,
    TriggerMark,
    Trouble,
    UbxAssembler,
)
from syncline.sensors.adapters.nmea import NmeaReader
from syncline.sensors.adapters.ubx import UbxReader
from syncline.sensors.frame import FrameEvent, Stamp
from syncline.timebase import NS_PER_S, Clock

BITS_PER_BYTE = 10
LATE_NS = NS_PER_S
"""A receiver tells an epoch within a second of it, at its default rates."""

GnssSample = Sample[GnssReading | TriggerMark]


class GnssDecoder:
    """Holds one epoch at most. Where UBX tells the time, NMEA is left out.

    Args:
        sensor: Name given to the samples.
        baud: Line speed, to date the first byte of a message; 0 for a file.
        live: Bytes are fed as they arrive, with their raw time; a recording has no arrivals.
    """

    def __init__(self, sensor: str, *, baud: int = 0, live: bool = False) -> None:
        byte_ns = BITS_PER_BYTE * NS_PER_S // baud if baud else 0
        self._sensor, self._live = sensor, live
        self._nmea_reader, self._ubx_reader = NmeaReader(byte_ns), UbxReader(byte_ns)
        self._trouble: Counter[Trouble] = Counter()
        self._nmea, self._ubx = NmeaAssembler(self._trouble), UbxAssembler(self._trouble)
        self._epochs = self.marks = self.lost_marks = 0
        self._last_utc_ns: int | None = None
        self._last_count: int | None = None

    @property
    def bad(self) -> int:
        """Messages with a wrong checksum, or shorter than their layout."""
        return self._nmea_reader.bad + self._ubx_reader.bad + self._trouble[Trouble.SHORT]

    def feed(self, data: bytes, raw_ns: int = 0) -> Iterator[GnssSample]:
        """Take the bytes that were read at `raw_ns` (arrival of the last of them)."""
        for frame in self._ubx_reader.feed(data, raw_ns):
            try:
                heard = self._ubx.take(frame)
            except struct.error:
                self._trouble[Trouble.SHORT] += 1
                continue
            yield from map(self._sample, heard)
        for sentence in self._nmea_reader.feed(data, raw_ns):
            epoch = self._nmea.take(sentence)
            if epoch is not None and not self._ubx.tells_time:
                yield self._sample(epoch)

    def finish(self) -> Iterator[GnssSample]:
        """The epoch that was being gathered: no more of it will come."""
        for epoch in (self._ubx.finish(), None if self._ubx.tells_time else self._nmea.finish()):
            if epoch is not None:
                yield self._sample(epoch)

    def _sample(self, heard: Heard) -> GnssSample:
        if isinstance(heard.what, TriggerMark):
            return self._mark(heard.raw_ns, heard.what)
        return self._epoch(heard.raw_ns, heard.what)

    def _epoch(self, raw_ns: int, reading: GnssReading) -> GnssSample:
        assert reading.utc_ns is not None, "an epoch without a date is left out"
        if self._last_utc_ns is not None and reading.utc_ns < self._last_utc_ns:
            self._trouble[Trouble.BACKWARD] += 1
        self._last_utc_ns = reading.utc_ns
        self._epochs += 1
        stamp = Stamp(reading.utc_ns, Clock.UTC, FrameEvent.MID, float(reading.accuracy_ns))
        return Sample(self._sensor, self._epochs - 1, stamp, self._arrival(raw_ns, stamp), reading)

    def _mark(self, raw_ns: int, mark: TriggerMark) -> GnssSample:
        if mark.rising:
            if self._last_count is not None:
                self.lost_marks += max((mark.count - self._last_count) % 65536 - 1, 0)
            self._last_count = mark.count
        self.marks += 1
        stamp = Stamp(mark.utc_ns, Clock.UTC, FrameEvent.TRIGGER, float(mark.accuracy_ns))
        return Sample(self._sensor, mark.count, stamp, self._arrival(raw_ns, stamp), mark)

    def _arrival(self, raw_ns: int, stamp: Stamp) -> Stamp:
        """When the message began to come, which is up to `LATE_NS` after what it tells of."""
        if self._live:
            return Stamp(raw_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, 0.0, (-LATE_NS, 0))
        return Stamp(stamp.t_ns, Clock.UTC, FrameEvent.ARRIVAL, 0.0, (0, LATE_NS))

    def told(self) -> list[str]:
        """What is odd, for people."""
        bad = self._nmea_reader.bad + self._ubx_reader.bad
        counts = [f"{count} {trouble.value}" for trouble, count in self._trouble.items() if count]
        return [*([f"{bad} with a wrong checksum"] if bad else []), *counts]
