"""A device and a collector joined by a simulated link that drops, doubles, reorders and cuts."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from syncline.cloud.catalog import Catalog
from syncline.cloud.sessions import Accepted, Greeting, Reply, Sessions
from syncline.cloud.store import FrameStore, checked
from syncline.link.sender import Sender
from syncline.link.terms import LinkCaps
from syncline.spool import OsDisk, Spool
from syncline.timebase import ManualClock

PEER = b"\0peer"
MS = 1_000_000


class QuickDisk(OsDisk):
    """Files without syncs: no power is cut in a simulation."""

    def fdatasync(self, fd: int) -> None:
        return

    def sync_folder(self, path: Path) -> None:
        return


@dataclass
class Faults:
    """Probability of each fault per message."""

    drop: float = 0.0
    double: float = 0.0
    reorder: float = 0.0
    cut: float = 0.0
    flip: float = 0.0


@dataclass
class Direction:
    """One way of the link: messages with their time of arrival."""

    rng: random.Random
    faults: Faults
    delay_ns: int
    bytes_per_s: float | None = None
    queue: deque[tuple[int, bytes]] = field(default_factory=deque)
    busy_until_ns: int = 0
    carried: int = 0
    sent: list[tuple[int, int]] = field(default_factory=list)

    def send(self, data: bytes, now_ns: int) -> None:
        f, rng = self.faults, self.rng
        self.carried += 1
        self.sent.append((now_ns, len(data)))
        if rng.random() < f.drop:
            return
        for _ in range(2 if rng.random() < f.double else 1):
            out = data
            if rng.random() < f.cut:
                out = data[: rng.randrange(len(data))]
            elif rng.random() < f.flip:
                at = rng.randrange(len(data))
                out = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
            when = max(now_ns, self.busy_until_ns)
            if self.bytes_per_s:
                when += int(len(data) / self.bytes_per_s * 1e9)
                self.busy_until_ns = when
            extra = rng.randrange(self.delay_ns * 3) if rng.random() < f.reorder else 0
            self.queue.append((when + self.delay_ns + extra, out))

    def arrivals(self, now_ns: int) -> list[bytes]:
        due = sorted((x for x in self.queue if x[0] <= now_ns), key=lambda x: x[0])
        self.queue = deque(x for x in self.queue if x[0] > now_ns)
        return [data for _, data in due]


class World:
    """Device, link and collector on one manual clock; every step is a millisecond or more."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        faults: Faults | None = None,
        caps: LinkCaps | None = None,
        delay_ms: float = 5,
        bytes_per_s: float | None = None,
        start_ns: int = 10**9,
    ) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock(start_ns, "boot")
        self.spool = Spool(
            folder / "spool", clock=self.clock, segment_bytes=65536, disk=QuickDisk()
        )
        self.catalog = Catalog.open(folder / "data")
        self.store = FrameStore(self.catalog, QuickDisk())
        self.sessions = Sessions()
        self.sender = Sender(self.spool, "car", rng=random.Random(seed + 1), caps=caps)
        delay_ns = int(delay_ms * MS)
        self.up = Direction(self.rng, faults or Faults(), delay_ns, bytes_per_s)
        self.down = Direction(self.rng, faults or Faults(), delay_ns)
        self.linked = self.collecting = True
        self.hold_until_ns = 0
        self.received = 0

    def close(self) -> None:
        self.spool.close()
        self.store.seal()
        self.catalog.close()

    def restart_collector(self) -> None:
        """As kill -9: sessions and what was not stored are gone."""
        self.sessions = Sessions()
        self.cut()

    def cut(self) -> None:
        """The connection breaks: what is under way is gone."""
        self.up.queue.clear()
        self.down.queue.clear()

    def step(self, ms: float = 1.0) -> None:
        self.clock.advance(int(ms * MS))
        now = self.clock.raw_ns()
        connected = self.linked and now >= self.hold_until_ns
        inbox = self.down.arrivals(now) if connected else []
        output = self.sender.step(now, inbox, connected=connected)
        if output.reset:
            self.cut()
            self.hold_until_ns = now + output.hold_ns
        for frame in output.frames:
            self.up.send(frame, now)
        if self.collecting:
            self._collect(self.up.arrivals(now), now)

    def _collect(self, arrivals: Sequence[bytes], now: int) -> None:
        accepted: list[Accepted] = []
        greetings: list[Greeting] = []
        replies: list[Reply] = []
        for data in arrivals:
            self.received += 1
            out, work = self.sessions.receive(PEER, "car", [data], now)
            replies += out
            if isinstance(work, Accepted):
                accepted.append(work)
            elif isinstance(work, Greeting):
                greetings.append(work)
        frames = [checked(one.frame) for one in accepted]
        self.store.store([f for f in frames if not isinstance(f, str)])
        replies += self.sessions.stored(accepted)
        for one in greetings:
            missing = self.catalog.next_missing("car", one.hello.streams)
            replies += self.sessions.welcome(one, missing, [])
        for _, message in replies:
            self.down.send(message, now)

    def run(self, ms: float, step_ms: float = 1.0) -> None:
        for _ in range(int(ms / step_ms)):
            self.step(step_ms)

    def drain(self, limit_ms: float = 600_000, step_ms: float = 2.0) -> float:
        """Step until the spool is empty; returns the simulated milliseconds."""
        took = 0.0
        self.spool.sync()
        while self.spool.stats().backlog:
            self.step(step_ms)
            took += step_ms
            assert took < limit_ms, self.sender.stats
        return took
