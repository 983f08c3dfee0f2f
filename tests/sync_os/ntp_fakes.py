"""A scripted NTP server and the path to it, without sockets."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from syncline.sync.floor import Floor
from syncline.sync.sources.kernel_socket import Received
from syncline.sync.sources.ntp_packet import NtpPacket, decode, encode, utc_ns_to_stamp
from syncline.timebase import ManualClock, RawClock

S = 1_000_000_000
UTC0_NS = 1_800_000_000 * S
FLOOR = Floor(build_utc_ns=UTC0_NS - 86_400 * S)
Edit = Callable[[NtpPacket], NtpPacket]


def honest(request: bytes, t2_utc_ns: int, t3_utc_ns: int) -> NtpPacket:
    """A stratum-1 reply."""
    asked = decode(request)
    return NtpPacket(
        0, 4, 4, 1, 6, -23, 1_000_000, 500_000, b"GPS\0", utc_ns_to_stamp(t2_utc_ns - S),
        asked.transmit, utc_ns_to_stamp(t2_utc_ns), utc_ns_to_stamp(t3_utc_ns),
    )  # fmt: skip


@dataclass
class FakePath:
    """Transport to a server whose UTC is `UTC0_NS + raw`; delays, losses and edits as told."""

    clock: ManualClock
    seed: int = 1
    delay_ns: int = 5_000_000
    jitter_ns: int = 0
    loss: float = 0.0
    reorder_ns: int = 0
    edit: Edit | None = None
    raw_bytes: Callable[[bytes], list[bytes]] | None = None
    sent: int = 0
    _queue: list[tuple[int, int, bytes]] = field(default_factory=list)
    _last: bytes = b""
    _t1: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._queue.clear()

    def connect(self, _address: tuple[str, int], _clock: RawClock) -> FakePath:
        return self

    def _leg_ns(self) -> int:
        return self.delay_ns + int(self.random.expovariate(1.0) * self.jitter_ns)

    def send(self, data: bytes) -> None:
        self.sent += 1
        self._t1 = self.clock.raw_ns()
        if self.random.random() < self.loss:
            return
        arrive = self._t1 + self._leg_ns()
        packet = honest(data, UTC0_NS + arrive, UTC0_NS + arrive + 20_000)
        back = arrive + 20_000 + self._leg_ns()
        if self.reorder_ns and self.random.random() < 0.3:
            back += self.reorder_ns
        wire = encode(self.edit(packet) if self.edit else packet)
        for copy in self.raw_bytes(wire) if self.raw_bytes else [wire]:
            heapq.heappush(self._queue, (back, self.sent, copy))

    def receive(self) -> list[Received]:
        got = []
        while self._queue and self._queue[0][0] <= self.clock.raw_ns():
            back, _, data = heapq.heappop(self._queue)
            got.append(Received(data, self._t1, back, 200))
        return got


def changed(**fields: object) -> Edit:
    """An edit that replaces fields of the reply."""
    return lambda packet: replace(packet, **fields)  # type: ignore[arg-type]
