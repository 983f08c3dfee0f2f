"""A client of gpsd: connects, watches, and connects again when gpsd goes away."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from syncline.errors import ClockError, MessageError
from syncline.sensors.adapters.gpsd_json import WATCH, LineBuffer, Report, decode
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.gnss_gate import GnssGate
from syncline.sync.sources.gpsd_json import epoch_of, offset_of, sky_of
from syncline.sync.sources.pairing import MAX_AGE_NS, real_to_raw
from syncline.sync.sources.source import NEVER_RAW_NS, GnssSignals, Health, SourceHealth
from syncline.timebase import NS_PER_S, Clock, PairedRead, RawClock, paired_read

RETRY_NS = NS_PER_S
SILENT_NS = 10 * NS_PER_S
CHUNK = 16_384
CHUNKS_A_POLL = 16
PULSE_BOUND_NS = 50_000
"""A pulse that came through an interrupt: its latency is below this on an idle kernel."""
MAX_OFFSETS = 8


class Gpsd:
    """One gpsd and one of its devices.

    Args:
        address: Host and port of gpsd.
        gate: Judges epochs; carries the source's name.
        clock: Raw clock.
        device: Receiver's path, or "" for whichever reports.
        real: Paired read of REALTIME, for TOFF and PPS.
    """

    kind = SourceKind.GNSS

    def __init__(
        self,
        address: tuple[str, int],
        gate: GnssGate,
        clock: RawClock,
        device: str = "",
        real: Callable[[], PairedRead] = lambda: paired_read(Clock.REALTIME),
    ) -> None:
        self.name = gate.name
        self.gate = gate
        self.reconnects = 0
        self.bad_lines = 0
        self._address, self._clock, self._device, self._real = address, clock, device, real
        self._socket: socket.socket | None = None
        self._connected = False
        self._lines = LineBuffer()
        self._retry_raw_ns = clock.raw_ns()
        self._heard_raw_ns = 0
        self._error = ""
        self._sky: GnssSignals | None = None
        self._pair = real()
        self._first_byte: dict[int, int] = {}
        self._fixed_utc_ns: int | None = None

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        """Read what is there; connect when it is time to try again."""
        if self._socket is None:
            if now_raw_ns >= self._retry_raw_ns:
                self._connect(now_raw_ns)
            return []
        if not self._connected and not self._finish_connect(now_raw_ns):
            return []
        measured: list[Measurement] = []
        for _ in range(CHUNKS_A_POLL):
            data = self._read(now_raw_ns)
            if not data:
                break
            self._heard_raw_ns = self._clock.raw_ns()
            for line in self._lines.feed(data):
                measured += self._line(line)
        if self._connected and now_raw_ns - self._heard_raw_ns > 3 * SILENT_NS:
            self._hang_up(now_raw_ns, "gpsd sent nothing for 30 s")
        return measured

    def _connect(self, now_raw_ns: int) -> None:
        self._retry_raw_ns = now_raw_ns + RETRY_NS
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._lines = LineBuffer()
        self._connected = False
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            code = self._socket.connect_ex(self._address)
        except OSError as error:
            self._hang_up(now_raw_ns, f"{error}")
            return
        if code not in (0, errno.EINPROGRESS):
            self._hang_up(now_raw_ns, os.strerror(code))
            return
        self._finish_connect(now_raw_ns)

    def _finish_connect(self, now_raw_ns: int) -> bool:
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._hang_up(now_raw_ns, os.strerror(code))
            return False
        try:
            self._socket.send(WATCH)
        except (BlockingIOError, OSError) as error:
            if getattr(error, "errno", None) in (errno.EAGAIN, errno.ENOTCONN):
                if now_raw_ns > self._retry_raw_ns + 2 * RETRY_NS:
                    self._hang_up(now_raw_ns, "no answer")
                return False
            self._hang_up(now_raw_ns, f"{error.strerror or error}")
            return False
        self._connected = True
        self._heard_raw_ns = now_raw_ns
        self._error = ""
        return True

    def _read(self, now_raw_ns: int) -> bytes:
        if self._socket is None:
            return b""
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return b""
        except OSError as error:
            self._hang_up(now_raw_ns, error.strerror or str(error))
            return b""
        if not data:
            self._hang_up(now_raw_ns, "gpsd closed the connection")
        return data

    def _hang_up(self, now_raw_ns: int, why: str) -> None:
        host, port = self._address
        self._error = f"gpsd at {host}:{port}: {why}"
        if self._connected:
            self.reconnects += 1
        self.close()
        self._retry_raw_ns = now_raw_ns + RETRY_NS

    def _line(self, line: bytes) -> list[Measurement]:
        try:
            report = decode(line)
        except MessageError:
            self.bad_lines += 1
            return []
        if self._device and report.device not in ("", self._device):
            return []
        raw_ns = self._clock.raw_ns()
        self._sky = sky_of(report, self._sky, raw_ns)
        if report.klass in ("TOFF", "PPS"):
            return self._offset(report)
        epoch = epoch_of(report, self._first_byte.get(_time_key(report), raw_ns))
        if epoch is None:
            return []
        measured = self.gate.take(epoch)
        # A pulse is only as good as its label: while leap seconds are in doubt it labels nothing.
        sure = measured is not None and measured.root_bound_ns < 2 * NS_PER_S
        self._fixed_utc_ns = measured.utc_ns if measured and sure else None
        return [measured] if measured else []

    def _offset(self, report: Report) -> list[Measurement]:
        """TOFF dates the first byte of a message; PPS measures once a fix was accepted."""
        offset = offset_of(report)
        before, self._pair = self._pair, self._real()
        if offset is None or self._pair.raw_ns - before.raw_ns > MAX_AGE_NS:
            return []
        try:
            stamp = real_to_raw(offset.real_ns, before, self._pair)
        except ClockError:
            self.gate.tally.add("the system clock was set")
            return []
        if not 0 <= self._pair.raw_ns - stamp.raw_ns < MAX_AGE_NS:
            return []
        if not offset.pulse:
            while len(self._first_byte) >= MAX_OFFSETS:
                del self._first_byte[next(iter(self._first_byte))]
            self._first_byte[offset.utc_ns] = stamp.raw_ns
            return []
        fixed = self._fixed_utc_ns
        if fixed is None or abs(offset.utc_ns - fixed) > 2 * NS_PER_S:
            self.gate.tally.add("pulse without an accepted fix")
            return []
        sigma_ns = max(int(2.0**offset.precision_log2 * NS_PER_S), 500) + stamp.uncertainty_ns
        return [
            Measurement(
                f"{self.name}:pps",
                SourceKind.PPS,
                stamp.raw_ns,
                offset.utc_ns,
                uncertainty_ns=sigma_ns,
                root_bound_ns=PULSE_BOUND_NS,
                arrival_raw_ns=self._pair.raw_ns,
            )
        ]

    def due_raw_ns(self) -> int:
        """When to connect again; else input wakes us."""
        if self._socket is None:
            return self._retry_raw_ns
        return NEVER_RAW_NS if self._connected else self._clock.raw_ns() + NS_PER_S // 10

    def fileno(self) -> int:
        """The connection, or -1."""
        return -1 if self._socket is None else self._socket.fileno()

    def health(self) -> SourceHealth:
        """Connection, epochs, refusals."""
        refused = dict(self.gate.tally.counts)
        if self.bad_lines or self._lines.overlong:
            refused["bad line"] = self.bad_lines + self._lines.overlong
        health, message = Health.OK, ""
        if not self._connected:
            health = Health.MISSING if self._error else Health.STARTING
            message = f"{self._error}; start gpsd or check [time] gpsd" if self._error else ""
        elif self._clock.raw_ns() - self._heard_raw_ns > SILENT_NS:
            health, message = Health.SILENT, "gpsd reports nothing: check its receiver"
        elif self.gate.epochs and not self.gate.usable:
            health, message = Health.DEGRADED, "no usable epoch yet"
        return SourceHealth(health, message, self.gate.epochs, refused)

    def signals(self) -> GnssSignals | None:
        """The sky."""
        return self._sky

    def set_poll(self, poll_log2: int) -> None:
        """Nothing to do: the receiver keeps its own rhythm."""

    def leap(self) -> int | None:
        """Not announced by gpsd."""
        return None

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._connected = False


def _time_key(report: Report) -> int:
    epoch = epoch_of(report, 0)
    return epoch.utc_ns if epoch is not None else -1
