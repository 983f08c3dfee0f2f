"""Peers that never end a message cannot fill the memory of their collector (link-37)."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import NamedTuple

import psutil
import pytest
import zmq

from syncline.cloud.unfinished import MOST_BYTES, Unfinished
from syncline.link.sockets import RCVHWM
from syncline.link.wire import MAX_MESSAGE_BYTES, Ack, Welcome, unpack

from ..link.rig import Rig, wait  # noqa: TID252
from . import curve_peer
from .curve_peer import sodium_path
from .raw_device import counts, data, hello, raw_dealer, rows

_FLOOD = """
import socket, struct, sys, time
port, size, total = map(int, sys.argv[1:])
sock = socket.create_connection(("127.0.0.1", port))
sock.sendall(b"\\xff" + bytes(8) + b"\\x7f\\x03\\0" + b"NULL".ljust(20, b"\\0") + bytes(32))
sock.recv(64, socket.MSG_WAITALL)
ready = b"\\x05READY\\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
sock.sendall(b"\\x04" + bytes([len(ready)]) + ready)
sock.recv(2, socket.MSG_WAITALL)
time.sleep(0.2)
sock.settimeout(20)
head = b"\\x03" + struct.pack(">Q", size) if size > 255 else b"\\x01" + bytes([size])
block = (head + b"x" * size) * max((1 << 20) // (size + 9), 1)
sent = 0
try:
    while sent < total:
        sock.sendall(block)
        sent += len(block)
    time.sleep(1)
except OSError:
    sys.exit(0)
sys.exit(3)
"""
"""A peer by hand, for libzmq's own sends nothing before the last frame. Without CURVE."""


class Flood(NamedTuple):
    """What a peer that sends one message without end led to."""

    cut: bool
    grown_bytes: int
    held_bytes: int


def _flooded(router: zmq.Socket[bytes], size: int, total: int, guard: Unfinished) -> Flood:
    """A peer sends `total` bytes of one message in frames of `size`."""
    me = psutil.Process()
    before = most = me.memory_info().rss
    held = 0
    command = [sys.executable, "-c", _FLOOD, str(_port(router)), str(size), str(total)]
    with subprocess.Popen(command) as peer:
        while peer.poll() is None:
            router.poll(50)
            most = max(most, me.memory_info().rss)
            held = max([held, *guard.held_bytes().values()])
            guard.look()
    return Flood(peer.returncode == 0, int(most - before), held)


def _port(router: zmq.Socket[bytes]) -> int:
    endpoint: str = router.get_string(zmq.LAST_ENDPOINT)
    return int(endpoint.rstrip("\0").rpartition(":")[2])


@pytest.mark.parametrize("size", [200_000, 200])
def test_link_37_endless_more_is_bounded(size: int) -> None:
    """link-37: a gigabyte of MORE frames, three times: cut each time, memory does not add up."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.set(zmq.LINGER, 0)
        router.set(zmq.RCVHWM, RCVHWM)
        router.bind("tcp://127.0.0.1:*")
        guard = Unfinished(_port(router), frame_bytes=0)
        before = psutil.Process().memory_info().rss
        floods = [_flooded(router, size, 1 << 30, guard) for _ in range(3)]
        print(f"memory grew by {[flood.grown_bytes >> 20 for flood in floods]} MB")
        assert all(flood.cut for flood in floods)
        assert max(flood.grown_bytes for flood in floods) <= 256 << 20
        assert psutil.Process().memory_info().rss - before <= 256 << 20
        assert guard.check() == 0


def test_without_the_guard_the_flood_is_kept() -> None:
    """The attack is one: libzmq takes 100 MB of MORE frames and hands over none."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.set(zmq.LINGER, 0)
        router.set(zmq.RCVHWM, RCVHWM)
        router.bind("tcp://127.0.0.1:*")
        flood = _flooded(router, 200_000, 100 << 20, Unfinished(_port(router), 0, 1 << 40))
        assert not flood.cut
        assert flood.held_bytes >= 80 << 20


@pytest.mark.skipif(sodium_path() is None, reason="needs libsodium, which comes with pyzmq")
def test_link_37_an_enrolled_device_that_floods_a_collector(rig: Rig) -> None:
    """link-37, whole: 500 MB of MORE frames over CURVE; memory is bounded, the other is served."""
    collector = rig.start()
    keys, other = rig.enrol("car"), rig.enrol("lorry")
    port = rig.listen.rpartition(":")[2]
    me = psutil.Process()
    with raw_dealer(rig, other) as calm:
        assert isinstance(hello(calm, "lorry"), Welcome)
        before = most = me.memory_info().rss
        command = [sys.executable, curve_peer.__file__, port, "200000", str(500 << 20)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as peer:
            assert peer.stdin is not None
            peer.stdin.write(f"{rig.server.public}\n{keys.public}\n{keys.secret}\n")
            peer.stdin.close()
            tx = 0
            while peer.poll() is None:
                calm.send(data(1, tx, tx))
                assert isinstance(unpack(calm.recv()), Ack)
                tx += 1
                most = max(most, me.memory_info().rss)
    assert peer.returncode == 0, "not cut"
    print(f"memory grew by {(most - before) >> 20} MB, the other had {tx} records stored")
    assert most - before <= 256 << 20
    assert counts(rig)["alarm_unfinished"] == 1
    assert rows(collector, "lorry") == list(range(tx))
    assert rows(collector) == []


def test_every_byte_that_was_handed_over_is_counted(rig: Rig) -> None:
    """Under CURVE what is left over is the handshake: the same after many messages as after one."""
    collector = rig.start()
    keys = rig.enrol("car")
    guard = collector._unfinished
    with raw_dealer(rig, keys) as sock:
        assert isinstance(hello(sock, "car"), Welcome)
        (before,) = guard.held_bytes().values()
        for i in range(300):
            sock.send(b"x" * i)
        for n in (65_535, 65_536, 500_000, MAX_MESSAGE_BYTES - 64):
            sock.send(b"x" * n)
        sock.send_multipart([b"x" * n for n in (0, 1, 221, 222, 223, 254, 255, 256, 70_000)])
        wait(lambda: counts(rig).get("alarm_malformed", 0) == 304, 10)
        wait(lambda: counts(rig).get("alarm_multipart", 0) == 1, 10)
        assert guard.held_bytes() == dict.fromkeys(guard.held_bytes(), before)
        assert 0 < before < 1000
        assert guard.check() == 0


def test_devices_that_a_stalled_collector_holds_back_are_not_cut(rig: Rig) -> None:
    collector = rig.start()
    keys = rig.enrol("car")
    with raw_dealer(rig, keys) as sock:
        assert isinstance(hello(sock, "car"), Welcome)
        collector._budget = 0
        time.sleep(0.3)
        for _ in range(60):
            sock.send(b"x" * 1_000_000)
        time.sleep(1.0)
        (held,) = collector._unfinished.held_bytes().values()
        assert RCVHWM // 2 * 1_000_000 < held < MOST_BYTES
        assert collector._unfinished.check() == 0
        collector._budget = 64 << 20
        wait(lambda: counts(rig).get("alarm_malformed", 0) == 60, 20)


def test_link_37_the_collector_cuts_and_tells(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """link-37: the peer over the limit is cut and counted; another one is not touched."""
    collector = rig.start()
    keys, other = rig.enrol("car"), rig.enrol("lorry")
    with raw_dealer(rig, other) as calm, raw_dealer(rig, keys) as sock:
        assert isinstance(hello(calm, "lorry"), Welcome)
        assert isinstance(hello(sock, "car"), Welcome)
        monitor = sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        monkeypatch.setattr(collector._unfinished, "handed", lambda *_: None)  # as if never ended
        monkeypatch.setattr(collector._unfinished, "_most_bytes", 100_000)
        for _ in range(3):
            sock.send(b"x" * 50_000)
        collector._expire_ns = 0  # the look at all connections is due now
        assert monitor.poll(5000), "the sender was not cut"
        sock.disable_monitor()
        monitor.close()
        calm.send(data(1, 0, 0))
        calm.recv()
    assert counts(rig)["alarm_unfinished"] >= 1
    assert rows(collector, "lorry") == [0]


def test_descriptors_that_are_no_connections_are_passed_over() -> None:
    with socket.socket() as listening, socket.socket(socket.AF_UNIX):
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        guard = Unfinished(port, most_bytes=0)
        assert guard.check() == 0
        with socket.create_connection(("127.0.0.1", port)) as near:
            far, _ = listening.accept()
            with far:
                near.sendall(b"hello")
                far.recv(5)
                assert guard.held_bytes() == {near.getsockname(): 5}
                assert guard.check() == 1
                assert near.recv(1) == b""
