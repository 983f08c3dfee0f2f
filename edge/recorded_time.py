"""Frame times of recordings: stamps on the recording's own clock, or times recorded before."""

from __future__ import annotations

from syncline.errors import LogError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.frame import Anchor, Exposure, FrameTime, Quality
from syncline.sensors.mode import ScanDirection, SensorMode, Shutter
from syncline.sensors.timer import FrameTimer
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


def recorded_timer(
    mode: SensorMode, anchor: Anchor, exposure_us: tuple[float, float]
) -> FrameTimer:
    """Times frames whose stamp is already on the recording's own clock.

    Args:
        mode: Declared readout.
        anchor: Declared anchor.
        exposure_us: (shortest, longest) exposure where the recording does not tell it.
    """
    low, high = (round(value * 1e3) for value in exposure_us)
    return FrameTimer(mode, anchor, exposure_range_ns=(low, high))


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
