"""Spool and link against peers in the same run (link-17, link-31, link-32, link-41).

The peers: the same bytes written with a bare write + fdatasync, and Redis with `appendfsync always`
where a redis-server is installed. NATS and Zenoh are not part of the development set-up.
"""

from __future__ import annotations

import shutil
import socket
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from zlib import crc32

import pytest
import zmq
from pytest_benchmark.fixture import BenchmarkFixture

from syncline.cloud.catalog import Catalog
from syncline.cloud.collector import Collector
from syncline.cloud.devices import Devices
from syncline.link import PublicKey, Uplink, new_keypair
from syncline.link.sockets import dealer
from syncline.link.wire import Ack, Data, Hello, Welcome, pack, pack_body, unpack
from syncline.messages.syncline_pb2 import Health
from syncline.spool import OsDisk, Spool
from syncline.topics import LinkClass
from tests.bench.idle import wait_until_idle
from tests.collector.fleet_run import RATE, run_fleet

pytestmark = pytest.mark.bench
RECORD = b"\x0a\xc6\x01" + b"x" * 198  # a Health message of 201 bytes


def rate(n: int, work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return n / (time.perf_counter() - began)


def run_once(benchmark: BenchmarkFixture, work: Callable[..., object], *args: object) -> None:
    """What pytest-benchmark itself reports; the ratios above it are the figures."""
    benchmark.pedantic(work, args=args, rounds=1)


# -- link-17 -------------------------------------------------------------------------------------


def _spool(folder: Path, n: int, group: int) -> None:
    spool = Spool(folder, segment_bytes=4 << 20)
    for i in range(n):
        spool.put(LinkClass.TELEMETRY, "/health", i, RECORD)
        if i % group == group - 1:
            spool.sync()
    spool.close()


def _bare(folder: Path, n: int, group: int) -> None:
    """The floor: header, checksum, one write and one fdatasync per group."""
    folder.mkdir()
    disk = OsDisk()
    fd = disk.create(folder / "log")
    at = 0
    for start in range(0, n, group):
        rows = []
        for i in range(start, start + group):
            head = struct.pack("<IQq", len(RECORD), i, i)
            rows.append(crc32(RECORD, crc32(head)).to_bytes(4, "little") + head + RECORD)
        block = b"".join(rows)
        at += disk.pwrite(fd, block, at)
        disk.fdatasync(fd)
    disk.close(fd)


def _sqlite_queue(folder: Path, n: int, group: int) -> None:
    """What persist-queue's SQLite queue does, with its commits grouped: far kinder than it is."""
    folder.mkdir()
    db = sqlite3.connect(folder / "q.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE q(id INTEGER PRIMARY KEY, data BLOB, at REAL)")
    for start in range(0, n, group):
        db.execute("BEGIN")
        for i in range(start, start + group):
            db.execute("INSERT INTO q(data, at) VALUES(?, ?)", (RECORD, float(i)))
        db.execute("COMMIT")
    db.close()


def _persist_queue(folder: Path, n: int) -> None:
    """persist-queue's own way: one commit per put."""
    _sqlite_queue(folder, n, 1)


def test_link_17_put_with_group_commit(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """link-17: 200 B at sync/1000, against the bare writer and a queue that commits each put."""
    n = 50_000
    rounds = []
    for i in range(3):
        ours = rate(n, lambda i=i: _spool(tmp_path / f"s{i}", n, 1000))  # type: ignore[misc]
        bare = rate(n, lambda i=i: _bare(tmp_path / f"b{i}", n, 1000))  # type: ignore[misc]
        grouped = rate(n, lambda i=i: _sqlite_queue(tmp_path / f"g{i}", n, 1000))  # type: ignore[misc]
        each = rate(300, lambda i=i: _persist_queue(tmp_path / f"p{i}", 300))  # type: ignore[misc]
        rounds.append((ours, bare, grouped, each))
    ours, bare, grouped, each = (sorted(column)[1] for column in zip(*rounds, strict=True))
    benchmark.extra_info.update(ours=ours, bare=bare, sqlite_grouped=grouped, sqlite_each=each)
    print(
        f"\nspool {ours:,.0f}/s, bare {bare:,.0f}/s ({ours / bare:.2f}x), "
        f"sqlite grouped {grouped:,.0f}/s, sqlite per put {each:,.0f}/s ({ours / each:.0f}x)"
    )
    assert ours >= 5 * each
    assert ours >= 0.2 * bare
    run_once(benchmark, _spool, tmp_path / "last", 10_000, 1000)


# -- link-31 -------------------------------------------------------------------------------------


class RedisServer:
    """A redis-server of ours with AOF always, on a free port of loopback."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder),
             "--appendonly", "yes", "--appendfsync", "always", "--save", ""],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.sock = self._connect()

    def _connect(self) -> socket.socket:
        for _ in range(100):
            try:
                return socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                time.sleep(0.05)
        raise AssertionError("redis-server did not come up")

    def close(self) -> None:
        self.sock.close()
        self.process.terminate()
        self.process.wait()

    def send(self, payload: bytes, n: int, window: int) -> None:
        """n x XADD, at most `window` unanswered; raw protocol, so that no client is measured."""
        command = b"*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nd\r\n$%d\r\n%b\r\n" % (
            len(payload),
            payload,
        )
        sent = answered = lines = 0
        while answered < n:
            while sent < n and sent - answered < window:
                self.sock.sendall(command)
                sent += 1
            lines += self.sock.recv(65536).count(b"\n")
            answered = lines // 2


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    yield server
    server.close()


class Pipe:
    """One device by hand against a collector: DATA with a window, until all are acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.server = new_keypair("server")
        keys = new_keypair("car")
        with Catalog.open(folder) as catalog:
            Devices(catalog).enrol(PublicKey("car", keys.public))
        self.collector = Collector(folder, "tcp://127.0.0.1:0", self.server)
        self.collector.start()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.sock = dealer(self.context, self.server.public, keys)
        self.sock.connect(self.collector.endpoint)
        self.sock.send(pack(Hello(1, "car", "boot", [])))
        assert isinstance(unpack(self.sock.recv()), Welcome)
        self.tx = self.seq = 0

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.collector.close()

    def send(self, rows: list[bytes], n: int, window: int) -> None:
        """n messages of these records."""
        body = pack_body([(i, row) for i, row in enumerate(rows)])
        end, acked = self.tx + n, self.tx
        while acked < end:
            while self.tx < end and self.tx - acked < window:
                data = Data(1, self.tx, 2, len(rows), self.seq, "boot", "/health", body)
                self.sock.send(pack(data), copy=False)
                self.tx += 1
                self.seq += len(rows)
            answer = unpack(self.sock.recv())
            assert isinstance(answer, Ack)
            acked = answer.next_tx


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    made = Pipe(tmp_path / "data")
    yield made
    made.close()


def test_link_31_durable_acks_against_redis(
    benchmark: BenchmarkFixture, redis: RedisServer, pipe: Pipe
) -> None:
    """link-31: acknowledged after fsync, one device: 100 kB records, and 100 x 200 B batches.

    Ours also encrypts (CURVE), checks each payload and writes the catalog; Redis does none of it.
    """
    large, small = b"\x0a\x80\x8d\x06" + b"x" * 99_996, [RECORD] * 100
    joined = b"".join(small)
    figures: dict[str, list[float]] = {"l": [], "lr": [], "b": [], "br": []}
    for _ in range(3):
        figures["l"].append(rate(20, lambda: pipe.send([large] * 2, 20, 20)) * 0.2)
        figures["lr"].append(rate(40, lambda: redis.send(large, 40, 40)) * 0.1)
        figures["b"].append(rate(100, lambda: pipe.send(small, 100, 64)) * 100)
        figures["br"].append(rate(100, lambda: redis.send(joined, 100, 64)) * 100)
    ours, theirs, batch, batch_redis = (sorted(v)[1] for v in figures.values())
    benchmark.extra_info.update(figures)
    print(
        f"\n100 kB: ours {ours:.0f} MB/s, Redis AOF {theirs:.0f} MB/s ({ours / theirs:.1f}x); "
        f"batches of 100 x 200 B: ours {batch:,.0f}/s, Redis {batch_redis:,.0f}/s "
        f"({batch / batch_redis:.1f}x)"
    )
    run_once(benchmark, pipe.send, small, 50, 50)
    assert ours >= 0.3 * theirs


def test_link_31_durable_acks_against_a_bare_sync(
    benchmark: BenchmarkFixture, pipe: Pipe, tmp_path: Path
) -> None:
    """link-31's floor: the same bytes with write + fdatasync per 16 messages, no network at all."""
    body = pack_body([(0, RECORD)] * 100)

    def bare(n: int) -> None:
        disk = OsDisk()
        fd = disk.create(tmp_path / f"bare{time.monotonic_ns()}")
        at = 0
        for i in range(n):
            at += disk.pwrite(fd, body, at)
            if i % 16 == 15:
                disk.fdatasync(fd)
        disk.close(fd)

    ours, floor = [], []
    for _ in range(3):
        ours.append(rate(10_000, lambda: pipe.send([RECORD] * 100, 100, 64)))
        floor.append(rate(10_000, lambda: bare(100)))
    a, b = sorted(ours)[1], sorted(floor)[1]
    print(f"\nours {a:,.0f} records/s, bare write + fdatasync {b:,.0f}/s ({a / b:.2f}x)")
    benchmark.extra_info.update(ours=a, bare=b)
    run_once(benchmark, bare, 16)
    assert a >= 0.02 * b


# -- link-32 -------------------------------------------------------------------------------------


def _cpu_per_mb(curve: bool, megabytes: int) -> float:
    """Milliseconds of CPU per MB for both ends together, in this process."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    server, client = zmq.curve_keypair(), zmq.curve_keypair()
    a, b = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    if curve:
        a.set(zmq.CURVE_SERVER, 1)
        a.set(zmq.CURVE_SECRETKEY, server[1])
        b.set(zmq.CURVE_SERVERKEY, server[0])
        b.set(zmq.CURVE_PUBLICKEY, client[0])
        b.set(zmq.CURVE_SECRETKEY, client[1])
    port = a.bind_to_random_port("tcp://127.0.0.1")
    b.connect(f"tcp://127.0.0.1:{port}")
    block = b"x" * 200_000
    b.send(block)
    a.recv()
    began = time.process_time()
    for _ in range(megabytes * 5):
        b.send(block)
        a.recv()
    spent = time.process_time() - began
    context.destroy(linger=0)
    return spent * 1000 / megabytes


def test_link_32_cost_of_curve(benchmark: BenchmarkFixture) -> None:
    """link-32: CPU that CURVE adds per MB and side (both ends measured together, halved)."""
    rounds = [(_cpu_per_mb(True, 60), _cpu_per_mb(False, 60)) for _ in range(3)]
    curve, plain = (sorted(column)[1] for column in zip(*rounds, strict=True))
    side = (curve - plain) / 2
    print(f"\nCURVE adds {side:.2f} ms CPU per MB and side (plain {plain / 2:.2f})")
    benchmark.extra_info.update(curve_ms_per_mb=curve, plain_ms_per_mb=plain)
    run_once(benchmark, _cpu_per_mb, True, 5)
    assert side <= 1.5


# -- the whole way -------------------------------------------------------------------------------


def test_cpu_per_record_from_spool_to_catalog(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Put, sync, send, receive, check, store, acknowledge: CPU of both ends per 200 B record."""
    server, keys = new_keypair("server"), new_keypair("car")
    with Catalog.open(tmp_path / "data") as catalog:
        Devices(catalog).enrol(PublicKey("car", keys.public))
    collector = Collector(tmp_path / "data", "tcp://127.0.0.1:0", server)
    collector.start()
    spool = Spool(tmp_path / "spool")
    uplink = Uplink(spool, collector.endpoint, server.public, keys)
    uplink.start()
    n = 50_000
    began, wall = time.process_time(), time.perf_counter()
    for i in range(n):
        spool.put(LinkClass.TELEMETRY, "/health", i, RECORD)
    while spool.stats().backlog:
        time.sleep(0.005)
    cpu, wall = time.process_time() - began, time.perf_counter() - wall
    print(f"\n{cpu / n * 1e6:.1f} us CPU per record on both ends, {n / wall:,.0f} records/s")
    benchmark.extra_info.update(cpu_us=cpu / n * 1e6, per_s=n / wall)
    run_once(benchmark, lambda: None)
    uplink.close()
    spool.close()
    collector.close()
    assert cpu / n <= 200e-6
    assert Health.FromString(RECORD) is not None


# -- link-41 -------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_link_41_times_of_a_thousand_devices(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """link-41: 1,000 CURVE devices x 5 records/s: all on <= 10 s, ack p99 <= 500 ms."""
    wait_until_idle()
    figures = run_fleet(tmp_path, 1000, 20)
    benchmark.extra_info.update(asdict(figures))
    run_once(benchmark, lambda: None)
    assert figures.rate >= 0.95 * 1000 * RATE, "the fleet did not send what it should"
    assert figures.acked == figures.sent
    assert figures.on_s <= 10
    assert figures.p99_s <= 0.5
