"""Which frame is next: queues, rates, priorities. Pure: time comes in as an argument.

A `Lane` is one camera's way to one model slot. The `Schedule` picks among lanes: higher priority
first, then the lane that was served longest ago. Shadow lanes only get slack.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from syncline.edge.job import DropReason, Frame

MAX_LANES = 256
_RATE_TOLERANCE = 0.25


class QueuePolicy(enum.Enum):
    """What happens to frames that come faster than they are processed."""

    LATEST = "latest"
    """Keep the newest; what it replaces is dropped and counted."""
    FIFO = "fifo"
    """Keep up to `limit`; what does not fit is dropped and counted."""
    BLOCK = "block"
    """Keep up to `limit`; hold the camera back."""


Dropped = tuple[Frame, DropReason]
"""A frame that gave way, and why."""


@dataclass
class FrameQueue:
    """Frames that wait for one model.

    Attributes:
        policy: See `QueuePolicy`.
        limit: Frames held; LATEST always holds one.
        deadline_ns: Frames older than this, by their `raw_ns`, are dropped when their turn comes.
    """

    policy: QueuePolicy = QueuePolicy.LATEST
    limit: int = 8
    deadline_ns: int | None = None
    _frames: deque[Frame] = field(default_factory=deque, repr=False)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def is_full(self) -> bool:
        """Whether a BLOCK queue must hold its camera back."""
        return len(self._frames) >= self.limit

    def offer(self, frame: Frame) -> list[Dropped]:
        """Take a frame; returns what was dropped for it, or the frame itself when it is refused.

        A BLOCK queue is offered a frame only when it is not full.
        """
        if self.policy is QueuePolicy.LATEST:
            dropped = [(old, DropReason.REPLACED) for old in self._frames]
            self._frames.clear()
            self._frames.append(frame)
            return dropped
        if self.is_full:
            return [(frame, DropReason.QUEUE_FULL)]
        self._frames.append(frame)
        return []

    def drop_late(self, now_ns: int) -> list[Dropped]:
        """Drop from the front what is past its deadline."""
        late: list[Dropped] = []
        while self._frames and self.is_late(self._frames[0], now_ns):
            late.append((self._frames.popleft(), DropReason.LATE))
        return late

    def is_late(self, frame: Frame, now_ns: int) -> bool:
        """Whether the frame's deadline has passed."""
        return self.deadline_ns is not None and now_ns > frame.raw_ns + self.deadline_ns

    def take(self) -> Frame:
        """The next frame; the queue must not be empty."""
        return self._frames.popleft()

    def drain(self) -> list[Dropped]:
        """Empty the queue at the end."""
        left = [(frame, DropReason.STOPPED) for frame in self._frames]
        self._frames.clear()
        return left


@dataclass
class Lane:
    """One camera's way to one model slot.

    Attributes:
        slot: Name of the model slot.
        camera: Name of the camera.
        queue: Its waiting frames.
        priority: Higher goes first.
        min_interval_ns: Frames sooner after the last accepted one are not asked for; 0 = all.
        shadow: Runs in slack only.
        busy: A worker has a frame of this lane: the next waits, so that results keep their order.
        begun_ns: When that worker took it.
        served: Turn at which it was served last.
        service_ns: Smoothed time that its frames take.
        period_ns: Smoothed time between its frames.
    """

    slot: str
    camera: str
    queue: FrameQueue
    priority: int = 0
    min_interval_ns: int = 0
    shadow: bool = False
    busy: bool = False
    begun_ns: int = 0
    served: int = 0
    service_ns: float = 0.0
    period_ns: float = 0.0
    _last_raw_ns: int | None = None
    _next_due_ns: int | None = None

    def offer(self, frame: Frame) -> list[Dropped]:
        """Take a frame under the lane's rate and its queue's policy."""
        self._learn_period(frame.raw_ns)
        if not self.is_due(frame.raw_ns):
            return [(frame, DropReason.RATE)]
        self._accept(frame.raw_ns)
        return self._shed(self.queue.offer(frame))

    def drop_late(self, now_ns: int) -> list[Dropped]:
        """Drop what is past its deadline."""
        return self._shed(self.queue.drop_late(now_ns))

    def _shed(self, dropped: list[Dropped]) -> list[Dropped]:
        """Whatever a shadow lane loses, it loses to the primary model."""
        return [(frame, DropReason.SHED) for frame, _ in dropped] if self.shadow else dropped

    def _learn_period(self, raw_ns: int) -> None:
        if self._last_raw_ns is not None and raw_ns > self._last_raw_ns:
            step = raw_ns - self._last_raw_ns
            self.period_ns += (step - self.period_ns) * (0.2 if self.period_ns else 1.0)
        self._last_raw_ns = raw_ns

    def is_due(self, raw_ns: int) -> bool:
        """Whether the rate asks for a frame; a quarter interval early still counts as on time."""
        due = self._next_due_ns
        slack = int(self.min_interval_ns * _RATE_TOLERANCE)
        return not self.min_interval_ns or due is None or raw_ns >= due - slack

    def _accept(self, raw_ns: int) -> None:
        """Count the next interval from a frame that was asked for."""
        due = self._next_due_ns
        late = due is None or raw_ns > due + self.min_interval_ns
        self._next_due_ns = (raw_ns if late or due is None else due) + self.min_interval_ns

    def learn_service(self, service_ns: int) -> None:
        """Take the time that one frame took."""
        self.service_ns += (service_ns - self.service_ns) * (0.2 if self.service_ns else 1.0)

    def ends_ns(self, now_ns: int) -> int:
        """When the frame in work is expected to be done.

        One that takes longer than it should is expected to do so as long again.
        """
        due_ns = self.begun_ns + round(self.service_ns)
        return now_ns + abs(due_ns - now_ns)

    def next_arrival_ns(self) -> int | None:
        """When the next frame is expected, or None when there is no telling."""
        if self._last_raw_ns is None or not self.period_ns:
            return None
        return self._last_raw_ns + round(self.period_ns)


