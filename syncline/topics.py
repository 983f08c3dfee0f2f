"""The one table of topics: message, rate, queue, drop policy, link class, file.

Everything that is recorded or sent goes through a topic of this table; docs/log-format.md lists
it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache

from syncline.errors import MessageError


class LinkClass(enum.IntEnum):
    """Order in which the link sends; a full spool drops the highest number first."""

    EVENTS = 0
    RESULTS = 1
    TELEMETRY = 2
    BULK = 3


class DropPolicy(enum.Enum):
    """What happens when a topic's queue is full."""

    BLOCK = "block"
    DROP_OLDEST = "drop-oldest"
    DROP_NEWEST = "drop-newest"


class LogFile(enum.Enum):
    """Which file of a recorded segment a topic goes to."""

    TELEMETRY = "tel"
    CAMERA = "cam"


@dataclass(frozen=True, slots=True)
class Topic:
    """One row of the table.

    Attributes:
        name: Topic name; `{}` stands for the camera or sensor.
        schema: Full protobuf message name.
        rate_hz: Expected rate per camera or sensor, for queue sizing and health.
        queue: Messages held in memory before the drop policy acts.
        drop: What gives way when the queue is full.
        link_class: Class on the link, or None when the topic is not sent message by message.
        file: File of the recorded segment.
    """

    name: str
    schema: str
    rate_hz: float
    queue: int
    drop: DropPolicy
    link_class: LinkClass | None
    file: LogFile

    def of(self, name: str) -> str:
        """The topic of one camera or sensor."""
        return self.name.format(name)


_T, _C = LogFile.TELEMETRY, LogFile.CAMERA
_E, _R, _M = LinkClass.EVENTS, LinkClass.RESULTS, LinkClass.TELEMETRY
_OLD, _NEW, _BLOCK = DropPolicy.DROP_OLDEST, DropPolicy.DROP_NEWEST, DropPolicy.BLOCK

IMAGE = Topic("/camera/{}/image", "foxglove.CompressedImage", 30, 30, _NEW, None, _C)
TIMING = Topic("/camera/{}/timing", "syncline.FrameTiming", 30, 300, _BLOCK, _R, _T)
DETECTIONS = Topic("/camera/{}/detections", "syncline.Detections", 30, 300, _BLOCK, _R, _T)
SHADOW = Topic("/camera/{}/shadow", "syncline.Detections", 30, 300, _OLD, _M, _T)
SHADOW_SEGMENTATION = Topic(
    "/camera/{}/shadow_segmentation", "syncline.Segmentation", 30, 100, _OLD, _M, _T
)
SHADOW_CLASSIFICATION = Topic(
    "/camera/{}/shadow_classification", "syncline.Classification", 30, 300, _OLD, _M, _T
)
DISAGREEMENT = Topic("/camera/{}/disagreement", "syncline.Disagreement", 30, 300, _OLD, _M, _T)
SELECTED = Topic("/camera/{}/selected", "syncline.Selection", 1, 1000, _BLOCK, _E, _T)
SEGMENTATION = Topic("/camera/{}/segmentation", "syncline.Segmentation", 30, 100, _OLD, _M, _T)
CLASSIFICATION = Topic(
    "/camera/{}/classification", "syncline.Classification", 30, 300, _OLD, _R, _T
)
ANNOTATIONS = Topic("/camera/{}/annotations", "foxglove.ImageAnnotations", 30, 100, _OLD, None, _C)
DROPS = Topic("/drops", "syncline.Drop", 1, 1000, _BLOCK, _E, _T)
MAPPING = Topic("/time/mapping", "syncline.MappingSegment", 1, 1000, _BLOCK, _E, _T)
EVENTS = Topic("/time/events", "syncline.ClockEvent", 0.1, 1000, _BLOCK, _E, _T)
MEASUREMENTS = Topic("/time/measurements", "syncline.TimeMeasurement", 1, 1000, _OLD, _M, _T)
SOURCES = Topic("/time/sources", "syncline.SourceStatus", 1, 100, _OLD, _M, _T)
HEALTH = Topic("/health", "syncline.Health", 1, 100, _OLD, _M, _T)
MODEL_EVENTS = Topic("/model/events", "syncline.ModelEvent", 0.01, 1000, _BLOCK, _E, _T)
IMU = Topic("/imu/{}", "syncline.ImuSample", 200, 2000, _OLD, None, _T)
GNSS = Topic("/gnss/{}", "syncline.GnssFix", 10, 100, _OLD, _M, _T)
CAN = Topic("/can/{}", "syncline.CanFrame", 2000, 20000, _OLD, None, _T)
LOG = Topic("/log", "foxglove.Log", 1, 1000, _OLD, _M, _T)

TOPICS: tuple[Topic, ...] = (
    IMAGE, TIMING, DETECTIONS, SHADOW, SHADOW_SEGMENTATION, SHADOW_CLASSIFICATION, DISAGREEMENT,
    SELECTED, SEGMENTATION, CLASSIFICATION, ANNOTATIONS, DROPS, MAPPING, EVENTS, MEASUREMENTS,
    SOURCES, HEALTH, MODEL_EVENTS, IMU, GNSS, CAN, LOG,
)  # fmt: skip


@lru_cache(maxsize=1024)
def topic_of(name: str) -> Topic:
    """The row of a concrete topic name such as `/camera/front/image`.

    Raises:
        MessageError: No row of the table fits.
    """
    for topic in TOPICS:
        head, hole, tail = topic.name.partition("{}")
        if not hole:
            if name == head:
                return topic
        elif name.startswith(head) and name.endswith(tail):
            middle = name[len(head) : len(name) - len(tail)]
            if middle and "/" not in middle:
                return topic
    raise MessageError(f"topic {name!r} is not in the table", remedy="Add it to syncline/topics.py")
