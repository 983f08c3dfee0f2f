"""Recording and reading, as ratios to a peer or a limit in one run; CPU time, best of several."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from foxglove import Channel, Context, Schema, open_mcap
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from syncline.log.disk import Disk, RecordFile
from syncline.log.exact import ExactWriter
from syncline.log.live import serve_live
from syncline.log.picture import image_message
from syncline.log.reader import LogReader
from syncline.log.recorder import Recorder
from syncline.log.recovery import recover
from syncline.log.rewrite import cut
from syncline.log.session import _options
from syncline.log.wire import RawChannel
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import OsClock
from syncline.topics import LogFile

pytestmark = pytest.mark.bench
SMALL = bytes(range(200))
COUNT = 100_000
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, so that the disk is not what is measured."""
    if MEMORY is None:
        yield tmp_path
        return
    folder = MEMORY / f"syncline-bench-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    yield folder
    shutil.rmtree(folder)


def cpu_s(work: Callable[[], Any], rounds: int = 3) -> float:
    """Least CPU time of this process, all threads, over some rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def bare_write(path: Path) -> None:
    pack = struct.Struct("<BQHIQQ").pack
    with path.open("wb") as file:
        for i in range(COUNT):
            head = pack(5, 222, 1, i, i, i)
            file.write(head + SMALL + struct.pack("<I", zlib.crc32(SMALL)))


def mcap_write(path: Path) -> None:
    with path.open("wb") as file:
        writer: Any = Writer(file, compression=CompressionType.NONE)
        writer.start()
        schema = writer.register_schema("x.Y", "protobuf", b"")
        channel = writer.register_channel("/t", "protobuf", schema)
        for i in range(COUNT):
            writer.add_message(channel, i, SMALL, i, i)
        writer.finish()


def our_write(path: Path) -> None:
    path.unlink(missing_ok=True)
    context = Context()
    schema = Schema(name="x.Y", encoding="protobuf", data=b"")
    log = Channel("/t", schema=schema, message_encoding="protobuf", context=context).base.log
    file = RecordFile(path, Disk())
    writer = open_mcap(file, context=context, writer_options=_options(LogFile.CAMERA))
    for i in range(COUNT):
        log(SMALL, i)
    writer.close()
    file.close()


def test_small_messages(benchmark: Any, ram: Path) -> None:
    """link-1: CPU <= 1.5x a bare writer, <= 0.3x mcap-py, same run."""
    bare, peer, ours = [], [], []
    for _ in range(4):
        bare.append(cpu_s(lambda: bare_write(ram / "bare"), 1))
        ours.append(cpu_s(lambda: our_write(ram / "ours.mcap"), 1))
        peer.append(cpu_s(lambda: mcap_write(ram / "peer.mcap"), 1))
    benchmark.pedantic(our_write, args=(ram / "ours.mcap",), rounds=1)
    us = {n: min(v) / COUNT * 1e6 for n, v in (("bare", bare), ("ours", ours), ("mcap", peer))}
    benchmark.extra_info.update(us)
    print("link-1 us CPU per message", us)
    assert us["ours"] <= 1.5 * us["bare"]
    assert us["ours"] <= 0.3 * us["mcap"]


def test_whole_recorder(benchmark: Any, ram: Path) -> None:
    """What link-1 leaves out: queue, journal, zstd, serialisation; cheaper than mcap-py alone."""
    count = 20_000

    def record() -> None:
        folder = ram / f"rec{random.randrange(10**9)}"
        sample = pb.ImuSample(sensor="imu", boot_id="b" * 36, accel_x_mps2=1.5, gyro_z_radps=2.0)
        with Recorder(folder, clock=OsClock(), device="d") as recorder:
            for i in range(count):
                sample.raw_ns = i
                recorder.write("/imu/a", sample, i)
                if i % 1000 == 999:
                    recorder.flush()
        assert recorder.stats().written == {"/imu/a": count}

    ours = cpu_s(record) / count * 1e6
    peer = cpu_s(lambda: mcap_write(ram / "peer.mcap")) / COUNT * 1e6
    benchmark.pedantic(record, rounds=1)
    benchmark.extra_info.update({"ours_us": ours, "mcap_py_us": peer})
    print("recorder us CPU per message", ours, "mcap-py bare", peer)
    assert ours <= 3 * peer


def test_vehicle_load(benchmark: Any, tmp_path: Path) -> None:
    """link-2, 30 s of the 10 min: 4 x 30 fps x 100 kB + 1 kHz; 0 drops, enqueue p99.9 <= 1 ms."""
    seconds = float(os.environ.get("SYNCLINE_BENCH_LOAD_S", "30"))
    clock = OsClock()
    pictures = [os.urandom(100_000) for _ in range(8)]
    waits: list[int] = []

    def drive() -> None:
        with Recorder(tmp_path / "rec", clock=clock, device="d", quota_bytes=1 << 30) as recorder:
            start = clock.raw_ns()
            for tick in range(round(seconds * 1000)):
                clock.sleep_until(start + tick * 1_000_000)
                now = clock.raw_ns()
                sample = pb.ImuSample(sensor="a", raw_ns=now)
                before = time.perf_counter_ns()
                recorder.write("/imu/a", sample, now)
                waits.append(time.perf_counter_ns() - before)
                if tick % 33 < 4:
                    name = f"c{tick % 33}"
                    image = image_message(now, name, pictures[tick % 8], "jpeg")
                    before = time.perf_counter_ns()
                    recorder.write(f"/camera/{name}/image", image, now)
                    waits.append(time.perf_counter_ns() - before)
            recorder.flush()
            assert recorder.stats().dropped == {}
            assert recorder.stats().lost == {}

    start = time.process_time()
    benchmark.pedantic(drive, rounds=1)
    cpu_share = (time.process_time() - start) / seconds
    waits.sort()
    ms = {f"p{p}": waits[int(len(waits) * p / 100)] / 1e6 for p in (50, 99, 99.9)}
    ms["max"] = waits[-1] / 1e6
    benchmark.extra_info.update(ms | {"cpu_share": cpu_share})
    print("link-2 enqueue ms", ms, "CPU share of one core", cpu_share)
    assert ms["p99.9"] <= 1.0


def write_log(path: Path, count: int, topics: int, payload: bytes, *, packed: bool) -> None:
    with path.open("wb") as file:
        fill_log(ExactWriter(file, "syncline", packed=packed), count, topics, payload)


def fill_log(writer: ExactWriter, count: int, topics: int, payload: bytes) -> None:
    for channel in range(1, topics + 1):
        writer.channel(RawChannel(channel, 0, f"/t{channel}", "protobuf", {}))
    for i in range(count):
        writer.message(1 + i % topics, i, i * 1000, i * 1000, payload)
    writer.finish()


def our_read(path: Path, **wanted: Any) -> int:
    count = 0
    with LogReader(path, **wanted) as reader:
        for _ in reader:
            count += 1
    return count


def mcap_read(path: Path, topics: list[str] | None = None) -> int:
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        return sum(1 for _ in reader.iter_messages(topics=topics))


@pytest.mark.parametrize("packed", [False, True], ids=["none", "zstd"])
def test_read_small(benchmark: Any, ram: Path, packed: bool) -> None:
    """link-11: >= 500k small messages per second, >= 5x mcap-py in the same run."""
    path = ram / f"read{packed}.mcap"
    write_log(path, COUNT, 10, SMALL, packed=packed)
    ours, peer = [], []
    for _ in range(3):
        ours.append(cpu_s(lambda: our_read(path), 1))
        peer.append(cpu_s(lambda: mcap_read(path), 1))
    assert our_read(path) == mcap_read(path) == COUNT
    benchmark.pedantic(our_read, args=(path,), rounds=3)
    rate, ratio = COUNT / min(ours), min(peer) / min(ours)
    one = cpu_s(lambda: mcap_read(path, ["/t3"]), 1) / cpu_s(lambda: our_read(path, topics=["/t3"]))
    benchmark.extra_info.update({"per_s": rate, "ratio": ratio, "one_topic_ratio": one})
    print("link-11 messages/s", rate, "x mcap-py", ratio, "one topic of ten", one)
    assert ratio >= 5, "500,000 per second is 3.4 times mcap-py on the machine of the spec"
    assert one >= 5


@pytest.mark.parametrize("kind", ["camera", "telemetry"])
def test_recovery_rate(benchmark: Any, ram: Path, kind: str) -> None:
    """link-5: >= 200 MB/s of file read and written again."""
    path, out = ram / "cam.mcap", ram / "out.mcap"
    payload = os.urandom(100_000) if kind == "camera" else SMALL
    write_log(path, 3000 if kind == "camera" else 400_000, 4, payload, packed=False)
    size = path.stat().st_size
    os.truncate(path, size - 200)

    def run() -> None:
        out.unlink(missing_ok=True)
        recover(path, out)

    best = cpu_s(run)
    whole = ram / "whole.mcap"
    whole.unlink(missing_ok=True)
    cut(path, whole)
    peer = cpu_s(lambda: mcap_read(whole), 1)
    benchmark.pedantic(run, rounds=1)
    rate = size / best / 1e6
    benchmark.extra_info.update({"mb_per_s": rate, "x_mcap_read": peer / best})
    print("link-5 MB/s of CPU time", kind, rate, "mcap-py only reading takes x", peer / best)
    if kind == "camera":
        assert rate >= 200
    else:
        assert peer >= 5 * best, "200-byte messages: 200 MB/s on an idle machine"


SEEK = """
import sys, time
from pathlib import Path
from syncline.log.live import serve_live
from syncline.log.reader import LogReader
path, at = Path(sys.argv[1]), int(sys.argv[2])
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
base = peak()
start, cpu = time.perf_counter(), time.process_time()
with LogReader(path, from_raw_ns=at) as reader:
    record = next(iter(reader))
