"""What sensors of a ROS 2 bag share: its messages in order, timed by their headers."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from syncline.errors import LogError, MediaError
from syncline.log.records import Record
from syncline.log.rosbag import BagDecoder, BagReport, read_bag
from syncline.sensors.adapter import Health
from syncline.sensors.adapters.base import S
from syncline.sensors.adapters.recorded import Recorded
from syncline.sensors.frame import FrameEvent, Ns, Stamp
from syncline.timebase import NS_PER_S, Clock


class BagTopics(Recorded[S]):
    """Messages of some kinds, in the bag's order, which is that of reception.

    Memory: one message and what the bag's own reader holds. A message that does not decode, or
    makes no sample, is skipped and counted; it keeps its number.

    Args:
        path: Bag folder or file.
        topic: Only this topic; empty for all of these kinds, each topic a sensor.
        event: What the header stamps mark, where the driver is known; None: `_undeclared`.
    """

    _kinds: ClassVar[frozenset[str]]
    _what: ClassVar[str]
    _undeclared: ClassVar[tuple[FrameEvent, tuple[Ns, Ns]]]
    """What a header is taken to mark where nobody says, and how little that is worth."""

    def __init__(self, path: Path, *, topic: str = "", event: FrameEvent | None = None) -> None:
        super().__init__()
        self._path, self._topic, self._event = path, topic, event
        self._report = BagReport(0, [])
        self._sequences: dict[str, int] = {}
        self._unstamped = 0

    def _open(self) -> None:
        """Make ready to read.

        Raises:
            MediaError: Nothing lies at the path.
            UsageError: rosbags is not installed.
        """
        if not self._path.exists():
            raise MediaError(f"{self._path} does not exist", remedy="Check the path")
        self._decoder = BagDecoder()
        self._report, self._sequences, self._unstamped = BagReport(0, []), {}, 0

    def _read(self) -> Iterator[S]:
        """Samples; a truncated bag ends where it is cut, counted as an error.

        Raises:
            MediaError: Not a single one is in it.
        """
        for record in read_bag(self._path, self._report):
            if self._closed.is_set():
                return
            if record.schema not in self._kinds or self._topic not in ("", record.topic):
                continue
            sequence = self._sequences.get(record.topic, 0)
            self._sequences[record.topic] = sequence + 1
            sample = self._decoded(record, sequence)
            if sample is not None:
                yield sample
        if not self._frames:
            where = f" on {self._topic}" if self._topic else ""
            raise MediaError(
                f"{self._path}: no {self._what}{where} can be read ({self._errors} damaged)",
                remedy="See what the bag holds with: ros2 bag info, or syncline log info",
            )

    def _decoded(self, record: Record, sequence: int) -> S | None:
        try:
            sample = self._sample(record, sequence, self._decoder.decode(record))
        except LogError:
            sample = None
        self._errors += sample is None
        return sample

    @abstractmethod
    def _sample(self, record: Record, sequence: int, message: Any) -> S | None:
        """A message as a sample; None for one that makes none."""

    def _header(self, message: Any, received_ns: Ns) -> Stamp:
        """The header's time; a header of zeros is no time, its reception stands in."""
        seconds, nanoseconds = int(message.header.stamp.sec), int(message.header.stamp.nanosec)
        t_ns = seconds * NS_PER_S + nanoseconds
        event, bias_ns = self._undeclared if self._event is None else (self._event, (0, 0))
        if t_ns <= 0 or nanoseconds >= NS_PER_S:
            self._unstamped += 1
            t_ns, (event, bias_ns) = received_ns, self._undeclared
        return Stamp(t_ns, Clock.MONOTONIC_RAW, event, 0.0, bias_ns)

    def health(self) -> Health:
        """State and counters; each damaged place of the bag is an error."""
        health = super().health()
        return replace(health, errors=health.errors + len(self._report.damaged))

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.MONOTONIC_RAW, self._event or self._undeclared[0]

    def _told(self) -> list[str]:
        unstamped = [f"{self._unstamped} headers without a time"] if self._unstamped else []
        return [*unstamped, *self._report.damaged]

    def _release(self) -> None:
        """The bag's reader lives with `frames` alone."""


def arrival_of(record: Record) -> Stamp:
    """When the bag's recorder had it."""
    return Stamp(record.raw_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL)


def sensor_name(topic: str, otherwise: str) -> str:
    """`/cam/image_raw` -> `cam_image_raw`: letters that topics of ours may have."""
    return re.sub(r"[^a-z0-9_-]+", "_", topic.strip("/").lower())[:64] or otherwise
