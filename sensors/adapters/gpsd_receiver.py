"""A live GNSS receiver through gpsd: its epochs, as gpsd tells them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

from syncline.errors import DeviceError, MessageError
from syncline.sensors.adapter import HealthState, Sample
from syncline.sensors.adapters.gnss_decoder import LATE_NS
from syncline.sensors.adapters.gnss_epochs import GnssReading
from syncline.sensors.adapters.gpsd_json import (
    WATCH,
    LineBuffer,
    decode,
    reading_of,
    satellites_of,
)
from syncline.sensors.adapters.reopening import Reopening
from syncline.sensors.frame import FrameEvent, Ns, Stamp
from syncline.timebase import NS_PER_S, Clock, RawClock

CONNECT_S = 2.0
READ_S = 0.2
"""Longest wait for a report: `close` is noticed within it."""
STALE_NS = 10 * NS_PER_S
CHUNK = 16_384


class GpsdReceiver(Reopening[Sample[GnssReading]]):
    """Epochs of one gpsd; trigger marks it does not tell.

    Stamps are UTC of the epoch (`MID`), arrivals those of the report, up to a second late. A gpsd
    that is absent, hangs up or is started again is connected to every half second. Memory: one
    line, at most `gpsd_json.MAX_LINE`.

    Args:
        address: Host and port of gpsd.
        sensor: Name given to the samples.
        device: Receiver's path, or empty for whichever reports.
        clock: Stamps arrivals and paces retries.
    """

    def __init__(
        self,
        address: tuple[str, int] = ("127.0.0.1", 2947),
        sensor: str = "gnss",
        *,
        device: str = "",
        clock: RawClock | None = None,
    ) -> None:
        super().__init__(clock)
        self._address, self._sensor, self._device = address, sensor, device
        self._socket: socket.socket | None = None
        self._lines = LineBuffer()
        self._heard_ns: Ns = 0
        self._satellites: int | None = None

    def _open(self) -> None:
        """Connect and ask for reports.

        Raises:
            DeviceError: Nothing listens there.
        """
        try:
            self._socket = socket.create_connection(self._address, CONNECT_S)
            self._socket.settimeout(READ_S)
            self._socket.sendall(WATCH)
        except OSError as error:
            self._release()
            raise DeviceError(
                f"{self._name()}: {error.strerror or error}",
                remedy="Start gpsd, or correct its address",
            ) from error
        self._lines, self._satellites = LineBuffer(), None
        self._heard_ns = self._clock.raw_ns()

    def _name(self) -> str:
        return f"gpsd at {self._address[0]}:{self._address[1]}"

    @property
    def _is_open(self) -> bool:
        return self._socket is not None

    def _some(self) -> Iterator[Sample[GnssReading]]:
        """The epochs of what one read brings."""
        assert self._socket is not None
        try:
            data = self._socket.recv(CHUNK)
        except TimeoutError:
            self._note_silence()
            return
        except OSError as error:
            self._hang_up(error.strerror or str(error))
            return
        if not data:
            self._hang_up("the connection was closed")
            return
        raw_ns, overlong = self._clock.raw_ns(), self._lines.overlong
        for line in self._lines.feed(data):
            sample = self._sample(line, raw_ns)
            if sample is not None:
                self._heard_ns = raw_ns
                self._state, self._detail = HealthState.OK, ""
                yield sample
        self._errors += self._lines.overlong - overlong
        self._note_silence()

    def _sample(self, line: bytes, raw_ns: Ns) -> Sample[GnssReading] | None:
        try:
            report = decode(line)
        except MessageError:
            self._errors += 1
            return None
        if self._device and report.device not in ("", self._device):
            return None
        if report.klass == "SKY":
            self._satellites = satellites_of(report)
        reading = reading_of(report)
        if reading is None or reading.utc_ns is None:
            return None
        stamp = Stamp(reading.utc_ns, Clock.UTC, FrameEvent.MID, float(reading.accuracy_ns))
        late = (-LATE_NS, 0)
        arrival = Stamp(raw_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, 0.0, late)
        return Sample(
            self._sensor, None, stamp, arrival, replace(reading, satellites=self._satellites)
        )

    def _hang_up(self, why: str) -> None:
        self._lose(f"{self._name()}: {why}")
        self._rest()

    def _note_silence(self) -> None:
        if self._clock.raw_ns() - self._heard_ns > STALE_NS:
            self._state = HealthState.STALE
            self._detail = f"{self._name()} tells no epoch: check its receiver"

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.UTC, FrameEvent.MID

    def _release(self) -> None:
        found, self._socket = self._socket, None
        if found is not None:
            found.close()
