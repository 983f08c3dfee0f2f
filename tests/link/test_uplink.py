"""Device and collector over real sockets: kills, dead links, uploads, fetches."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from syncline.cloud.catalog import Catalog
from syncline.cloud.devices import Devices
from syncline.errors import InputError, IntegrityError, LinkError
from syncline.link import Notice, PublicKey, Resource, Uplink, load_keypair, new_keypair
from syncline.link.keys import save_keypair
from syncline.messages.syncline_pb2 import Detections
from syncline.spool import Spool
from syncline.timebase import NS_PER_S, OsClock
from syncline.topics import LinkClass

from .proxy import Proxy
from .rig import Rig, wait

E, R, T, B = LinkClass
STREAM = "/camera/a/detections"
PAYLOAD = Detections(camera="a").SerializeToString()


def put(spool: Spool, n: int, start: int = 0) -> None:
    for i in range(start, start + n):
        spool.put(R, STREAM, i, PAYLOAD)


def stored(catalog: Catalog, device: str = "car", stream: str = STREAM) -> list[int]:
    return [
        r.raw_ns for boot in catalog.boots(device) for r in catalog.records(device, boot, stream)
    ]


def test_stopping_sleeps_no_longer_than_the_drain(tmp_path: Path) -> None:
    """Whatever the session would wait for: an acknowledgement, or the next attempt to connect."""

    class Poller:
        def __init__(self) -> None:
            self.waits_ms: list[int] = []

        def poll(self, timeout_ms: int) -> list[tuple[object, int]]:
            self.waits_ms.append(timeout_ms)
            return []

    with closing(Spool(tmp_path)) as spool:
        server = new_keypair("server").public
        uplink = Uplink(spool, "tcp://127.0.0.1:1", server, new_keypair("car"))
        poller = Poller()
        uplink._sleep(poller, 10 * NS_PER_S)  # type: ignore[arg-type]
        uplink._stop_by_ns = OsClock().raw_ns() + NS_PER_S // 10
        uplink._stopping.set()
        uplink._sleep(poller, 10 * NS_PER_S)  # type: ignore[arg-type]
        uplink._stop_by_ns = 0
        uplink._sleep(poller, 10 * NS_PER_S)  # type: ignore[arg-type]
        uplink._stopping.clear()
        uplink.close()
    assert poller.waits_ms[0] == 10_000
    assert poller.waits_ms[1] <= 100
    assert poller.waits_ms[2] == 1


def test_records_files_and_notices_go_through(rig: Rig) -> None:
    collector = rig.start()
    spool, uplink = rig.device()
    put(spool, 5000)
    path = rig.folder / "segment.mcap"
    path.write_bytes(random.Random(0).randbytes(1_000_000))
    digest = uplink.upload(path, meta={"kind": "camera"})
    wait(lambda: spool.stats().backlog == 0 and uplink.uploads.waiting == 0, 20)
    assert stored(collector.catalog) == list(range(5000))
    (row,) = collector.catalog.uploads("car")
    assert (row.sha256, row.name, row.meta) == (digest, "segment.mcap", {"kind": "camera"})
    assert collector.objects.get(digest) == path.read_bytes()
    assert uplink.stats().sent_records == 5000
    assert collector.health().state == "green"


def test_the_collector_is_absent_and_the_device_goes_on(rig: Rig) -> None:
    """Records are spooled, and flow once it is there."""
    rig.start()
    keys = rig.enrol("car")
    assert rig.collector is not None
    rig.collector.close()
    spool, uplink = rig.device(keys=keys)
    put(spool, 100)
    time.sleep(0.5)
    assert spool.stats().backlog == 100
    rig.start()
    wait(lambda: spool.stats().backlog == 0, 10)
    assert stored(rig.collector.catalog) == list(range(100))
    uplink.close(1)


def test_close_drains_within_its_time(rig: Rig) -> None:
    collector = rig.start()
    spool, uplink = rig.device()
    put(spool, 2000)
    uplink.close(drain_s=10)
    assert spool.stats().backlog == 0
    assert len(stored(collector.catalog)) == 2000


def test_close_drains_files_too(rig: Rig) -> None:
    collector = rig.start()
    spool, uplink = rig.device()
    put(spool, 1)
    wait(lambda: spool.stats().backlog == 0, 10)
    paths = [rig.folder / name for name in ("one.mcap", "two.mcap")]
    for path in paths:
        path.write_bytes(path.name.encode() * 100_000)
        uplink.upload(path)
    uplink.close(drain_s=10)
    assert uplink.uploads.waiting == 0
    assert len(collector.catalog.uploads("car")) == 2


# -- link-24 -------------------------------------------------------------------------------------

_DEVICE = """
import sys
from pathlib import Path
from syncline.link import Uplink, load_keypair, load_public
from syncline.spool import Spool
from syncline.topics import LinkClass
folder, endpoint, server = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
spool = Spool(folder / "spool", segment_bytes=65536)
uplink = Uplink(spool, endpoint, server, load_keypair(folder / "keys/car.key"))
uplink.start()
from syncline.messages.syncline_pb2 import Detections
import time
payload = Detections(camera="a").SerializeToString()
i = int((folder / "next").read_text())
while True:
    for _ in range(50):
        spool.put(LinkClass.RESULTS, "/camera/a/detections", i, payload)
        i += 1
    spool.sync()
    (folder / "next.new").write_text(str(i))
    (folder / "next.new").replace(folder / "next")
    time.sleep(0.005)
