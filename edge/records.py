"""Typed results to the protobuf messages that are recorded and sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from syncline.edge.decode.types import Boxes
from syncline.edge.job import Drop, Result
from syncline.edge.shadow import Disagreement
from syncline.edge.swap import SwapEvent
from syncline.edge.updater import UpdateEvent
from syncline.log.annotations import BoxColumns
from syncline.log.schemas import LogMessage
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.frame import Anchor, FrameTime, RawFrame, line_offset_of
from syncline.sensors.mode import ScanDirection, SensorMode, Shutter
from syncline.sync.sources.source import GnssSignals

NO_TRIGGER = -1

_SHUTTER = {
    Shutter.GLOBAL: pb.SHUTTER_GLOBAL,
    Shutter.ROLLING: pb.SHUTTER_ROLLING,
    Shutter.GLOBAL_RESET: pb.SHUTTER_GLOBAL_RESET,
}
_DIRECTION = {
    ScanDirection.TOP_BOTTOM: pb.SCAN_TOP_BOTTOM,
    ScanDirection.BOTTOM_TOP: pb.SCAN_BOTTOM_TOP,
    ScanDirection.LEFT_RIGHT: pb.SCAN_LEFT_RIGHT,
    ScanDirection.RIGHT_LEFT: pb.SCAN_RIGHT_LEFT,
}
_ANCHOR = {
    Anchor.TRIGGER: pb.ANCHOR_TRIGGER,
    Anchor.READOUT: pb.ANCHOR_READOUT,
    Anchor.UNKNOWN: pb.ANCHOR_UNKNOWN,
}


class Output(NamedTuple):
    """One message for one topic.

    Attributes:
        topic: Name of a row of `syncline.topics`, with the camera filled in.
        message: Message of that row's schema.
        raw_ns: Its time, CLOCK_MONOTONIC_RAW.
    """

    topic: str
    message: LogMessage
    raw_ns: int


def mode_message(mode: SensorMode) -> pb.SensorMode:
    """A sensor mode as part of a frame's timing."""
    x, y, w, h = mode.crop
    return pb.SensorMode(
        width=mode.width,
        height=mode.height,
        crop_x_px=x,
        crop_y_px=y,
        crop_w_px=w,
        crop_h_px=h,
        binning_x=mode.binning[0],
        binning_y=mode.binning[1],
        line_time_ns=mode.line_time_ns,
        frame_length_lines=mode.frame_length_lines,
        shutter=_SHUTTER[mode.shutter],
        direction=_DIRECTION[mode.direction],
    )


class ModeFacts(NamedTuple):
    """What the messages of every frame of a mode have in common, worked out once.

    Attributes:
        mode: The mode.
        message: It, as a part of a frame's timing.
        axis: 0 when its lines are columns, 1 when they are rows.
        first_ns: Middle of exposure of image line 0, relative to the line read first.
        slope_ns: What each further line adds.
    """

    mode: SensorMode
    message: pb.SensorMode
    axis: int
    first_ns: float
    slope_ns: float

    @classmethod
    def of(cls, mode: SensorMode) -> ModeFacts:
        """Work them out."""
        axis = 0 if mode.direction.by_columns else 1
        return cls(mode, mode_message(mode), axis, *line_offset_of(mode))

    def offsets_ns(self, low_px: Sequence[float], high_px: Sequence[float]) -> list[int]:
        """Middle of exposure of the middles of spans along the scan, as `line_offset_ns`.

        Plain numbers: ten boxes cost less so than the first call of NumPy on cold caches.
        """
        half, first = self.slope_ns / 2, self.first_ns
        return [round(first + half * (a + b)) for a, b in zip(low_px, high_px, strict=True)]


def timing_message(
    frame: RawFrame, timing: FrameTime, facts: ModeFacts, boot_id: str, segment_id: int
) -> pb.FrameTiming:
    """The true time of a frame's pixels, as it is recorded on `/camera/*/timing`."""
    exposure = max(timing.exposures, key=lambda e: e.duration_ns, default=None)
    return pb.FrameTiming(
        camera=timing.camera,
        boot_id=boot_id,
        index=timing.index,
        sequence=timing.sequence or 0,
        soe_raw_ns=timing.soe_ns,
        mid_raw_ns=timing.mid_ns,
        eof_raw_ns=timing.eof_ns,
        arrival_raw_ns=frame.arrival.t_ns,
        sigma_ns=timing.sigma_ns,
        bias_low_ns=timing.bias_ns[0],
        bias_high_ns=timing.bias_ns[1],
        anchor=_ANCHOR[timing.anchor],
        quality=timing.quality.value,
        exposure_ns=exposure.duration_ns if exposure else 0,
        gain=exposure.gain if exposure else 0.0,
        mode=facts.message,
        trigger_id=NO_TRIGGER if timing.trigger_id is None else timing.trigger_id,
        segment_id=segment_id,
        device_ticks=frame.device_ticks or 0,
    )


class FrameRef(NamedTuple):
    """What every result says of the frame it was made from; fields named as in the messages."""

    camera: str
    boot_id: str
    frame_index: int
    mid_raw_ns: int
    segment_id: int
    model_sha256: str
    valid: bool
    invalid_reason: str
    shadow: bool = False


def box_columns(boxes: Boxes) -> BoxColumns:
    """A model's boxes as plain numbers, which are handled faster than arrays this short."""
    x0_px, y0_px, x1_px, y1_px = boxes.xyxy_px.reshape(-1, 4).T.tolist()
    return BoxColumns(x0_px, y0_px, x1_px, y1_px, boxes.score.tolist(), boxes.class_id.tolist())


