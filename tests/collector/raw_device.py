"""A device by hand, for saying what `Uplink` never would; and what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import zmq

from syncline.cloud.collector import Collector
from syncline.link import KeyPair
from syncline.link.sockets import dealer
from syncline.link.wire import Data, Hello, pack, pack_body, unpack

from ..link.records import PAYLOAD, STREAM  # noqa: TID252
from ..link.rig import Rig  # noqa: TID252


@contextlib.contextmanager
def raw_dealer(
    rig: Rig, keys: KeyPair, *, server: str | None = None, routing_id: bytes = b""
) -> Iterator[zmq.Socket[bytes]]:
    """A device by hand, for saying what `Uplink` never would."""
    with zmq.Context() as context:
        sock = dealer(context, server or rig.server.public, keys)
        if routing_id:
            sock.set(zmq.ROUTING_ID, routing_id)
        sock.set(zmq.RCVTIMEO, 1500)
        sock.set(zmq.SNDTIMEO, 1500)  # one that was refused waits for a connection without end
        try:
            sock.connect(rig.listen)
            yield sock
        finally:
            sock.close(linger=0)


def hello(sock: zmq.Socket[bytes], name: str, session: int = 1) -> object:
    sock.send(pack(Hello(session, name, "boot", [])))
    return unpack(sock.recv())


def is_unanswered(sock: zmq.Socket[bytes], *messages: bytes) -> bool:
    """Whether nothing comes back; what is refused before it could speak cannot even send."""
    try:
        for message in messages:
            sock.send(message)
        sock.recv()
    except zmq.Again:
        return True
    return False


def data(session: int, tx: int, seq: int, n: int = 1, stream: str = STREAM) -> bytes:
    body = pack_body([(seq + i, PAYLOAD) for i in range(n)])
    return pack(Data(session, tx, 1, n, seq, "boot", stream, body))


def counts(rig: Rig) -> dict[str, int]:
    assert rig.collector is not None
    return rig.collector.health().counts


def rows(collector: Collector, device: str = "car") -> list[int]:
    return [r.seq for r in collector.catalog.records(device, "boot", STREAM)]