"""


class Torture:
    """Device and collector as processes that are killed with -9."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = random.Random(str(folder)).randrange(20000, 30000)
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        self.server = new_keypair("server")
        save_keypair(self.server, folder / "data" / "keys")
        keys = new_keypair("car")
        save_keypair(keys, folder / "keys")
        with Catalog.open(folder / "data") as catalog:
            Devices(catalog).enrol(PublicKey("car", keys.public))
        (folder / "next").write_text("0")

    def start_collector(self, endpoint: str = "") -> subprocess.Popen[bytes]:
        listen = endpoint or self.endpoint
        args = ["collect", "--data", str(self.folder / "data"), "--listen", listen]
        return self._start("-c", f"import sys, syncline.cli; sys.exit(syncline.cli.main({args}))")

    def start_device(self) -> subprocess.Popen[bytes]:
        args = ("-c", _DEVICE, str(self.folder), self.endpoint, self.server.public)
        return self._start(*args)

    def await_flow(self) -> None:
        """Return once the device has spooled and the collector has stored something more."""
        before = self._progress()
        wait(
            lambda: all(now > then for now, then in zip(self._progress(), before, strict=True)), 40
        )

    def _progress(self) -> tuple[int, int]:
        segments = (self.folder / "data" / "segments").glob("*.seg")
        return int((self.folder / "next").read_text()), sum(s.stat().st_size for s in segments)

    def _start(self, *args: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen([sys.executable, *args], stdout=log, stderr=log)


def _kill_both(folder: Path, kills: int) -> tuple[int, int]:
    """Kill either end at random while records flow; returns (records, times spooled twice)."""
    rng = random.Random(24)
    torture = Torture(folder)
    ends = {"device": torture.start_device(), "collector": torture.start_collector()}
    start = {"device": torture.start_device, "collector": torture.start_collector}
    try:
        for _ in range(kills):
            if rng.random() < 0.8:  # the others are killed while they begin
                torture.await_flow()
            time.sleep(rng.uniform(0.0, 1.0))
            name = rng.choice(["device", "collector"])
            assert ends[name].poll() is None, (folder / "log").read_text()[-2000:]
            ends[name].send_signal(signal.SIGKILL)
            ends[name].wait()
            ends[name] = start[name]()
        torture.await_flow()
        ends["device"].send_signal(signal.SIGKILL)
        ends["device"].wait()
        return _settle(torture, ends["collector"])
    finally:
        for process in ends.values():
            process.kill()
            process.wait()


def _settle(torture: Torture, collector: subprocess.Popen[bytes]) -> tuple[int, int]:
    folder = torture.folder
    spool = Spool(folder / "spool", segment_bytes=65536)
    keys = load_keypair(folder / "keys" / "car.key")
    uplink = Uplink(spool, torture.endpoint, torture.server.public, keys)
    uplink.start()
    wait(lambda: spool.stats().backlog == 0, 60)
    uplink.close()
    spool.close()
    collector.send_signal(signal.SIGTERM)
    assert collector.wait(10) == 0
    promised = int((folder / "next").read_text())
    with Catalog.open(folder / "data") as catalog:
        (boot,) = catalog.boots("car")
        rows = list(catalog.records("car", boot, STREAM))
        assert len({r.seq for r in rows}) == len(rows), "a record is there twice"
        assert [r.seq for r in rows] == sorted(r.seq for r in rows)
        numbers = [r.raw_ns for r in rows]
        assert set(range(promised)) <= set(numbers), "a synced record is lost"
        again = len(numbers) - len(set(numbers))
        # the device repeats at most the 50 records whose count it had not written down
        assert all(b - a == 1 or -50 <= b - a <= 0 for a, b in itertools.pairwise(numbers))
        assert catalog.quarantined("car", boot, STREAM) == []
    return len(rows), again


def test_link_24_kill_9_of_both_ends(tmp_path: Path) -> None:
    """link-24: random kill -9 of either end while records flow; 8 here, 100 in the soak."""
    records, _ = _kill_both(tmp_path, 8)
    assert records > 1000


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_link_24_a_hundred_kills(tmp_path: Path) -> None:
    """link-24 at full count."""
    print(_kill_both(tmp_path, 100))


def test_link_44_one_of_two_collectors_dies(tmp_path: Path) -> None:
    """link-44: two collectors on one catalog behind one address; one is killed: rows unique."""
    torture = Torture(tmp_path)
    second = torture.endpoint.replace(f":{torture.port}", f":{torture.port + 1}")
    processes = [torture.start_collector(), torture.start_collector(second)]
    proxy = Proxy(torture.endpoint)
    spool = Spool(tmp_path / "spool")
    keys = load_keypair(tmp_path / "keys" / "car.key")
    uplink = Uplink(spool, proxy.endpoint, torture.server.public, keys)
    uplink.start()
    try:
        for i in range(20):
            put(spool, 100, i * 100)
            time.sleep(0.05)
        wait(lambda: spool.stats().backlog < 2000, 20)
        processes[0].kill()
        processes[0].wait()
        proxy.aim(second)
        put(spool, 500, 2000)
        took = wait(lambda: spool.stats().backlog == 0, 15)
    finally:
        uplink.close()
        spool.close()
        proxy.close()
        for process in processes:
            process.terminate()
            process.wait(10)
    assert took <= 10
    with Catalog.open(tmp_path / "data") as catalog:
        assert stored(catalog) == list(range(2500))


# -- link-26 -------------------------------------------------------------------------------------


def _blackhole(rig: Rig, seconds: float) -> tuple[float, int]:
    rig.start()
    proxy = Proxy(rig.listen)
    spool, _ = rig.device(endpoint=proxy.endpoint)
    put(spool, 500)
    wait(lambda: spool.stats().backlog == 0, 10)
    proxy.blackhole = True
    end, n = time.monotonic() + seconds, 500
    while time.monotonic() < end:
        put(spool, 20, n)
        n += 20
        time.sleep(0.2)
    backlog = spool.stats().backlog
    proxy.blackhole = False
    took = wait(lambda: spool.stats().backlog < backlog, 20)
    wait(lambda: spool.stats().backlog == 0, 20)
    assert rig.collector is not None
    assert stored(rig.collector.catalog) == list(range(n))
    proxy.close()
    return took, n


def test_link_26_a_dead_link_comes_back(rig: Rig) -> None:
    """link-26, 8 s of blackhole (60 s in the soak): flow within 5 s, nothing lost."""
    took, _ = _blackhole(rig, 8)
    assert took <= 5


@pytest.mark.soak
def test_link_26_sixty_seconds(rig: Rig) -> None:
    """link-26 at full length."""
    took, n = _blackhole(rig, 60)
    print(f"flow after {took:.2f} s, {n} records, none lost")
    assert took <= 5


def test_a_proxy_that_resets_every_connection_loses_nothing(rig: Rig) -> None:
    rig.start()
    proxy = Proxy(rig.listen)
    spool, _ = rig.device(endpoint=proxy.endpoint)
    for i in range(10):
        put(spool, 300, i * 300)
        time.sleep(0.1)
        proxy.drop_all()
    wait(lambda: spool.stats().backlog == 0, 30)
    assert rig.collector is not None
    assert stored(rig.collector.catalog) == list(range(3000))
    assert proxy.connections >= 3
    proxy.close()


# -- link-29 -------------------------------------------------------------------------------------


def _cut_upload(rig: Rig, cuts: int, size: int) -> tuple[int, int]:
    rig.start()
    proxy = Proxy(rig.listen)
    path = rig.folder / "big.bin"
    path.write_bytes(random.Random(29).randbytes(size))
    _, uplink = rig.device(endpoint=proxy.endpoint)
    rng, done = random.Random(29), 0
    digest = uplink.upload(path)
    for _ in range(cuts):
        before = proxy.up_bytes
        proxy.cut_after = before + rng.randrange(1, max(2 * size // cuts, 2))
        wait(lambda: proxy.cut_after is None or uplink.uploads.waiting == 0, 30)
        if uplink.uploads.waiting == 0:
            break
        done += 1
    wait(lambda: uplink.uploads.waiting == 0, 60)
    assert rig.collector is not None
    assert hashlib.sha256(rig.collector.objects.get(digest)).hexdigest() == digest
    assert uplink.uploads.failed == 0
    sent = uplink.uploads.sent_bytes
    proxy.close()
    return done, sent


def test_link_29_a_cut_upload_goes_on_where_it_was(rig: Rig) -> None:
    """link-29: 5 cuts here, 100 in the soak; what is resent is what was in flight, sha256 equal."""
    done, sent = _cut_upload(rig, 5, 4_000_000)
    assert done >= 3
    assert sent - 4_000_000 <= done * 4 * 192 * 1024


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_link_29_a_hundred_cuts(rig: Rig) -> None:
    """link-29 at full count."""
    done, sent = _cut_upload(rig, 100, 100_000_000)
    print(f"{done} cuts, resent {(sent - 100_000_000) / max(done, 1) / 1024:.0f} kB each")
    assert sent - 100_000_000 <= done * 4 * 192 * 1024


def test_a_file_that_is_gone_is_given_up_and_told(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.start()
    path = rig.folder / "gone.bin"
    path.write_bytes(b"x" * 1000)
    keys = rig.enrol("car")
    spool, uplink = rig.device(keys=keys, endpoint="tcp://127.0.0.1:1")
    uplink.upload(path)
    uplink.close()
    spool.close()
    path.unlink()
    _, uplink = rig.device(keys=keys)
    wait(lambda: uplink.uploads.failed == 1, 10)
    assert "gone.bin" in caplog.text


def test_an_upload_is_remembered_over_a_restart(rig: Rig) -> None:
    collector = rig.start()
    path = rig.folder / "later.bin"
    path.write_bytes(b"later" * 1000)
    keys = rig.enrol("car")
    spool, uplink = rig.device(keys=keys, endpoint="tcp://127.0.0.1:1")
    digest = uplink.upload(path)
    uplink.close()
    spool.close()
    _, uplink = rig.device(keys=keys)
    wait(lambda: uplink.uploads.waiting == 0, 10)
    assert collector.objects.has(digest)


# -- fetch and notices ---------------------------------------------------------------------------


class Shelf:
    """A provider of one resource, for one device."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.number = 1
        self.reads: list[int] = []

    def list_resource(self, device: str, name: str) -> Resource:
        if name != "model/a" or device != "car":
            raise InputError(f"there is no {name!r} for {device}")
        return Resource(len(self.data), hashlib.sha256(self.data).hexdigest())

    def read(self, device: str, name: str, offset: int, length: int) -> bytes:
        self.list_resource(device, name)
        self.reads.append(offset)
        return self.data[offset : offset + length]

    def revision(self) -> int:
        return self.number

    def notices(self, device: str) -> Sequence[Notice]:
        return [Notice("model/a/production", self.number, f"v{self.number}")]


def test_fetch_resumes_and_checks(rig: Rig) -> None:
    shelf = Shelf(random.Random(1).randbytes(3_000_000))
    rig.start(shelf)
    _, uplink = rig.device()
    out = rig.folder / "got" / "a.bin"
    out.parent.mkdir()
    out.with_name("a.bin.part").write_bytes(shelf.data[:1_500_000])
    seen: list[tuple[int, int]] = []
    uplink.fetch("model/a", out, lambda at, size: seen.append((at, size)), timeout_s=20)
    assert out.read_bytes() == shelf.data
    assert seen[-1] == (3_000_000, 3_000_000)
    assert min(shelf.reads) >= 1_500_000, "what was there was not fetched again"
    assert not out.with_name("a.bin.part").exists()


def test_fetch_over_a_link_that_breaks(rig: Rig) -> None:
    shelf = Shelf(random.Random(1).randbytes(4_000_000))
    rig.start(shelf)
    proxy = Proxy(rig.listen)
    _, uplink = rig.device(endpoint=proxy.endpoint)
    cuts = iter(range(2))

    def progress(at: int, size: int) -> None:
        if next(cuts, None) is not None:
            proxy.drop_all()

    uplink.fetch("model/a", rig.folder / "a.bin", progress, timeout_s=60)
    assert (rig.folder / "a.bin").read_bytes() == shelf.data
    proxy.close()


def test_nothing_is_written_of_more_than_was_wanted(rig: Rig) -> None:
    rig.start(Shelf(bytes(100_000)))
    _, uplink = rig.device()
    out = rig.folder / "a.bin"
    with pytest.raises(IntegrityError, match="announces 100000 bytes of 'model/a', limit 99999"):
        uplink.fetch("model/a", out, timeout_s=10, max_bytes=99_999)
    assert not out.exists()
    assert not out.with_name("a.bin.part").exists()
    uplink.fetch("model/a", out, timeout_s=10, max_bytes=100_000)
    assert out.stat().st_size == 100_000


def test_a_fetch_that_is_refused_says_why(rig: Rig) -> None:
    rig.start(Shelf(b"x"))
    _, uplink = rig.device()
    with pytest.raises(LinkError, match="no 'model/b'"):
        uplink.fetch("model/b", rig.folder / "b", timeout_s=10)
    rig.enrol("lorry")
    _, other = rig.device("lorry")
    with pytest.raises(LinkError, match="for lorry"):
        other.fetch("model/a", rig.folder / "b", timeout_s=10)
    assert not (rig.folder / "b").exists()


def test_notices_come_at_hello_and_when_something_changes(rig: Rig) -> None:
    shelf = Shelf(b"x")
    rig.start(shelf)
    got: list[Notice] = []
    rig.device(on_notice=got.append)
    wait(lambda: len(got) == 1, 10)
    assert got[0] == Notice("model/a/production", 1, "v1")
    shelf.number = 2
    wait(lambda: len(got) > 1, 5)
    assert got[-1].text == "v2"


def test_health_is_written_for_a_person(tmp_path: Path) -> None:
    torture = Torture(tmp_path)
    process = torture.start_collector()
    health = tmp_path / "data" / "health.json"
    wait(health.exists, 20)
    assert json.loads(health.read_text())["state"] == "green"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
