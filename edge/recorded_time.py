"""Frame times of recordings: stamps that are already on the recording's own clock.

A file has no arrival jitter to filter: its stamp is an event of the declared camera (see
docs/frame-time.md), with an uncertainty that says how little a container knows.
"""

from __future__ import annotations

from syncline.errors import LogError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.frame import Anchor, Exposure, FrameEvent, FrameTime, Quality, RawFrame
from syncline.sensors.mode import ScanDirection, SensorMode, Shutter
from syncline.timebase import Clock

_SHUTTER = {
    pb.SHUTTER_GLOBAL: Shutter.GLOBAL,
    pb.SHUTTER_ROLLING: Shutter.ROLLING,
    pb.SHUTTER_GLOBAL_RESET: Shutter.GLOBAL_RESET,
}
_DIRECTION = {
    pb.SCAN_TOP_BOTTOM: ScanDirection.TOP_BOTTOM,
    pb.SCAN_BOTTOM_TOP: ScanDirection.BOTTOM_TOP,
    pb.SCAN_LEFT_RIGHT: ScanDirection.LEFT_RIGHT,
    pb.SCAN_RIGHT_LEFT: ScanDirection.RIGHT_LEFT,
}
_ANCHOR = {
    pb.ANCHOR_TRIGGER: Anchor.TRIGGER,
    pb.ANCHOR_READOUT: Anchor.READOUT,
    pb.ANCHOR_UNKNOWN: Anchor.UNKNOWN,
}


class RecordedTimer:
    """Times frames whose stamp marks a known event on the recording's clock.

    Args:
        mode: Declared readout.
        anchor: Declared anchor.
        exposure_us: (shortest, longest) exposure where the recording does not tell it.
    """

    def __init__(self, mode: SensorMode, anchor: Anchor, exposure_us: tuple[float, float]) -> None:
        self._mode = mode
        self._anchor = anchor
        low, high = (value * 1e3 for value in exposure_us)
        self._exposure_ns = round((low + high) / 2)
        # Uniform between the limits; the middle of exposure moves by half of that.
        self._mid_sigma_ns = (high - low) / (2 * 12**0.5)
        self._index = 0

    def stamp(self, frame: RawFrame) -> FrameTime:
        """Time one frame; frames come in order."""
        assert frame.driver is not None, "media adapters stamp every frame"
        known = bool(frame.exposures)
        exposure_ns = frame.exposures[0].duration_ns if known else self._exposure_ns
        mid_sigma_ns = frame.exposures[0].sigma_ns / 2 if known else self._mid_sigma_ns
        quality = Quality.OK if known else Quality.NO_EXPOSURE
        readout_ns = 0 if self._mode.shutter is Shutter.GLOBAL else self._mode.readout_time()
        soe_ns = frame.driver.t_ns - _after_soe(frame.driver.event, exposure_ns, readout_ns)
        exposures = frame.exposures or (Exposure(exposure_ns, sigma_ns=2 * mid_sigma_ns),)
        if frame.driver.event is FrameEvent.ARRIVAL:
            quality |= Quality.INFERRED_INDEX
        index = self._index if frame.sequence is None else frame.sequence
        self._index = index + 1
        return FrameTime(
            camera=frame.camera,
            index=index,
            soe_ns=soe_ns,
            mid_ns=soe_ns + exposure_ns // 2,
            eof_ns=soe_ns + exposure_ns + readout_ns,
            sigma_ns=float((frame.driver.sigma_ns**2 + mid_sigma_ns**2) ** 0.5),
            clock=Clock.MONOTONIC_RAW,
            anchor=self._anchor,
            quality=quality,
            mode=self._mode,
            bias_ns=frame.driver.bias_ns,
            exposures=exposures,
            sequence=frame.sequence,
        )


def _after_soe(event: FrameEvent, exposure_ns: int, readout_ns: int) -> int:
    """How long after the start of exposure of the first line an event comes, nanoseconds."""
    if event in (FrameEvent.SOE, FrameEvent.TRIGGER):
        return 0
    if event is FrameEvent.MID:
        return exposure_ns // 2
    if event in (FrameEvent.SOF, FrameEvent.EOE):
        return exposure_ns
    return exposure_ns + readout_ns


def timing_of_message(message: pb.FrameTiming) -> FrameTime:
    """A recorded frame time.

    Raises:
        LogError: The recorded mode is impossible.
    """
    if not message.mode.width or not message.mode.height:
        raise LogError(f"frame {message.index} of {message.camera!r} was recorded without its mode")
    mode = message.mode
    exposures = (Exposure(message.exposure_ns, message.gain),) if message.exposure_ns else ()
    return FrameTime(
        camera=message.camera,
        index=message.index,
        soe_ns=message.soe_raw_ns,
        mid_ns=message.mid_raw_ns,
        eof_ns=message.eof_raw_ns,
        sigma_ns=message.sigma_ns,
        clock=Clock.MONOTONIC_RAW,
        anchor=_ANCHOR[message.anchor],
        quality=Quality(message.quality),
        mode=SensorMode(
            width=mode.width,
            height=mode.height,
            crop=(mode.crop_x_px, mode.crop_y_px, mode.crop_w_px, mode.crop_h_px),
            binning=(mode.binning_x, mode.binning_y),
            line_time_ns=mode.line_time_ns,
            frame_length_lines=mode.frame_length_lines,
            shutter=_SHUTTER[mode.shutter],
            direction=_DIRECTION[mode.direction],
        ),
        trigger_id=None if message.trigger_id < 0 else message.trigger_id,
        bias_ns=(message.bias_low_ns, message.bias_high_ns),
        exposures=exposures,
        sequence=message.sequence,
    )
