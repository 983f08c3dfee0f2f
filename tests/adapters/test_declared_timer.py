"""The timer of a declared camera: its readout as declared, or as the driver's controls tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from syncline.edge.cameras import make_camera
from syncline.edge.config import CameraSection
from syncline.edge.declared_timer import DeclaredTimer, camera_mode
from syncline.errors import SensorDataError
from syncline.sensors.adapters.v4l2 import V4l2Camera
from syncline.sensors.frame import Exposure, FrameEvent, RawFrame, Stamp, line_offset_ns
from syncline.sensors.mode import ScanDirection, SensorMode, Shutter
from syncline.timebase import Clock, ManualClock

# 1080 of 1125 lines of 2200 pixels at 148.5 MHz: 14.8148 us a line, 16.000 ms readout, 60 Hz.
TOLD = SensorMode.from_v4l2(280, 45, 148_500_000, (0, 0, 1920, 1080))
READOUT_US = 1080 * 2200 / 148.5
PERIOD_NS = round(1e9 / 60)


def section(**changes: object) -> CameraSection:
    given = {"name": "front", "kind": "v4l2", "path": "/dev/video0", "shutter": "rolling"}
    return CameraSection(**{**given, **changes})  # type: ignore[arg-type]


def frame(size_px: tuple[int, int] = (1920, 1080)) -> RawFrame:
    eof = Stamp(10**9, Clock.MONOTONIC_RAW, FrameEvent.EOF)
    arrival = Stamp(10**9 + 1, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL)
    picture = np.zeros((size_px[1], size_px[0], 3), np.uint8)
    return RawFrame("front", 0, None, eof, arrival, (Exposure(4_000_000),), picture)


def test_the_controls_give_the_readout_that_nobody_declared() -> None:
    """sensors-5: an end of readout becomes a middle of exposure by the sensor's own line time."""
    time = DeclaredTimer(section(anchor="readout"), 0.0, lambda: TOLD).stamp(frame())
    assert time.mode.line_time_ns == pytest.approx(2200e9 / 148.5e6, rel=1e-12)
    assert time.mid_ns == pytest.approx(10**9 - READOUT_US * 1e3 - 2_000_000, abs=1)
    rows = time.row_time([0, 1079]) - time.mid_ns
    assert rows[1] == pytest.approx(1079 * TOLD.line_time_ns, abs=1)
    assert time.bias_ns == (0, 0)


@pytest.mark.parametrize(
    ("event", "shutter", "bias_ns"),
    [
        (FrameEvent.EOF, "global", (-PERIOD_NS, 0)),
        (FrameEvent.EOF, "rolling", (-PERIOD_NS, 0)),
        (FrameEvent.SOE, "global", (0, 0)),
        (FrameEvent.SOE, "rolling", (0, PERIOD_NS)),
    ],
)
@pytest.mark.parametrize("readout_us", [100.0, 9000.0, READOUT_US])
def test_a_readout_that_nobody_tells_is_never_silent(
    event: FrameEvent, shutter: str, bias_ns: tuple[int, int], readout_us: float
) -> None:
    """Whatever the true readout is, the middles of all rows lie inside the bias."""
    truth = SensorMode.simple(1920, 1080, readout_ns=readout_us * 1e3, shutter=Shutter(shutter))
    soe_ns, e_ns = 10**9, 4_000_000
    at_ns = soe_ns + (e_ns + truth.readout_time() if event is FrameEvent.EOF else 0)
    stamp = Stamp(at_ns, Clock.MONOTONIC_RAW, event)
    raw = replace(frame(), driver=stamp, arrival=replace(frame().arrival, t_ns=at_ns))
    declared = section(anchor="readout", shutter=shutter, fps=60.0)
    time = DeclaredTimer(declared, 0.0).stamp(raw)
    assert time.bias_ns == bias_ns
    rows = np.arange(1080)
    middles = soe_ns + e_ns // 2 + line_offset_ns(truth, rows) - time.row_time(rows)
    assert (middles >= bias_ns[0] - 2000).all()
    assert (middles <= bias_ns[1] + 2000).all()


@pytest.mark.parametrize("off", [-0.0009, 0.0, 0.0009])
def test_a_declared_readout_that_agrees_is_fine(off: float) -> None:
    declared = section(readout_us=READOUT_US * (1 + off))
    assert camera_mode(declared, (1920, 1080), 1e9 / 60, TOLD) is not None


@pytest.mark.parametrize("off", [-0.5, -0.0011, 0.0011, 0.01, 4.0])
def test_a_declared_readout_that_contradicts_the_controls_is_refused(off: float) -> None:
    """sensors-34: one of the two is wrong, and nothing here can tell which."""
    timer = DeclaredTimer(section(readout_us=READOUT_US * (1 + off)), 1e9 / 60, lambda: TOLD)
    for _ in range(2):
        with pytest.raises(SensorDataError, match="blanking and pixel rate give 16000") as caught:
            timer.stamp(frame())
        assert "readout_us" in caught.value.remedy


def test_shutter_and_direction_are_declared_in_any_case() -> None:
    for shutter in Shutter:
        for direction in (ScanDirection.TOP_BOTTOM, ScanDirection.BOTTOM_TOP):
            declared = section(shutter=shutter.value, direction=direction.value)
            mode = camera_mode(declared, (1920, 1080), 0.0, TOLD)
            assert (mode.shutter, mode.direction) == (shutter, direction)
            assert mode.readout_time() == pytest.approx(READOUT_US * 1e3, abs=1)


def test_a_picture_that_was_scaled_behind_the_sensor_keeps_the_readout_time() -> None:
    mode = camera_mode(section(), (640, 480), 0.0, TOLD)
    assert (mode.width, mode.height) == (640, 480)
    assert mode.readout_time() == pytest.approx(READOUT_US * 1e3, abs=1)
    assert mode.period_ns() == pytest.approx(1e9 / 60, rel=2e-3)


def test_the_edge_asks_a_v4l2_camera_for_its_mode() -> None:
    camera, timer = make_camera(section(anchor="readout"), ManualClock())
    assert isinstance(camera, V4l2Camera)
    camera.mode = TOLD  # as `open` finds it in the driver's controls
    assert timer.stamp(frame()).mode == TOLD


def test_a_live_camera_that_changes_its_resolution_is_refused_until_it_is_back() -> None:
    timer = DeclaredTimer(section(), 0.0)
    timer.stamp(frame())
    with pytest.raises(SensorDataError, match="pictures of 640x480 after 1920x1080"):
        timer.stamp(replace(frame((640, 480)), sequence=1))
    assert timer.stamp(replace(frame(), sequence=2)).index == 2
    folder = DeclaredTimer(section(kind="images"), 0.0)  # pictures of a folder may differ
    folder.stamp(frame())
    folder.stamp(replace(frame((640, 480)), sequence=1))
