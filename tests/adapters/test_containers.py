"""What containers do to frame times, and how a stamps file repairs it (sensors-41)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from syncline.errors import MediaError
from syncline.sensors.adapters.stamps import read_stamps, stamps_path
from syncline.sensors.adapters.video import VideoFile
from syncline.sensors.frame import FrameEvent

START_NS = 1_000_000_000


def jittered(count: int = 40, seed: int = 1) -> np.ndarray:
    """Times of a camera with 1 % jitter and a drop, nanoseconds since the first frame."""
    rng = np.random.default_rng(seed)
    steps = 33_366_700 + rng.normal(0, 300_000, count - 1).astype(np.int64)
    steps[count // 2] *= 2
    return np.concatenate([[0], np.cumsum(steps)])


def write(path: Path, times_ns: np.ndarray, options: dict[str, str]) -> None:
    base = Fraction(1, 1_000_000_000)
    with av.open(str(path), "w", options=options) as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = base
        stream.codec_context.time_base = base
        stream.options = {"preset": "ultrafast", "x264-params": "bframes=2:threads=1"}
        for k, t in enumerate(times_ns):
            picture = np.full((48, 64, 3), 5 * k % 255, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = int(t), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def read(path: Path) -> tuple[VideoFile, np.ndarray, list[Any]]:
    video = VideoFile(path)
    video.open()
    frames = list(video.frames())
    video.close()
    return video, np.array([f.driver.t_ns for f in frames if f.driver]), frames


def test_mp4_with_a_nanosecond_tick_is_exact(tmp_path: Path) -> None:
    """sensors-41: MP4 with a track timescale of 1e9 returns every stamp to 0 ns."""
    times = jittered()
    path = tmp_path / "exact.mp4"
    write(path, times, {"video_track_timescale": "1000000000"})
    video, got, frames = read(path)
    np.testing.assert_array_equal(got - START_NS, times)
    assert video.tick_ns == 1.0
    assert frames[0].driver.sigma_ns < 1.0
    assert "coarse" not in video.health().detail


def test_matroska_is_detected_as_coarse_and_its_sigma_covers_the_error(tmp_path: Path) -> None:
    """sensors-41: the 1 ms tick of Matroska is detected; sigma is that of its rounding."""
    errors = []
    for seed in range(4):
        times = jittered(60, seed)
        path = tmp_path / f"coarse{seed}.mkv"
        write(path, times, {})
        video, got, frames = read(path)
        errors.append(got - START_NS - times)
    assert video.tick_ns == 1e6
    assert "coarse" in video.health().detail
    sigma_ns = frames[0].driver.sigma_ns
    assert sigma_ns == pytest.approx(288_675, rel=1e-3)
    error = np.concatenate(errors)
    assert np.abs(error).max() <= 500_001
    assert 0.7 < error.std() / sigma_ns < 1.3


def test_stamps_beside_a_video_replace_its_times(tmp_path: Path) -> None:
    times = jittered() + 5_000_000_123
    path = tmp_path / "clip.mkv"
    write(path, times - times[0], {})
    lines = ["# event=soe sigma_ns=2000", *map(str, times)]
    stamps_path(path).write_text("\n".join(lines) + "\n")
    video, got, frames = read(path)
    np.testing.assert_array_equal(got, times)
    assert frames[0].driver.event is FrameEvent.SOE
    assert frames[0].driver.sigma_ns == 2000.0
    assert video.health().stamp_event is FrameEvent.SOE
    assert "clip.mkv.stamps" in video.health().detail


def test_numbered_stamps_bind_by_number(tmp_path: Path) -> None:
    """Frames that the file does not tell of are left out and counted; no other frame moves."""
    times = jittered()
    path = tmp_path / "clip.mp4"
    write(path, times, {})
    keep = [k for k in range(len(times)) if k not in (3, 17)]
    stamps_path(path).write_text("".join(f"{k},{times[k] + 7}\n" for k in keep))
    video, got, frames = read(path)
    np.testing.assert_array_equal(got, times[keep] + 7)
    assert [f.sequence for f in frames] == keep
    assert video.health().errors == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\nx\n", ":3: 'x' is no time"),
        ("5\n5\n", "does not ascend"),
        ("0,5\n2,6\n1,7\n", "does not ascend"),
        ("", "holds no times"),
        ("99999999999999999999\n", "is no time"),
        ("-5\n", "below 0"),
        ("# event=dawn\n1\n", "event is one of"),
        ("# sigma_ns=nan\n1\n", "must be at least 0"),
    ],
)
def test_bad_stamps_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "clip.mp4.stamps"
    path.write_text(text)
    with pytest.raises(MediaError, match=message):
        read_stamps(path)
