"""The streams of the drive: order, stamps, outage, jump, and frame times against truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from syncline.errors import SensorDataError
from syncline.sensors.adapter import HealthState, SensorAdapter
from syncline.sensors.frame import Anchor, FrameEvent
from syncline.sensors.synthetic.adapter import SyntheticCamera
from syncline.sensors.synthetic.camera import CameraSpec, DriveFrame
from syncline.sensors.synthetic.drive import SyntheticDrive
from syncline.sensors.synthetic.gnss import GnssFix, GnssSpec, PpsPulse
from syncline.sensors.synthetic.imu import ImuSample
from syncline.timebase import NS_PER_S, ManualClock

SIZE = (128, 96)


@pytest.fixture(scope="module")
def drive() -> SyntheticDrive:
    return SyntheticDrive(5, 40.0, pictures=False)


@pytest.fixture(scope="module")
def frames(drive: SyntheticDrive) -> list[DriveFrame]:
    return list(drive.frames())


def test_events_come_in_order_of_arrival_and_of_every_kind() -> None:
    short = SyntheticDrive(5, 3.0, pictures=False)
    events = list(short.events())
    arrivals = [event.arrival_raw_ns for event in events]
    assert arrivals == sorted(arrivals)
    counts = {
        kind: sum(isinstance(e, kind) for e in events)
        for kind in (DriveFrame, ImuSample, GnssFix, PpsPulse)
    }
    assert counts[ImuSample] == 600
    assert counts[GnssFix] == 30
    assert counts[PpsPulse] in (1, 2, 3)
    assert 55 <= counts[DriveFrame] <= 60


def test_streams_are_pure_functions_of_the_arguments(drive: SyntheticDrive) -> None:
    again = SyntheticDrive(5, 40.0, pictures=False)
    for one, two in zip(drive.frames(), again.frames(), strict=True):
        assert one.frame.arrival == two.frame.arrival
        assert one.truth.soe_raw_ns == two.truth.soe_raw_ns
    assert list(drive.gnss()) == list(again.gnss())
    assert list(itertools.islice(drive.imu(), 400)) == list(itertools.islice(again.imu(), 400))


def test_frame_truth_obeys_the_frame_time_model(
    drive: SyntheticDrive, frames: list[DriveFrame]
) -> None:
    """Start, middle and end of every frame fit exposure and readout on the raw clock."""
    readout_ns = drive.mode.readout_time()
    for made in frames:
        truth = made.truth
        assert abs(truth.mid_raw_ns - truth.soe_raw_ns - truth.exposure_ns / 2) < 2_000
        assert abs(truth.eof_raw_ns - truth.soe_raw_ns - truth.exposure_ns - readout_ns) < 2_000
        assert abs(drive.truth.utc_ns(truth.mid_raw_ns) - truth.mid_utc_ns) <= 2
        assert made.arrival_raw_ns >= truth.eof_raw_ns + drive.camera_spec.dma_ns - 100


@pytest.mark.parametrize("anchor", [Anchor.READOUT, Anchor.TRIGGER])
def test_what_is_periodic_is_the_anchor(anchor: Anchor) -> None:
    """Exposure varies in the tunnel; only the declared event keeps the device's period."""
    made = list(SyntheticDrive(5, 12.0, camera=CameraSpec(anchor=anchor), pictures=False).frames())
    exposure = np.array([m.truth.exposure_ns for m in made])
    assert np.ptp(exposure) > 2_000_000
    index = np.array([m.truth.index for m in made])
    soe = np.array([m.truth.soe_raw_ns for m in made])
    rms = {}
    for name, times in ((Anchor.TRIGGER, soe), (Anchor.READOUT, soe + exposure)):
        relative = (times - times[0]).astype(np.float64)
        rms[name] = float(np.std(relative - np.polyval(np.polyfit(index, relative, 1), index)))
    other = Anchor.TRIGGER if anchor is Anchor.READOUT else Anchor.READOUT
    assert rms[anchor] < 20_000
    assert rms[other] > 20 * rms[anchor]


def test_ticks_drift_against_the_raw_clock(frames: list[DriveFrame]) -> None:
    """The device runs -37 ppm, the host +11 ppm: ticks lose 48 us per second of raw time."""
    ticks = np.array([m.frame.device_ticks for m in frames], dtype=np.float64)
    sof = np.array([m.truth.soe_raw_ns + m.truth.exposure_ns for m in frames], dtype=np.float64)
    slope = np.polyfit(sof - sof[0], ticks - ticks[0], 1)[0]
    assert (slope - 1) * 1e6 == pytest.approx(-48.0, abs=1.5)


