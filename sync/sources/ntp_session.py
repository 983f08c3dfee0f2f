"""The NTP protocol with one server, without I/O: requests out, replies in.

A reply is believed only when it returns the 64 random bits of the open request; that includes kiss
codes, which anybody could forge otherwise (RFC 5905, section 7.4).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from syncline.errors import MeasurementError, MessageError
from syncline.sync.floor import Floor
from syncline.sync.measurement import Measurement, exchange
from syncline.sync.sources.kernel_socket import Received
from syncline.sync.sources.ntp_packet import (
    NtpPacket,
    Refusal,
    decode,
    encode_request,
    refusal,
    stamp_to_utc_ns,
)
from syncline.sync.sources.source import Tally
from syncline.timebase import NS_PER_S

BURST_POLLS = 4
BURST_INTERVAL_NS = 2 * NS_PER_S
MAX_POLL_LOG2 = 17


@dataclass(frozen=True, slots=True)
class NtpOptions:
    """How one server is asked.

    Attributes:
        host: Name or numeric address.
        port: UDP port.
        min_poll_log2: Shortest interval, log2 seconds.
        max_poll_log2: Longest interval, log2 seconds.
        iburst: Ask four times, two seconds apart, at the start.
        interleaved: Ask for the time at which the server's last reply really left (RFC 9769). Its
            own stamp in a basic reply is early by the 5 to 20 us that sending takes. The
            measurement is one poll older, so this pays on a LAN only.
    """

    host: str
    port: int = 123
    min_poll_log2: int = 4
    max_poll_log2: int = 6
    iburst: bool = True
    interleaved: bool = False


@dataclass(frozen=True, slots=True)
class _Exchange:
    """Stamps of the last good exchange, waiting for the server's true sending time."""

    t1_raw_ns: int
    t4_raw_ns: int
    receive: int
    uncertainty_ns: int


def _random_cookie() -> int:
    return secrets.randbits(64) | 1


class NtpSession:
    """The protocol with one server: requests out, replies in, no I/O.

    Args:
        name: Source name of the measurements.
        options: Poll limits and burst.
        floor: Pivot of the NTP era.
        cookie: Random 64 bits for each request.
    """

    def __init__(
        self,
        name: str,
        options: NtpOptions,
        floor: Floor,
        cookie: Callable[[], int] = _random_cookie,
    ) -> None:
        self.name = name
        self.floor = floor
        self.tally = Tally()
        self.polls = 0
        self.reach = 0
        self.dropped = ""
        self.leap: int | None = None
        self.unreached = 0
        self._options = options
        self._cookie = cookie
        self._open: int | None = None
        self._open_interleaved: int | None = None
        self._last: _Exchange | None = None
        self.interleaved = 0
        self._answered = True
        self._poll_log2 = options.min_poll_log2
        self._floor_poll_log2 = options.min_poll_log2
        self._burst_left = BURST_POLLS if options.iburst else 0

    @property
    def poll_log2(self) -> int:
        """Interval in use, log2 seconds."""
        return max(self._poll_log2, self._floor_poll_log2)

    def set_poll(self, poll_log2: int) -> None:
        """Take the policy's interval within the limits of the options and of kiss codes."""
        low, high = self._options.min_poll_log2, self._options.max_poll_log2
        self._poll_log2 = min(max(poll_log2, low), high)

    def request(self) -> bytes:
        """The next request; the one before it, if open, counts as lost."""
        self.reach = self.reach << 1 & 0xFF
        self.unreached = 0 if self._answered else self.unreached + 1
        self.polls += 1
        self._answered = False
        self._open = self._cookie()
        self._open_interleaved = None
        self._burst_left = max(self._burst_left - 1, 0)
        if not self._options.interleaved or self._last is None:
            return encode_request(self._open)
        self._open_interleaved = self._cookie()
        return encode_request(self._open, self._last.receive, self._open_interleaved)

    def wait_ns(self) -> int:
        """Time from the last request to the next.

        The first that stays unanswered is repeated after half the interval, so that loss costs few
        measurements; a server that stays silent, or asked for fewer requests, gets none more.
        """
        limited = self._floor_poll_log2 > self._options.min_poll_log2
        lost = self._open is not None and self.unreached == 0
        if not lost or limited:
            return self.interval_ns()
        return max(self.interval_ns() // 2, BURST_INTERVAL_NS)

    def interval_ns(self) -> int:
        """Time between answered requests."""
        if self._burst_left > 0 and self._floor_poll_log2 == self._options.min_poll_log2:
            return BURST_INTERVAL_NS
        return NS_PER_S << self.poll_log2

    def handle(self, got: Received) -> Measurement | None:
        """Take a datagram; a measurement, or None with the reason counted."""
        try:
            packet = decode(got.data)
        except MessageError:
            return self._refuse(Refusal.LENGTH)
        reason = refusal(packet, self._open, self._open_interleaved)
        if reason in (Refusal.KISS_RATE, Refusal.KISS_DENY, Refusal.KISS_OTHER):
            self._kiss(reason, packet)
        if reason is not None:
            return self._refuse(reason)
        if got.clock_moved:
            self._close()
            self._last = None
            return self._refuse(Refusal.CLOCK_MOVED)
        now = _Exchange(got.t1_raw_ns, got.t4_raw_ns, packet.receive, got.uncertainty_ns)
        if packet.origin == self._open or self._last is None:
            measured = self._measure(packet, now, got.t4_raw_ns)
        else:
            measured = self._measure(packet, self._last, got.t4_raw_ns)
            self.interleaved += measured is not None
        self._last = now if measured is not None else None
        return measured

    def _measure(self, packet: NtpPacket, of: _Exchange, arrival_raw_ns: int) -> Measurement | None:
        """A measurement of exchange `of`, whose sending time the packet tells."""
        floor_ns = self.floor.utc_ns
        t2, t3 = (stamp_to_utc_ns(stamp, floor_ns) for stamp in (of.receive, packet.transmit))
        if t3 < t2:
            return self._refuse(Refusal.BACKWARDS)
        try:
            measured = exchange(
                self.name,
                of.t1_raw_ns,
                t2,
                t3,
                of.t4_raw_ns,
                uncertainty_ns=of.uncertainty_ns,
                root_bound_ns=packet.root_distance_ns,
                stratum=packet.stratum,
            )
        except MeasurementError:
            return self._refuse(Refusal.DELAY)
        self._close()
        self.reach |= 1
        self.unreached = 0
        self.leap = (0, 1, -1)[packet.leap]
        return replace(measured, arrival_raw_ns=arrival_raw_ns)

    def _close(self) -> None:
        self._open = self._open_interleaved = None
        self._answered = True

    def _kiss(self, reason: Refusal, packet: NtpPacket) -> None:
        self._open = None
        self._burst_left = 0
        if reason is Refusal.KISS_RATE:
            wanted = max(self.poll_log2 + 1, min(packet.poll, MAX_POLL_LOG2))
            self._floor_poll_log2 = min(wanted, MAX_POLL_LOG2)
        elif reason is Refusal.KISS_DENY:
            self.dropped = f"server refused us ({packet.ref_id.decode('ascii', 'replace')})"

    def _refuse(self, reason: Refusal) -> Measurement | None:
        self.tally.add(reason.value)
        return None
