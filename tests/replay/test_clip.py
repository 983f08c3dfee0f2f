"""A recording as a plain video with its sidecar: the same times, the same UTC, the same replay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from syncline.cli import main
from syncline.edge.clip import ClipRecording
from syncline.edge.config import CameraSection
from syncline.edge.recordings import open_recording
from syncline.edge.replay import Timed
from syncline.errors import LogError, UsageError
from syncline.log.clip import export_clip
from syncline.sensors.jpeg import pixels_of
from tests.replay.rig import BOOT_A, BOOT_B, record_boot, segment

SECTION = CameraSection(name="camera", kind="video", path="-")


def timed(path: Path) -> list[Timed]:
    return list(open_recording(path, SECTION).frames())


def test_a_clip_replays_with_the_times_and_the_utc_of_its_recording(tmp_path: Path) -> None:
    rec, clip = tmp_path / "rec", tmp_path / "front.mp4"
    record_boot(
        rec, BOOT_A, 30, segments=(segment(1, BOOT_A, 10**9), segment(2, BOOT_A, 2 * 10**9))
    )
    export_clip(rec, clip)
    source = open_recording(clip, SECTION)
    assert isinstance(source, ClipRecording)
    assert source.boot_id == BOOT_A
    assert source.segments() == open_recording(rec, SECTION).segments()
    ours, theirs = timed(clip), timed(rec)
    assert len(ours) == 30
    assert [t.timing for t in ours] == [t.timing for t in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.frame.arrival == other.frame.arrival
        assert mine.frame.exposures == other.frame.exposures
        assert np.array_equal(pixels_of(mine.frame.payload), pixels_of(other.frame.payload))
    assert not source.damage()


def test_the_command_makes_a_clip_and_says_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_boot(tmp_path / "rec", BOOT_A, 5, cameras=("front", "rear"))
    command = ["log", "convert", str(tmp_path / "rec"), str(tmp_path / "x.mp4"), "--to", "video"]
    assert main(command) == 2
    assert "pictures of front, rear" in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))
    assert main([*command, "--camera", "rear"]) == 0
    assert "x.mp4: 5 pictures\n" in capsys.readouterr().out
    assert {t.timing.camera for t in timed(tmp_path / "x.mp4")} == {"rear"}
    with pytest.raises(UsageError, match="is of camera 'rear'"):
        open_recording(tmp_path / "x.mp4", SECTION, only="front")


def test_what_cannot_become_a_clip_leaves_nothing_behind(tmp_path: Path) -> None:
    record_boot(tmp_path / "a", BOOT_A, 3)
    record_boot(tmp_path / "both", BOOT_A, 3)
    record_boot(tmp_path / "both", BOOT_B, 3)
    (tmp_path / "there.mp4").write_bytes(b"x")
    for path, out, camera, error in (
        (tmp_path / "a", tmp_path / "x.avi", "", UsageError),
        (tmp_path / "a", tmp_path / "there.mp4", "", UsageError),
        (tmp_path / "a", tmp_path / "x.mp4", "nobody", LogError),
        (tmp_path / "both", tmp_path / "x.mp4", "", UsageError),
    ):
        with pytest.raises(error):
            export_clip(path, out, camera)
    assert (tmp_path / "there.mp4").read_bytes() == b"x"
    assert not list(tmp_path.glob("x.*"))
    assert not list(tmp_path.glob("*.mcap"))
