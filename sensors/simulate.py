"""Simulated frame-timing traces with known truth, for tests, benches and choosing parameters.

The family of the reference traces: a camera whose device clock drifts against the host, automatic
exposure, dropped frames, a consumer that stalls, frames delivered in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.sensors.frame import Anchor

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TraceSpec:
    """What a simulated camera and its path to the host look like. Times in SI seconds or ns.

    Attributes:
        seconds: Length.
        period_ns: Frame period.
        readout_ns: Row 0 to one past the last.
        dma_ns: Least delay from end of frame to arrival.
        skew_ppm: Host rate against device rate, settled.
        warmup_ppm: Extra skew at power-on.
        warmup_s: Time constant of the warm-up.
        sine_ppm: Amplitude of a slow oscillation.
        sine_s: Its period.
        walk_ppm: Random walk of the skew, ppm per square root of a second.
        core: "exp" or "gamma": the shape of ordinary delay.
        core_ns: Its scale.
        tail_share: Share of frames with a heavy-tailed (Pareto) extra delay.
        drop: Share of frames lost.
        stalls_per_min: Consumer stalls of 50..400 ms.
        delay_step_ns: Least delay is larger by this in the middle third.
        host_step_ns: Host clock steps by this at `host_step_at_s`.
        host_step_at_s: When.
        host_slew_ppm: Host clock is slewed by this from `host_step_at_s` on for 60 s.
        exposure_ns: Range of the automatic exposure.
    """

    seconds: float = 1200.0
    period_ns: float = 1e9 / 30
    readout_ns: int = 14_697_000
    dma_ns: int = 1_000_000
    skew_ppm: float = 50.0
    warmup_ppm: float = 5.0
    warmup_s: float = 300.0
    sine_ppm: float = 0.0
    sine_s: float = 300.0
    walk_ppm: float = 0.01
    core: str = "exp"
    core_ns: float = 300_000.0
    tail_share: float = 0.05
    drop: float = 0.01
    stalls_per_min: float = 1.0
    delay_step_ns: int = 0
    host_step_ns: int = 0
    host_step_at_s: float = 600.0
    host_slew_ppm: float = 0.0
    exposure_ns: tuple[int, int] = (500_000, 18_000_000)


SCENARIOS: dict[str, TraceSpec] = {
    "A": TraceSpec(),
    "B": TraceSpec(warmup_ppm=-20.0, sine_ppm=3.0),
    "C": TraceSpec(warmup_ppm=-20.0, sine_ppm=3.0, core="gamma", core_ns=150_000.0),
    "D": TraceSpec(
        warmup_ppm=-20.0, sine_ppm=3.0, core="gamma", core_ns=150_000.0, delay_step_ns=500_000
    ),
}


@dataclass(frozen=True, slots=True)
class Trace:
    """One camera's frames: arrays (N,) int64, and the truth.

    Attributes:
        sequence: Frame counter, with gaps at drops.
        device_ns: Device time of the periodic event.
        exposure_ns: Exposure of each frame.
        arrival_ns: Host time of arrival.
        truth_mid_ns: Host time of the first row's middle of exposure.
        anchor: What is periodic.
        spec: What it was made of.
    """

    sequence: I64
    device_ns: I64
    exposure_ns: I64
    arrival_ns: I64
    truth_mid_ns: I64
    anchor: Anchor
    spec: TraceSpec


def simulate(spec: TraceSpec, anchor: Anchor, seed: int) -> Trace:
    """One trace of `spec`; the same seed gives the same trace."""
    rng = np.random.default_rng([seed, 0x53594E43])
    count = int(spec.seconds * 1e9 / spec.period_ns)
    device = np.rint(np.arange(count) * spec.period_ns).astype(np.int64)
    event = 1_000_000_000_000 + device + _wander(spec, device / 1e9, rng)
    exposure = _auto_exposure(spec, count, rng)
    mid = event + (exposure // 2 if anchor is Anchor.TRIGGER else -(exposure // 2))
    end = event + spec.readout_ns + (exposure if anchor is Anchor.TRIGGER else 0)
    arrival, _ = _deliver(spec, end + _delay(spec, count, rng), rng)
    stepped = arrival >= event[0] + spec.host_step_at_s * 1e9
    arrival = arrival + np.where(stepped, spec.host_step_ns, 0)
    mid = mid + np.where(stepped, spec.host_step_ns, 0)
    kept = rng.random(count) >= spec.drop
    kept[0] = True
    return Trace(
        np.flatnonzero(kept).astype(np.int64),
        device[kept],
        exposure[kept],
        np.maximum.accumulate(arrival[kept]) if spec.host_step_ns >= 0 else arrival[kept],
        mid[kept],
        anchor,
        spec,
    )


def _wander(spec: TraceSpec, t_s: F64, rng: np.random.Generator) -> I64:
    step_s = np.diff(t_s, prepend=0.0)
    walk_ppm = np.cumsum(rng.normal(0.0, 1.0, len(t_s)) * spec.walk_ppm * np.sqrt(step_s))
    phase = rng.uniform(0.0, 2 * np.pi)
    skew_ppm = (
        spec.skew_ppm
        + spec.warmup_ppm * np.exp(-t_s / spec.warmup_s)
        + spec.sine_ppm * np.sin(2 * np.pi * t_s / spec.sine_s + phase)
        + walk_ppm
    )
    slewing = (t_s >= spec.host_step_at_s) & (t_s < spec.host_step_at_s + 60.0)
    skew_ppm = skew_ppm + np.where(slewing, spec.host_slew_ppm, 0.0)
    offset: I64 = np.rint(np.cumsum(skew_ppm * step_s * 1e3)).astype(np.int64)
    return offset


def _auto_exposure(spec: TraceSpec, count: int, rng: np.random.Generator) -> I64:
    low, high = np.log(spec.exposure_ns[0]), np.log(spec.exposure_ns[1])
    slow = np.cumsum(rng.normal(0.0, 0.01, count)) + rng.uniform(low, high)
    span = max(high - low, 1e-12)
    folded = low + np.abs((slow - low) % (2 * span) - span)
    exposure: I64 = np.rint(np.exp(folded)).astype(np.int64)
    return exposure


def _delay(spec: TraceSpec, count: int, rng: np.random.Generator) -> I64:
    if spec.core == "gamma":
        core = rng.gamma(4.0, spec.core_ns, count)
    elif spec.core == "exp":
        core = rng.exponential(spec.core_ns, count)
    else:
        core = np.abs(rng.normal(0.0, spec.core_ns, count))
    tail = np.where(rng.random(count) < spec.tail_share, (1 + rng.pareto(1.2, count)) * 1e6, 0.0)
    third = np.arange(count) * 3 // max(count, 1)
    step = np.where(third == 1, spec.delay_step_ns, 0)
    late: I64 = np.rint(spec.dma_ns + core + np.minimum(tail, 50e6) + step).astype(np.int64)
    return late


def _deliver(spec: TraceSpec, ready: I64, rng: np.random.Generator) -> tuple[I64, I64]:
    """Arrivals in order (N,), and when the consumer stalled: begin and end (K, 2)."""
    out = ready.copy()
    count = rng.poisson(spec.stalls_per_min * spec.seconds / 60.0)
    stalls = np.empty((count, 2), dtype=np.int64)
    for row, begin in enumerate(np.sort(rng.uniform(0.0, spec.seconds, count))):
        start = int(ready[0] + begin * 1e9)
        end = start + int(rng.uniform(50e6, 400e6))
        out[(out >= start) & (out < end)] = end
        stalls[row] = start, end
    ordered: I64 = np.maximum.accumulate(out)
    return ordered, stalls


@dataclass(frozen=True, slots=True)
class TriggerTrace:
    """Trigger edges and the frames they brought, with the truth.

    Attributes:
        trigger_ns: Edges (M,), bounces among them, some missed.
        arrival_ns: Frame arrivals (N,).
        truth_trigger_id: Number of each edge, -1 = bounce.
        truth_frame_id: Number of the edge that exposed each frame.
        period_ns: Period.
        base_delay_ns: Least time from edge to arrival.
        edge_ns: Time of every edge, missed ones too, by `edge_id`.
        edge_id: Their numbers.
        stalls_ns: Begin and end of every stall (K, 2).
        unplugged: (first, past the last) position of the edges during the reconnect.
    """

    trigger_ns: I64
    arrival_ns: I64
    truth_trigger_id: I64
    truth_frame_id: I64
    period_ns: float
    base_delay_ns: int
    edge_ns: I64
    edge_id: I64
    stalls_ns: I64
    unplugged: tuple[int, int]

    def truth(self) -> I64:
        """Index into `trigger_ns` of each frame's edge, -1 where it was missed."""
        at = np.full(int(self.truth_trigger_id.max()) + 2, -1, dtype=np.int64)
        real = np.flatnonzero(self.truth_trigger_id >= 0)
        at[self.truth_trigger_id[real]] = real
        known = np.minimum(self.truth_frame_id, len(at) - 1)
        found: I64 = at[known]
        return found


