"""Acceptance case sensors-42: grouping, and what real recordings say of their timing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import SensorDataError
from syncline.sensors.frame import Anchor, FrameTime, Quality
from syncline.sensors.group import FrameGrouper, Group, Sample
from syncline.sensors.mode import SensorMode, Shutter
from syncline.sensors.report import timing_report
from syncline.timebase import Clock

MODE = SensorMode.simple(64, 48, shutter=Shutter.GLOBAL)
CAMERAS = ("front", "left", "right")


def seen(camera: str, index: int, mid_ns: int) -> FrameTime:
    return FrameTime(
        camera, index, mid_ns, mid_ns, mid_ns, 0.0, Clock.MONOTONIC_RAW, Anchor.TRIGGER,
        Quality.OK, MODE,
    )  # fmt: skip


@given(st.integers(0, 2**31), st.floats(0.0, 0.4))
def test_no_frame_is_used_twice_or_lost(seed: int, loss: float) -> None:
    """sensors-42: every frame is in exactly one group; incomplete ones are delivered, marked."""
    rng = np.random.default_rng(seed)
    grouper = FrameGrouper(CAMERAS, tolerance_ns=4_000_000, timeout_ns=100_000_000)
    frames = [
        seen(camera, n, n * 33_000_000 + int(rng.integers(0, 3_000_000)))
        for n in range(30)
        for camera in CAMERAS
        if rng.random() >= loss
    ]
    late = {id(f): f.mid_ns + rng.integers(0, 60_000_000) for f in frames}
    groups: list[Group] = []
    order: dict[str, int] = {}
    for frame in sorted(frames, key=lambda f: late[id(f)]):
        if frame.index < order.get(frame.camera, -1):
            continue
        order[frame.camera] = frame.index
        groups += grouper.add(frame)
    groups += grouper.flush()
    used = [(f.camera, f.index) for g in groups for f in g.frames.values()]
    assert len(used) == len(set(used))
    fed = sum(1 for f in frames if (f.camera, f.index) in set(used))
    assert fed == len(used)
    for group in groups:
        assert set(group.missing) == set(CAMERAS) - set(group.frames)
        assert group.complete == (not group.missing)
        assert len({f.index for f in group.frames.values()}) == 1
        assert group.spread_ns <= 4_000_000


def test_groups_are_delivered_in_order_with_samples() -> None:
    """sensors-42: cameras, IMU and GNSS of one moment."""
    grouper = FrameGrouper(("a", "b"), 5_000_000, 50_000_000, window_ns=10_000_000)
    for k in range(60):
        grouper.add_sample("imu", Sample(k * 5_000_000, k))
    grouper.add_sample("gnss", Sample(0, "fix"))
    out = grouper.add(seen("a", 0, 100_000_000))
    assert out == []
    out = grouper.add(seen("b", 0, 102_000_000))
    assert [g.complete for g in out] == [True]
    imu = [s.t_ns for s in out[0].samples["imu"]]
    assert out[0].t_ns == 101_000_000
    assert min(imu) <= 91_000_000
    assert max(imu) >= 111_000_000
    assert len(imu) == 6
    assert [s.value for s in out[0].samples["gnss"]] == ["fix"]
    assert grouper.add(seen("a", 1, 133_000_000)) == []
    late = grouper.add(seen("a", 2, 260_000_000))
    assert [g.missing for g in late] == [("b",)]
    again = grouper.add(seen("b", 1, 133_000_000))
    assert [(g.late, g.missing) for g in again] == [(True, ("a",))]
    assert grouper.add(seen("b", 1, 133_000_000)) == []
    assert grouper.repeats == 1


def test_groups_go_by_time_not_by_number_or_arrival() -> None:
    """sensors-42: a camera that dropped a frame and restarted its count is still grouped right."""
    grouper = FrameGrouper(("a", "b"), 5_000_000, 200_000_000)
    groups = []
    for n in range(10):
        groups += grouper.add(seen("a", n, n * 33_000_000))
        if n != 4:
            groups += grouper.add(seen("b", 100 + n - (n > 4), n * 33_000_000 + 1_000_000))
    groups += grouper.flush()
    assert [g.missing for g in groups] == [()] * 4 + [("b",)] + [()] * 5
    assert all(g.spread_ns <= 1_000_000 for g in groups)


def test_grouper_refusals() -> None:
    with pytest.raises(SensorDataError, match="cameras"):
        FrameGrouper(("a", "a"), 1, 1)
    with pytest.raises(SensorDataError, match="timeout"):
        FrameGrouper(("a",), 5, 1)
    grouper = FrameGrouper(("a",), 1, 1)
    with pytest.raises(SensorDataError, match="'b'"):
        grouper.add(seen("b", 0, 0))
    grouper.add_sample("imu", Sample(5, None))
    with pytest.raises(SensorDataError, match="imu"):
        grouper.add_sample("imu", Sample(4, None))


def test_nuscenes_keyframe_spread(shared_data: Path) -> None:
    """sensors-42: one keyframe's six cameras and lidar, 43 ms apart by their names."""
    files = sorted((shared_data / "nuscenes_sample").glob("n015-*__*__*"))
    named = {f.name.split("__")[1]: int(f.name.split("__")[2].split(".")[0]) * 1000 for f in files}
    assert len(named) == 7
    cameras = [name for name in named if name.startswith("CAM_")]
    grouper = FrameGrouper(cameras, tolerance_ns=50_000_000, timeout_ns=100_000_000)
    groups = []
    for camera in sorted(cameras, key=named.__getitem__):
        groups += grouper.add(seen(camera, 0, named[camera]))
    (group,) = groups
    assert group.complete
    assert group.spread_ns == 42_579_000
    assert max(named.values()) - min(named.values()) == 43_107_000
    strict = FrameGrouper(cameras, tolerance_ns=20_000_000, timeout_ns=100_000_000)
    parts = []
    for camera in sorted(cameras, key=named.__getitem__):
        parts += strict.add(seen(camera, 0, named[camera]))
    parts += strict.flush()
    assert len(parts) > 1
    assert sum(len(g.frames) for g in parts) == 6