def test_drops_leave_gaps_and_arrival_has_a_heavy_tail() -> None:
    spec = CameraSpec(drop_share=0.1, stalls_per_min=30.0)
    made = list(SyntheticDrive(9, 20.0, camera=spec, pictures=False).frames())
    sequence = [m.frame.sequence for m in made]
    assert all(s is not None for s in sequence)
    assert 0.04 < 1 - len(made) / 400 < 0.18
    late = np.array([m.arrival_raw_ns - m.truth.eof_raw_ns for m in made]) / 1e6
    assert np.median(late) < 3.0
    assert late.max() > 30.0
    assert (np.diff([m.arrival_raw_ns for m in made]) > 0).all()


def test_exposure_is_bound_to_its_own_frame(frames: list[DriveFrame]) -> None:
    """sensors-26: (exposure, gain) of a frame are those it was taken with."""
    for made in frames:
        (exposure,) = made.frame.exposures
        assert exposure.duration_ns == made.truth.exposure_ns
        assert exposure.gain == made.truth.gain
        assert made.frame.driver is not None
        assert made.frame.driver.event is FrameEvent.EOF


def test_the_tunnel_drives_exposure_up_and_takes_the_fix(
    drive: SyntheticDrive, frames: list[DriveFrame]
) -> None:
    (begin, end), *_ = drive.sky.outages
    raw_begin = drive.truth.raw_ns(drive.utc0_ns + begin)
    raw_end = drive.truth.raw_ns(drive.utc0_ns + end)
    inside = [m.truth.exposure_ns for m in frames if raw_begin < m.truth.mid_raw_ns < raw_end]
    before = [m.truth.exposure_ns for m in frames if m.truth.mid_raw_ns < raw_begin - 5e9]
    assert max(inside) > 6 * np.median(before)
    fixes = [f for f in drive.gnss() if raw_begin < f.epoch_raw_ns < raw_end]
    assert fixes
    assert {f.mode for f in fixes} == {1}
    assert not [p for p in drive.pps() if raw_begin < p.raw_ns < raw_end]


def test_gnss_time_is_true_but_for_one_jump(drive: SyntheticDrive) -> None:
    errors = {
        f.jumped: f.utc_ns - drive.truth.utc_ns(f.epoch_raw_ns) for f in drive.gnss()
    }  # fmt: skip
    assert abs(errors[False]) <= 2
    assert errors[True] == pytest.approx(NS_PER_S, abs=2)
    jumped = [f.jumped for f in drive.gnss()]
    assert sum(a != b for a, b in itertools.pairwise(jumped)) == 2
    assert jumped.count(True) == 40


def test_pulses_mark_whole_seconds_within_microseconds(drive: SyntheticDrive) -> None:
    pulses = list(drive.pps())
    assert len(pulses) > 10
    for pulse in pulses:
        assert pulse.utc_ns % NS_PER_S == 0
        error = pulse.utc_ns - drive.truth.utc_ns(pulse.raw_ns)
        jump = drive.sky.jump_ns if pulse.jumped else 0
        assert -15_000 < error - jump < 0


def test_a_jump_of_a_fraction_moves_the_pulse_too() -> None:
    drive = SyntheticDrive(5, 24.0, pictures=False, gnss=GnssSpec(jump_ns=250_000_000))
    moved = [p for p in drive.pps() if p.jumped]
    assert moved
    for pulse in moved:
        assert pulse.utc_ns % NS_PER_S == 0
        assert pulse.utc_ns - drive.truth.utc_ns(pulse.raw_ns) == pytest.approx(250e6, abs=20e3)


def test_the_imu_feels_gravity_and_the_turns_of_the_road(drive: SyntheticDrive) -> None:
    samples = list(drive.imu())
    accel = np.array([s.accel_mps2 for s in samples])
    gyro = np.array([s.gyro_radps for s in samples])
    true = np.array([s.true_gyro_radps for s in samples])
    assert accel[:, 2].mean() == pytest.approx(9.81, abs=0.25)
    turned = true[:, 2].sum() / 200.0
    ego, route = drive.scene.ego, drive.scene.route
    course = ego.pose(route, 40.0).yaw_rad - ego.pose(route, 0.0).yaw_rad
    assert turned == pytest.approx(course, abs=0.03)
    bias = (gyro - true).mean(axis=0)
    assert (np.abs(bias) < 0.02).all()
    assert (np.std(gyro - true - bias, axis=0) < 0.0025).all()