@dataclass
class Schedule:
    """All lanes of a runner.

    Attributes:
        lanes: By slot and camera.
    """

    lanes: dict[tuple[str, str], Lane] = field(default_factory=dict)
    _turn: int = 0

    def next(self, now_ns: int) -> tuple[Lane | None, list[tuple[Lane, Dropped]]]:
        """Choose the lane to serve now.

        Returns:
            The lane, its queue not empty, or None when there is nothing to do; and what was dropped
            because its deadline had passed.
        """
        dropped = [(lane, drop) for lane in self.lanes.values() for drop in lane.drop_late(now_ns)]
        ready = [lane for lane in self._ready() if not lane.shadow]
        if not ready and not any(lane.busy for lane in self.lanes.values()):
            ready = [lane for lane in self._ready() if lane.shadow and self._fits(lane, now_ns)]
        if not ready:
            return None, dropped
        lane = min(ready, key=lambda lane: (-lane.priority, lane.served))
        self._turn += 1
        lane.served, lane.busy, lane.begun_ns = self._turn, True, now_ns
        return lane, dropped

    def will_run(self, lane: Lane, frame: Frame, now_ns: int, workers: int) -> bool:
        """Whether a frame of a primary lane, offered now, is expected to get its turn.

        Not when its rate does not ask for it, its queue is full, it will be late, or the next frame
        of its camera will take its place first; the times are what the lanes learned.
        """
        queue = lane.queue
        if not lane.is_due(frame.raw_ns) or (queue.policy is QueuePolicy.FIFO and queue.is_full):
            return False
        turn_ns = self._turn_ns(lane, now_ns, workers)
        replaced = queue.policy is QueuePolicy.LATEST and lane.period_ns > 0
        if replaced and turn_ns > frame.raw_ns + lane.period_ns:
            return False
        return not queue.is_late(frame, turn_ns)

    def _turn_ns(self, lane: Lane, now_ns: int, workers: int) -> int:
        """When a worker is expected to take a frame that is offered to a lane now."""
        serving = [at for at in self.lanes.values() if not at.shadow]
        ends = [at.ends_ns(now_ns) for at in serving if at.busy]
        free_ns = now_ns if len(ends) < workers else min(ends)
        order = (-lane.priority, lane.served)
        before = [at for at in serving if len(at.queue) and (-at.priority, at.served) < order]
        free_ns += round(sum(at.service_ns for at in before) / workers)
        turn_ns = max(free_ns, lane.ends_ns(now_ns)) if lane.busy else free_ns
        keeps = lane.queue.policy is not QueuePolicy.LATEST
        return turn_ns + round(keeps * len(lane.queue) * lane.service_ns)

    def _ready(self) -> Iterator[Lane]:
        return (lane for lane in self.lanes.values() if len(lane.queue) and not lane.busy)

    def _fits(self, shadow: Lane, now_ns: int) -> bool:
        """Whether a shadow run is expected to end before the next primary frame comes.

        An arrival that is overdue says nothing: a camera that stopped must not stop the shadow.
        """
        coming = self._next_arrival_ns(now_ns)
        return coming is None or now_ns + shadow.service_ns <= coming

    def _next_arrival_ns(self, now_ns: int) -> int | None:
        arrivals = (lane.next_arrival_ns() for lane in self.lanes.values() if not lane.shadow)
        return min((at for at in arrivals if at is not None and at > now_ns), default=None)

    def wake_ns(self, now_ns: int) -> int | None:
        """When to look again although nothing happened: shadow work waits for a silent camera."""
        if not any(lane.shadow for lane in self._ready()):
            return None
        coming = self._next_arrival_ns(now_ns)
        return None if coming is None else coming + 1

    @property
    def pending(self) -> int:
        """Frames that wait or are being processed."""
        return sum(len(lane.queue) + lane.busy for lane in self.lanes.values())
