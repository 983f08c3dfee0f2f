"""Least delays of short blocks of frames: what the clock mapping is estimated from.

Arrival = true time + delay, and delay is never negative but often large. The least of a block is
close to the truth; how far the block's other order statistics lie above it says how unlucky that
least was. All values are integers, so that a batch and a stream give the same blocks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]

MAX_FRAMES = 512
"""Frames kept of one block: a faster camera closes it early (bounded memory)."""


class Block(NamedTuple):
    """One block: its least offset and what surrounds it, integer nanoseconds.

    `z_ns` is host arrival minus device time. `near_ns` and `middle_ns` are how far the order
    statistics frames//6 and frames//2 lie above the least.
    """

    x_ns: int
    z_ns: int
    near_ns: int
    middle_ns: int
    frames: int
    first_x_ns: int
    last_x_ns: int
    first_host_ns: int
    last_host_ns: int


class BlockBuilder:
    """Collects frames until the block's time is over.

    Args:
        block_ns: Length of a block on the device clock.
    """

    def __init__(self, block_ns: int) -> None:
        self.block_ns = block_ns
        self._id = 0
        self._x: list[int] = []
        self._z: list[int] = []

    @property
    def is_open(self) -> bool:
        """True while a block is being built."""
        return bool(self._x)

    def clear(self) -> None:
        """Forget the unfinished block."""
        self._x.clear()
        self._z.clear()

    def due(self, device_ns: int) -> bool:
        """True when a frame at `device_ns` no longer belongs to the block that is being built."""
        return bool(self._x) and (
            device_ns // self.block_ns != self._id or len(self._x) >= MAX_FRAMES
        )

    def take(self) -> Block:
        """The finished block; the builder is empty afterwards. Needs at least one frame."""
        block = make_block(self._x, self._z)
        self.clear()
        return block

    def add(self, device_ns: int, z_ns: int) -> None:
        """Put a frame into the block; call `take` first when `due`."""
        if not self._x:
            self._id = device_ns // self.block_ns
        self._x.append(device_ns)
        self._z.append(z_ns)


def make_block(x_ns: list[int], z_ns: list[int]) -> Block:
    """A block from device times and offsets of its frames, in order of arrival."""
    order = sorted(z_ns)
    count = len(order)
    least = order[0]
    at = z_ns.index(least)
    return Block(
        x_ns[at],
        least,
        order[count // 6] - least,
        order[count // 2] - least,
        count,
        x_ns[0],
        x_ns[-1],
        x_ns[0] + z_ns[0],
        x_ns[-1] + z_ns[-1],
    )


def block_starts(device_ns: I64, block_ns: int) -> I64:
    """Indices where blocks begin in a batch, as `BlockBuilder` would cut it, ending with N."""
    ids = device_ns // block_ns
    starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))
    edges = np.append(starts, len(device_ns))
    if np.diff(edges).max(initial=0) <= MAX_FRAMES:
        return edges.astype(np.int64)
    parts = [np.arange(a, b, MAX_FRAMES) for a, b in pairwise(edges)]
    return np.append(np.concatenate(parts), len(device_ns)).astype(np.int64)


def make_blocks(device_ns: I64, z_ns: I64, starts: I64) -> list[Block]:
    """All blocks of a batch at once: the same values as `make_block` on each."""
    counts = np.diff(starts)
    rows = len(counts)
    if rows == 0:
        return []
    column = np.arange(int(counts.max()))
    inside = column < counts[:, None]
    index = np.minimum(starts[:-1, None] + column, len(z_ns) - 1)
    z = np.where(inside, z_ns[index], np.iinfo(np.int64).max)
    at = starts[:-1] + np.argmin(z, axis=1)
    z.sort(axis=1)
    least = z[:, 0]
    row = np.arange(rows)
    first, last = starts[:-1], starts[1:] - 1
    columns = (
        device_ns[at],
        least,
        z[row, counts // 6] - least,
        z[row, counts // 2] - least,
        counts,
        device_ns[first],
        device_ns[last],
        device_ns[first] + z_ns[first],
        device_ns[last] + z_ns[last],
    )
    return [Block(*values) for values in zip(*(c.tolist() for c in columns), strict=True)]
