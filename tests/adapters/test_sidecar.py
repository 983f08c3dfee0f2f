"""Sidecars of plain videos: tables and recorded timing, bound frame by frame or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncline.errors import InputError, LogError, MediaError
from syncline.log.clip import export_clip
from syncline.sensors.adapters.sidecar import read_sidecar, sidecar_path
from syncline.sensors.adapters.video import VideoFile
from syncline.sensors.frame import FrameEvent, RawFrame
from tests.adapters.test_containers import jittered, write
from tests.replay.rig import BOOT_A, record_boot


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write(path, jittered(), {})
    return path


def beside(plain: Path, tmp_path: Path, text: str, suffix: str = ".csv") -> Path:
    video = tmp_path / plain.name
    video.write_bytes(plain.read_bytes())
    video.with_name(video.name + suffix).write_text(text)
    return video


def frames_of(video: Path) -> tuple[list[RawFrame], VideoFile]:
    found = VideoFile(video)
    found.open()
    frames = list(found.frames())
    found.close()
    return frames, found


def test_a_table_gives_every_frame_its_time_exposure_and_bias(plain: Path, tmp_path: Path) -> None:
    times = jittered() + 7_000_000_321
    rows = [f"{t},{1000.5 + k},{-k},{2 * k},{4_000_000 + k},{1.5}" for k, t in enumerate(times)]
    head = "# event=soe\ntime_ns,sigma_ns,bias_low_ns,bias_high_ns,exposure_ns,gain\n"
    frames, video = frames_of(beside(plain, tmp_path, head + "\n".join(rows) + "\n"))
    assert len(frames) == len(times)
    for k, frame in enumerate(frames):
        assert frame.driver is not None
        assert (frame.driver.t_ns, frame.driver.event) == (times[k], FrameEvent.SOE)
        assert (frame.driver.sigma_ns, frame.driver.bias_ns) == (1000.5 + k, (-k, 2 * k))
        (exposure,) = frame.exposures
        assert (exposure.duration_ns, exposure.gain) == (4_000_000 + k, 1.5)
    health = video.health()
    assert health.stamp_event is FrameEvent.SOE
    assert "times from clip.mp4.csv" in health.detail


def test_numbered_rows_bind_by_number_and_empty_cells_tell_nothing(
    plain: Path, tmp_path: Path
) -> None:
    times = jittered()
    keep = [k for k in range(len(times)) if k not in (0, 21)]
    rows = [f"{k},{times[k] + 9},{'' if k % 2 else 3_000_000}" for k in keep]
    text = "frame,time_ns,exposure_ns\n" + "\n".join(rows)
    frames, video = frames_of(beside(plain, tmp_path, text))
    assert [f.sequence for f in frames] == keep
    assert [f.driver.t_ns for f in frames if f.driver] == [times[k] + 9 for k in keep]
    assert [bool(f.exposures) for f in frames] == [k % 2 == 0 for k in keep]
    assert all(f.driver.event is FrameEvent.MID for f in frames if f.driver)
    assert video.health().errors == 2


@pytest.mark.parametrize("count", [39, 41])
def test_other_counts_are_refused_not_shifted(plain: Path, tmp_path: Path, count: int) -> None:
    text = "time_ns\n" + "\n".join(str(10**9 + k * 10**7) for k in range(count))
    video = VideoFile(beside(plain, tmp_path, text))
    with pytest.raises(MediaError, match=f"has 40 pictures, its sidecar tells of {count}"):
        video.open()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns ''"),
        ("time_ns\n", "holds no times"),
        ("frame,when\n1,2\n", "columns 'frame,when'"),
        ("time_ns,time_ns\n1,2\n", "columns"),
        ("# event=dawn\ntime_ns\n1\n", "event='dawn'"),
        ("time_ns\n5\n5\n", "row 2 does not ascend"),
        ("time_ns,gain\n5\n", "row 1 has 1 of 2 cells"),
        ("time_ns\nx\n", "row 1: invalid literal"),
        ("time_ns\n-1\n", "out of range"),
        ("time_ns\n99999999999999999999\n", "out of range"),
        ("time_ns,sigma_ns\n1,nan\n", "sigma_ns=nan"),
        ("time_ns,bias_low_ns,bias_high_ns\n1,5,2\n", "bias_low_ns=5 is above"),
        ("time_ns,exposure_ns\n1,-5\n", "duration_ns=-5"),
        ("time_ns,exposure_ns,gain\n1,5,inf\n", "gain=inf"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "clip.mp4.csv"
    path.write_text(text)
    with pytest.raises(MediaError, match=message):
        read_sidecar(path)


@given(st.text(max_size=80) | st.binary(max_size=80))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_crashes_the_reader(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "clip.mp4.csv"
    data = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    path.write_bytes(b"time_ns,exposure_ns\n" + data)
    try:
        found = read_sidecar(path)
    except InputError:
        return
    assert (np.diff(found.t_ns) > 0).all()


def test_several_sidecars_are_refused(plain: Path, tmp_path: Path) -> None:
    video = beside(plain, tmp_path, "time_ns\n1\n")
    video.with_name("clip.mp4.stamps").write_text("1\n")
    with pytest.raises(MediaError, match=r"several sidecars: clip\.mp4\.stamps, clip\.mp4\.csv"):
        sidecar_path(video)
    (tmp_path / "other.csv").write_text("a drive's table, not ours")
    assert sidecar_path(tmp_path / "other.mp4") is None


def test_recorded_timing_beside_a_clip(tmp_path: Path) -> None:
    """An exported clip comes back with the stamps, sigmas and exposures that were recorded."""
    record_boot(tmp_path / "rec", BOOT_A, 12)
    report = export_clip(tmp_path / "rec", tmp_path / "clip.mp4")
    assert (report.messages, report.unmatched) == (12, 0)
    frames, video = frames_of(report.out)
    assert video.tick_ns == 1.0
    for k, frame in enumerate(frames):
        assert frame.driver is not None
        end_ns = 10**9 + (k + 1) * 50_000_000
        assert frame.driver.t_ns == end_ns - 48 - 1_000_000  # readout and half the exposure
        assert frame.driver.sigma_ns == 1000.0
        assert frame.exposures[0].duration_ns == 2_000_000


def test_recorded_timing_of_another_clip_is_refused(tmp_path: Path) -> None:
    for name, count in (("a", 12), ("b", 11)):
        record_boot(tmp_path / name, BOOT_A, count)
        export_clip(tmp_path / name, tmp_path / f"{name}.mp4")
    (tmp_path / "a.mp4.mcap").write_bytes((tmp_path / "b.mp4.mcap").read_bytes())
    with pytest.raises(MediaError, match="has 12 pictures, its sidecar tells of 11"):
        VideoFile(tmp_path / "a.mp4").open()
    (tmp_path / "a.mp4.mcap").write_bytes(b"nothing")
    with pytest.raises(LogError):
        VideoFile(tmp_path / "a.mp4").open()
