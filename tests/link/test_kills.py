"""Device and collector as processes that are killed with -9."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from syncline.cloud.catalog import Catalog
from syncline.cloud.devices import Devices
from syncline.link import PublicKey, Uplink, load_keypair, new_keypair
from syncline.link.keys import save_keypair
from syncline.spool import Spool

from .proxy import Proxy
from .records import STREAM, put, stored
from .rig import wait

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


def test_health_is_written_for_a_person(tmp_path: Path) -> None:
    torture = Torture(tmp_path)
    process = torture.start_collector()
    health = tmp_path / "data" / "health.json"
    wait(health.exists, 20)
    assert json.loads(health.read_text())["state"] == "green"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