def test_the_rates_are_those_of_the_pose(drive: SyntheticDrive) -> None:
    """Else the gyro feels another motion than the pictures show: yaw was up to 0.2 s apart."""
    ego, route = drive.scene.ego, drive.scene.route
    step_s = 1e-4
    for t_s in np.arange(1.003, 39.0, 0.171):
        before, at, after = (ego.pose(route, t_s + k * step_s) for k in (-1, 0, 1))
        yaw_rate = (after.yaw_rad - before.yaw_rad) / (2 * step_s)
        pitch_rate = (after.pitch_rad - before.pitch_rad) / (2 * step_s)
        assert at.yaw_rate_radps == pytest.approx(yaw_rate, abs=5e-4)
        assert at.pitch_rate_radps == pytest.approx(pitch_rate, abs=2e-3)


def test_the_mapping_goes_both_ways(drive: SyntheticDrive) -> None:
    for t_ns in (0, 7_123_456_789, 39_999_999_999):
        utc_ns = drive.utc0_ns + t_ns
        assert abs(drive.truth.utc_ns(drive.truth.raw_ns(utc_ns)) - utc_ns) <= 1


def test_the_live_camera_gives_the_frames_of_the_drive() -> None:
    """Live and replay use the same code: same pictures, same stamps, paced by the clock."""
    clock = ManualClock(5 * NS_PER_S, "boot-a")
    camera = SyntheticCamera(clock, seed=4, duration_s=1.0, make=small_drive)
    assert isinstance(camera, SensorAdapter)
    camera.open()
    wanted = list(small_drive(4, 1.0, 5 * NS_PER_S, "boot-a").frames())
    stream = camera.frames()
    for made in wanted:
        frame = next(stream)
        assert frame.arrival == made.frame.arrival
        assert isinstance(frame.payload, np.ndarray)
        assert np.array_equal(frame.payload, made.image)
        assert clock.raw_ns() >= frame.arrival.t_ns
    assert next(stream, None) is None
    assert camera.health().state is HealthState.ENDED
    assert camera.health().frames == len(wanted)
    assert camera.late == 0


def test_a_looping_camera_counts_on_and_stops_when_closed() -> None:
    clock = ManualClock(NS_PER_S, "boot-a")
    camera = SyntheticCamera(clock, seed=4, duration_s=1.0, loop=True, make=timing_drive)
    camera.open()
    stream = camera.frames()
    got = [next(stream) for _ in range(45)]
    sequence = [frame.sequence for frame in got]
    arrival = [frame.arrival.t_ns for frame in got]
    assert sequence == sorted({s for s in sequence if s is not None})
    assert sequence[-1] is not None
    assert sequence[-1] >= 44
    assert arrival == sorted(arrival)
    health = camera.health()
    assert health.frames + health.dropped == sequence[-1] + 1
    camera.close()
    assert next(stream, None) is None
    assert camera.health().state is HealthState.CLOSED


def test_a_closed_camera_gives_no_frames() -> None:
    camera = SyntheticCamera(ManualClock())
    camera.close()
    assert list(camera.frames()) == []


@pytest.mark.parametrize(
    ("duration_s", "size"), [(0.0, SIZE), (1e5, SIZE), (float("nan"), SIZE), (5.0, (16, 96))]
)
def test_impossible_drives_are_refused(duration_s: float, size: tuple[int, int]) -> None:
    with pytest.raises(SensorDataError):
        SyntheticDrive(1, duration_s, size=size)


def timing_drive(seed: int, duration_s: float, raw0_ns: int, boot_id: str) -> SyntheticDrive:
    return SyntheticDrive(seed, duration_s, raw0_ns=raw0_ns, boot_id=boot_id, pictures=False)


def small_drive(seed: int, duration_s: float, raw0_ns: int, boot_id: str) -> SyntheticDrive:
    return SyntheticDrive(seed, duration_s, size=(64, 64), raw0_ns=raw0_ns, boot_id=boot_id)
