"""Many small devices in one thread of one process: `Sender` steps over their own sockets."""

from __future__ import annotations

import json
import random
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

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], server: str, keys: KeyPair) -> None:
        self.keys = keys
        self.socket = dealer(context, server, keys)
        self.session = random.getrandbits(60)
        self.welcomed_s = 0.0
        self.tx = 0
        self.sent: dict[int, float] = {}
        self.late: list[float] = []

    def greet(self, endpoint: str) -> None:
        self.socket.connect(endpoint)
        self.socket.send(pack(Hello(self.session, self.keys.name, "boot", [])))

    def put(self) -> None:
        body = pack_body([(self.tx, PAYLOAD)])
        data = Data(self.session, self.tx, 2, 1, self.tx, "boot", "/health", body)
        self.sent[self.tx] = time.monotonic()
        self.socket.send(pack(data))
        self.tx += 1

    def take(self) -> None:
        message = unpack(self.socket.recv())
        now = time.monotonic()
        if isinstance(message, Welcome):
            self.welcomed_s = now
        elif isinstance(message, Ack):
            for tx in [tx for tx in self.sent if tx < message.next_tx]:
                self.late.append(now - self.sent.pop(tx))


def run(endpoint: str, server: str, keys: list[KeyPair], rate: float, seconds: float) -> str:
    """Connect all at once, send `rate` records per second each; returns figures in JSON."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 20_000)
    members = [Member(context, server, key) for key in keys]
    poller = zmq.Poller()
    by_socket = {m.socket: m for m in members}
    began = time.monotonic()
    for member in members:
        poller.register(member.socket, zmq.POLLIN)
        member.greet(endpoint)
    while not all(m.welcomed_s for m in members) and time.monotonic() - began < 60:
        for sock, _ in poller.poll(100):
            by_socket[sock].take()
    on_s = max(m.welcomed_s for m in members) - began
    start = time.monotonic()
    sent, total = 0, int(len(members) * rate * seconds)
    while time.monotonic() - start < seconds + 2:
        due = min(int((time.monotonic() - start) * rate * len(members)), total)
        while sent < due:
            members[sent % len(members)].put()
            sent += 1
        for sock, _ in poller.poll(5):
            by_socket[sock].take()
    late = sorted(x for m in members for x in m.late)
    context.destroy(linger=0)
    return json.dumps(
        {
            "on_s": on_s, "welcomed": sum(m.welcomed_s > 0 for m in members), "sent": sent,
            "acked": len(late), "p50_s": late[len(late) // 2], "p99_s": late[len(late) * 99 // 100],
        }
    )  # fmt: skip


if __name__ == "__main__":
    _endpoint, _server, _file, _rate, _seconds = sys.argv[1:]
    _rows = json.loads(Path(_file).read_text())
    print(run(_endpoint, _server, [KeyPair(*r) for r in _rows], float(_rate), float(_seconds)))
