"""The live status of `syncline run` on a terminal: one screen."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from syncline.messages import syncline_pb2 as pb

_STYLE = {"ok": "bold green", "degraded": "bold yellow", "failed": "bold red"}


class Screen:
    """Draws health messages in place, between `with` and its end; log lines go above.

    Args:
        console: Where to; the terminal when none is given.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._logs = sys.stderr.isatty()  # a log that goes into a file stays there
        self._live = Live(
            console=console or Console(),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=self._logs,
        )
        self._moved: list[tuple[logging.StreamHandler[Any], Any]] = []

    def __enter__(self) -> Screen:
        """Take the terminal."""
        before = sys.stderr
        self._live.start()
        if self._logs:
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                    handler.setStream(sys.stderr)
                    self._moved.append((handler, before))
        return self

    def show(self, message: pb.Health) -> None:
        """Draw one health message."""
        self._live.update(screen_of(message), refresh=True)

    def __exit__(self, *_: object) -> None:
        """Leave the last screen, and give the terminal and its cursor back."""
        for handler, stream in self._moved:
            handler.setStream(stream)
        self._moved.clear()
        self._live.stop()


def screen_of(message: pb.Health) -> Group:
    """Everything that one health message says, as a renderable."""
    facts = Table.grid(padding=(0, 2))
    state = pb.TimeState.Name(message.time_state).removeprefix("TIME_STATE_")
    bound = f"+-{message.time_bound_ns / 1e6:.3f} ms" if message.time_bound_ns else "no bound yet"
    facts.add_row("time", state, bound)
    waiting = f"{message.counters.get('spool.backlog', 0)} records wait"
    facts.add_row("spool", waiting, f"{message.spool_bytes / 1e6:.1f} MB on disk")
    parts: list[Text | Table] = [
        _head(message),
        _models(message),
        _cameras(message),
        facts,
        _latencies(message),
    ]
    if message.detail:
        parts.append(Text(message.detail, "yellow"))
    return Group(*parts)


def _head(message: pb.Health) -> Text:
    head = Text()
    head.append("syncline run   ", "bold")
    head.append(message.state, _STYLE.get(message.state, "bold"))
    if message.started_raw_ns:
        head.append(f"   up {_duration((message.raw_ns - message.started_raw_ns) // 10**9)}")
    head.append(f"   rss {message.rss_bytes / 1e6:.0f} MB")
    if message.temperature_c == message.temperature_c and message.temperature_c:
        head.append(f"   {message.temperature_c:.0f} C")
    return head


def _duration(seconds: int) -> str:
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    if hours:
        return f"{hours} h {m} min"
    return f"{m} min {s} s" if m else f"{s} s"


def _models(message: pb.Health) -> Table:
    table = _table("model", "", "state", "provider", "captured", "processed", "dropped")
    for model in message.models:
        role = f"shadow of {model.shadow_of}" if model.shadow_of else model.slot
        name = f"{model.name} {model.version} {model.sha256[:8]}"
        provider = model.ep_actual.removesuffix("ExecutionProvider")
        if model.ep_requested != model.ep_actual or model.ep_node_share < 1.0:
            asked = model.ep_requested.removesuffix("ExecutionProvider")
            provider += f" ({model.ep_node_share * 100:.0f} % of nodes on {asked})"
        counts = str(model.frames_captured), str(model.frames_processed)
        dropped = _dropped(model.dropped)
        if model.frames_invalid:
            dropped += f"; {model.frames_invalid} invalid"
        table.add_row(
            name, role, Text(model.state, _STYLE.get(model.state, "")), provider, *counts, dropped
        )
    return table


def _dropped(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items())) or "none"


def _cameras(message: pb.Health) -> Table:
    table = _table("camera", "state", "frames", "lost", "refused", "errors")
    for camera in message.cameras:
        state = Text(camera.state, "green" if camera.state == "ok" else "yellow")
        errors = message.counters.get(f"camera.{camera.camera}.errors", 0)
        counts = (camera.frames, camera.lost, camera.refused, errors)
        table.add_row(camera.camera, state, *(str(count) for count in counts))
    return table


def _latencies(message: pb.Health) -> Table:
    """A row for each slot: a column for each stage, median and 99th percentile."""
    rows: dict[str, dict[str, pb.Histogram]] = {}
    for histogram in message.latency:
        slot, _, stage = histogram.name.rpartition(".")
        rows.setdefault(slot, {})[stage] = histogram
    stages = list(dict.fromkeys(stage for row in rows.values() for stage in row))
    table = _table("p50 / p99 < ms", *stages)
    for slot, row in rows.items():
        table.add_row(slot, *(_quantiles(row[stage]) if stage in row else "" for stage in stages))
    return table


def _quantiles(histogram: pb.Histogram) -> str:
    if not sum(histogram.counts):
        return "-"
    return f"{_edge_ms(histogram, 0.5)} / {_edge_ms(histogram, 0.99)}"


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="dim")


def _edge_ms(histogram: pb.Histogram, share: float) -> str:
    """Upper edge of the bucket that holds a quantile."""
    wanted, seen = share * sum(histogram.counts), 0
    for edge_ns, count in zip(histogram.edges_ns, histogram.counts, strict=False):
        seen += count
        if seen >= wanted:
            return f"{edge_ns / 1e6:.3g}"
    return "more"
