"""A triggered camera whose trigger line also goes to a GNSS receiver: timed by the edges."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import replace

from syncline.edge.cameras import Timer
from syncline.edge.config import CameraSection
from syncline.edge.declared_timer import DeclaredTimer
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.frame import FrameEvent, FrameTime, Ns, Quality, RawFrame, Stamp
from syncline.sensors.mark_line import Edge, MarkLine
from syncline.sync.sources.ubx import TimeMark
from syncline.timebase import Clock

SLACK_PERIODS = 0.25
"""The camera's own stamps are true within this share of the trigger's period (docs/config.md)."""
SIGMAS = 6.0
"""Of a middle of exposure; with an exposure that is not known, its start varies over 3.5 of them
(half the range against the deviation of half a uniform exposure)."""
MAX_WAITING = 256

_BY_OWN_STAMP = Quality.NO_EXPOSURE | Quality.HOLDOVER | Quality.AMBIGUOUS
"""What is said of a time by how it was had."""

Mark = tuple[int, Ns, int]
"""Count, UTC and accuracy of a rising edge."""


class MarkedTimer:
    """Takes the edge that a frame can only have come from as its stamp; else times it as declared.

    Which edge that is, the camera's own stamp must tell: the interval in which its trigger can lie
    (bias, sigma and the bound of UTC) and a quarter period either side must hold one edge alone.

    Args:
        rough: Times frames by their own stamps.
        fine: Times those that have their edge.
        utc: UTC of a raw time and its bound; None while it is not known.
        path_ns: From the edge to the start of exposure.

    Attributes:
        marked: Frames timed by their edge.
        unmarked: Frames timed as declared.
    """

    def __init__(
        self,
        rough: DeclaredTimer,
        fine: DeclaredTimer,
        utc: Callable[[Ns], tuple[Ns, Ns] | None],
        *,
        path_ns: Ns = 0,
    ) -> None:
        self._rough, self._fine, self._utc, self._path_ns = rough, fine, utc, path_ns
        self._line = MarkLine()
        self._waiting: deque[Mark] = deque(maxlen=MAX_WAITING)
        self.marked = self.unmarked = 0

    def mark(self, count: int, utc_ns: Ns, accuracy_ns: int) -> None:
        """A rising edge, from any thread."""
        self._waiting.append((count, utc_ns, accuracy_ns))

    def stamp(self, frame: RawFrame) -> FrameTime:
        """Time one frame.

        Raises:
            SensorDataError: See `DeclaredTimer`.
        """
        while self._waiting:
            self._line.add(*self._waiting.popleft())
        rough = self._rough.stamp(frame)
        found = None if Quality.REJECTED in rough.quality else self._edge(rough)
        if found is None:
            self.unmarked += 1
            return rough
        edge, stamp = found
        fine = self._fine.stamp(replace(frame, driver=stamp, device_ticks=None))
        self.marked += 1
        # Whether frames are missing, only the timer that saw all of them knows.
        quality = (rough.quality & ~_BY_OWN_STAMP) | (fine.quality & _BY_OWN_STAMP)
        return replace(fine, index=rough.index, trigger_id=edge.number, quality=quality)

    def _edge(self, rough: FrameTime) -> tuple[Edge, Stamp] | None:
        """The edge and its stamp on RAW, bounded as UTC is."""
        trigger_ns = rough.soe_ns - self._path_ns
        known = self._utc(trigger_ns)
        if known is None:
            return None
        utc_ns, bound_ns = known
        if bound_ns > SLACK_PERIODS * self._line.period_ns:
            return None  # the camera's own stamps are no worse than that
        unsure_ns = round(SIGMAS * rough.sigma_ns) + bound_ns
        low_ns, high_ns = rough.bias_ns
        edge = self._line.only_edge(
            utc_ns + low_ns - unsure_ns, utc_ns + high_ns + unsure_ns, SLACK_PERIODS
        )
        if edge is None:
            return None
        # Twice: the raw clock's own rate over the way there is below a nanosecond then.
        raw_ns = trigger_ns + edge.utc_ns - utc_ns
        there = self._utc(raw_ns)
        if there is None:
            return None
        raw_ns += edge.utc_ns - there[0]
        bias_ns = (-there[1], there[1])
        soe_ns, event = raw_ns + self._path_ns, FrameEvent.SOE
        return edge, Stamp(soe_ns, Clock.MONOTONIC_RAW, event, edge.sigma_ns, bias_ns)


class MarkBoard:
    """Takes the marks of receivers to the cameras that are timed by them.

    Args:
        utc: UTC of a raw time and its bound; None while it is not known.
    """

    def __init__(self, utc: Callable[[Ns], tuple[Ns, Ns] | None]) -> None:
        self._utc = utc
        self._timers: list[tuple[CameraSection, MarkedTimer]] = []

    def timer(self, section: CameraSection, timer: Timer) -> Timer:
        """The timer of a camera: as it is, or one that waits for marks as well."""
        if not section.marks or not isinstance(timer, DeclaredTimer):
            return timer
        path_ns = round(section.trigger_delay_us * 1e3)
        marked = MarkedTimer(timer, copy(timer), self._utc, path_ns=path_ns)
        self._timers.append((section, marked))
        return marked

    def take(self, receiver: str, mark: TimeMark) -> None:
        """An edge on a receiver's pin; called on the clock's thread."""
        for section, timer in self._timers:
            if section.marks == receiver and mark.rising:
                timer.mark(mark.count, mark.utc_ns, mark.accuracy_ns)

    def add_to(self, message: pb.Health) -> None:
        """Add counters to a health message."""
        for section, timer in self._timers:
            message.counters[f"camera.{section.name}.marked"] = timer.marked
            message.counters[f"camera.{section.name}.unmarked"] = timer.unmarked
