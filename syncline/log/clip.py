"""One camera of a recording as a plain video, with its frame times in a sidecar beside it.

The pictures are carried over as they were recorded, not encoded again. The container's clock ticks
in nanoseconds, so that even without the sidecar the distances of the pictures are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np

from syncline import topics
from syncline.errors import LogError, UsageError
from syncline.log.exact import ExactWriter
from syncline.log.reader import LogReader
from syncline.log.records import Record
from syncline.log.rewrite import Merger, new_file
from syncline.output import cannot_write

NANOSECOND = Fraction(1, 1_000_000_000)
_CODECS = {"jpeg": ("mjpeg", "yuvj420p"), "png": ("png", "rgb24")}
_WAITING = 256
"""Pictures and times that wait for their other half; older ones lost it."""


@dataclass(frozen=True, slots=True)
class ClipReport:
    """What was written.

    Attributes:
        out: The video.
        sidecar: The frame times.
        messages: Pictures.
        unmatched: Pictures and frame times left out because their other half was lost.
    """

    out: Path
    sidecar: Path
    messages: int
    unmatched: int


def export_clip(path: Path, out: Path, camera: str = "") -> ClipReport:
    """Write the pictures of one camera as a video and `OUT.mcap` beside it.

    Args:
        path: Recording with pictures.
        out: New MP4 or Matroska file; MP4 keeps the times to the nanosecond, Matroska to the
            millisecond.
        camera: Name; empty for the only one.

    Raises:
        UsageError: There are several cameras or boots, or an output exists.
        LogError: There are no pictures of it, or of a format that no video holds.
        StorageError: An output cannot be written.
    """
    if out.suffix.lower() not in (".mp4", ".mkv", ".mov"):
        raise UsageError(f"{out} names no container", remedy="Call it .mp4, .mov or .mkv")
    if out.exists():
        raise UsageError(f"{out} exists", remedy="Choose another output")
    name = _camera(path, camera)
    sidecar = out.with_name(out.name + ".mcap")
    wanted = [topics.IMAGE.of(name), topics.TIMING.of(name), topics.MAPPING.name]
    done = False
    try:
        with new_file(sidecar) as file, LogReader(path, topics=wanted) as reader:
            report = _Export(reader, ExactWriter(file, "syncline"), out, sidecar, name).run()
        done = True
    except (OSError, av.error.FFmpegError) as error:
        raise cannot_write(out, error) from error
    finally:
        if not done:
            out.unlink(missing_ok=True)
    return report


def _camera(path: Path, camera: str) -> str:
    with LogReader(path) as reader:
        names = {channel.topic for channel in reader.channels}
        boots = reader.boot_ids
    head, _, tail = topics.IMAGE.name.partition("{}")
    found = sorted(
        name[len(head) : -len(tail)]
        for name in names
        if name.startswith(head) and name.endswith(tail)
    )
    if camera:
        found = [name for name in found if name == camera]
    if not found:
        what = f" of camera {camera!r}" if camera else ""
        raise LogError(f"{path} holds no pictures{what}", remedy="Record with images = true")
    if len(found) > 1 or len(set(boots)) > 1:
        raise UsageError(
            f"{path} holds pictures of {', '.join(found)} in {len(set(boots))} boots",
            remedy="Name one with --camera; of several boots give one segment",
        )
    return found[0]


class _Export:
    def __init__(
        self, reader: LogReader, writer: ExactWriter, out: Path, sidecar: Path, name: str
    ) -> None:
        self._reader, self._writer, self._out, self._sidecar = reader, writer, out, sidecar
        self._name = name
        self._merger = Merger(writer)
        self._unmatched = 0

    def run(self) -> ClipReport:
        own = {"version": "1", "boot_id": self._reader.boot_ids[0], "device": "clip"}
        self._writer.metadata("syncline", own)
        count = 0
        with av.open(str(self._out), "w", options=self._options()) as container:
            stream: Any = None
            first_ns = 0
            for picture, timing in self._pairs():
                message = self._reader.decode(picture)
                if stream is None:
                    stream = _stream(container, message)
                    first_ns = picture.raw_ns
                packet = av.Packet(bytes(message.data))
                packet.stream, packet.time_base = stream, NANOSECOND
                packet.pts = packet.dts = picture.raw_ns - first_ns
                packet.is_keyframe = True
                container.mux(packet)
                self._merger.record(timing)
                count += 1
            if stream is None:
                raise LogError(f"no picture of camera {self._name!r} has its frame time")
        self._writer.finish()
        return ClipReport(self._out, self._sidecar, count, self._unmatched)

    def _options(self) -> dict[str, str]:
        exact = {"video_track_timescale": "1000000000", "movflags": "+faststart"}
        return exact if self._out.suffix.lower() != ".mkv" else {}

    def _pairs(self) -> Iterator[tuple[Record, Record]]:
        """Each picture with its frame time, in order; mapping segments go to the sidecar."""
        image_topic = topics.IMAGE.of(self._name)
        pictures: dict[int, Record] = {}
        times: dict[int, Record] = {}
        last_ns: int | None = None
        for record in self._reader:
            if record.topic == topics.MAPPING.name:
                self._merger.record(record)
                continue
            mine, other = (pictures, times) if record.topic == image_topic else (times, pictures)
            mine[record.raw_ns] = record
            if record.raw_ns in other:
                found = pictures.pop(record.raw_ns), times.pop(record.raw_ns)
                if last_ns is not None and record.raw_ns <= last_ns:
                    self._unmatched += 1
                    continue
                last_ns = record.raw_ns
                yield found
            if len(mine) > _WAITING:
                del mine[next(iter(mine))]
                self._unmatched += 1
        self._unmatched += len(pictures) + len(times)


def _stream(container: Any, message: Any) -> Any:
    codec = _CODECS.get(str(message.format))
    if codec is None:
        raise LogError(
            f"pictures of format {message.format!r} fit no video",
            remedy=f"Only {' and '.join(_CODECS)} are carried over",
        )
    picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise LogError("the first picture does not decode")
    name, pixels = codec
    stream = container.add_stream(name, rate=30)
    stream.height, stream.width = picture.shape[:2]
    stream.pix_fmt = pixels
    stream.time_base = NANOSECOND
    stream.codec_context.time_base = NANOSECOND
    return stream
