"""Acceptance cases sensors-14 and sensors-43: accuracy and cost against known estimators.

    .venv/bin/pytest -m bench tests/bench/test_bench_sensors.py -s

Costs are CPU time; ratios are to the baselines in the same run.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from syncline.sensors.clock import BlockMinKalman
from syncline.sensors.frame import Anchor, Exposure
from syncline.sensors.simulate import SCENARIOS, Trace, simulate, simulate_triggers
from syncline.sensors.timer import FrameTimer
from syncline.sensors.traces import match_triggers, mid_exposure

from ..sensors.baselines import cuckoo_kalman, switching_hull  # noqa: TID252
from ..sensors.helpers import (  # noqa: TID252
    DMA_NS,
    PERIOD_NS,
    READOUT_NS,
    arrived,
    mids,
    pairs,
    rolling_mode,
    score,
)

pytestmark = pytest.mark.bench


def best_us(call: Callable[[], object], frames: int, rounds: int = 7) -> float:
    """Least CPU time of a few rounds, microseconds per frame."""
    times = []
    for _ in range(rounds):
        begin = time.process_time_ns()
        call()
        times.append(time.process_time_ns() - begin)
    return min(times) / 1e3 / frames


def batch(trace: Trace, online: bool) -> np.ndarray:
    return mid_exposure(
        trace.sequence, trace.device_ns, trace.exposure_ns, trace.arrival_ns,
        anchor=trace.anchor, readout_ns=READOUT_NS, dma_ns=DMA_NS, online=online,
    )[0]  # fmt: skip


def test_cost_per_frame() -> None:
    """sensors-43: <= 5 us per frame in batch, <= 30 us online, against baselines in one run."""
    trace = simulate(SCENARIOS["C"], Anchor.READOUT, 50)
    device, host = pairs(trace)
    count = len(device)
    steps = list(zip(device.tolist(), host.tolist(), strict=True))
    pixels = np.zeros((4, 4), np.uint8)
    frames = [
        arrived(int(a), int(n), int(x), exposures=(Exposure(int(e)),), payload=pixels)
        for n, x, e, a in zip(
            trace.sequence, trace.device_ns, trace.exposure_ns, trace.arrival_ns, strict=True
        )
    ][:6000]

    def live() -> None:
        mapper = BlockMinKalman()
        for x, h in steps:
            mapper.update(x, h)

    def stamped() -> None:
        timer = FrameTimer(rolling_mode(), Anchor.READOUT, dma_ns=DMA_NS, period_ns=PERIOD_NS)
        for frame in frames:
            timer.stamp(frame)

    cost = {
        "batch online": best_us(lambda: batch(trace, True), count),
        "batch offline": best_us(lambda: batch(trace, False), count),
        "live mapper": best_us(live, count),
        "live frame timer": best_us(stamped, len(frames)),
        "cuckoo kalman": best_us(lambda: cuckoo_kalman(device, host), count),
        "switching hull": best_us(lambda: switching_hull(device, host), count),
    }
    for name, us in cost.items():
        print(f"{name:18s} {us:7.2f} us/frame")
    assert cost["batch online"] <= 5.0
    assert cost["batch offline"] <= 5.0 * max(1.0, cost["switching hull"] / 3.0)
    assert cost["batch offline"] <= 2.5 * cost["switching hull"]
    assert cost["live frame timer"] <= 30.0 * max(1.0, cost["switching hull"] / 6.0)
    assert cost["live mapper"] <= 30.0
    assert cost["batch online"] <= 2.0 * cost["switching hull"]


def test_accuracy_against_baselines() -> None:
    """sensors-14: at least twice better on C, every seed, both baselines, in the same run."""
    for seed in range(4):
        trace = simulate(SCENARIOS["C"], Anchor.TRIGGER, 60 + seed)
        device, host = pairs(trace)
        ours = score(trace, batch(trace, True))
        offline = score(trace, batch(trace, False))
        line = f"seed {seed}: online {ours.rms_ms:.4f}/{ours.p99_ms:.4f}"
        line += f" offline {offline.rms_ms:.4f}/{offline.p99_ms:.4f}"
        for baseline in (cuckoo_kalman, switching_hull):
            theirs = score(trace, mids(trace, baseline(device, host)))
            line += f" {baseline.__name__} {theirs.rms_ms:.4f}/{theirs.p99_ms:.4f}"
            assert theirs.rms_ms >= 2 * ours.rms_ms
        print(line)


def test_trigger_matching_cost() -> None:
    """sensors-20, sensors-43: microseconds per frame of the matcher."""
    trace = simulate_triggers(600, 1)
    us = best_us(
        lambda: match_triggers(
            trace.trigger_ns, trace.arrival_ns, trace.period_ns, trace.base_delay_ns
        ),
        len(trace.arrival_ns),
    )
    print(f"trigger matching {us:.1f} us/frame")
    assert us <= 60.0


def test_memory_does_not_grow() -> None:
    """sensors-43: after warming up, 100 000 more frames take no more memory."""
    timer = FrameTimer(rolling_mode(), Anchor.READOUT, dma_ns=DMA_NS, period_ns=PERIOD_NS)

    def feed(first: int, count: int) -> None:
        for n in range(first, first + count):
            at = round(n * PERIOD_NS)
            late = 16_000_000 + (n * 7919) % 300_000
            timer.stamp(arrived(at + late, n, at, exposures=(Exposure(1_000_000),)))

    feed(0, 2_000)
    tracemalloc.start()
    feed(2_000, 1_000)
    before, _ = tracemalloc.get_traced_memory()
    feed(3_000, 20_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 200_000
