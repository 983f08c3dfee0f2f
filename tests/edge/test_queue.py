"""Queues, rates and priorities: pure decisions on a clock that is an argument."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.edge.job import DropReason, Frame
from syncline.edge.queue import FrameQueue, Lane, QueuePolicy, Schedule

PIXELS = np.zeros((2, 2, 3), np.uint8)
MS = 1_000_000


def frame(index: int, raw_ns: int = 0, camera: str = "front") -> Frame:
    return Frame(camera, index, PIXELS, None, raw_ns)


def lane(slot: str = "a", camera: str = "front", **changes: object) -> Lane:
    return Lane(slot, camera, FrameQueue(), **changes)  # type: ignore[arg-type]


def test_latest_wins_keeps_the_newest() -> None:
    queue = FrameQueue(QueuePolicy.LATEST)
    dropped = [d for i in range(5) for d in queue.offer(frame(i))]
    assert [(f.index, r) for f, r in dropped] == [(i, DropReason.REPLACED) for i in range(4)]
    assert queue.take().index == 4


@given(st.integers(1, 9), st.lists(st.booleans(), max_size=60))
def test_edge_26_bounded_fifo_never_holds_more_and_counts_what_it_refuses(
    limit: int, ops: list[bool]
) -> None:
    """edge-26: queue <= N whatever happens; offered = taken + dropped + waiting."""
    queue = FrameQueue(QueuePolicy.FIFO, limit)
    offered, taken, dropped = 0, [], []
    for is_offer in ops:
        if is_offer:
            dropped += queue.offer(frame(offered))
            offered += 1
        elif len(queue):
            taken.append(queue.take().index)
        assert len(queue) <= limit
    assert all(reason is DropReason.QUEUE_FULL for _, reason in dropped)
    assert taken == sorted(taken)
    assert offered == len(taken) + len(dropped) + len(queue)


def test_late_frames_leave_from_the_front() -> None:
    queue = FrameQueue(QueuePolicy.FIFO, 8, deadline_ns=100)
    for i in range(4):
        queue.offer(frame(i, raw_ns=i * 50))
    late = queue.drop_late(201)
    assert [(f.index, r) for f, r in late] == [(0, DropReason.LATE), (1, DropReason.LATE),
                                               (2, DropReason.LATE)]  # fmt: skip
    assert queue.take().index == 3


@given(st.integers(5, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_rate_is_kept_whatever_the_jitter(fps: int, want: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = lane(min_interval_ns=round(1e9 / want))
    period = 1e9 / fps
    taken = 0
    for i in range(200):
        at = round(i * period + rng.uniform(-0.2, 0.2) * period)
        taken += not one.offer(frame(i, at))
        if len(one.queue):
            one.queue.take()
    seconds = 200 / fps
    assert taken <= want * seconds * 1.02 + 2
    assert taken >= min(fps, want) * seconds * 0.75 - 2


def test_rate_of_half_takes_every_second_frame() -> None:
    one = lane(min_interval_ns=2 * 33 * MS)
    kept = []
    for i in range(10):
        if not one.offer(frame(i, i * 33 * MS + (i % 3) * MS)):
            kept.append(one.queue.take().index)
    assert kept == [0, 2, 4, 6, 8]


def fill(schedule: Schedule, *lanes: Lane) -> None:
    for one in lanes:
        schedule.lanes[one.slot, one.camera] = one


def test_priority_first_then_who_waited_longest() -> None:
    schedule = Schedule()
    fill(schedule, lane("low"), lane("high", priority=5), lane("low", "rear"))
    order = []
    for _ in range(2):
        for one in schedule.lanes.values():
            one.offer(frame(0))
    for _ in range(3):
        chosen, _ = schedule.next(0)
        assert chosen is not None
        chosen.queue.take()
        chosen.busy = False
        order.append((chosen.slot, chosen.camera))
    assert order == [("high", "front"), ("low", "front"), ("low", "rear")]
    assert schedule.next(0) == (None, [])


def test_equal_lanes_take_turns() -> None:
    schedule = Schedule()
    fill(schedule, lane("a"), lane("b"), lane("c"))
    served = []
    for _ in range(9):
        for one in schedule.lanes.values():
            one.offer(frame(0))
        chosen, _ = schedule.next(0)
        assert chosen is not None
        chosen.queue.take()
        chosen.busy = False
        served.append(chosen.slot)
    assert served == ["a", "b", "c"] * 3


def test_a_busy_lane_waits_so_that_results_keep_their_order() -> None:
    schedule = Schedule()
    fill(schedule, lane())
    one = schedule.lanes["a", "front"]
    one.offer(frame(0))
    assert schedule.next(0)[0] is one
    one.queue.take()
    one.offer(frame(1))
    assert schedule.next(0)[0] is None
    one.busy = False
    assert schedule.next(0)[0] is one


def test_shadow_runs_only_when_it_fits_before_the_next_primary_frame() -> None:
    schedule = Schedule()
    fill(schedule, lane("main"), lane("shadow", shadow=True, service_ns=20.0 * MS))
    main, shadow = schedule.lanes.values()
    for i in range(20):
        main.offer(frame(i, i * 33 * MS))
        main.queue.take()
    shadow.offer(frame(19, 19 * 33 * MS))
    last = 19 * 33 * MS
    assert schedule.next(last + 20 * MS)[0] is None  # 13 ms left
    assert schedule.wake_ns(last + 20 * MS) == pytest.approx(last + 33 * MS, abs=MS)
    assert schedule.next(last + 5 * MS)[0] is shadow  # 28 ms left
    shadow.busy = False
    main.offer(frame(20, 20 * 33 * MS))
    assert schedule.next(last + 34 * MS)[0] is main
    main.queue.take()
    assert schedule.next(last + 35 * MS)[0] is None  # never beside a primary run
    main.busy = False
    assert schedule.next(last + 500 * MS)[0] is shadow  # the camera stopped


def test_whatever_a_shadow_lane_loses_is_shed() -> None:
    one = lane(shadow=True)
    one.offer(frame(0))
    assert [(f.index, r) for f, r in one.offer(frame(1))] == [(0, DropReason.SHED)]


OPS = st.lists(st.tuples(st.sampled_from(["offer", "take", "done", "tick"]), st.integers(0, 2)))


@given(OPS, st.sampled_from(list(QueuePolicy)), st.integers(1, 40))
def test_every_offered_frame_is_taken_dropped_or_waiting(
    ops: list[tuple[str, int]], policy: QueuePolicy, deadline: int
) -> None:
    schedule = Schedule()
    queues = [FrameQueue(policy, 3, deadline * 10) for _ in range(3)]
    lanes = [Lane("abc"[i], "front", queues[i], priority=i % 2) for i in range(3)]
    fill(schedule, *lanes)
    now = offered = taken = dropped = 0
    for op, which in ops:
        one = lanes[which]
        if op == "offer" and not (policy is QueuePolicy.BLOCK and one.queue.is_full):
            dropped += len(one.offer(frame(offered, now)))
            offered += 1
        elif op == "take":
            chosen, late = schedule.next(now)
            dropped += len(late)
            if chosen is not None:
                assert not chosen.queue.is_late(chosen.queue.take(), now)
                taken += 1
        elif op == "done":
            one.busy = False
        now += 37 * (op == "tick")
    waiting = sum(len(one.queue) for one in lanes)
    assert offered == taken + dropped + waiting
