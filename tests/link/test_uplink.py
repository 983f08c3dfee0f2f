"""Device and collector over real sockets: records flow, the end drains, dead links come back."""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncline.link import LinkState, Uplink, new_keypair
from syncline.link.sender import Output
from syncline.spool import Spool
from syncline.timebase import NS_PER_S, OsClock

from .proxy import Proxy
from .records import put, stored
from .rig import Rig, wait


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


def test_an_error_that_nobody_foresaw_is_told_and_the_link_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that died of it would leave an open session in the books: health would stay ok."""
    collector = rig.start()
    spool, uplink = rig.device()
    put(spool, 10)
    wait(lambda: spool.stats().backlog == 0, 10)
    honest = uplink._sender.step
    broken = [True]

    def step(*args: Any, connected: bool) -> Output:
        if broken and connected:
            raise ValueError("a bug")
        return honest(*args, connected=connected)

    monkeypatch.setattr(uplink._sender, "step", step)
    put(spool, 10, 10)
    wait(lambda: uplink.stats().state is LinkState.DOWN, 10)
    assert "internal error: ValueError: a bug" in uplink.stats().problem
    broken.clear()
    wait(lambda: spool.stats().backlog == 0, 20)
    assert uplink.stats().problem == ""
    assert stored(collector.catalog) == list(range(20))


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
