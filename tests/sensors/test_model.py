"""Acceptance cases sensors-1 to sensors-11 and sensors-34 to sensors-36: equations and modes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import ClockError, SensorDataError
from syncline.sensors.checks import check_clock, check_events, check_exposures, soe_offset_ns
from syncline.sensors.frame import (
    Anchor,
    Exposure,
    FrameEvent,
    FrameTime,
    Quality,
    Stamp,
)
from syncline.sensors.mode import Binning, ScanDirection, SensorMode, Shutter, TriggerPath
from syncline.sensors.timer import FrameTimer
from syncline.timebase import Clock

from .helpers import PERIOD_NS, arrived, rolling_mode

RAW = Clock.MONOTONIC_RAW


def frame_time(
    mode: SensorMode,
    *exposures: Exposure,
    soe_ns: int = 10_000_000_000,
    anchor: Anchor = Anchor.TRIGGER,
) -> FrameTime:
    """Through the timer, from a driver's exact stamp of the start of exposure."""
    timer = FrameTimer(mode, anchor)
    stamp = Stamp(soe_ns, RAW, FrameEvent.SOE)
    return timer.stamp(arrived(soe_ns + 60_000_000, 0, driver=stamp, exposures=exposures))


@given(
    exposure=st.integers(1, 30_000_000),
    readout=st.integers(100_000, 30_000_000),
    soe=st.integers(0, 2**61),
    event=st.sampled_from([e for e in FrameEvent if e is not FrameEvent.ARRIVAL]),
)
def test_equations_round_trip(exposure: int, readout: int, soe: int, event: FrameEvent) -> None:
    """sensors-1: SOE -> any event -> SOE within 1 ns."""
    mode = SensorMode.simple(640, 480, readout_ns=readout)
    at = soe + soe_offset_ns(event, mode, exposure, 1234)
    timer = FrameTimer(mode, Anchor.TRIGGER, TriggerPath(trigger_delay_ns=1234))
    frame = arrived(at + 1_000, 7, driver=Stamp(at, RAW, event), exposures=(Exposure(exposure),))
    got = timer.stamp(frame)
    assert abs(got.soe_ns - soe) <= 1
    assert abs(got.eof_ns - (soe + exposure + readout)) <= 1


@given(exposure=st.integers(1, 30_000_000), readout=st.integers(1000, 30_000_000))
def test_rolling_centre_is_between_start_and_end(exposure: int, readout: int) -> None:
    """sensors-2: rolling centre = (SOE_0 + EOF)/2 = SOF - e/2 + R/2 = EOF - (e+R)/2."""
    mode = SensorMode.simple(640, 480, readout_ns=readout)
    ft = frame_time(mode, Exposure(exposure))
    assert abs(ft.centre_ns() - (ft.soe_ns + ft.eof_ns) / 2) <= 1
    assert abs(ft.centre_ns() - (ft.eof_ns - (exposure + readout) / 2)) <= 1
    rows = ft.row_time(np.array([-0.5, 479.5]))
    assert abs(ft.centre_ns() - (rows.mean() + mode.line_time_ns / 2)) <= 2


def test_waymo_centre_column() -> None:
    """sensors-3: trigger, shutter and readout-done give the centre column."""
    trigger_ns, shutter_ns, done_ns = 1_000_000_000, 8_000_000, 1_045_000_000
    readout = done_ns - trigger_ns - shutter_ns
    mode = SensorMode.simple(1920, 1280, readout_ns=readout, direction=ScanDirection.LEFT_RIGHT)
    ft = frame_time(mode, Exposure(shutter_ns), soe_ns=trigger_ns)
    assert ft.eof_ns == done_ns
    centre = int(ft.pixel_time(np.array([960.0, 3.0])))
    assert abs(centre - (trigger_ns + done_ns) / 2) <= 1


def test_android_skew_is_one_past_the_last_row() -> None:
    """sensors-4: skew = N lines, not N - 1."""
    mode = SensorMode(640, 480, (0, 0, 640, 480), (1, 1), 30_000.0, 0, Shutter.ROLLING)
    assert mode.readout_time() == 480 * 30_000
    rows = frame_time(mode, Exposure(0)).row_time([0, 479])
    assert rows[1] - rows[0] == 479 * 30_000


def test_v4l2_controls() -> None:
    """sensors-5: line time and period from HBLANK, VBLANK, PIXEL_RATE, below 1 ppm."""
    mode = SensorMode.from_v4l2(2816, 1128, 297_000_000, (8, 8, 1920, 1080))
    line = (1920 + 2816) / 297e6 * 1e9
    assert abs(mode.line_time_ns / line - 1) < 1e-9
    assert abs(mode.period_ns() / ((1080 + 1128) * line) - 1) < 1e-6
    binned = SensorMode.from_v4l2(100, 50, 1_000_000, (0, 0, 200, 100), binning=(2, 2))
    assert binned.line_time_ns == 200_000.0
    assert binned.line_count == 50
    assert binned.frame_length_lines == 100


