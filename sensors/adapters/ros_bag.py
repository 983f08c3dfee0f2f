"""Cameras of a ROS 2 bag (mcap or db3), timed by the headers of their messages."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.log.convert import picture_of
from syncline.log.records import Record
from syncline.sensors.adapters.bag_topics import BagTopics, arrival_of, sensor_name
from syncline.sensors.frame import FrameEvent, RawFrame

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
MAX_PIXELS = 64_000_000

UNDECLARED_BIAS_NS = (-100_000_000, 50_000_000)
"""Drivers stamp anything from the start of exposure (readout ends up to a period later) to the
time they publish (it ended before the transfer): without a declaration the truth lies in here."""


class RosBag(BagTopics[RawFrame]):
    """Pictures of a bag; one of more than `MAX_PIXELS` is skipped and counted.

    See `BagTopics`; undeclared headers are taken as ends of readout, with `UNDECLARED_BIAS_NS`.
    """

    _kinds = frozenset({IMAGE, COMPRESSED})
    _what = "picture"
    _undeclared = FrameEvent.EOF, UNDECLARED_BIAS_NS

    def _sample(self, record: Record, sequence: int, message: Any) -> RawFrame | None:
        try:
            picture = _picture(message, record.schema)
        except cv2.error:
            return None
        if picture is None:
            return None
        return RawFrame(
            camera=sensor_name(record.topic, "camera"),
            sequence=sequence,
            device_ticks=None,
            driver=self._header(message, record.raw_ns),
            arrival=arrival_of(record),
            payload=picture,
        )


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