def simulate_triggers(
    seconds: float,
    seed: int,
    *,
    period_ns: float = 33_333_333.0,
    base_delay_ns: int = 25_000_000,
    loss: float = 0.01,
    missed: float = 0.002,
    ignored: float = 0.002,
    bounce: float = 0.0014,
    start_gap: int = 0,
    reconnect: bool = True,
) -> TriggerTrace:
    """A triggered camera; `start_gap` edges are left out after the first second."""
    rng = np.random.default_rng([seed, 0x54524947])
    count = int(seconds * 1e9 / period_ns)
    ids = np.arange(count)
    if start_gap:
        ids = np.delete(ids, np.arange(30, 30 + start_gap))
    edge = 1_000_000_000_000 + np.rint(ids * period_ns + rng.normal(0, 20e3, len(ids)))
    edge = edge.astype(np.int64)
    spec = TraceSpec(seconds=seconds, period_ns=period_ns, dma_ns=base_delay_ns)
    arrival, stalls = _deliver(spec, edge + _delay(spec, len(ids), rng), rng)
    kept = rng.random(len(ids)) >= loss + ignored
    gone = (0, 0)
    if reconnect:
        begin = int(rng.uniform(0.3, 0.7) * len(ids))
        gone = (begin, begin + int(3e9 / period_ns))
        kept[begin : gone[1]] = False
    seen = rng.random(len(ids)) >= missed
    bounced = seen & (rng.random(len(ids)) < bounce)
    times = np.concatenate([edge[seen], edge[bounced] + rng.integers(50_000, 1_000_000)])
    names = np.concatenate([ids[seen], np.full(int(bounced.sum()), -1)])
    order = np.argsort(times, kind="stable")
    return TriggerTrace(
        times[order], arrival[kept], names[order], ids[kept], period_ns, base_delay_ns,
        edge, ids, stalls, gone,
    )  # fmt: skip
