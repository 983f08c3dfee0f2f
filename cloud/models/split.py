"""Frames to calibrate on and others to judge on, from one source.

Neighbouring frames of a drive show the same thing: a gate that judges on the frame after one that
was calibrated on judges on nearly the same picture. So each sequence (folder, topic, video) is cut
into blocks of time that calibrate and judge in turns, with a gap between them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

from syncline.cloud.models.frames import Frame, FrameSource, list_frames, spread
from syncline.errors import MediaError

MIN_CALIBRATION = 5
"""Frames that a calibration needs; MinMax of 8 was measured to be as good as of 128."""
MIN_JUDGED = 5
"""Frames that a verdict needs."""
_BLOCK_FRAMES = 300
"""Length of a block of a long sequence: ten seconds of video."""
_MOST_PAIRS = 8
_SHORT = 40
"""A sequence shorter than this is halved; longer ones get two pairs of blocks or more."""
_GAP = 10
"""A tenth of a block is left out at either end."""


def split_frames(path: Path, calibrate: int, judge: int) -> tuple[FrameSource, FrameSource]:
    """Disjoint frames of one source: (to calibrate on, to judge on).

    Args:
        path: See `list_frames`.
        calibrate: How many at most.
        judge: How many at most.

    Raises:
        MediaError: The source cannot be read, or holds too few frames for both.
    """
    listing = list_frames(path)
    calibration: list[int] = []
    judged: list[int] = []
    total, seen = len(listing.groups), 0
    order = sorted(range(total), key=lambda i: listing.groups[i])
    for number, (_, members) in enumerate(groupby(order, key=lambda i: listing.groups[i])):
        indices = list(members)
        shares = [_share(limit, seen, len(indices), total) for limit in (calibrate, judge)]
        first, second = blocks(len(indices), *shares, odd=number % 2 == 1)
        seen += len(indices)
        calibration += [indices[i] for i in first]
        judged += [indices[i] for i in second]
    if len(calibration) < MIN_CALIBRATION or len(judged) < MIN_JUDGED:
        raise MediaError(
            f"{path} holds {total} frames: {MIN_CALIBRATION} to calibrate on and {MIN_JUDGED} "
            "others to judge on are needed",
            remedy="Give more frames, or frames to judge on with --gate-frames",
        )
    return listing.pick(sorted(calibration)), listing.pick(sorted(judged))


def _share(limit: int, start: int, length: int, total: int) -> int:
    """How many of `limit` frames fall to `length` of `total`; the shares add up to `limit`."""
    return limit * (start + length) // total - limit * start // total


def blocks(
    count: int, calibrate: int, judge: int, *, odd: bool = False
) -> tuple[list[int], list[int]]:
    """Indices of one sequence in blocks of time that take turns: (to calibrate on, to judge on).

    Args:
        count: Frames of the sequence, in the order of time.
        calibrate: How many at most.
        judge: How many at most.
        odd: Give the first block to the judge: for sequences of a single frame.
    """
    few = 1 if count < _SHORT else 2
    pairs = min(max(count // _BLOCK_FRAMES // 2, few), _MOST_PAIRS)
    edges = [count * i // (2 * pairs) for i in range(2 * pairs + 1)]
    if count == 1:
        edges = [0, 0, 1] if odd else [0, 1, 1]
    sides: tuple[list[int], list[int]] = ([], [])
    for i, (start, end) in enumerate(pairwise(edges)):
        gap = (end - start) // _GAP
        turn, which = divmod(i, 2)
        wanted = _share((calibrate, judge)[which], turn, 1, pairs)
        sides[which].extend(start + gap + k for k in spread(end - start - 2 * gap, wanted, 0.5))
    return sides


def digest_of(frame: Frame) -> bytes:
    """What makes two pictures the same picture: their pixels."""
    head = repr(frame.bgr.shape).encode()
    return hashlib.blake2b(head + frame.bgr.tobytes(), digest_size=16).digest()


def noting(source: FrameSource, seen: set[bytes]) -> FrameSource:
    """The source, which notes in `seen` what was read."""

    def read() -> Iterator[Frame]:
        for frame in source.read():
            seen.add(digest_of(frame))
            yield frame

    return replace(source, read=read)


def without(source: FrameSource, seen: set[bytes]) -> FrameSource:
    """The source less the pictures in `seen`; `count` counts them still."""

    def read() -> Iterator[Frame]:
        return (frame for frame in source.read() if digest_of(frame) not in seen)

    return replace(source, read=read)


def damaged_note(sources: Sequence[FrameSource]) -> list[str]:
    """What to tell of pictures that could not be decoded; empty when all could."""
    names = sorted({name for source in sources for name in source.damaged})
    if not names:
        return []
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"{names[0]}{more} cannot be decoded and played no part"]
