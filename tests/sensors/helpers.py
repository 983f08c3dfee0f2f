"""Loading reference traces, and the score that the acceptance cases state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from syncline.sensors.frame import Anchor, FrameEvent, RawFrame, Stamp
from syncline.sensors.mode import SensorMode
from syncline.sensors.simulate import SCENARIOS, Trace
from syncline.timebase import Clock

I64 = NDArray[np.int64]
PERIOD_NS = 1e9 / 30
READOUT_NS = 14_697_000
DMA_NS = 1_000_000


def load_trace(folder: Path, scenario: str, anchor: Anchor) -> Trace:
    data = np.load(folder / "frames" / f"{scenario}_{anchor.value}_s1.npz")
    names = ("sequence", "device_ns", "exposure_ns", "arrival_ns", "truth_mid_ns")
    sequence, device, exposure, arrival, truth = (data[n].astype(np.int64) for n in names)
    return Trace(sequence, device, exposure, arrival, truth, anchor, SCENARIOS[scenario])


@dataclass(frozen=True)
class Score:
    """Error after 60 s, median removed."""

    rms_ms: float
    p99_ms: float
    error_ns: NDArray[np.float64]
    settled: NDArray[np.bool_]


def score(trace: Trace, mid_ns: NDArray[np.float64] | I64) -> Score:
    settled = trace.device_ns - trace.device_ns[0] > 60e9
    raw = (mid_ns - trace.truth_mid_ns)[settled].astype(float)
    error = raw - np.median(raw)
    rms = float(np.sqrt(np.mean(error**2))) / 1e6
    return Score(rms, float(np.percentile(np.abs(error), 99)) / 1e6, error, settled)


def pairs(trace: Trace) -> tuple[I64, I64]:
    """(device, host) pairs as the clock mapping takes them."""
    host = trace.arrival_ns - trace.spec.readout_ns - trace.spec.dma_ns
    if trace.anchor is Anchor.TRIGGER:
        host = host - trace.exposure_ns
    return trace.device_ns, host


def mids(trace: Trace, offset_ns: NDArray[np.float64] | I64) -> NDArray[np.float64]:
    """Middle of exposure from a clock offset."""
    side = 1 if trace.anchor is Anchor.TRIGGER else -1
    middle = trace.device_ns + offset_ns + side * (trace.exposure_ns // 2)
    return np.asarray(middle, dtype=np.float64)


def arrived(
    ns: int, sequence: int | None = None, ticks: int | None = None, **more: object
) -> RawFrame:
    stamp = Stamp(ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL)
    return RawFrame("cam", sequence, ticks, arrival=stamp, **{"driver": None, **more})  # type: ignore[arg-type]


def rolling_mode(rows: int = 480) -> SensorMode:
    return SensorMode.simple(640, rows, readout_ns=READOUT_NS, period_ns=PERIOD_NS)
