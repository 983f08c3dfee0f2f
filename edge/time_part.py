"""The clock as a part of the edge daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from syncline.edge.pipeline import Pipeline
from syncline.edge.records import Output
from syncline.messages import syncline_pb2 as pb
from syncline.sync.config import TimeSection
from syncline.timebase import RawClock


class TimePart:
    """Runs the time service and turns what it says into messages."""

    def __init__(
        self,
        section: TimeSection,
        folder: Path,
        clock: RawClock,
        pipeline: Pipeline,
        emit: Callable[[list[Output]], None],
    ) -> None:
        self._section = section

    def start(self) -> None:
        """Begin to listen to the sources."""

    def add_to(self, message: pb.Health) -> None:
        """Add the state of the clock to a health message."""

    def close(self) -> None:
        """Stop and keep what was learned of the oscillator."""