wall, cpu = time.perf_counter() - start, time.process_time() - cpu
assert record.raw_ns == at, (record.raw_ns, at)
count = 0
with LogReader(path, from_raw_ns=at) as reader:
    for record in reader:
        count += record.data[0]
        if record.raw_ns > at + 3_000_000:
            break
print(wall, cpu, base / 1024, peak() / 1024)
"""


class Sparse(io.FileIO):
    """Leaves holes where pages are zero: 10 GB to seek in take little disk."""

    def write(self, data: Any) -> int:
        view, page = memoryview(data), 1 << 16
        zeros = bytes(page)
        for at in range(0, len(view), page):
            part = view[at : at + page]
            if part == zeros[: len(part)]:
                self.seek(len(part), os.SEEK_CUR)
            else:
                super().write(part)
        return len(view)


def test_seek(benchmark: Any, tmp_path: Path) -> None:
    """link-15: seek in 10 GB <= 100 ms, RSS <= 200 MB; here 2 GB unless told."""
    size = float(os.environ.get("SYNCLINE_BENCH_SEEK_GB", "2"))
    path = tmp_path / "big.mcap"
    count = round(size * 2500)
    with Sparse(path, "w") as file:
        fill_log(ExactWriter(file, "syncline", packed=False), count, 4, bytes(400_000))
    best: list[float] = []
    for share in (0.1, 0.5, 0.9):
        at = round(count * share) * 1000
        command = [sys.executable, "-c", SEEK, str(path), str(at)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        wall, cpu, base, peak = map(float, done.stdout.split())
        best.append(wall)
        print(f"link-15 {size} GB: {wall * 1e3:.1f} ms wall, {cpu * 1e3:.1f} CPU, RSS {peak:.0f}")
        assert peak <= 200
    benchmark.extra_info.update({"best_ms": min(best) * 1e3, "peak_mb": peak, "base_mb": base})
    benchmark.pedantic(lambda: None, rounds=1)
    assert min(best) <= 0.1
    path.unlink()


def test_reading_costs_no_memory(ram: Path) -> None:
    """300,000 messages go by in bounded memory."""
    path = ram / "long.mcap"
    write_log(path, 300_000, 10, SMALL, packed=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert our_read(path) == 300_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def sleepy_viewer(port: int) -> socket.socket:
    """Subscribes to the first five channels and never reads again."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", port))
    peer.sendall(
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: foxglove.sdk.v1\r\n\r\n"
    )
    got = b""
    while b"advertise" not in got:
        got += peer.recv(1 << 16)
    wanted = [{"id": i, "channelId": i} for i in range(1, 6)]
    body = json.dumps({"op": "subscribe", "subscriptions": wanted}).encode()
    peer.sendall(struct.pack(">BBH4x", 0x81, 0x80 | 126, len(body)) + body)
    return peer


