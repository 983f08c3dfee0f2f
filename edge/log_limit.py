"""A log that says each thing once in ten seconds, with how often it would have said it."""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from syncline.timebase import NS_PER_S, RawClock

PERIOD_NS = 10 * NS_PER_S
MAX_REASONS = 256

_NUMBER = re.compile(r"\d+")
_NAME = re.compile(r"[A-Za-z][\w-]*\Z")


class LogLimit(logging.Filter):
    """Lets a warning or error through once per reason and period; the next one tells the count.

    A reason is a message but for its numbers, so a line per lost record is one reason. Names such
    as `cam0` keep theirs. Memory: `MAX_REASONS` texts; the oldest is forgotten first.

    Args:
        clock: Raw clock.
        period_ns: Time between two lines of the same reason.
    """

    def __init__(self, clock: RawClock, period_ns: int = PERIOD_NS) -> None:
        super().__init__()
        self._clock = clock
        self._period_ns = period_ns
        self._lock = threading.Lock()
        self._told: OrderedDict[tuple[str, ...], tuple[int, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is written; a count is added to it where others were not."""
        if record.levelno < logging.WARNING:
            return True
        hidden = self._count(_reason(record))
        if hidden:
            record.msg = f"{record.getMessage()} ({hidden} more like it since the last line)"
            record.args = ()
        return hidden is not None

    def _count(self, reason: tuple[str, ...]) -> int | None:
        """Lines held back since the last one of this reason; None when this one is held back."""
        now_ns = self._clock.raw_ns()
        with self._lock:
            told = self._told.pop(reason, None)
            if told is not None and now_ns - told[0] < self._period_ns:
                self._told[reason] = (told[0], told[1] + 1)
                return None
            self._told[reason] = (now_ns, 0)
            if len(self._told) > MAX_REASONS:
                self._told.popitem(last=False)
            return 0 if told is None else told[1]


@contextmanager
def limited(clock: RawClock) -> Iterator[None]:
    """Limit what this process logs, until the block ends; each handler keeps its own count."""
    filters = [(handler, LogLimit(clock)) for handler in logging.getLogger().handlers]
    for handler, limit in filters:
        handler.addFilter(limit)
    try:
        yield
    finally:
        for handler, limit in filters:
            handler.removeFilter(limit)


def _reason(record: logging.LogRecord) -> tuple[str, ...]:
    args = record.args if isinstance(record.args, tuple) else (record.args,)
    return (record.name, str(record.msg), *map(_without_numbers, args))


def _without_numbers(arg: object) -> str:
    if isinstance(arg, int | float):
        return ""
    text = str(arg)
    return text if _NAME.match(text) else _NUMBER.sub("#", text)
