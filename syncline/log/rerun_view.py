"""Our logs as Rerun recordings. The only module that imports rerun (extra `view`).

Rerun opens our MCAP by itself and shows pictures, but not boxes: this converter makes Boxes2D.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from syncline.errors import UsageError
from syncline.log.reader import LogReader
from syncline.log.records import Record
from syncline.output import cannot_write, check_new

WRITE_EVERY = 256
"""Messages that wait in memory to be written, pictures among them."""
_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")


class _Views:
    """Logs decoded messages into one Rerun stream."""

    def __init__(self, rerun: Any, stream: Any) -> None:
        self._rr, self._stream = rerun, stream
        self.shown = 0
        self._by_schema: dict[str, Callable[[str, Any], None]] = {
            "foxglove.CompressedImage": self._image,
            "foxglove.ImageAnnotations": self._annotations,
            "foxglove.LocationFix": self._location,
            "foxglove.Log": self._log,
            "syncline.Detections": self._detections,
            "syncline.GnssFix": self._fix,
            "syncline.ImuSample": self._imu,
            "syncline.ClockEvent": self._event,
            "syncline.FrameTiming": self._timing,
        }

    def knows(self, schema: str) -> bool:
        """Whether such messages are shown."""
        return schema in self._by_schema

    def show(self, record: Record, message: Any) -> None:
        """Log one message at its raw time."""
        self._stream.set_time("raw", duration=np.timedelta64(record.raw_ns, "ns"))
        self._by_schema[record.schema](record.topic, message)
        self.shown += 1

    def _image(self, topic: str, message: Any) -> None:
        kind = f"image/{message.format or 'jpeg'}"
        picture = self._rr.EncodedImage(contents=bytes(message.data), media_type=kind)
        self._stream.log(topic, picture)

    def _annotations(self, topic: str, message: Any) -> None:
        """Closed lines of four corners are boxes; the captions are in the same order."""
        boxes = [np.asarray([(p.x, p.y) for p in points.points]) for points in message.points]
        texts = [text.text for text in message.texts]
        labels = texts if len(texts) == len(boxes) else None
        low = [box.min(axis=0) for box in boxes if len(box)]
        high = [box.max(axis=0) for box in boxes if len(box)]
        place = topic.removesuffix("/annotations") + "/image/boxes"
        self._boxes(place, low, high, labels if len(low) == len(boxes) else None, None)

    def _detections(self, topic: str, message: Any) -> None:
        low = list(zip(message.x0_px, message.y0_px, strict=True))
        high = list(zip(message.x1_px, message.y1_px, strict=True))
        labels = [f"{score:.2f}" for score in message.score]
        if not message.valid:  # impossible boxes are on record, not on the picture
            low = []
        place, _, name = topic.rpartition("/")
        self._boxes(f"{place}/image/{name}", low, high, labels, list(message.class_id))

    def _boxes(
        self, place: str, low: list[Any], high: list[Any], labels: Any, classes: Any
    ) -> None:
        if not low:
            self._stream.log(place, self._rr.Clear(recursive=False))
            return
        start, end = np.asarray(low, dtype=np.float32), np.asarray(high, dtype=np.float32)
        boxes = self._rr.Boxes2D(mins=start, sizes=end - start, labels=labels, class_ids=classes)
        self._stream.log(place, boxes)

    def _location(self, topic: str, message: Any) -> None:
        self._stream.log(topic, self._rr.GeoPoints(lat_lon=[[message.latitude, message.longitude]]))

    def _fix(self, topic: str, message: Any) -> None:
        if message.mode >= 2:
            place = [[message.latitude_deg, message.longitude_deg]]
            self._stream.log(topic, self._rr.GeoPoints(lat_lon=place))

    def _log(self, topic: str, message: Any) -> None:
        level = _LEVELS[min(int(message.level), len(_LEVELS) - 1)]
        self._stream.log(topic, self._rr.TextLog(f"{message.name}: {message.message}", level=level))

    def _event(self, topic: str, message: Any) -> None:
        text = f"{message.source} {message.detail} {message.size_ns} ns"
        self._stream.log(topic, self._rr.TextLog(text, level="WARN"))

    def _imu(self, topic: str, message: Any) -> None:
        accel = [message.accel_x_mps2, message.accel_y_mps2, message.accel_z_mps2]
        gyro = [message.gyro_x_radps, message.gyro_y_radps, message.gyro_z_radps]
        self._stream.log(f"{topic}/accel_mps2", self._rr.Scalars(accel))
        self._stream.log(f"{topic}/gyro_radps", self._rr.Scalars(gyro))

    def _timing(self, topic: str, message: Any) -> None:
        self._stream.log(f"{topic}/sigma_ns", self._rr.Scalars(message.sigma_ns))
        self._stream.log(f"{topic}/exposure_ns", self._rr.Scalars(float(message.exposure_ns)))


@dataclass(frozen=True, slots=True)
class RerunReport:
    """What was written.

    Attributes:
        out: The .rrd file.
        messages: Messages shown.
        left_out: Messages per topic that have no picture in Rerun.
    """

    out: Path
    messages: int
    left_out: dict[str, int]


def to_rerun(path: Path, out: Path) -> RerunReport:
    """Write a recording as an .rrd file, which gets its name when it is whole.

    Raises:
        UsageError: rerun-sdk is not installed, or `out` exists.
        LogError: A damaged recording.
        StorageError: `out` cannot be written.
    """
    rerun = _sdk()
    check_new(out, "the output", source=path)
    part = out.with_name(f".{out.name}.part")
    try:
        with LogReader(path) as reader, part.open("wb") as file:
            report = RerunReport(out, *_show(rerun, reader, file))
        part.rename(out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return report


def _sdk() -> Any:
    os.environ.setdefault("RUST_LOG", "off")  # what its threads meet comes as an error of ours
    try:
        return importlib.import_module("rerun")
    except ImportError:
        raise UsageError(
            "converting for Rerun needs rerun-sdk", remedy="pip install 'syncline[view]'"
        ) from None


def _show(rerun: Any, reader: LogReader, file: BinaryIO) -> tuple[int, dict[str, int]]:
    """Messages shown, and left out per topic.

    Rerun encodes and we write: its own file sink waits for ever for a thread that the disk ended.
    """
    stream = rerun.RecordingStream("syncline", send_properties=True)
    encoded = stream.binary_stream()
    left_out: Counter[str] = Counter()
    views = _Views(rerun, stream)
    for record in reader:
        if not views.knows(record.schema):
            left_out[record.topic] += 1
            continue
        views.show(record, reader.decode(record))
        if views.shown % WRITE_EVERY == 0:
            file.write(encoded.read() or b"")
    file.write(encoded.read() or b"")
    return views.shown, dict(sorted(left_out.items()))