def test_global_and_global_reset() -> None:
    """sensors-6: global reset's last row is (N-1) lines / 2 later; a global shutter's is not."""
    reset = SensorMode.simple(640, 480, readout_ns=14_400_000, shutter=Shutter.GLOBAL_RESET)
    rows = frame_time(reset, Exposure(5_000_000)).row_time([0, 479])
    assert rows[1] - rows[0] == 479 * 30_000 // 2
    glob = SensorMode.simple(640, 480, shutter=Shutter.GLOBAL)
    ft = frame_time(glob, Exposure(5_000_000))
    assert len(set(ft.row_time(np.arange(480)).tolist())) == 1
    assert ft.centre_ns() == ft.mid_ns


@pytest.mark.parametrize("direction", list(ScanDirection))
def test_scan_directions(direction: ScanDirection) -> None:
    """sensors-7: first and last row (column) swap exactly."""
    mode = SensorMode.simple(640, 480, readout_ns=9_600_000, direction=direction)
    ft = frame_time(mode, Exposure(1_000_000))
    last = (640 if direction.by_columns else 480) - 1
    first_ns, last_ns = ft.row_time([0, last])
    early, late = (last_ns, first_ns) if direction.reversed else (first_ns, last_ns)
    assert early == ft.mid_ns
    assert late - early == round(last * mode.line_time_ns)
    other = np.array([[5.0, 0.0], [5.0, 479.0]] if direction.by_columns else [[0, 5.0], [639, 5.0]])
    assert len(set(ft.pixel_time(other).tolist())) == 1


@pytest.mark.parametrize("kind", list(Binning))
def test_crop_and_binning(kind: Binning) -> None:
    """sensors-8: 100 rows cropped after readout and binning 2 against a row-by-row reference."""
    line = 7_407.407
    mode = SensorMode(
        960, 440, (0, 100, 1920, 880), (2, 2), line, 0, Shutter.ROLLING,
        readout_lines=(0, 1080), binning_kind=kind,
    )  # fmt: skip
    ft = frame_time(mode, Exposure(2_000_000))
    for v in (0, 1, 219, 439):
        sensor_rows = (100 + 2 * v, 101 + 2 * v)
        if kind is Binning.ANALOGUE:
            reference = ft.mid_ns + sensor_rows[0] / 2 * line
        else:
            reference = ft.mid_ns + sum(sensor_rows) / 2 * line
        assert abs(int(ft.row_time(v)) - reference) <= 1
    assert mode.line_count == (540 if kind is Binning.ANALOGUE else 1080)


def test_two_cameras_on_one_trigger() -> None:
    """sensors-9: exposures of 2 and 16 ms: the middles differ by 7 ms."""
    path = TriggerPath(line_response_ns=1_500, debounce_ns=10_000, exposure_start_delay_ns=23_000)
    edge = Stamp(5_000_000_000, RAW, FrameEvent.TRIGGER)
    mids = []
    for exposure in (2_000_000, 16_000_000):
        timer = FrameTimer(rolling_mode(), Anchor.TRIGGER, path)
        frame = arrived(5_050_000_000, 1, driver=edge, exposures=(Exposure(exposure),))
        got = timer.stamp(frame)
        assert got.soe_ns == 5_000_034_500
        mids.append(got.mid_ns)
    assert abs(mids[1] - mids[0] - 7_000_000) <= 1_000


def test_staggered_hdr() -> None:
    """sensors-10: three middles, a span over all, pixel times between them by weight."""
    subs = (
        Exposure(16_000_000),
        Exposure(1_000_000, offset_ns=16_500_000),
        Exposure(100_000, offset_ns=17_600_000),
    )
    ft = frame_time(SensorMode.simple(64, 48, readout_ns=480_000), *subs)
    got = ft.sub_exposures() - ft.soe_ns
    assert got[:, 1].tolist() == [8_000_000, 17_000_000, 17_650_000]
    assert ft.mid_ns - ft.soe_ns == 8_000_000
    low, high = ft.span_ns()
    assert low == ft.soe_ns
    assert high == ft.soe_ns + 17_700_000 + 47 * 10_000
    uv = np.array([[3.0, 0.0], [3.0, 0.0]])
    weights = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    assert (ft.pixel_time(uv, weights) - ft.soe_ns).tolist() == [8_000_000, 17_325_000]
    assert ft.eof_ns == ft.soe_ns + 17_700_000 + 480_000
    with pytest.raises(SensorDataError, match="weights"):
        ft.pixel_time(uv, weights[:, :2])


@pytest.mark.parametrize(("anchor", "sign"), [(Anchor.TRIGGER, 1), (Anchor.READOUT, -1)])
def test_sign_of_half_the_exposure(anchor: Anchor, sign: int) -> None:
    """sensors-11: mid = event + e/2 for a trigger, event - e/2 for a readout."""
    timer = FrameTimer(rolling_mode(), anchor, period_ns=PERIOD_NS)
    event, exposure = 3_000_000_000, 9_000_001
    marks = {Anchor.TRIGGER: FrameEvent.TRIGGER, Anchor.READOUT: FrameEvent.SOF}
    stamp = Stamp(event, RAW, marks[anchor])
    frame = arrived(event + 30_000_000, 1, driver=stamp, exposures=(Exposure(exposure),))
    assert abs(timer.stamp(frame).mid_ns - (event + sign * exposure / 2)) <= 1


