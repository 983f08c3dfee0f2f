"""What is recorded of a frame agrees with the frame's own time model."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from syncline.edge.decode.types import Boxes
from syncline.edge.records import FrameRef, ModeFacts, box_columns, detections_message
from syncline.sensors.frame import Anchor, FrameTime, Quality
from syncline.sensors.mode import Binning, ScanDirection, SensorMode, Shutter
from syncline.timebase import Clock

MODE = SensorMode(
    width=320, height=200, crop=(16, 40, 640, 400), binning=(2, 2), line_time_ns=14_321.7,
    frame_length_lines=1000, shutter=Shutter.ROLLING, readout_lines=(0, 800),
)  # fmt: skip
REF = FrameRef("front", "boot", 1, 5_000, 0, "0" * 64, True, "")
MODES = list(itertools.product(Shutter, ScanDirection, Binning))


@pytest.mark.parametrize(("shutter", "direction", "binning"), MODES)
def test_row_offsets_are_those_of_the_time_model(
    shutter: Shutter, direction: ScanDirection, binning: Binning
) -> None:
    mode = replace(MODE, shutter=shutter, direction=direction, binning_kind=binning)
    timing = FrameTime(
        "front", 1, 0, 5_000, 10_000, 3.0, Clock.MONOTONIC_RAW, Anchor.READOUT, Quality.OK, mode
    )
    corner = np.random.default_rng(3).uniform(-20, 300, (40, 2)).astype(np.float32)
    xyxy = np.hstack([corner, corner + 33])
    boxes = Boxes(xyxy, np.ones(40, np.float32), np.arange(40))
    message = detections_message(REF, timing, ModeFacts.of(mode), (320, 200), box_columns(boxes))
    centre = (xyxy[:, :2].astype(np.float64) + xyxy[:, 2:]) / 2
    expected = timing.pixel_time(centre) - timing.mid_ns
    assert np.abs(np.array(message.row_offset_ns) - expected).max() <= 1  # one is rounded twice
    assert (shutter is Shutter.GLOBAL) == (len(set(message.row_offset_ns)) == 1)
    assert list(message.y1_px) == xyxy[:, 3].tolist()
    assert list(message.class_id) == list(range(40))
