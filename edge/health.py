"""Counters, latency histograms and what else the runner says of itself."""

from __future__ import annotations

import bisect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from syncline.edge.job import DropReason, Latencies
from syncline.messages.syncline_pb2 import Health as HealthMessage
from syncline.messages.syncline_pb2 import Histogram as HistogramMessage

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
        self.max_ns = max(self.max_ns, duration_ns)

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
        """The `/health` message: model fields are of the first slot, sums are over all."""
        first = self.slots[0]
        message = HealthMessage(
            boot_id=self.boot_id,
            raw_ns=self.raw_ns,
            state=self.state,
            detail="; ".join(
                filter(
                    None, [self.failure, *(f"{s.slot}: {s.detail}" for s in self.slots if s.detail)]
                )
            ),
            model_name=first.model_name,
            model_version=first.model_version,
            model_sha256=first.model_digest,
            ep_requested=first.ep_requested,
            ep_actual=first.ep_actual,
            ep_node_share=first.ep_node_share,
            frames_captured=sum(s.captured for s in self.slots),
            frames_processed=sum(s.processed for s in self.slots),
            rss_bytes=self.rss_bytes,
            temperature_c=self.temperature_c,
        )
        for slot in self.slots:
            for reason, count in slot.dropped.items():
                message.dropped[reason] += count
            message.counters[f"invalid.{slot.slot}"] = slot.invalid
            message.latency.extend(
                HistogramMessage(
                    name=f"{slot.slot}.{stage}",
                    edges_ns=EDGES_NS,
                    counts=histogram.counts,
                    sum_ns=histogram.sum_ns,
                )
                for stage, histogram in slot.latency.items()
            )
        for name, count in self.counters.items():
            message.counters[name] = count
        return message

    def to_prometheus(self) -> str:
        """The same as Prometheus text, version 0.0.4."""
        lines = [
            "# TYPE syncline_edge_rss_bytes gauge",
            f"syncline_edge_rss_bytes {self.rss_bytes}",
        ]
        for slot in self.slots:
            lines += _slot_lines(slot)
        lines += [
            f'syncline_edge_events_total{{event="{_escape(name)}"}} {count}'
            for name, count in sorted(self.counters.items())
        ]
        return "\n".join(lines) + "\n"


def _slot_lines(slot: SlotHealth) -> list[str]:
    who = f'slot="{_escape(slot.slot)}"'
    ready = int(slot.state == "ok")
    info = (
        f'{who},model="{_escape(slot.model_name)}",version="{_escape(slot.model_version)}",'
        f'sha256="{slot.model_digest}",ep_requested="{slot.ep_requested}",'
        f'ep_actual="{slot.ep_actual}"'
    )
    lines = [
        f"syncline_edge_model_info{{{info}}} 1",
        f"syncline_edge_slot_ok{{{who}}} {ready}",
        f"syncline_edge_ep_node_share{{{who}}} {slot.ep_node_share:.6g}",
        f"syncline_edge_frames_captured_total{{{who}}} {slot.captured}",
        f"syncline_edge_frames_processed_total{{{who}}} {slot.processed}",
        f"syncline_edge_frames_invalid_total{{{who}}} {slot.invalid}",
    ]
    lines += [
        f'syncline_edge_frames_dropped_total{{{who},reason="{reason}"}} {count}'
        for reason, count in sorted(slot.dropped.items())
    ]
    for stage, histogram in slot.latency.items():
        lines += _histogram_lines(f'{who},stage="{stage}"', histogram)
    return lines


def _histogram_lines(labels: str, histogram: Histogram) -> list[str]:
    name, seen, lines = "syncline_edge_latency_seconds", 0, []
    for edge, count in zip(EDGES_NS, histogram.counts, strict=False):
        seen += count
        lines.append(f'{name}_bucket{{{labels},le="{edge / 1e9:.6g}"}} {seen}')
    lines.append(f'{name}_bucket{{{labels},le="+Inf"}} {histogram.count}')
    lines.append(f"{name}_sum{{{labels}}} {histogram.sum_ns / 1e9:.9g}")
    lines.append(f"{name}_count{{{labels}}} {histogram.count}")
    return lines


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


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