def test_line_time_that_contradicts_the_period() -> None:
    """sensors-34: a line time 1 % off is refused, 50 ppm are not."""
    right = SensorMode.from_v4l2(2816, 1128, 297_000_000, (0, 0, 1920, 1080))
    right.check_period(right.period_ns() * (1 + 50e-6))
    wrong = SensorMode(
        1920, 1080, (0, 0, 1920, 1080), (1, 1), right.line_time_ns * 1.01, 2208, Shutter.ROLLING
    )
    with pytest.raises(SensorDataError, match=r"\+10000 ppm"):
        wrong.check_period(right.period_ns())
    with pytest.raises(SensorDataError, match="known to check"):
        SensorMode.simple(64, 48, readout_ns=1000).check_period(1e7)


def test_start_and_end_of_different_frames() -> None:
    """sensors-35: SOF and EOF 200 ms apart are refused; on two clocks they are not compared."""
    mode = rolling_mode()
    sof = Stamp(10_000_000_000, RAW, FrameEvent.SOF)
    eof = Stamp(10_000_000_000 + mode.readout_time(), RAW, FrameEvent.EOF)
    check_events([sof, eof], mode, 5_000_000, 1_000_000)
    late = Stamp(eof.t_ns + 200_000_000, RAW, FrameEvent.EOF)
    with pytest.raises(SensorDataError, match="different frames"):
        check_events([sof, late], mode, 5_000_000, 1_000_000)
    with pytest.raises(ClockError, match="BOOTTIME"):
        check_events([sof, Stamp(0, Clock.BOOTTIME, FrameEvent.EOF)], mode, 0, 10)


@pytest.mark.parametrize("bad", [math.nan, -1, -5_000_000])
def test_exposures_that_cannot_be(bad: float) -> None:
    """sensors-36: NaN and negative exposures."""
    with pytest.raises(SensorDataError, match="duration_ns"):
        Exposure(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("line", [0.0, -1.0, math.nan, math.inf])
def test_line_times_that_cannot_be(line: float) -> None:
    """sensors-36: line time <= 0 or not finite."""
    with pytest.raises(SensorDataError, match="line_time_ns"):
        SensorMode(64, 48, (0, 0, 64, 48), (1, 1), line, 0, Shutter.ROLLING)


def test_exposure_longer_than_a_free_running_period() -> None:
    """sensors-36: e > T in free run is refused; a triggered camera may."""
    long = (Exposure(40_000_000),)
    with pytest.raises(SensorDataError, match="longer than the frame period"):
        check_exposures(long, PERIOD_NS, free_run=True)
    check_exposures(long, PERIOD_NS, free_run=False)
    timer = FrameTimer(rolling_mode(), Anchor.READOUT)
    with pytest.raises(SensorDataError):
        timer.stamp(arrived(0, 0, 0, exposures=long))


@pytest.mark.parametrize(
    ("off_ns", "says"),
    [(37_000_000_000, "TAI"), (-37_010_000_000, "TAI"), (90_000_000_000, "BOOTTIME"),
     (-1_700_000_000_000_000_000, "time of day")],
)  # fmt: skip
def test_suspected_clocks(off_ns: int, says: str) -> None:
    """sensors-38: a driver stamp on another clock than it claims."""
    arrival = Stamp(2_000_000_000_000_000_000, RAW, FrameEvent.ARRIVAL)
    with pytest.raises(ClockError, match=says):
        check_clock(Stamp(arrival.t_ns + off_ns, RAW, FrameEvent.SOF), arrival)
    check_clock(Stamp(arrival.t_ns - 40_000_000, RAW, FrameEvent.SOF), arrival)


def test_mode_refuses_what_does_not_fit() -> None:
    with pytest.raises(SensorDataError, match="crop"):
        SensorMode(640, 480, (0, 0, 640, 470), (1, 1), 1000.0, 0, Shutter.ROLLING)
    with pytest.raises(SensorDataError, match="readout_lines"):
        SensorMode(
            640, 480, (0, 10, 640, 480), (1, 1), 1e3, 0, Shutter.ROLLING, readout_lines=(20, 480)
        )
    with pytest.raises(SensorDataError, match="pixel_rate"):
        SensorMode.from_v4l2(1, 1, 0, (0, 0, 64, 48))
    with pytest.raises(SensorDataError, match="debounce_ns"):
        TriggerPath(debounce_ns=-1)
    with pytest.raises(SensorDataError, match="bias_ns"):
        Stamp(0, RAW, FrameEvent.SOE, 0.0, (5, -5))
    with pytest.raises(SensorDataError, match="sigma_ns"):
        Stamp(0, RAW, FrameEvent.SOE, math.nan)
    with pytest.raises(SensorDataError, match="uv"):
        frame_time(rolling_mode(), Exposure(1)).pixel_time(np.zeros((3, 3)))


def test_quality_of_a_plain_frame_is_ok() -> None:
    assert frame_time(rolling_mode(), Exposure(1_000_000)).quality is Quality.OK
