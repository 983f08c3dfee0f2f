"""A collector of its own process with a fleet of another: what link-41 measures, in figures."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from syncline.link import new_keypair
from syncline.link.keys import save_keypair

from ..link.rig import wait  # noqa: TID252
from .fleet import enrol

RATE = 5
"""Records per second of each device."""


@dataclass(frozen=True)
class Figures:
    """What a run gave.

    Attributes:
        welcomed: Devices that got in.
        on_s: Seconds until the last did.
        sent: Records sent.
        acked: Records acknowledged.
        rate: Records per second that the fleet managed to send.
        p50_s: Median time from sending a record to its acknowledgement.
        p99_s: The 99th percentile.
        own_cpu_s: CPU time of the fleet from the first connection on.
        collector_cpu_s: CPU time of the collector from before the first connection on.
        rss_mb: Memory of the collector at the end.
    """

    welcomed: int
    on_s: float
    sent: int
    acked: int
    rate: float
    p50_s: float
    p99_s: float
    own_cpu_s: float
    collector_cpu_s: float = 0.0
    rss_mb: float = 0.0


def _collector(folder: Path, port: int) -> subprocess.Popen[bytes]:
    args = ["collect", "--data", str(folder), "--listen", f"tcp://127.0.0.1:{port}"]
    code = f"import sys, syncline.cli; sys.exit(syncline.cli.main({args}))"
    with (folder.parent / "log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def run_fleet(tmp_path: Path, n: int, seconds: float) -> Figures:
    """`n` devices connect at once and send `RATE` records a second each for `seconds`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    data, port = tmp_path / "data", 20000 + hash(str(tmp_path)) % 9000
    server = new_keypair("server")
    save_keypair(server, data / "keys")
    keys = enrol(data, n)
    rows = tmp_path / "keys.json"
    rows.write_text(json.dumps([[k.name, k.public, k.secret] for k in keys]))
    process = _collector(data, port)
    try:
        wait((data / "health.json").exists, 20)
        watched = psutil.Process(process.pid)
        before_s = _cpu_s(watched)
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("fleet.py")),
             f"tcp://127.0.0.1:{port}", server.public, str(rows), str(RATE), str(seconds)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        cpu_s, rss_mb = _cpu_s(watched) - before_s, watched.memory_info().rss / 2**20
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    figures = Figures(**json.loads(done.stdout), collector_cpu_s=cpu_s, rss_mb=rss_mb)
    print(figures, f"collector {cpu_s / figures.sent * 1e6:.0f} us CPU per record")
    return figures
