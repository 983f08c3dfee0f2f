"""A health message as Prometheus text, version 0.0.4: what `/health` says, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from syncline.messages import syncline_pb2 as pb

PREFIX = "syncline_edge_"
_STATES = ("ok", "starting", "degraded", "failed")
_CAMERA_STATES = ("ok", "stale", "absent", "gone", "ended", "closed")
_TIME_STATES = tuple(name.removeprefix("TIME_STATE_").lower() for name in pb.TimeState.keys())  # noqa: SIM118
_LEVELS = frozenset({"spool.backlog", "link.down", "upload.waiting", "chosen.waiting"})
"""Counters of `/health` that go down again."""
_TOLD_APART = ("camera.", "invalid.")
"""Counters of `/health` that are metrics of their own here."""

Labels = Mapping[str, str]


@dataclass
class _Family:
    """A metric with all its samples: they must stand together, under one HELP and one TYPE."""

    name: str
    kind: str
    help: str
    lines: list[str] = field(default_factory=list)

    def add(self, value: float, labels: Labels | None = None, suffix: str = "") -> None:
        named = ",".join(f'{key}="{_escape(text)}"' for key, text in (labels or {}).items())
        where = f"{{{named}}}" if named else ""
        self.lines.append(f"{PREFIX}{self.name}{suffix}{where} {value:.17g}")

    def text(self) -> str:
        head = [
            f"# HELP {PREFIX}{self.name} {self.help}",
            f"# TYPE {PREFIX}{self.name} {self.kind}",
        ]
        return "\n".join([*head, *self.lines]) + "\n" if self.lines else ""


def metrics_text(message: pb.Health) -> str:
    """The page that `/metrics` serves."""
    families = [
        *_process(message),
        *_models(message),
        _latencies(message),
        *_cameras(message),
        *_clock(message),
        *_counters(message),
    ]
    return "".join(family.text() for family in families)


def _one(name: str, kind: str, help_: str, value: float) -> _Family:
    family = _Family(name, kind, help_)
    if not math.isnan(value):
        family.add(value)
    return family


def _states(
    name: str, help_: str, states: tuple[str, ...], of: Iterator[tuple[Labels, str]]
) -> _Family:
    """A gauge that is 1 for the present state and 0 for the others."""
    family = _Family(name, "gauge", help_)
    for labels, now in of:
        for state in states:
            family.add(int(state == now), {**labels, "state": state})
    return family


def _process(message: pb.Health) -> Iterator[_Family]:
    yield _states("state", "1 for the present state.", _STATES, iter([({}, message.state)]))
    if message.started_raw_ns:
        up_s = (message.raw_ns - message.started_raw_ns) / 1e9
        yield _one("up_seconds", "gauge", "Since the daemon started.", up_s)
    yield _one("rss_bytes", "gauge", "Resident memory of the process.", message.rss_bytes)
    yield _one("temperature_celsius", "gauge", "The hottest thermal zone.", message.temperature_c)
    yield _one("spool_bytes", "gauge", "Disk that the spool takes.", message.spool_bytes)


def _slot(model: pb.ModelHealth) -> dict[str, str]:
    return {"slot": model.slot, "shadow_of": model.shadow_of}


def _models(message: pb.Health) -> Iterator[_Family]:
    info = _Family("model_info", "gauge", "Model of each slot; always 1.")
    for model in message.models:
        facts = {
            "model": model.name,
            "version": model.version,
            "sha256": model.sha256,
            "ep_requested": model.ep_requested,
            "ep_actual": model.ep_actual,
        }
        info.add(1, _slot(model) | facts)
    yield info
    for name, kind, help_, field_name in (
        ("ep_node_share", "gauge", "Share of nodes on the provider asked for.", "ep_node_share"),
        ("frames_captured_total", "counter", "Frames offered to the slot.", "frames_captured"),
        ("frames_processed_total", "counter", "Frames that its model ran on.", "frames_processed"),
        ("frames_invalid_total", "counter", "Results not to be used.", "frames_invalid"),
    ):
        family = _Family(name, kind, help_)
        for model in message.models:
            family.add(getattr(model, field_name), _slot(model))
        yield family
    ok = _Family("slot_ok", "gauge", "1 while nothing is wrong with the slot.")
    dropped = _Family("frames_dropped_total", "counter", "Frames not processed, by reason.")
    for model in message.models:
        ok.add(int(model.state == "ok"), _slot(model) | {"sha256": model.sha256})
        for reason, count in sorted(model.dropped.items()):
            dropped.add(count, _slot(model) | {"reason": reason})
    yield from (ok, dropped)


def _latencies(message: pb.Health) -> _Family:
    family = _Family("latency_seconds", "histogram", "Time of a frame by slot and stage.")
    for histogram in message.latency:
        slot, _, stage = histogram.name.rpartition(".")
        labels, seen = {"slot": slot, "stage": stage}, 0
        for edge_ns, count in zip(histogram.edges_ns, histogram.counts, strict=False):
            seen += count
            family.add(seen, {**labels, "le": f"{edge_ns / 1e9:.6g}"}, "_bucket")
        total = sum(histogram.counts)
        family.add(total, {**labels, "le": "+Inf"}, "_bucket")
        family.add(histogram.sum_ns / 1e9, labels, "_sum")
        family.add(total, labels, "_count")
    return family


def _cameras(message: pb.Health) -> Iterator[_Family]:
    yield _states(
        "camera_state",
        "1 for the present state of each camera.",
        _CAMERA_STATES,
        (({"camera": camera.camera}, camera.state) for camera in message.cameras),
    )
    for name, help_ in (
        ("frames", "Frames that the camera delivered."),
        ("lost", "Frames that its numbers skip."),
        ("refused", "Frames whose stamps contradict each other."),
    ):
        family = _Family(f"camera_{name}_total", "counter", help_)
        for camera in message.cameras:
            family.add(getattr(camera, name), {"camera": camera.camera})
        yield family


def _clock(message: pb.Health) -> Iterator[_Family]:
    now = pb.TimeState.Name(message.time_state).removeprefix("TIME_STATE_").lower()
    yield _states("time_state", "1 for the clock's state.", _TIME_STATES, iter([({}, now)]))
    if message.time_bound_ns:
        bound_s = message.time_bound_ns / 1e9
        yield _one("time_bound_seconds", "gauge", "UTC is known within this.", bound_s)


def _counters(message: pb.Health) -> Iterator[_Family]:
    events = _Family("events_total", "counter", "What was counted since the start, by name.")
    levels = _Family("level", "gauge", "What stands now, by name.")
    for name, count in sorted(message.counters.items()):
        if name in _LEVELS:
            levels.add(count, {"level": name})
        elif not (name.startswith(_TOLD_APART) and _has_own(name)):
            events.add(count, {"event": name})
    yield from (events, levels)


def _has_own(name: str) -> bool:
    return name.startswith("invalid.") or name.endswith((".frames", ".lost", ".refused"))


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
