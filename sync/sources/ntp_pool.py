"""Several NTP servers of one name, such as pool.ntp.org."""

from __future__ import annotations

import select
from dataclasses import replace

from syncline.sync.floor import Floor
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.kernel_socket import KernelSocket
from syncline.sync.sources.ntp import LOOKUP_RETRY_NS, UNREACHABLE_POLLS, Connect, NtpSource
from syncline.sync.sources.ntp_session import NtpOptions
from syncline.sync.sources.resolve import Lookup, Resolve, system_resolve
from syncline.sync.sources.source import NEVER_RAW_NS, GnssSignals, Health, SourceHealth
from syncline.timebase import NS_PER_S, RawClock


class NtpPool:
    """Several servers of one name (pool.ntp.org); a server that fails is replaced by another.

    Args:
        options: Name and poll limits.
        clock: Raw clock.
        floor: Pivot of the NTP era.
        size: Servers kept.
        connect: Makes each transport.
        resolve: Looks the name up, in a thread.
    """

    kind = SourceKind.NTP

    def __init__(
        self,
        options: NtpOptions,
        clock: RawClock,
        floor: Floor,
        *,
        size: int = 4,
        connect: Connect = KernelSocket,
        resolve: Resolve = system_resolve,
    ) -> None:
        self.name = f"pool:{options.host}"
        self.members: dict[str, NtpSource] = {}
        self._options, self._clock, self._floor, self._size = options, clock, floor, size
        self._connect, self._resolve = connect, resolve
        self._lookup: Lookup | None = None
        self._refused: set[str] = set()
        self._lookup_raw_ns = clock.raw_ns()
        self._error = ""
        self._epoll = select.epoll()
        self._watched: dict[str, int] = {}
        self._poll_log2: int | None = None

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        """Poll every member; look the name up while members are missing."""
        if len(self.members) < self._size and now_raw_ns >= self._lookup_raw_ns:
            self._refill(now_raw_ns)
        measured = [m for member in self.members.values() for m in member.poll(now_raw_ns)]
        self._replace(now_raw_ns)
        self._watch()
        return measured

    def _refill(self, now_raw_ns: int) -> None:
        if self._lookup is None:
            self._lookup = Lookup(self._options.host, self._options.port, self._resolve)
        self._lookup_raw_ns = now_raw_ns + NS_PER_S // 20
        if not self._lookup.done:
            return
        self._error = self._lookup.error
        for address in self._lookup.addresses:
            if len(self.members) < self._size and address not in {*self.members, *self._refused}:
                self.members[address] = self._member(address)
        self._lookup = None
        wait_ns = 64 * NS_PER_S if self.members else LOOKUP_RETRY_NS
        self._lookup_raw_ns = now_raw_ns + wait_ns

    def _member(self, address: str) -> NtpSource:
        member = NtpSource(
            replace(self._options, host=address),
            self._clock,
            self._floor,
            connect=self._connect,
            resolve=lambda host, _port: [host],
        )
        if self._poll_log2 is not None:
            member.set_poll(self._poll_log2)
        return member

    def _replace(self, now_raw_ns: int) -> None:
        for address, member in list(self.members.items()):
            session = member.session
            if session.dropped or session.unreached >= UNREACHABLE_POLLS - 1:
                member.close()
                del self.members[address]
                if len(self._refused) >= 256:
                    self._refused.clear()
                self._refused.add(address)
                self._lookup_raw_ns = now_raw_ns

    def _watch(self) -> None:
        """Keep the descriptor set of members; a closed socket leaves an epoll by itself."""
        wanted = {a: m.fileno() for a, m in self.members.items() if m.fileno() >= 0}
        for address, number in wanted.items():
            if self._watched.get(address) != number:
                try:
                    self._epoll.register(number, select.EPOLLIN)
                except FileExistsError:
                    self._epoll.modify(number, select.EPOLLIN)
        self._watched = wanted

    def due_raw_ns(self) -> int:
        """The earliest of the members."""
        due = [member.due_raw_ns() for member in self.members.values()]
        if len(self.members) < self._size:
            due.append(self._lookup_raw_ns)
        return min(due, default=NEVER_RAW_NS)

    def fileno(self) -> int:
        """An epoll descriptor over the members' sockets."""
        return self._epoll.fileno()

    def health(self) -> SourceHealth:
        """The pool as a whole; each member's measurements carry the member's own name."""
        each = [member.health() for member in self.members.values()]
        good = sum(1 for one in each if one.health is Health.OK)
        refused: dict[str, int] = {}
        for one in each:
            for reason, count in one.refused.items():
                refused[reason] = refused.get(reason, 0) + count
        health = Health.OK if good else (Health.MISSING if self._error else Health.STARTING)
        message = self._error or (f"{good} of {self._size} servers answer" if each else "")
        reach = max((one.reach for one in each), default=0)
        poll = min((one.poll_log2 for one in each), default=self._options.min_poll_log2)
        return SourceHealth(health, message, sum(one.polls for one in each), refused, reach, poll)

    def signals(self) -> GnssSignals | None:
        """None: servers see no sky."""
        return None

    def set_poll(self, poll_log2: int) -> None:
        """Pass the policy's interval to every member."""
        self._poll_log2 = poll_log2
        for member in self.members.values():
            member.set_poll(poll_log2)

    def leap(self) -> int | None:
        """What most members announce."""
        said = [leap for member in self.members.values() if (leap := member.leap()) is not None]
        return max(set(said), key=said.count) if said else None

    def close(self) -> None:
        """Close every member."""
        for member in self.members.values():
            member.close()
        self._epoll.close()
