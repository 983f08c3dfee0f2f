"""Progress of long work: a bar on a terminal, a plain line every few seconds in a pipe."""

from __future__ import annotations

import sys
from types import TracebackType

from syncline.timebase import RawClock

BAR_NS = 100_000_000
LINE_NS = 5_000_000_000


class Progress:
    """Shows how far a piece of work is, on stderr.

    Args:
        verb: What is being done.
        unit: What is counted.
        total: How many there are; 0 = not known.
        clock: For rates and intervals.
        quiet: Show nothing.
    """

    def __init__(self, verb: str, unit: str, total: int, clock: RawClock, *, quiet: bool) -> None:
        self._verb, self._unit, self._total = verb, unit, total
        self._clock, self._quiet = clock, quiet
        self._begin_ns = clock.raw_ns()
        self._next_ns = self._begin_ns + LINE_NS
        self._bar = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            rate = TextColumn("{task.fields[rate]:.0f} " + unit + "/s")
            columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), rate)
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(verb, total=total or None, rate=0.0)
            self._next_ns = self._begin_ns

    def __enter__(self) -> Progress:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def update(self, done: int) -> None:
        """So many are done."""
        now_ns = self._clock.raw_ns()
        if self._quiet or now_ns < self._next_ns:
            return
        rate = done * 1e9 / max(now_ns - self._begin_ns, 1)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=rate)
            self._next_ns = now_ns + BAR_NS
            return
        of = f" of {self._total}" if self._total else ""
        sys.stderr.write(f"{self._verb}: {done}{of} {self._unit}, {rate:.1f} per second\n")
        self._next_ns = now_ns + LINE_NS

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
