"""The edge's pure step: a frame and its result become the messages that are recorded and sent.

Live and replay call the same methods with the same inputs, so a replay is bit-identical. No clock
is read here and nothing is written; the loops around it (`daemon`, `replay`) do that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline import topics
from syncline.edge.decode.types import Boxes, LabelMap, Scores
from syncline.edge.job import Drop, Result
from syncline.edge.records import (
    FrameRef,
    ModeFacts,
    Output,
    box_columns,
    classification_message,
    detections_message,
    drop_message,
    fix_message,
    segmentation_message,
    timing_message,
)
from syncline.errors import MediaError
from syncline.log.annotations import annotations_message
from syncline.log.picture import image_message
from syncline.sensors.frame import FrameTime, RawFrame
from syncline.sensors.jpeg import JpegPicture, pixels_of
from syncline.sync.measurement import Measurement
from syncline.sync.notices import Notice
from syncline.sync.publish import (
    measurement_message,
    notice_message,
    segment_message,
    source_message,
)
from syncline.sync.sources.source import GnssSignals
from syncline.sync.status import SourceRow
from syncline.timebase import MappingSegment

TOP_CLASSES = 5


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """What the pipeline makes besides results.

    Attributes:
        images: Record pictures and their annotations.
        jpeg_quality: Of pictures that are encoded here, 1..100.
        recompress: Encode a camera's JPEG again, too.
    """

    images: bool = True
    jpeg_quality: int = 80
    recompress: bool = False


class Pipeline:
    """Makes messages of frames, results, mapping segments and time events of one boot.

    Args:
        boot_id: Boot that all raw times belong to.
        options: See `PipelineOptions`.
    """

    def __init__(self, boot_id: str, options: PipelineOptions | None = None) -> None:
        self._boot_id = boot_id
        self._options = options or PipelineOptions()
        self._segment_id = 0
        self._facts: dict[str, ModeFacts] = {}

    def segment(self, segment: MappingSegment, policy: str = "") -> list[Output]:
        """A new mapping segment: later frames name it."""
        self._segment_id = segment.id
        message = segment_message(segment, policy)
        return [Output(topics.MAPPING.name, message, segment.raw0_ns)]

    def notice(self, notice: Notice) -> list[Output]:
        """Something happened to a clock, a source or the policy."""
        message = notice_message(notice, self._boot_id)
        return [Output(topics.EVENTS.name, message, notice.raw_ns)]

    def measurement(self, measurement: Measurement) -> list[Output]:
        """A comparison of a source with the raw clock, for a later smoother."""
        message = measurement_message(measurement, self._boot_id)
        return [Output(topics.MEASUREMENTS.name, message, measurement.known_raw_ns)]

    def source(self, row: SourceRow, raw_ns: int) -> list[Output]:
        """A time source as it stands."""
        return [Output(topics.SOURCES.name, source_message(row, raw_ns), raw_ns)]

    def fix(self, name: str, sky: GnssSignals) -> list[Output]:
        """A GNSS receiver says where it is and how the sky looks."""
        message = fix_message(name, sky, self._boot_id)
        return [Output(topics.GNSS.of(name), message, sky.raw_ns)]

    def captured(self, frame: RawFrame, timing: FrameTime) -> list[Output]:
        """A frame was captured: its timing, and its picture when pictures are recorded."""
        facts = self._facts_of(timing)
        message = timing_message(frame, timing, facts, self._boot_id, self._segment_id)
        outputs = [Output(topics.TIMING.of(frame.camera), message, timing.mid_ns)]
        if self._options.images and isinstance(frame.payload, np.ndarray | JpegPicture):
            data = self._jpeg(frame.payload)
            image = image_message(timing.mid_ns, frame.camera, data, "jpeg")
            outputs.append(Output(topics.IMAGE.of(frame.camera), image, timing.mid_ns))
        return outputs

    def _jpeg(self, picture: NDArray[np.uint8] | JpegPicture) -> bytes:
        """What came as JPEG is recorded as it came: encoding it again costs time and detail."""
        if isinstance(picture, JpegPicture) and not self._options.recompress:
            return picture.data
        return encode_jpeg(pixels_of(picture), self._options.jpeg_quality)

    def result(self, result: Result) -> list[Output]:
        """What a model said of a captured frame; its frame carries timing and pixels."""
        frame, timing = result.frame, result.frame.timing
        assert timing is not None, "the loops stamp every frame before it is processed"
        ref = FrameRef(
            timing.camera,
            self._boot_id,
            timing.index,
            timing.mid_ns,
            self._segment_id,
            result.model_digest,
            result.valid,
            result.invalid_reason,
            result.shadow,
        )
        output = _empty_of(result) if result.output is None else result.output
        if isinstance(output, LabelMap):
            labels = None if result.output is None else output.labels
            topic = topics.SHADOW_SEGMENTATION if ref.shadow else topics.SEGMENTATION
            message = segmentation_message(ref, labels)
            return [Output(topic.of(timing.camera), message, timing.mid_ns)]
        if isinstance(output, Scores):
            topic = topics.SHADOW_CLASSIFICATION if ref.shadow else topics.CLASSIFICATION
            scores = classification_message(ref, *output.top(TOP_CLASSES))
            return [Output(topic.of(timing.camera), scores, timing.mid_ns)]
        names = result.manifest.labels if result.manifest else ()
        return self._boxes(ref, timing, frame.size_px, output, names)

    def _facts_of(self, timing: FrameTime) -> ModeFacts:
        facts = self._facts.get(timing.camera)
        if facts is None or facts.mode is not timing.mode:
            facts = self._facts[timing.camera] = ModeFacts.of(timing.mode)
        return facts

    def dropped(self, drop: Drop) -> list[Output]:
        """A frame was captured and not processed."""
        return [Output(topics.DROPS.name, drop_message(drop), drop.raw_ns)]

    def _boxes(
        self,
        ref: FrameRef,
        timing: FrameTime,
        size_px: tuple[int, int],
        boxes: Boxes,
        names: Sequence[str],
    ) -> list[Output]:
        columns = box_columns(boxes)
        message = detections_message(ref, timing, self._facts_of(timing), size_px, columns)
        topic = topics.SHADOW if ref.shadow else topics.DETECTIONS
        outputs = [Output(topic.of(timing.camera), message, timing.mid_ns)]
        if self._options.images and not ref.shadow:
            # Annotations cannot say that they are not valid: nothing is drawn then.
            drawn = columns if ref.valid else box_columns(Boxes.none())
            annotations = annotations_message(timing.mid_ns, drawn, names)
            name = topics.ANNOTATIONS.of(timing.camera)
            outputs.append(Output(name, annotations, timing.mid_ns))
        return outputs


def _empty_of(result: Result) -> Boxes | LabelMap | Scores:
    """What a result without output would have been: it is told on the topic of its kind."""
    task = result.manifest.task if result.manifest else "detection"
    if task == "detection":
        return Boxes.none()
    if task == "classification":
        return Scores(np.empty(0, np.float32))
    return LabelMap(np.empty((0, 0), np.uint8), *result.frame.size_px)


def encode_jpeg(bgr: NDArray[np.uint8], quality: int) -> bytes:
    """Encode a picture as baseline JPEG with 4:2:0 chroma.

    Raises:
        MediaError: The encoder refused the array.
    """
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    done, data = cv2.imencode(".jpg", bgr, options)
    if not done:
        raise MediaError(f"a picture of shape {bgr.shape} could not be encoded")
    return data.tobytes()
