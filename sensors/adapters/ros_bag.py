"""Cameras of a ROS 2 bag (mcap or db3), timed by the headers of their messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.errors import LogError, MediaError
from syncline.log.convert import picture_of
from syncline.log.records import Record
from syncline.log.rosbag import BagDecoder, BagReport, read_bag
from syncline.sensors.adapter import Health
from syncline.sensors.adapters.recorded import Recorded
from syncline.sensors.frame import FrameEvent, RawFrame, Stamp
from syncline.timebase import NS_PER_S, Clock

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
MAX_PIXELS = 64_000_000

UNDECLARED_BIAS_NS = (-100_000_000, 50_000_000)
"""Drivers stamp anything from the start of exposure (readout ends up to a period later) to the
time they publish (it ended before the transfer): without a declaration the truth lies in here."""


class RosBag(Recorded[RawFrame]):
    """Pictures of a bag in its order, which is that of reception.

    Memory: one message and what the bag's own reader holds. A message that does not decode is
    skipped and counted; so is a picture of more than `MAX_PIXELS`.

    Args:
        path: Bag folder or file.
        topic: Only this topic; empty for all pictures, each topic a camera.
        event: What the header stamps mark, where the driver is known; None: taken as ends of
            readout with a bias that says how little that is worth.
    """

    def __init__(self, path: Path, *, topic: str = "", event: FrameEvent | None = None) -> None:
        super().__init__()
        self._path, self._topic, self._event = path, topic, event
        self._decoder: BagDecoder | None = None
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

    def _read(self) -> Iterator[RawFrame]:
        """Pictures; a truncated bag ends where it is cut, counted as an error.

        Raises:
            MediaError: Not a single picture is in it.
        """
        for record in read_bag(self._path, self._report):
            if self._closed.is_set():
                return
            if record.schema not in (IMAGE, COMPRESSED) or self._topic not in ("", record.topic):
                continue
            frame = self._frame(record)
            if frame is not None:
                yield frame
        if not self._frames:
            raise MediaError(
                f"{self._path}: no picture{f' on {self._topic}' if self._topic else ''} can be "
                f"read ({self._errors} damaged)",
                remedy="See what the bag holds with: ros2 bag info, or syncline log info",
            )

    def _frame(self, record: Record) -> RawFrame | None:
        assert self._decoder is not None
        # A damaged message is a picture that was lost: it keeps its number.
        sequence = self._sequences.get(record.topic, 0)
        self._sequences[record.topic] = sequence + 1
        try:
            message = self._decoder.decode(record)
            picture = _picture(message, record.schema)
        except (LogError, cv2.error):
            picture = None
        if picture is None:
            self._errors += 1
            return None
        stamp = self._stamp(message, record.raw_ns)
        return RawFrame(
            camera=camera_name(record.topic),
            sequence=sequence,
            device_ticks=None,
            driver=stamp,
            arrival=Stamp(record.raw_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL),
            payload=picture,
        )

    def _stamp(self, message: Any, received_ns: int) -> Stamp:
        """The header's time; a header of zeros is no time, its reception stands in."""
        seconds, nanoseconds = int(message.header.stamp.sec), int(message.header.stamp.nanosec)
        t_ns = seconds * NS_PER_S + nanoseconds
        event = self._event or FrameEvent.EOF
        bias_ns = (0, 0) if self._event else UNDECLARED_BIAS_NS
        if t_ns <= 0 or nanoseconds >= NS_PER_S:
            self._unstamped += 1
            t_ns, event, bias_ns = received_ns, FrameEvent.EOF, UNDECLARED_BIAS_NS
        return Stamp(t_ns, Clock.MONOTONIC_RAW, event, 0.0, bias_ns)

    def health(self) -> Health:
        """State and counters; each damaged place of the bag is an error."""
        health = super().health()
        return replace(health, errors=health.errors + len(self._report.damaged))

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.MONOTONIC_RAW, self._event or FrameEvent.EOF

    def _told(self) -> list[str]:
        unstamped = [f"{self._unstamped} headers without a time"] if self._unstamped else []
        return [*unstamped, *self._report.damaged]

    def _release(self) -> None:
        """The bag's reader lives with `frames` alone."""
        self._decoder = None


def camera_name(topic: str) -> str:
    """`/cam/image_raw` -> `cam_image_raw`: letters that topics of ours may have."""
    return re.sub(r"[^a-z0-9_-]+", "_", topic.strip("/").lower())[:64] or "camera"


def _picture(message: Any, schema: str) -> NDArray[np.uint8] | None:
    """BGR (height, width, 3); None when it does not decode or is too large."""
    if schema == COMPRESSED:
        data = np.asarray(message.data, dtype=np.uint8)
        found = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        return None if found is None else np.asarray(found, dtype=np.uint8)
    if int(message.width) * int(message.height) > MAX_PIXELS:
        return None
    pixels = picture_of(message)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    elif pixels.shape[2] == 4:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR)
    return np.asarray(pixels, dtype=np.uint8)