def test_live_viewer_that_never_reads(benchmark: Any, ram: Path) -> None:
    """link-9: recorder CPU <= +10 %, RSS <= +64 MB."""
    process = psutil.Process()
    picture = os.urandom(100_000)

    def record(name: str, *, viewer: bool) -> tuple[float, float]:
        clock = OsClock()
        with Recorder(ram / name, clock=clock, device="d", quota_bytes=1 << 28) as recorder:

            def burst(count: int) -> None:
                for i in range(count):
                    now = clock.raw_ns()
                    recorder.write("/camera/f/image", image_message(now, "f", picture, "jpeg"), now)
                    for _ in range(8):
                        recorder.write("/imu/a", pb.ImuSample(sensor="a", raw_ns=now), now)
                    if i % 20 == 19:
                        recorder.flush()

            burst(20)
            server = serve_live(recorder, name="bench", port=0) if viewer else None
            peer = sleepy_viewer(server.port) if server else None
            burst(200)
            rss, start = process.memory_info().rss, time.process_time()
            burst(600)
            cpu, grown = time.process_time() - start, process.memory_info().rss - rss
            if server and peer:
                peer.close()
                server.stop()
            assert recorder.stats().dropped == {}
        shutil.rmtree(ram / name)
        return cpu, grown / 1e6

    alone: list[tuple[float, float]] = []
    watched: list[tuple[float, float]] = []
    for round_ in range(8):
        alone.append(record(f"a{round_}", viewer=False))
        watched.append(record(f"w{round_}", viewer=True))
    benchmark.pedantic(lambda: None, rounds=1)
    ratio = min(cpu for cpu, _ in watched) / min(cpu for cpu, _ in alone)
    grown = max(mb for _, mb in watched) - max(mb for _, mb in alone)
    benchmark.extra_info.update({"cpu_ratio": ratio, "grown_mb": grown})
    print("link-9 CPU with a sleeping viewer x", ratio, "RSS MB", grown, alone, watched)
    assert grown <= 64
    assert ratio <= 1.10
