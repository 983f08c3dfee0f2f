"""A plain video with the frame times recorded beside it: `clip.mp4` and `clip.mp4.mcap`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from syncline.edge.recorded_time import timing_of_message
from syncline.edge.replay import Damage, Timed
from syncline.errors import UsageError
from syncline.log.reader import LogReader
from syncline.sensors.adapters.sidecar import timing_records, timing_topic
from syncline.sensors.adapters.video import VideoFile
from syncline.sensors.frame import RawFrame
from syncline.timebase import MappingSegment


class ClipRecording:
    """Pictures of a video, each with the whole timing that its sidecar holds for it.

    The k-th picture belongs to the k-th frame time; other counts are refused when it is opened.

    Args:
        video: The clip.
        sidecar: MCAP file with the frame times of one camera and, where known, the mapping to UTC.
        camera: Only this camera; empty for whichever it is.
        threads: Decoder threads.

    Raises:
        MediaError: Video and sidecar do not fit.
        LogError: The sidecar cannot be read.
        UsageError: The clip is of another camera.
    """

    def __init__(self, video: Path, sidecar: Path, *, camera: str = "", threads: int = 1) -> None:
        self._sidecar = sidecar
        self._name = timing_topic(sidecar).split("/")[2]
        if camera not in ("", self._name):
            raise UsageError(
                f"{video} is of camera {self._name!r}: --camera {camera} chooses nothing",
                remedy="Leave --camera away",
            )
        with LogReader(sidecar) as reader:
            self.boot_id = reader.boot_ids[0]
            self._segments = list(reader.timebase(self.boot_id).segments)
        self._video = VideoFile(video, self._name, threads=threads, as_recorded=True)
        self._video.open()
        self.frame_count = self._video.frame_count
        self._yielded, self._at_end = 0, False

    def segments(self) -> list[MappingSegment]:
        """The mapping segments of the sidecar."""
        return self._segments

    def frames(self) -> Iterator[Timed]:
        """Pictures in order, each with its recorded timing."""
        records = enumerate(timing_records(self._sidecar))
        try:
            with LogReader(self._sidecar) as reader:
                for raw in self._video.frames():
                    record = next(found for number, found in records if number == raw.sequence)
                    timing = timing_of_message(reader.decode(record))
                    self._yielded += 1
                    arrival = replace(raw.arrival, t_ns=timing.eof_ns)
                    yield Timed(
                        RawFrame(
                            timing.camera,
                            timing.sequence,
                            None,
                            None,
                            arrival,
                            timing.exposures,
                            raw.payload,
                        ),
                        timing,
                    )
            self._at_end = True
        finally:
            self._video.close()

    def damage(self) -> Damage:
        """What could not be decoded; frames are missed only once the end was reached."""
        missing = max(self.frame_count - self._yielded, 0) if self._at_end else 0
        return Damage(self._video.health().errors, missing)
