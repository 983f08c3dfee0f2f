"""One NTP server behind one kernel-stamped socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from syncline.sync.floor import Floor
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.kernel_socket import KernelSocket, Received
from syncline.sync.sources.ntp_session import BURST_POLLS, NtpOptions, NtpSession
from syncline.sync.sources.resolve import Lookup, Resolve, system_resolve
from syncline.sync.sources.source import NEVER_RAW_NS, GnssSignals, Health, SourceHealth
from syncline.timebase import NS_PER_S, RawClock

UNREACHABLE_POLLS = 8
LOOKUP_RETRY_NS = 4 * NS_PER_S


class Transport(Protocol):
    """A connected datagram socket with stamps; `KernelSocket` is the real one."""

    def fileno(self) -> int:
        """Descriptor to wait on, or -1."""

    def send(self, data: bytes) -> None:
        """Send a request; raises OSError."""

    def receive(self) -> list[Received]:
        """What has arrived; raises OSError."""

    def close(self) -> None:
        """Close it."""


Connect = Callable[[tuple[str, int], RawClock], Transport]


class NtpSource:
    """One NTP server behind one socket.

    Args:
        options: Server and poll limits.
        clock: Raw clock.
        floor: Pivot of the NTP era.
        connect: Makes the transport.
        resolve: Looks names up, in a thread.
        session: The protocol; made from the options when not given.
    """

    kind = SourceKind.NTP

    def __init__(
        self,
        options: NtpOptions,
        clock: RawClock,
        floor: Floor,
        *,
        connect: Connect = KernelSocket,
        resolve: Resolve = system_resolve,
        session: NtpSession | None = None,
    ) -> None:
        suffix = "" if options.port == 123 else f":{options.port}"
        self.name = f"ntp:{options.host}{suffix}"
        self.session = session or NtpSession(self.name, options, floor)
        self._options, self._clock = options, clock
        self._connect, self._resolve = connect, resolve
        self._lookup: Lookup | None = None
        self._addresses: list[str] = []
        self._next_address = 0
        self._transport: Transport | None = None
        self._due_raw_ns = self._sent_raw_ns = clock.raw_ns()
        self._error = ""

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        """Read replies, send what is due."""
        measured = self._receive()
        if now_raw_ns >= self._due_raw_ns and not self.session.dropped:
            self._due(now_raw_ns)
        return measured

    def _receive(self) -> list[Measurement]:
        if self._transport is None:
            return []
        try:
            got = self._transport.receive()
        except OSError as error:
            self._error = f"{self._where()}: {error.strerror or error}"
            return []
        measured = [m for m in map(self.session.handle, got) if m is not None]
        if got:
            self._due_raw_ns = self._sent_raw_ns + self.session.wait_ns()
        if measured:
            self._error = ""
        return measured

    def _due(self, now_raw_ns: int) -> None:
        if self._transport is None or self.session.unreached >= UNREACHABLE_POLLS:
            self._reconnect(now_raw_ns)
        if self._transport is None:
            return
        request = self.session.request()
        self._sent_raw_ns = now_raw_ns
        self._due_raw_ns = now_raw_ns + self.session.wait_ns()
        try:
            self._transport.send(request)
        except OSError as error:
            self._error = f"{self._where()}: {error.strerror or error}"

    def _reconnect(self, now_raw_ns: int) -> None:
        if self._lookup is None:
            self._lookup = Lookup(self._options.host, self._options.port, self._resolve)
        self._due_raw_ns = now_raw_ns + NS_PER_S // 20
        if not self._lookup.done:
            return
        self._error, self._addresses = self._lookup.error, self._lookup.addresses
        self._lookup = None
        self.session.unreached = 0
        if not self._addresses:
            self._due_raw_ns = now_raw_ns + LOOKUP_RETRY_NS
            return
        self._next_address = (self._next_address + 1) % len(self._addresses)
        self.close()
        try:
            self._transport = self._connect((self._address(), self._options.port), self._clock)
        except OSError as error:
            self._error = f"{self._where()}: {error.strerror or error}"
            self._due_raw_ns = now_raw_ns + LOOKUP_RETRY_NS

    def _address(self) -> str:
        return self._addresses[self._next_address - 1]

    def _where(self) -> str:
        return self._address() if self._addresses else self._options.host

    def due_raw_ns(self) -> int:
        """When the next request is due."""
        return NEVER_RAW_NS if self.session.dropped else self._due_raw_ns

    def fileno(self) -> int:
        """The socket, or -1 while there is none."""
        return -1 if self._transport is None else self._transport.fileno()

    def health(self) -> SourceHealth:
        """Reach, refusals and the last error."""
        session = self.session
        health, message = Health.OK, self._error
        if session.dropped:
            health, message = Health.DROPPED, f"{session.dropped}; remove it from the configuration"
        elif self._error:
            health = Health.MISSING if self._transport is None else Health.SILENT
        elif session.unreached >= 2:
            health = Health.SILENT
            message = f"no reply to the last {session.unreached} requests: check network"
        elif session.reach == 0:
            health = Health.STARTING if session.polls < BURST_POLLS else Health.SILENT
            message = "" if health is Health.STARTING else "no reply: check network and firewall"
        return SourceHealth(
            health,
            message,
            session.polls,
            dict(session.tally.counts),
            session.reach,
            session.poll_log2,
        )

    def signals(self) -> GnssSignals | None:
        """None: a server sees no sky."""
        return None

    def set_poll(self, poll_log2: int) -> None:
        """Take the policy's interval."""
        self.session.set_poll(poll_log2)

    def leap(self) -> int | None:
        """The leap second that the server announces."""
        return self.session.leap

    def close(self) -> None:
        """Close the socket; the next poll opens another."""
        if self._transport is not None:
            self._transport.close()
        self._transport = None
