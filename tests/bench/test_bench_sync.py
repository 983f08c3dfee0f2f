"""sync-46: cost of a measurement: four hours within half a second, microseconds between solves.

CPU time of the process; each part of a run counts with its best of several repeats, so that what
else the machine does is left out as far as it can be.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from syncline.sync.estimator import TimeEstimator
from syncline.sync.measurement import Measurement
from syncline.sync.sim.path import PathSpec
from syncline.sync.sim.scenario import GnssSpec, Scenario, ServerSpec
from syncline.sync.sim.world import play
from syncline.sync.traces import measurements

pytestmark = pytest.mark.bench

CELL = ServerSpec(PathSpec(20.0, 20.0, 5.0, busy_queue_ms=20.0, bursts_per_h=6.0, loss=0.02))
LAN = ServerSpec(PathSpec(0.1, 0.1, 0.01))
FOUR_HOURS = [
    pytest.param(Scenario(poll="std", servers=(CELL,)), id="cell std"),
    pytest.param(Scenario(poll="fast", servers=(CELL,)), id="cell fast"),
    pytest.param(Scenario(poll="tuned", servers=(CELL,)), id="cell tuned"),
    pytest.param(Scenario(poll="tuned", servers=(LAN,)), id="lan tuned"),
    pytest.param(Scenario(poll="fast", servers=(CELL,) * 4), id="four cell fast"),
    pytest.param(Scenario(poll="tuned", servers=(CELL,) * 4), id="four cell tuned"),
    pytest.param(Scenario(gnss=GnssSpec(), servers=(CELL,) * 2), id="gnss 1 Hz"),
]
_OPEN = ("j_", "gnss", "e_drag1")
"""Four hours with GNSS at 1 Hz beside two servers, or with two of four servers that drag slowly,
are not always within the half second: open, see docs/acceptance/sync.md, case 46."""
_PART = 5
_REPEATS = 8


def costs(measurements: list[Measurement], repeats: int = _REPEATS) -> list[float]:
    """CPU seconds of each part of a run, the best of the repeats."""
    best: list[float] = []
    gc.collect()
    gc.freeze()  # a service holds no hours of measurements: their upkeep is not its cost
    for _ in range(repeats):
        est, parts = TimeEstimator("bench"), []
        for i in range(0, len(measurements), _PART):
            began = time.process_time()
            for m in measurements[i : i + _PART]:
                est.update(m)
            parts.append(time.process_time() - began)
        best = [min(a, b) for a, b in zip(best, parts, strict=True)] if best else parts
    gc.unfreeze()
    return best


def yardstick() -> float:
    """CPU seconds of 1500 plain additions with a tuple and a dictionary: this machine's Python."""
    best = 1.0
    for _ in range(50):
        began = time.process_time()
        x, kept = 0.0, {}
        for i in range(1500):
            x = x * 0.5 + i
            kept[i & 63] = (x, i)
        best = min(best, time.process_time() - began)
    return best


def check_four_hours(found: dict[str, float]) -> None:
    """Half a second each, more where this machine's Python takes over 200 us for the yardstick."""
    most = 0.5 * max(yardstick() / 200e-6, 1.0)
    over = {name: round(total, 2) for name, total in found.items() if total > most}
    assert [name for name in over if not name.startswith(_OPEN)] == []
    if over:
        pytest.xfail(f"open: {over} s instead of {most:.2f}")


@pytest.mark.parametrize("scenario", FOUR_HOURS)
def test_sync_46_four_hours(benchmark, scenario, request):
    ms = play(scenario, 1).measurements
    parts = benchmark.pedantic(costs, args=(ms,), rounds=1)
    total = sum(parts)
    middle = statistics.median(parts[len(parts) // 3 :]) / _PART
    benchmark.extra_info.update(
        measurements=len(ms),
        four_hours_s=round(total, 3),
        us_each=round(1e6 * total / len(ms)),
        us_each_between_solves=round(1e6 * middle),
    )
    print(
        f"{len(ms)} measurements: {total:.3f} s, {1e6 * total / len(ms):.0f} us each, "
        f"{1e6 * middle:.0f} us between joint solves"
    )
    check_four_hours({request.node.callspec.id: total})


def recorded(folder: Path) -> Iterator[tuple[str, list[Measurement]]]:
    """The first seed of every recorded scenario, at every polling."""
    for place in sorted(folder.glob("*/s1")):
        gnss = []
        if (place / "gnss.csv.gz").exists():
            g = np.genfromtxt(place / "gnss.csv.gz", delimiter=",", names=True)
            gnss = [{"src": "gnss", "t4": r["t_raw"], "utc": r["utc"]} for r in g]
        for file in sorted(place.glob("exch_*.csv.gz")):
            e = np.genfromtxt(file, delimiter=",", names=True)
            rows = [
                {n: r[n] for n in ("leap", "stratum", "rootdelay", "rootdisp")}
                | {"src": int(r["src"]), "t1": r["t1_raw"], "t4": r["t4_raw"]}
                | {"t2": r["t2"], "t3": r["t2"] + r["dt32"]}
                for r in e
            ]
            yield f"{place.parent.name} {file.name[5:-7]}", measurements(rows + gnss)


@pytest.mark.timeout(1800)
def test_sync_46_every_recorded_trace(benchmark, shared_data):
    def run() -> dict[str, tuple[float, int]]:
        found = {}
        for name, ms in recorded(shared_data / "clock"):
            hours = (ms[-1].raw_ns - ms[0].raw_ns) / 3.6e12
            found[name] = (sum(costs(ms, 3)) * 4.0 / max(hours, 4.0), len(ms))
        return found

    found = benchmark.pedantic(run, rounds=1)
    by_cost = sorted(found, key=lambda name: -found[name][0])
    for name in by_cost[:16]:
        total, count = found[name]
        print(f"{name}: {total:.3f} s, {1e6 * total / count:.0f} us each of {count}")
    for poll in ("std", "fast", "tuned"):
        each = [1e6 * s / n for name, (s, n) in found.items() if name.endswith(poll)]
        print(f"{poll}: {statistics.median(each):.0f} us each with joint solves (median)")
    assert len(found) > 80
    check_four_hours({name: total for name, (total, _) in found.items()})


def test_sync_46_cost_is_constant_over_days():
    ms = play(Scenario(duration_s=6 * 14400.0, servers=(CELL,)), 1).measurements
    parts = costs(ms)
    third = len(parts) // 3
    assert sum(parts[-third:]) < 1.3 * sum(parts[third : 2 * third])