def detections_message(
    ref: FrameRef,
    timing: FrameTime,
    facts: ModeFacts,
    size_px: tuple[int, int],
    boxes: BoxColumns,
) -> pb.Detections:
    """Boxes as packed columns, each with the time of its own rows.

    Args:
        ref: Frame, model and validity.
        timing: Frame time.
        facts: Of its mode, for the row offsets.
        size_px: (width, height) of the source picture.
        boxes: In source pixels.
    """
    return pb.Detections(
        **ref._asdict(),
        image_width=size_px[0],
        image_height=size_px[1],
        x0_px=boxes.x0_px,
        y0_px=boxes.y0_px,
        x1_px=boxes.x1_px,
        y1_px=boxes.y1_px,
        score=boxes.score,
        class_id=boxes.class_id,
        row_offset_ns=facts.offsets_ns(boxes[facts.axis], boxes[facts.axis + 2]),
        time_sigma_ns=timing.sigma_ns,
    )


def segmentation_message(ref: FrameRef, labels: NDArray[np.uint8] | None) -> pb.Segmentation:
    """A label map, zstd compressed, row major.

    Args:
        ref: Frame, model and validity.
        labels: (h, w) class ids; None = there is no map, for it is not valid.
    """
    if labels is None:
        return pb.Segmentation(**ref._asdict())
    height, width = labels.shape
    return pb.Segmentation(
        **ref._asdict(),
        width=width,
        height=height,
        labels_zstd=zstandard.ZstdCompressor(level=1).compress(labels.tobytes()),
    )


def classification_message(
    ref: FrameRef, class_id: NDArray[np.int64], score: NDArray[np.float32]
) -> pb.Classification:
    """Best classes of a frame, best first."""
    return pb.Classification(
        **ref._asdict(),
        class_id=class_id.tolist(),
        score=score.tolist(),
    )


def fix_message(name: str, sky: GnssSignals, boot_id: str) -> pb.GnssFix:
    """Position and sky of a receiver; its time is a record of /time/measurements."""
    return pb.GnssFix(
        sensor=name,
        boot_id=boot_id,
        raw_ns=sky.raw_ns,
        latitude_deg=sky.latitude_deg or 0.0,
        longitude_deg=sky.longitude_deg or 0.0,
        speed_mps=sky.speed_mps or 0.0,
        mode=sky.fix_mode or 0,
        satellites=sky.satellites or 0,
        time_sigma_ns=sky.time_accuracy_ns or 0,
        cn0_dbhz=sky.cn0_dbhz or 0.0,
        jamming=sky.jamming or 0.0,
    )


def disagreement_message(
    primary: Result, shadow: Result, found: Disagreement, choice: str, boot_id: str
) -> pb.Disagreement:
    """How far two models are apart on a frame, and what came of it."""
    return pb.Disagreement(
        camera=primary.frame.camera,
        boot_id=boot_id,
        frame_index=primary.frame.index,
        mid_raw_ns=primary.frame.at_ns,
        model_sha256=primary.model_digest,
        shadow_sha256=shadow.model_digest,
        worth=found.worth,
        score=found.score,
        class_area_l1=found.class_area_l1,
        unmatched=found.unmatched,
        flicker=found.flicker,
        choice=choice,
    )


def selection_message(
    primary: Result, boot_id: str, choice: str, *, share: float, worth: float, around_ns: int
) -> pb.Selection:
    """A frame is chosen for upload; see the message."""
    return pb.Selection(
        camera=primary.frame.camera,
        boot_id=boot_id,
        frame_index=primary.frame.index,
        mid_raw_ns=primary.frame.at_ns,
        model_sha256=primary.model_digest,
        choice=choice,
        share=share,
        worth=worth,
        before_ns=around_ns,
        after_ns=around_ns,
    )


Axes = tuple[float, float, float]


def imu_message(
    sensor: str, boot_id: str, raw_ns: int, sigma_ns: float, gyro_radps: Axes, accel_mps2: Axes
) -> pb.ImuSample:
    """A sample of an inertial sensor; NaN for what it does not measure."""
    gx, gy, gz = gyro_radps
    ax, ay, az = accel_mps2
    return pb.ImuSample(
        sensor=sensor,
        boot_id=boot_id,
        raw_ns=raw_ns,
        sigma_ns=sigma_ns,
        accel_x_mps2=ax,
        accel_y_mps2=ay,
        accel_z_mps2=az,
        gyro_x_radps=gx,
        gyro_y_radps=gy,
        gyro_z_radps=gz,
    )


def drop_message(drop: Drop) -> pb.Drop:
    """A frame that was captured and not processed."""
    return pb.Drop(
        camera=drop.camera,
        frame_index=drop.index,
        raw_ns=drop.raw_ns,
        stage=drop.slot,
        reason=f"{drop.reason.value}: {drop.detail}" if drop.detail else drop.reason.value,
        count=drop.count,
    )


def model_event_message(event: SwapEvent | UpdateEvent, boot_id: str, raw_ns: int) -> pb.ModelEvent:
    """Something happened to the runner's model, or on the way of an update."""
    return pb.ModelEvent(
        boot_id=boot_id,
        raw_ns=raw_ns,
        action=event.action,
        name=event.name,
        version=event.version,
        sha256=event.digest,
        reason=event.reason,
    )
