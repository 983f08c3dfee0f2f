"""Counters, latency histograms and what else the runner says of itself."""

from __future__ import annotations

import bisect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from syncline.edge.job import DropReason, Latencies
from syncline.edge.metrics import metrics_text
from syncline.messages.syncline_pb2 import Health as HealthMessage
from syncline.messages.syncline_pb2 import Histogram as HistogramMessage
from syncline.messages.syncline_pb2 import ModelHealth as ModelMessage

EDGES_NS: tuple[int, ...] = tuple(
    round(mantissa * 10.0**exponent)
    for exponent in range(5, 10)
    for mantissa in (1.0, 1.5, 2.2, 3.3, 4.7, 6.8)
)
"""Upper edges of latency buckets: six per decade from 0.1 ms to 6.8 s."""

STAGES = ("wait", "decode", "pre", "infer", "post", "total")


@dataclass
class Histogram:
    """Counts of durations in fixed buckets: bounded memory, mergeable.

    Attributes:
        counts: One more than edges; the last is what is longer than all of them.
        sum_ns: Sum of all durations.
        count: Number of durations.
        max_ns: The longest.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(EDGES_NS) + 1))
    sum_ns: int = 0
    count: int = 0
    max_ns: int = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration."""
        self.counts[bisect.bisect_left(EDGES_NS, duration_ns)] += 1
        self.sum_ns += duration_ns
        self.count += 1
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns

    def quantile_ns(self, share: float) -> int:
        """Upper edge of the bucket that holds the quantile; the maximum caps it."""
        if self.count == 0:
            return 0
        need, seen = share * self.count, 0
        for edge, number in zip((*EDGES_NS, self.max_ns), self.counts, strict=True):
            seen += number
            if seen >= need:
                return min(edge, self.max_ns)
        return self.max_ns


