"""Which slot of a periodic grid does each frame of a late, gappy, in-order stream belong to?

Frames come in order, never before their slot, often late, and some are lost. Each frame gets the
slot that is most likely over all strictly increasing assignments (forward-backward sums over the
few slots that are possible). A queue released by a stall says little about which of its frames was
lost: only that a stall which began before an earlier slot had less time to begin in, so that a loss
at the queue's head is twice as likely as one inside. The most likely slots then assume the loss
near its middle, which is wrong for the fewest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

LOSS = 0.01
"""Share of frames lost one by one."""
OUTAGE = 1e-5
"""Share of frames at which an outage begins (a link breaks): about one in an hour."""
OUTAGE_STAYS = 0.9
"""Share of frames lost after one that was lost in an outage."""
QUEUE_SHARE = 0.05
"""Frames closer than this share of a period were waiting together."""
LOSS_COST = -math.log(LOSS)
EARLY_SIGMA_NS = 60_000.0
MAX_LATE_SLOTS = 40


def late_cost(late_ns: float, scale_ns: float, period_ns: float, queued: bool = False) -> float:
    """-log likelihood of a frame's lateness.

    Steep below zero and heavy-tailed above; a whole period late costs what a lost frame costs, so
    that only the order of frames, never a gap, makes a frame that late. A frame of a queue is as
    late as the stall made it: its lateness says nothing.
    """
    if late_ns < 0.0:
        return min(0.5 * (late_ns / EARLY_SIGMA_NS) ** 2, 200.0)
    if queued:
        return 0.0
    return 2.0 * math.log1p(late_ns / scale_ns) + LOSS_COST * late_ns / period_ns


def assign_slots(
    time_ns: Sequence[float],
    slot_ns: Sequence[float],
    scale_ns: float,
    period_ns: float,
    *,
    before_ns: float | None = None,
    left_free: bool = False,
    right_free: bool = False,
    right_open: bool = False,
) -> list[int]:
    """Most likely slots of frames.

    Args:
        time_ns: Frames' times less their least delay, in order.
        slot_ns: Times of the slots that may be used, increasing; slot 0 follows the last used one.
        scale_ns: Typical lateness.
        period_ns: Period of the grid.
        before_ns: Time of the frame before the first; None when there was none.
        left_free: Slots before the first frame cost nothing (nothing is known yet).
        right_free: Slots after the last frame cost nothing (the next frame is not known).
        right_open: Slots beyond the given ones were lost as well.

    Returns:
        For each frame its position in `slot_ns`, strictly increasing; -1 for all when there are
        fewer slots than frames.
    """
    frames, slots = len(time_ns), len(slot_ns)
    if slots < frames or frames == 0:
        return [-1] * frames
    rows = _rows(time_ns, slot_ns, scale_ns, period_ns, before_ns)
    left = [1.0 if left_free else _gap(s) for s in range(slots)]
    more = 1 if right_open else 0
    right = [1.0 if right_free else _gap(s + more) for s in range(slots)]
    ahead = _sums(rows, left)
    behind = [row[::-1] for row in _sums([row[::-1] for row in rows[::-1]], right)][::-1]
    shares = [
        [a * b / p if p > 0.0 else 0.0 for a, b, p in zip(f, g, row, strict=True)]
        for f, g, row in zip(ahead, behind, rows, strict=True)
    ]
    best = [max(range(slots), key=share.__getitem__) for share in shares]
    if all(a < b for a, b in pairwise(best)):
        return best
    return _strict([_median(share) for share in shares], slots)


def _rows(
    time_ns: Sequence[float],
    slot_ns: Sequence[float],
    scale_ns: float,
    period_ns: float,
    before_ns: float | None,
) -> list[list[float]]:
    """Likelihood of each frame in each slot, without regard to the others."""
    last_ns = before_ns
    rows = []
    for time, (heads, waits) in zip(time_ns, _queued(time_ns, period_ns), strict=True):
        costs = [late_cost(time - slot, scale_ns, period_ns, waits) for slot in slot_ns]
        least = min(costs)
        row = [math.exp(least - cost) for cost in costs]
        if heads and last_ns is not None:
            row = [
                w * _room(slot - last_ns, period_ns) for w, slot in zip(row, slot_ns, strict=True)
            ]
        rows.append(row)
        last_ns = time
    return rows


def _room(since_ns: float, period_ns: float) -> float:
    """Time that a stall had to begin in, periods: after the last frame, before its own first."""
    return max(since_ns / period_ns, QUEUE_SHARE)


def _gap(lost: int) -> float:
    """Weight of so many frames lost in a row: each by itself, or all in an outage."""
    return LOSS**lost + OUTAGE * OUTAGE_STAYS ** (lost - 1) if lost > 0 else 1.0


def _queued(time_ns: Sequence[float], period_ns: float) -> list[tuple[bool, bool]]:
    """(heads a queue, is in a queue) for each frame: it came right before, or after, another."""
    close = [b - a < QUEUE_SHARE * period_ns for a, b in pairwise(time_ns)]
    pairs = zip([False, *close], [*close, False], strict=True)
    return [(after and not before, before or after) for before, after in pairs]


def _sums(rows: list[list[float]], first: list[float]) -> list[list[float]]:
    """Weight of every assignment of frames 0..i that ends in each slot, row by row."""
    out = [_scaled([a * b for a, b in zip(rows[0], first, strict=True)])]
    for row in rows[1:]:
        single, outage, next_to, sums = 0.0, 0.0, 0.0, []
        for weight, here in zip(row, out[-1], strict=True):
            sums.append(weight * (next_to + single + outage))
            single = (single + next_to) * LOSS
            outage = outage * OUTAGE_STAYS + next_to * OUTAGE
            next_to = here
        out.append(_scaled(sums))
    return out


def _scaled(row: list[float]) -> list[float]:
    most = max(row)
    return [value / most for value in row] if most > 0.0 else row


def _median(share: list[float]) -> int:
    half, run = 0.5 * sum(share), 0.0
    for slot, value in enumerate(share):
        run += value
        if run >= half:
            return slot
    return len(share) - 1


def _strict(wanted: list[int], slots: int) -> list[int]:
    """The nearest strictly increasing slots that leave room for all."""
    out: list[int] = []
    for at, slot in enumerate(wanted):
        room = slots - (len(wanted) - at)
        out.append(min(max(slot, out[-1] + 1 if out else 0), room))
    return out
