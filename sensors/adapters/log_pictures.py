"""Pictures of a log and what was recorded of their timing: two topics, joined in bounded memory."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

MAX_WAITING = 256
MAX_WAITING_BYTES = 64 << 20

Key = tuple[str, int]
"""Camera and raw time of the middle of exposure: what both topics say of a frame."""


class PicturePairs(Generic[T]):
    """Joins pictures and timings, whichever comes first.

    Memory: at most `MAX_WAITING` of each that wait for their other half, and `MAX_WAITING_BYTES`
    of pictures; the oldest are given up.

    Attributes:
        matched: Pictures that found their timing.
        unmatched: Pictures that were given up.
    """

    def __init__(self) -> None:
        self.matched = self.unmatched = 0
        self._timings: dict[Key, T] = {}
        self._pictures: dict[Key, bytes] = {}

    def timing(self, key: Key, timing: T) -> tuple[T, bytes] | None:
        """Take a timing; the pair, when its picture came before."""
        self._timings[key] = timing
        return self._pair(key)

    def picture(self, key: Key, data: bytes) -> tuple[T, bytes] | None:
        """Take an encoded picture; the pair, when its timing came before."""
        self._pictures[key] = data
        return self._pair(key)

    def _pair(self, key: Key) -> tuple[T, bytes] | None:
        found = None
        if key in self._timings and key in self._pictures:
            self.matched += 1
            found = self._timings.pop(key), self._pictures.pop(key)
        while len(self._timings) > MAX_WAITING:
            del self._timings[next(iter(self._timings))]
        held = sum(map(len, self._pictures.values()))
        while len(self._pictures) > MAX_WAITING or held > MAX_WAITING_BYTES:
            held -= len(self._pictures.pop(next(iter(self._pictures))))
            self.unmatched += 1
        return found

    def finish(self) -> None:
        """Nothing more comes: what still waits is given up."""
        self.unmatched += len(self._pictures)
        self._pictures.clear()
        self._timings.clear()