@dataclass
class Ledger:
    """Exact accounting of one model slot: captured = processed + dropped + pending.

    Attributes:
        captured: Frames that were submitted.
        processed: Frames on which the model ran to its end.
        invalid: Of those, results that must not be used.
        dropped: Frames that were not processed, by reason.
        latency: Histograms by stage.
    """

    captured: int = 0
    processed: int = 0
    invalid: int = 0
    dropped: dict[DropReason, int] = field(default_factory=dict)
    latency: dict[str, Histogram] = field(
        default_factory=lambda: {stage: Histogram() for stage in STAGES}
    )

    @property
    def pending(self) -> int:
        """Frames that wait or are being processed."""
        return self.captured - self.processed - sum(self.dropped.values())

    def drop(self, reason: DropReason) -> None:
        """Count one drop."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def process(self, latencies: Latencies, *, valid: bool) -> None:
        """Count one processed frame."""
        self.processed += 1
        self.invalid += not valid
        values = (
            latencies.wait_ns,
            latencies.decode_ns,
            latencies.pre_ns,
            latencies.infer_ns,
            latencies.post_ns,
            latencies.total_ns,
        )
        for stage, value in zip(STAGES, values, strict=True):
            self.latency[stage].add(value)


@dataclass(frozen=True, slots=True)
class SlotHealth:
    """What one model slot says of itself.

    Attributes:
        slot: Name of the slot.
        shadow_of: Slot that it is compared with; empty = it serves.
        state: `ok`, `degraded` or `starting`.
        detail: Why it is not ok.
        fault: What of it the model itself is to blame for; empty when nothing is.
        judged: Frames by which the model that serves now can be judged, of the camera with most.
        model_name: From the manifest.
        model_version: From the manifest.
        model_digest: Digest of the bundle that serves.
        ep_requested: Execution provider asked for.
        ep_actual: Execution provider that runs most of the graph.
        ep_node_share: Share of nodes on the provider asked for.
        captured: See `Ledger`.
        processed: See `Ledger`.
        invalid: See `Ledger`.
        dropped: By the reason's name.
        latency: By stage.
    """

    slot: str
    shadow_of: str
    state: str
    detail: str
    fault: str
    judged: int
    model_name: str
    model_version: str
    model_digest: str
    ep_requested: str
    ep_actual: str
    ep_node_share: float
    captured: int
    processed: int
    invalid: int
    dropped: Mapping[str, int]
    latency: Mapping[str, Histogram]

    def to_message(self) -> ModelMessage:
        """Its part of the `/health` message, but for the latencies."""
        return ModelMessage(
            slot=self.slot,
            shadow_of=self.shadow_of,
            state=self.state,
            detail=self.detail,
            name=self.model_name,
            version=self.model_version,
            sha256=self.model_digest,
            ep_requested=self.ep_requested,
            ep_actual=self.ep_actual,
            ep_node_share=self.ep_node_share,
            frames_captured=self.captured,
            frames_processed=self.processed,
            frames_invalid=self.invalid,
            dropped=self.dropped,
        )


@dataclass(frozen=True, slots=True)
class Health:
    """The runner's state at an instant.

    Attributes:
        boot_id: Boot that `raw_ns` counts in.
        raw_ns: When, CLOCK_MONOTONIC_RAW.
        slots: One per model slot, in order of configuration.
        counters: Events since the start: swaps, refusals, restarts.
        rss_bytes: Resident memory of the process.
        temperature_c: Hottest thermal zone; NaN when there is none.
        failure: Why the runner gave up and must be restarted; empty while it works.
    """

    boot_id: str
    raw_ns: int
    slots: Sequence[SlotHealth]
    counters: Mapping[str, int]
    rss_bytes: int
    temperature_c: float
    failure: str = ""

    @property
    def state(self) -> str:
        """`failed`, else the worst state of any slot: `starting`, `degraded`, `ok`."""
        if self.failure:
            return "failed"
        states = {slot.state for slot in self.slots}
        return next((s for s in ("starting", "degraded") if s in states), "ok")

    def to_message(self) -> HealthMessage:
        """The `/health` message: model fields are of the first slot, sums without shadows."""
        first = self.slots[0]
        serving = [slot for slot in self.slots if not slot.shadow_of]
        told = [self.failure, *(f"{s.slot}: {s.detail}" for s in self.slots if s.detail)]
        message = HealthMessage(
            boot_id=self.boot_id,
            raw_ns=self.raw_ns,
            state=self.state,
            detail="; ".join(filter(None, told)),
            model_name=first.model_name,
            model_version=first.model_version,
            model_sha256=first.model_digest,
            ep_requested=first.ep_requested,
            ep_actual=first.ep_actual,
            ep_node_share=first.ep_node_share,
            frames_captured=sum(s.captured for s in serving),
            frames_processed=sum(s.processed for s in serving),
            rss_bytes=self.rss_bytes,
            temperature_c=self.temperature_c,
            counters=self.counters,
        )
        for slot in serving:
            for reason, count in slot.dropped.items():
                message.dropped[reason] += count
        for slot in self.slots:
            message.counters[f"invalid.{slot.slot}"] = slot.invalid
            message.models.append(slot.to_message())
            message.latency.extend(
                HistogramMessage(
                    name=f"{slot.slot}.{stage}",
                    edges_ns=EDGES_NS,
                    counts=histogram.counts,
                    sum_ns=histogram.sum_ns,
                )
                for stage, histogram in slot.latency.items()
            )
        return message

    def to_prometheus(self) -> str:
        """The same as Prometheus text, version 0.0.4."""
        return metrics_text(self.to_message())


def rss_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def temperature_c(zones: Path = Path("/sys/class/thermal")) -> float:
    """The hottest thermal zone, degrees Celsius; NaN where there is none."""
    hottest = float("nan")
    for path in sorted(zones.glob("thermal_zone*/temp")):
        try:
            value = int(path.read_text(encoding="ascii")) / 1000.0
        except (OSError, ValueError):
            continue
        hottest = value if hottest != hottest else max(hottest, value)
    return hottest
