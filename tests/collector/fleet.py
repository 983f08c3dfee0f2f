"""Many small devices in one thread of one process, cheap enough not to be what is measured.

What they send is made before the clock starts; while it runs a record costs one send, and an
acknowledgement one receive after epoll named its socket.
"""

from __future__ import annotations

import json
import random
import select
import sys
import time
from pathlib import Path

import zmq

from syncline.cloud.catalog import Catalog
from syncline.cloud.devices import Devices
from syncline.link import KeyPair, PublicKey, new_keypair
from syncline.link.sockets import dealer
from syncline.link.wire import Ack, Data, Hello, Welcome, pack, pack_body, unpack
from syncline.messages.syncline_pb2 import Health

PATIENCE_S = 60.0
PAYLOAD = Health().SerializeToString() + b"\x0a\x40" + b"x" * 64


def enrol(data: Path, n: int) -> list[KeyPair]:
    """Keys of `n` devices that the catalog knows."""
    keys = [new_keypair(f"car{i}") for i in range(n)]
    with Catalog.open(data) as catalog:
        devices = Devices(catalog)
        for key in keys:
            devices.enrol(PublicKey(key.name, key.public))
    return keys


class Member:
    """One device: HELLO, then a record now and then; keeps when each was acknowledged."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], server: str, keys: KeyPair, records: int
    ) -> None:
        self.keys = keys
        self.socket = dealer(context, server, keys)
        self.session = random.getrandbits(60)
        self.welcomed_s = 0.0
        self.ready = [self._record(tx) for tx in range(records)]
        self.sent_s: list[float] = []
        self.late_s: list[float] = []

    def _record(self, tx: int) -> bytes:
        body = pack_body([(tx, PAYLOAD)])
        return pack(Data(self.session, tx, 2, 1, tx, "boot", "/health", body))

    def greet(self, endpoint: str) -> None:
        self.socket.connect(endpoint)
        self.socket.send(pack(Hello(self.session, self.keys.name, "boot", [])))
        self.take()  # a socket that was never found empty signals nothing

    def put(self) -> None:
        self.sent_s.append(time.monotonic())
        self.socket.send(self.ready[len(self.sent_s) - 1])
        self.take()  # sending may have eaten the signal of what has arrived meanwhile

    def take(self) -> None:
        """All that has arrived: only an empty socket signals the next arrival."""
        while True:
            try:
                data = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            message = unpack(data)
            now_s = time.monotonic()
            if isinstance(message, Welcome):
                self.welcomed_s = now_s
            elif isinstance(message, Ack):
                fresh = self.sent_s[len(self.late_s) : message.next_tx]
                self.late_s += [now_s - sent_s for sent_s in fresh]


class Fleet:
    """Members and the one epoll over their sockets."""

    def __init__(self, server: str, keys: list[KeyPair], each: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 20_000)
        self.members = [Member(self._context, server, key, each) for key in keys]
        self._by_fd = {m.socket.fileno(): m for m in self.members}
        self._epoll = select.epoll()
        for fd in self._by_fd:
            self._epoll.register(fd, select.EPOLLIN)

    def take(self, wait_s: float) -> None:
        for fd, _ in self._epoll.poll(wait_s):
            self._by_fd[fd].take()

    def connect(self, endpoint: str) -> float:
        """Greet all at once; seconds until the last was welcomed."""
        began_s = time.monotonic()
        for member in self.members:
            member.greet(endpoint)
        while not all(m.welcomed_s for m in self.members) and time.monotonic() - began_s < 60:
            self.take(0.1)
        return max(m.welcomed_s for m in self.members) - began_s

    def send(self, rate: float, each: int) -> float:
        """Each sends its records at `rate` per second; seconds that it took."""
        began_s = time.monotonic()
        n, total = 0, len(self.members) * each
        while n < total:
            due = min(int((time.monotonic() - began_s) * rate * len(self.members)), total)
            while n < due:
                self.members[n % len(self.members)].put()
                n += 1
            self.take(0.002)
        return time.monotonic() - began_s

    def wait(self, each: int) -> None:
        """Until every record is acknowledged."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s and any(len(m.late_s) < each for m in self.members):
            self.take(0.1)

    def close(self) -> None:
        self._context.destroy(linger=0)


def run(endpoint: str, server: str, keys: list[KeyPair], rate: float, seconds: float) -> str:
    """Connect all at once, send `rate` records per second each; returns figures in JSON."""
    each = int(rate * seconds)
    fleet = Fleet(server, keys, each)
    before_s = time.process_time()
    on_s = fleet.connect(endpoint)
    took_s = fleet.send(rate, each)
    fleet.wait(each)
    late = sorted(x for m in fleet.members for x in m.late_s)
    sent = sum(len(m.sent_s) for m in fleet.members)
    fleet.close()
    return json.dumps(
        {
            "on_s": on_s, "welcomed": sum(m.welcomed_s > 0 for m in fleet.members), "sent": sent,
            "acked": len(late), "p50_s": late[len(late) // 2], "p99_s": late[len(late) * 99 // 100],
            "rate": sent / took_s, "own_cpu_s": time.process_time() - before_s,
        }
    )  # fmt: skip


if __name__ == "__main__":
    _endpoint, _server, _file, _rate, _seconds = sys.argv[1:]
    _rows = json.loads(Path(_file).read_text())
    print(run(_endpoint, _server, [KeyPair(*r) for r in _rows], float(_rate), float(_seconds)))
