"""Runs in a network namespace of its own: device and collector over a capped, lossy loopback."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from syncline.cloud.catalog import Catalog
from syncline.cloud.collector import Collector
from syncline.cloud.devices import Devices
from syncline.link import PublicKey, Uplink, new_keypair
from syncline.messages.syncline_pb2 import Health
from syncline.spool import Spool
from syncline.topics import LinkClass

ROW = b"\x0a\xd8\x0f" + b"x" * 2008


def run(seconds: float, folder: Path) -> dict[str, float]:
    """Drain a backlog for `seconds` while an event comes every 200 ms."""
    server, keys = new_keypair("server"), new_keypair("car")
    with Catalog.open(folder / "data") as catalog:
        Devices(catalog).enrol(PublicKey("car", keys.public))
    collector = Collector(folder / "data", "tcp://127.0.0.1:0", server)
    collector.start()
    spool = Spool(folder / "spool")
    for i in range(int(seconds * 900)):
        spool.put(LinkClass.BULK, "/health", i, ROW)
    spool.sync()
    uplink = Uplink(spool, collector.endpoint, server.public, keys)
    uplink.start()
    while collector.health().counts.get("bytes", 0) == 0:
        time.sleep(0.01)
    time.sleep(2)
    began, before = time.monotonic(), collector.health().counts["bytes"]
    late = []
    while time.monotonic() - began < seconds:
        at = time.monotonic()
        spool.put(LinkClass.EVENTS, "/time/events", 0, b"")
        while spool.stats().classes[LinkClass.EVENTS].backlog:
            time.sleep(0.002)
            assert time.monotonic() - at < 60
        late.append(time.monotonic() - at)
        time.sleep(max(0.2 - late[-1], 0))
    spent = time.monotonic() - began
    goodput = (collector.health().counts["bytes"] - before) / spent
    left = spool.stats().backlog
    uplink.close()
    spool.close()
    sessions = collector.health().counts["sessions"]
    collector.close()
    late.sort()
    assert Health.FromString(ROW)
    return {
        "goodput": goodput,
        "event_p50_s": late[len(late) // 2],
        "event_p99_s": late[len(late) * 99 // 100],
        "events": len(late),
        "left": left,
        "sessions": sessions,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(run(float(sys.argv[1]), Path(name))))
