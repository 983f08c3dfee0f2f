"""The live status of `syncline run` on a terminal: one screen."""

from __future__ import annotations

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from syncline.messages import syncline_pb2 as pb

_STYLE = {"ok": "bold green", "degraded": "bold yellow", "failed": "bold red"}


class Screen:
    """Draws health messages in place."""

    def __init__(self) -> None:
        self._live = Live(console=Console(), auto_refresh=False, transient=False)
        self._started = False

    def show(self, message: pb.Health) -> None:
        """Draw one health message."""
        if not self._started:
            self._live.start()
            self._started = True
        self._live.update(screen_of(message), refresh=True)


def screen_of(message: pb.Health) -> Group:
    """Everything that one health message says, as a renderable."""
    head = Text()
    head.append("syncline run   ", "bold")
    head.append(message.state, _STYLE.get(message.state, "bold"))
    head.append(f"   up {message.raw_ns / 1e9:.0f} s raw   rss {message.rss_bytes / 1e6:.0f} MB")
    if message.temperature_c == message.temperature_c and message.temperature_c:
        head.append(f"   {message.temperature_c:.0f} C")
    facts = Table.grid(padding=(0, 2))
    share = f"{message.ep_node_share * 100:.0f} % of nodes on {message.ep_requested}"
    facts.add_row(
        "model", f"{message.model_name} {message.model_version}", message.ep_actual, share
    )
    facts.add_row(
        "frames", f"captured {message.frames_captured}", f"processed {message.frames_processed}"
    )
    dropped = ", ".join(f"{reason} {count}" for reason, count in sorted(message.dropped.items()))
    facts.add_row("dropped", dropped or "none")
    state = pb.TimeState.Name(message.time_state).removeprefix("TIME_STATE_")
    bound = f"+-{message.time_bound_ns / 1e6:.3f} ms" if message.time_bound_ns else "no bound yet"
    facts.add_row("time", state, bound)
    waiting = f"{message.counters.get('spool.backlog', 0)} records wait"
    facts.add_row("spool", waiting, f"{message.spool_bytes / 1e6:.1f} MB on disk")
    lines: list[Text | Table] = [head, facts, _latencies(message)]
    if message.detail:
        lines.append(Text(message.detail, "yellow"))
    return Group(*lines)


def _latencies(message: pb.Health) -> Table:
    table = Table("stage", "frames", "mean", "p50 <", "p99 <", box=None, padding=(0, 2))
    for histogram in message.latency:
        count = sum(histogram.counts)
        if not count:
            continue
        table.add_row(
            histogram.name,
            str(count),
            f"{histogram.sum_ns / count / 1e6:.2f} ms",
            _edge(histogram, 0.5),
            _edge(histogram, 0.99),
        )
    return table


def _edge(histogram: pb.Histogram, share: float) -> str:
    wanted, seen = share * sum(histogram.counts), 0
    for edge_ns, count in zip(histogram.edges_ns, histogram.counts, strict=False):
        seen += count
        if seen >= wanted:
            return f"{edge_ns / 1e6:.2f} ms"
    return "more"
