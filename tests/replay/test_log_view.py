"""`syncline log view` and `sensors calibrate` on recordings with several boots."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from syncline.cli import main
from syncline.cli.timing_picture import deviations, frame_outline, sample_bounds, unit_of
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.frame import Quality
from syncline.timebase import NO_BOUND_NS, NS_PER_S, MappingSegment, Timebase

from .rig import BOOT_A, record_boot, segment, two_boots

pytest.importorskip("matplotlib")


def test_bounds_are_drawn_as_they_grow_to_the_end() -> None:
    """A segment's bound at its start says nothing of its end: 20 us a second are added here."""
    timebase = Timebase(BOOT_A)
    timebase.add(segment(1, BOOT_A, 0, bound_ns=10_000))
    timebase.add(segment(2, BOOT_A, 10 * NS_PER_S, bound_ns=15_000))
    sampled = sample_bounds(timebase, 0, 30 * NS_PER_S)
    assert sampled is not None
    raw_ns, utc = sampled
    assert len(raw_ns) == 1000
    assert (raw_ns[0], raw_ns[-1]) == (0, 30 * NS_PER_S)
    assert utc.bound_ns[0] == 10_000
    before = np.flatnonzero(raw_ns < 10 * NS_PER_S)[-1]
    assert utc.bound_ns[before] == pytest.approx(210_000, rel=0.01)
    assert utc.bound_ns[before + 1] < 20_000
    assert utc.bound_ns[-1] == 15_000 + 20 * 20_000
    assert utc.sigma_ns[-1] == pytest.approx((1e6 + 20 * 1e6) ** 0.5)


def test_without_utc_there_is_nothing_to_draw() -> None:
    timebase = Timebase(BOOT_A)
    assert sample_bounds(timebase, 0, 100) is None
    timebase.add(MappingSegment(1, 0, BOOT_A, 0, 0, hard_bound_ns=NO_BOUND_NS))
    assert sample_bounds(timebase, 0, 100) is None


def timing(
    mid_ns: int, shutter: pb.Shutter = pb.SHUTTER_ROLLING, sigma_ns: float = 0.0
) -> pb.FrameTiming:
    """A frame of 48 lines of 1 us, exposed for 2 us; for an unknown time where sigma is given."""
    mode = pb.SensorMode(
        width=64, height=48, crop_w_px=64, crop_h_px=48, binning_x=1, binning_y=1,
        line_time_ns=1_000.0, frame_length_lines=1000, shutter=shutter,
    )  # fmt: skip
    quality = Quality.NO_EXPOSURE if sigma_ns else Quality.OK
    return pb.FrameTiming(
        mid_raw_ns=mid_ns, mode=mode, exposure_ns=2_000, sigma_ns=sigma_ns, quality=quality.value
    )


def test_a_frame_is_drawn_as_its_lines_were_exposed() -> None:
    """A rolling shutter leans by its readout, a global one does not."""
    assert frame_outline(timing(0)) == (
        [(-1e3, 0.0), (1e3, 0.0), (49e3, 1.0), (47e3, 1.0)],
        48e3,
    )
    assert frame_outline(timing(0, pb.SHUTTER_GLOBAL))[0][2] == (1e3, 1.0)
    corners, lean = frame_outline(timing(0, pb.SHUTTER_GLOBAL_RESET))
    assert (corners[2], corners[3], lean) == ((49e3, 1.0), (-1e3, 1.0), 24e3)


def test_an_unknown_exposure_is_drawn_as_doubt() -> None:
    assert frame_outline(timing(0, sigma_ns=5_000.0))[0][:2] == [(-10e3, 0.0), (10e3, 0.0)]


def test_lost_frames_are_told_from_jitter() -> None:
    off, lost = deviations([timing(at) for at in (0, 1_000, 2_010, 4_000, 5_000)])
    assert lost.tolist() == [False, False, True, False]
    assert off[~lost].tolist() == [-5.0, 5.0, -5.0]


def test_units_suit_the_numbers() -> None:
    assert [unit_of(x)[1] for x in (0.0, 500.0, 5e4, 5e7, 5e10)] == ["ns", "ns", "µs", "ms", "s"]


@pytest.mark.parametrize("with_utc", [True, False])
def test_the_picture_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], with_utc: bool
) -> None:
    segments = (segment(1, BOOT_A, NS_PER_S),) if with_utc else ()
    record_boot(tmp_path / "drive", BOOT_A, 10, segments=segments)
    out = tmp_path / "timing.png"
    assert main(["log", "view", str(tmp_path / "drive"), "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["cameras"]) == ["front"]
    assert report["segments"] == len(segments)
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.shape[1] > 1000


def test_one_boot_is_viewed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drive = str(two_boots(tmp_path / "drive"))
    out = f"--out={tmp_path / 'x.png'}"
    assert main(["log", "view", drive, out]) == 2
    assert "(12 frame times)" in capsys.readouterr().err
    assert main(["log", "view", drive, out, "--boot", "bbbb", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["segments"] == 1


def test_calibrate_takes_one_boot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drive = str(two_boots(tmp_path / "drive"))
    common = ["sensors", "calibrate", drive, "--camera=front", "--imu=a", "--matrix=50,50,32,24"]
    assert main(common) == 2
    assert "holds 2 boots" in capsys.readouterr().err
    assert main([*common, "--boot", "aaaa"]) == 3
    assert "nothing of IMU 'a'" in capsys.readouterr().err


def test_calibrate_says_what_drive_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sensors", "calibrate", "--help"])
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "a minute or more" in told
    assert "straight road tells nothing" in told
