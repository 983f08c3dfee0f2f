"""The V4L2 adapter over a fake device: stamps, flags, counters, controls, unplugging.

The kernel's own virtual camera, through linuxpy, is in tests/vm/test_qemu_camera.py.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import DeviceError, UsageError
from syncline.sensors.adapter import HealthState, SensorAdapter
from syncline.sensors.adapters.v4l2 import V4l2Camera, sensor_mode, take_picture
from syncline.sensors.adapters.v4l2_layer import (
    CID_ANALOGUE_GAIN,
    CID_EXPOSURE,
    CID_EXPOSURE_ABSOLUTE,
    CID_EXPOSURE_AUTO,
    CID_HBLANK,
    CID_PIXEL_RATE,
    CID_VBLANK,
    FLAG_ERROR,
    FLAG_SOURCE_SOE,
    FLAG_STAMP_MONOTONIC,
    Captured,
    Layout,
    Wanted,
    open_linuxpy,
)
from syncline.sensors.adapters.v4l2_stamp import FrameCounter
from syncline.sensors.frame import Exposure, FrameEvent, RawFrame
from syncline.sensors.jpeg import JpegPicture
from syncline.timebase import Clock, ManualClock, PairedRead

PERIOD_NS = 33_333_333
MONO_AHEAD_NS = 7_000_000_000_123
GREY = Layout(4, 2, "GREY")
PICTURE = bytes(range(8))
Step = Captured | None | OSError | Callable[[], None]


class FakeBus:
    """A bus that a camera is plugged into; `plugged` False refuses to open."""

    def __init__(self, clock: ManualClock, steps: list[Step], layout: Layout = GREY) -> None:
        self.clock, self.steps, self._layout = clock, steps, layout
        self.opened = self.closed = self.refuse = 0
        self.values: dict[int, int] = {}
        self.camera: V4l2Camera | None = None

    def open(self, wanted: Wanted) -> FakeBus:
        assert wanted.path == "/dev/video0"
        if self.refuse:
            self.refuse -= 1
            raise DeviceError("/dev/video0: No such device")
        self.opened += 1
        return self

    def layout(self) -> Layout:
        return self._layout

    def controls(self) -> dict[int, int]:
        return self.values

    def read(self, timeout_s: float) -> Captured | None:
        if not self.steps:
            assert self.camera is not None
            self.camera.close()
            return None
        step = self.steps.pop(0)
        if isinstance(step, OSError):
            raise step
        if step is None:
            self.clock.advance(round(timeout_s * 1e9))
        elif isinstance(step, Captured):
            stamp_ns = step.seconds * 1_000_000_000 + step.useconds * 1000
            if step.flags & FLAG_STAMP_MONOTONIC:
                self.clock.sleep_until(stamp_ns - MONO_AHEAD_NS + 2_000_000)
            else:
                self.clock.advance(PERIOD_NS)
        return step  # type: ignore[return-value]

    def close(self) -> None:
        self.closed += 1


def captured(
    sequence: int, raw_ns: int, flags: int = FLAG_STAMP_MONOTONIC, data: bytes = PICTURE
) -> Captured:
    seconds, rest = divmod(raw_ns + MONO_AHEAD_NS, 1_000_000_000)
    return Captured(seconds, rest // 1000, sequence % 2**32, flags, data)


def at(k: float) -> int:
    return 1_000_000_000 + round(k * PERIOD_NS)


def run(
    steps: list[Step], layout: Layout = GREY, refuse: int = 0
) -> tuple[list[RawFrame], V4l2Camera, FakeBus]:
    clock = ManualClock(900_000_000)
    bus = FakeBus(clock, steps, layout)

    def pair(which: Clock) -> PairedRead:
        assert which is Clock.MONOTONIC
        return PairedRead(clock.raw_ns(), clock.raw_ns() + MONO_AHEAD_NS, 200)

    camera = V4l2Camera(
        Wanted("/dev/video0"), "front", clock=clock, open_device=bus.open, pair=pair
    )
    bus.camera = camera
    camera.open()
    bus.refuse = refuse
    return list(camera.frames()), camera, bus


def test_monotonic_stamps_move_to_the_raw_clock() -> None:
    frames, camera, _ = run([captured(k, at(k)) for k in range(5)])
    assert isinstance(camera, SensorAdapter)
    for k, frame in enumerate(frames):
        assert frame.driver is not None
        assert frame.driver.clock is Clock.MONOTONIC_RAW
        assert frame.driver.event is FrameEvent.EOF
        low, high = frame.driver.bias_ns
        assert frame.driver.t_ns + low <= at(k) <= frame.driver.t_ns + high  # the 1 us floor
        assert frame.driver.sigma_ns < 1000.0
        assert frame.sequence == k
        assert frame.arrival.t_ns == pytest.approx(at(k) + 2_000_000, abs=1000)
    assert camera.health().errors == 0


def test_a_driver_that_stamps_the_start_of_exposure_says_so() -> None:
    frames, camera, _ = run([captured(0, at(0), FLAG_STAMP_MONOTONIC | FLAG_SOURCE_SOE)])
    assert frames[0].driver is not None
    assert frames[0].driver.event is FrameEvent.SOE
    assert camera.health().stamp_event is FrameEvent.SOE


@pytest.mark.parametrize(
    ("stamped", "word"),
    [
        (captured(0, at(0) + 400_000_000), "future"),
        (captured(0, at(0) - 37_000_000_000), "old"),  # TAI or BOOTTIME in place of MONOTONIC
        (captured(0, at(0), flags=0), "absent"),
        (Captured(0, 0, 0, FLAG_STAMP_MONOTONIC, PICTURE), "absent"),
    ],
)
def test_stamps_that_cannot_be_are_replaced_and_counted(stamped: Captured, word: str) -> None:
    """sensors-38: a stamp of another clock is suspected; the arrival with its bias stands in."""
    clock = ManualClock(at(0) + 2_000_000)
    bus = FakeBus(clock, [])
    bus.read = lambda timeout_s: stamped  # type: ignore
    camera = V4l2Camera(
        Wanted("/dev/video0"),
        clock=clock,
        open_device=bus.open,
        pair=lambda _: PairedRead(clock.raw_ns(), clock.raw_ns() + MONO_AHEAD_NS, 200),
    )
    frame = next(iter(camera.frames()))
    assert frame.driver is not None
    assert frame.driver.event is FrameEvent.ARRIVAL
    assert frame.driver.t_ns == clock.raw_ns()
    assert frame.driver.bias_ns[0] < 0 == frame.driver.bias_ns[1]
    assert camera.health().errors == 1
    assert f"1 stamps {word}" in camera.health().detail


def test_a_driver_that_stamps_ahead_of_time_is_not_believed_when_read_late() -> None:
    """Of stamps that lie in the future some look past, only because they were read late."""
    ahead_ns = 30_000_000
    clock = ManualClock(900_000_000)
    steps = [captured(k, at(k) + ahead_ns) for k in range(80)]
    bus = FakeBus(clock, [*steps])

    def read(timeout_s: float) -> Captured | None:
        step = bus.steps.pop(0) if bus.steps else None
        if step is None:
            camera.close()
            return None
        assert isinstance(step, Captured)
        late_ns = 2 * ahead_ns if step.sequence % 4 == 3 else 1_000_000
        clock.sleep_until(at(step.sequence) + late_ns)
        return step

    bus.read = read  # type: ignore
    camera = V4l2Camera(
        Wanted("/dev/video0"),
        clock=clock,
        open_device=bus.open,
        pair=lambda _: PairedRead(clock.raw_ns(), clock.raw_ns() + MONO_AHEAD_NS, 200),
    )
    camera.open()
    frames = list(camera.frames())
    assert len(frames) == 80
    assert all(f.driver is not None and f.driver.event is FrameEvent.ARRIVAL for f in frames)
    assert "20 stamps of a driver that stamps ahead" in camera.health().detail


def test_gaps_in_the_sequence_are_drops_and_repeats_are_thrown_away() -> None:
    """sensors-33: equal sequence and stamp: dropped and counted."""
    order = [0, 1, 2, 2, 5, 6, 9]
    frames, camera, _ = run([captured(k, at(k)) for k in order])
    assert [frame.sequence for frame in frames] == [0, 1, 2, 5, 6, 9]
    assert (camera.health().dropped, camera.health().duplicates) == (4, 1)


def test_a_counter_wraps_without_a_drop() -> None:
    frames, camera, _ = run([captured(2**32 - 2 + k, at(k)) for k in range(5)])
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3, 4]
    assert camera.health().dropped == 0


def test_a_counter_that_stands_still_loses_no_frame() -> None:
    """UVC before its repair doubled a number, then went on: the frame is new by its stamp."""
    frames, camera, _ = run([captured(s, at(k)) for k, s in enumerate([0, 1, 2, 2, 4, 5])])
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert (camera.health().dropped, camera.health().duplicates) == (0, 0)


def test_unplugging_for_thirty_seconds_resumes_with_the_right_number() -> None:
    """sensors-37: GONE while away, opened again, the frame number counts the time that passed."""
    gone = 900  # periods of 1/30 s
    steps: list[Step] = [captured(k, at(k)) for k in range(10)]
    steps.append(OSError(errno.ENODEV, "No such device"))
    steps += [captured(k, at(gone + k)) for k in range(3)]
    frames, camera, bus = run(steps, refuse=5)
    assert [frame.sequence for frame in frames[10:]] == [gone, gone + 1, gone + 2]
    health = camera.health()
    assert (health.reconnects, bus.opened) == (1, 2)
    assert health.dropped == gone - 10
    assert "counter restarted 1 times" in health.detail
    assert bus.closed == 2


def test_health_says_gone_and_stale() -> None:
    seen = []
    clock = ManualClock(900_000_000)
    bus = FakeBus(clock, [captured(0, at(0)), None, captured(1, at(30)), OSError(errno.EIO, "I/O")])
    camera = V4l2Camera(
        Wanted("/dev/video0"),
        clock=clock,
        open_device=bus.open,
        pair=lambda _: PairedRead(clock.raw_ns(), clock.raw_ns() + MONO_AHEAD_NS, 200),
    )
    inner_read, inner_open = bus.read, bus.open
    bus.camera = camera

    def read(timeout_s: float) -> Captured | None:
        seen.append(camera.health().state)
        return inner_read(timeout_s)

    def reopen(wanted: Wanted) -> FakeBus:
        seen.append(camera.health().state)
        return inner_open(wanted)

    bus.read = read  # type: ignore[method-assign]
    camera._open_device = reopen
    assert len(list(camera.frames())) == 2
    assert seen[0] is HealthState.CLOSED
    assert seen.count(HealthState.STALE) == 1
    assert seen.count(HealthState.GONE) == 1
    assert camera.health().state is HealthState.CLOSED


def test_damaged_buffers_are_counted() -> None:
    frames, camera, _ = run(
        [
            captured(0, at(0), FLAG_STAMP_MONOTONIC | FLAG_ERROR),
            captured(1, at(1), data=b"short"),
            captured(2, at(2)),
        ]
    )
    assert len(frames) == 1
    assert camera.health().errors == 2
    assert camera.health().dropped == 0  # an error is no drop as well


def test_line_time_and_period_come_from_the_controls() -> None:
    """sensors-05: blanking and pixel rate give line time and period."""
    layout = Layout(1920, 1080, "YUYV", crop=(0, 0, 1920, 1080))
    controls = {CID_PIXEL_RATE: 182_400_000, CID_HBLANK: 280, CID_VBLANK: 45}
    mode = sensor_mode(layout, controls)
    assert mode is not None
    assert mode.line_time_ns == pytest.approx(2200e9 / 182.4e6, rel=1e-9)
    assert mode.period_ns() == pytest.approx(1125 * 2200e9 / 182.4e6, rel=1e-9)
    assert sensor_mode(layout, {CID_PIXEL_RATE: 0, CID_HBLANK: 1, CID_VBLANK: 1}) is None
    assert sensor_mode(layout, {}) is None


def test_exposure_is_told_only_when_the_camera_does_not_choose_it() -> None:
    clock = ManualClock(900_000_000)
    base = captured(0, at(0))

    def exposures(controls: dict[int, int], values: dict[int, int]) -> tuple[Exposure, ...]:
        step = Captured(base.seconds, base.useconds, 0, base.flags, PICTURE, controls)
        bus = FakeBus(clock, [step])
        bus.values = values
        camera = V4l2Camera(
            Wanted("/dev/video0"),
            clock=clock,
            open_device=bus.open,
            pair=lambda _: PairedRead(clock.raw_ns(), clock.raw_ns() + MONO_AHEAD_NS, 200),
        )
        return next(iter(camera.frames())).exposures

    manual = {CID_EXPOSURE_AUTO: 1, CID_EXPOSURE_ABSOLUTE: 157, CID_ANALOGUE_GAIN: 2}
    (found,) = exposures(manual, {})
    assert (found.duration_ns, found.gain) == (15_700_000, 2.0)
    assert exposures({**manual, CID_EXPOSURE_AUTO: 3}, {}) == ()
    rates = {CID_PIXEL_RATE: 1_000_000, CID_HBLANK: 96, CID_VBLANK: 8}
    (lines,) = exposures({CID_EXPOSURE: 5}, rates)
    assert lines.duration_ns == 500_000  # five lines of (4 + 96) pixels at 1 MHz


@pytest.mark.parametrize("name", ["YUYV", "UYVY", "NV12", "GREY", "BGR24", "RGB24"])
def test_pixel_formats(name: str) -> None:
    size = {"YUYV": 2, "UYVY": 2, "NV12": 1.5, "GREY": 1, "BGR24": 3, "RGB24": 3}[name]
    data = bytes([128] * round(8 * 6 * size))
    picture = take_picture(data, Layout(8, 6, name))
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (6, 8, 3)
    assert np.abs(picture.astype(int) - 128).max() <= 4
    assert take_picture(data[:-1], Layout(8, 6, name)) is None


@given(st.binary(max_size=300), st.sampled_from(["MJPEG", "YUYV", "NV12", "GREY"]))
def test_no_bytes_crash_the_decoder(data: bytes, name: str) -> None:
    picture = take_picture(data, Layout(8, 6, name))
    assert picture is None or picture.shape == (6, 8, 3)


def test_a_motion_jpeg_stays_as_it_came() -> None:
    """Bytes untouched, decoded when asked; other sizes and what is no JPEG are none."""
    done, encoded = cv2.imencode(".jpg", np.full((16, 32, 3), 90, np.uint8))
    data, layout = encoded.tobytes(), Layout(32, 16, "MJPEG")
    assert done
    frames, camera, _ = run([captured(k, at(k), data=data) for k in range(3)], layout)
    assert [isinstance(f.payload, JpegPicture) and f.payload.data for f in frames] == [data] * 3
    for bad in (b"", data[:20], b"\xff\xd8" + bytes(40)):
        assert take_picture(bad, layout) is None
    assert take_picture(data, Layout(16, 16, "MJPEG")) is None
    assert camera.health().errors == 0


def test_an_unknown_pixel_format_is_refused_at_open() -> None:
    with pytest.raises(DeviceError, match="pixel format 'Y10P'"):
        run([], Layout(4, 2, "Y10P"))


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**9)), max_size=40))
def test_frame_numbers_only_grow_whatever_the_counter_does(steps: list[tuple[int, int]]) -> None:
    counter, t_ns, last = FrameCounter(), 0, -1
    for sequence, elapsed_ns in steps:
        t_ns += elapsed_ns
        index = counter.step(sequence, t_ns)
        if index is not None:
            assert index > last
            last = index
    assert counter.dropped >= 0


def test_absent_devices_and_libraries_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("linuxpy")
    with pytest.raises(DeviceError, match="/dev/video99"):
        open_linuxpy(Wanted("/dev/video99"))
    monkeypatch.setitem(sys.modules, "linuxpy.video.device", None)
    with pytest.raises(UsageError, match="V4L2 camera needs linuxpy"):
        open_linuxpy(Wanted("/dev/video99"))


def test_the_edge_takes_a_v4l2_camera_and_times_its_frames() -> None:
    from syncline.edge.cameras import make_camera
    from syncline.edge.config import CameraSection
    from syncline.edge.declared_timer import DeclaredTimer

    section = CameraSection(name="front", kind="v4l2", path="/dev/video99", anchor="readout")
    camera, timer = make_camera(section, ManualClock())
    assert isinstance(camera, V4l2Camera)
    assert isinstance(timer, DeclaredTimer)
    frames, _, _ = run([captured(k, at(k)) for k in range(3)])
    for k, frame in enumerate(frames):
        time = timer.stamp(frame)
        assert time.index == k
        assert time.mid_ns < at(k)
        assert time.bias_ns == (-50_000_000, 1000)  # a readout of up to a period: nobody told it
        assert time.sigma_ns > 2_000_000  # the exposure is declared as a range
    pytest.importorskip("linuxpy")
    with pytest.raises(DeviceError, match="/dev/video99"):
        camera.open()
