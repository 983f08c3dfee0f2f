"""Where outputs go: the recorder, the spool, a digest. Each is optional; all take every output."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from syncline.edge.records import Output
from syncline.log.schemas import LogMessage, payload_of
from syncline.timebase import ManualClock
from syncline.topics import LinkClass, LogFile, topic_of


class RecordWriter(Protocol):
    """What is needed of `syncline.log.recorder.Recorder`."""

    def write(self, topic: str, message: LogMessage, raw_ns: int) -> bool:
        """Queue one message; False when it was dropped and counted."""


class SpoolWriter(Protocol):
    """What is needed of `syncline.spool.Spool`."""

    def put(self, link_class: LinkClass, stream: str, raw_ns: int, payload: bytes) -> int:
        """Append one record; returns its sequence number."""


class Sink(Protocol):
    """Takes outputs in order."""

    def emit(self, output: Output) -> None:
        """Take one output."""


class RecorderSink:
    """Writes outputs into the recording.

    Args:
        recorder: The recorder.
        clock: In a replay, the recorder's clock, which the recorded times move.
    """

    def __init__(self, recorder: RecordWriter, clock: ManualClock | None = None) -> None:
        self._recorder = recorder
        self._clock = clock

    def emit(self, output: Output) -> None:
        """Queue one message for the recording."""
        if self._clock is not None:
            self._clock.sleep_until(output.raw_ns)
        self._recorder.write(output.topic, output.message, output.raw_ns)


class SpoolSink:
    """Puts outputs whose topic has a link class into the spool."""

    def __init__(self, spool: SpoolWriter) -> None:
        self._spool = spool

    def emit(self, output: Output) -> None:
        """Spool one message, if its topic is sent at all."""
        link_class = topic_of(output.topic).link_class
        if link_class is not None:
            payload = payload_of(output.message)
            self._spool.put(link_class, output.topic, output.raw_ns, payload)


class DigestSink:
    """SHA-256 over topic, time and payload of results: equal digests, equal runs.

    Pictures and their annotations are left out: whether they are recorded changes no result.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self.counts: dict[str, int] = {}

    def emit(self, output: Output) -> None:
        """Add one message to the digest."""
        self.counts[output.topic] = self.counts.get(output.topic, 0) + 1
        if topic_of(output.topic).file is LogFile.CAMERA:
            return
        payload = payload_of(output.message)
        head = f"{output.topic}\0{output.raw_ns}\0{len(payload)}\0".encode()
        self._sha.update(head)
        self._sha.update(payload)

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._sha.hexdigest()


class Fanout:
    """Hands every output to every sink."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def emit(self, output: Output) -> None:
        """Hand one output on."""
        for sink in self._sinks:
            sink.emit(output)
