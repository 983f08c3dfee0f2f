"""How a daemon is, said in one place: `/health`, `/metrics`, `/healthz`, the screen repeat it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from syncline.edge.capture import Capture
from syncline.edge.runner import Runner
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import NS_PER_S, RawClock

TOLD_NS = 10 * NS_PER_S
"""How long a result that could not be handed on is told: whoever asks seldom must see it, too."""

Part = Callable[[pb.Health], list[str] | None]
"""Adds its counters to a message; returns a line for each problem, or sets the state itself."""


class Status:
    """Asks every part of a daemon how it is; any thread.

    Args:
        clock: Raw clock.
        runner: Of the models.
        captures: The cameras.
        parts: The rest, in the order in which they are told.
    """

    def __init__(
        self, clock: RawClock, runner: Runner, captures: Sequence[Capture], parts: Sequence[Part]
    ) -> None:
        self._started_ns = clock.raw_ns()
        self._runner = runner
        self._captures = captures
        self._parts = parts
        self._failed, self._failed_ns = 0, clock.raw_ns() - TOLD_NS
        self._lock = threading.Lock()  # a scrape and the daemon's own loop may ask at once

    def message(self) -> pb.Health:
        """The `/health` message of now."""
        with self._lock:
            message = self._runner.health().to_message()
            worst = message.state
            message.started_raw_ns = self._started_ns
            problems: list[str] = []
            for part in self._parts:
                problems += part(message) or []
            problems += self._lost_results(message)
            wrong, ended = self._add_cameras(message)
            if wrong or problems:
                message.state = "degraded"
                told = [message.detail, *wrong, *problems, *ended]
                message.detail = "; ".join(filter(None, told))
            if worst in ("failed", "starting"):
                message.state = worst
            return message

    def _lost_results(self, message: pb.Health) -> list[str]:
        """Results and drops that the daemon itself failed to hand on, while that is news."""
        failed = message.counters.get("callback-failed", 0)
        if failed > self._failed:
            self._failed, self._failed_ns = failed, message.raw_ns
        if message.raw_ns - self._failed_ns >= TOLD_NS or not failed:
            return []
        return [f"internal error: {failed} results or drops were not handed on; see the log"]

    def _add_cameras(self, message: pb.Health) -> tuple[list[str], list[str]]:
        """Add the cameras; returns what is wrong with them, and which recordings are over."""
        wrong, ended = [], []
        for capture in self._captures:
            health = capture.health()
            counts = (health.frames, health.dropped, capture.rejected)
            for name, count in zip(("frames", "lost", "refused"), counts, strict=True):
                message.counters[f"camera.{capture.name}.{name}"] = count
            message.counters[f"camera.{capture.name}.errors"] = health.errors
            message.cameras.add(
                camera=capture.name,
                state=capture.state.value,
                detail=capture.trouble,
                frames=counts[0],
                lost=counts[1],
                refused=counts[2],
            )
            if capture.trouble:
                wrong.append(f"camera {capture.name}: {capture.trouble}")
            if capture.has_ended and health.errors:
                wrong.append(f"camera {capture.name}: ended, damaged: {health.errors} errors")
            elif capture.has_ended:
                ended.append(f"camera {capture.name}: ended")
        return wrong, ended