def test_comma2k19_frame_times(shared_data: Path) -> None:
    """Period, jitter and drops of a real drive: 20 Hz, sd 0.056 ms, none lost."""
    seconds = np.load(shared_data / "drive_logs/comma2k19/global_pose/frame_times")
    got = timing_report(np.rint(seconds * 1e9).astype(np.int64))
    assert got.count == 1200
    assert abs(got.period_ns - 50e6) < 5e3
    assert 0.05e6 < got.jitter_ns < 0.06e6
    assert got.drops == 0
    assert any("20.00" in line for line in got.lines())


def test_udacity_frame_times(shared_data: Path) -> None:
    """A real 20 Hz ROS camera: period, jitter and losses reported."""
    path = shared_data / "drive_logs/udacity_ch2/camera.csv"
    stamps = np.loadtxt(path, delimiter=",", skiprows=1, usecols=1, dtype=np.int64)
    got = timing_report(stamps)
    assert abs(got.rate_hz - 20.0) < 0.1
    assert got.count == len(stamps) == 5614
    assert 0.09e6 < got.jitter_ns < 0.10e6
    assert 48.5e6 < got.shortest_ns < got.longest_ns < 51.5e6
    assert (got.drops, got.duplicates, got.backward) == (0, 0, 0)


def test_balzer_imu_jitter(shared_data: Path) -> None:
    """A 50 Hz IMU whose stamps jitter from 7.7 to 105 ms is described, not averaged away."""
    path = shared_data / "drive_logs/balzer82/2014-03-26-000-Data.csv"
    millis = np.loadtxt(path, delimiter=",", skiprows=1, usecols=2)
    got = timing_report(np.rint(millis * 1e6).astype(np.int64))
    assert got.count == 10800
    assert abs(got.shortest_ns - 7.7e6) < 0.1e6
    assert abs(got.longest_ns - 105e6) < 1e6
    assert abs(got.period_ns - 20e6) < 0.01e6
    assert got.jitter_ns > 3e6
    assert got.drops == 0


def test_report_counts_faults() -> None:
    base = np.arange(100) * 33_333_333
    broken = np.delete(base, [20, 21, 50])
    broken = np.insert(broken, 10, broken[10])
    got = timing_report(broken)
    assert (got.drops, got.gaps, got.duplicates, got.backward) == (3, 2, 1, 0)
    assert abs(got.period_ns - 33_333_333) < 1
    for bad in ([1, 2], [5, 5, 5, 5], [0.1, 0.2, 0.3]):
        with pytest.raises(SensorDataError, match="timing_report"):
            timing_report(np.array(bad))
