"""Frames for calibration: evenly spread, apart from those of the gate, one at a time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.cloud.models.frames import open_frames, spread
from syncline.cloud.models.gate import slices_of
from syncline.cloud.models.probe import synthetic_frame
from syncline.cloud.models.split import blocks, damaged_note, noting, split_frames, without
from syncline.errors import MediaError
from syncline.log.picture import image_message
from syncline.log.recorder import Recorder
from syncline.timebase import ManualClock


@given(st.integers(1, 500), st.integers(1, 100), st.floats(0, 0.99))
def test_spread_is_ascending_unique_and_bounded(count: int, limit: int, phase: float) -> None:
    found = spread(count, limit, phase)
    assert len(found) == min(count, limit)
    assert found == sorted(set(found))
    assert 0 <= found[0] <= found[-1] < count


def test_folder_with_sub_folders_as_slices(picture_folder: Path) -> None:
    source = open_frames(picture_folder, 100)
    assert source.count == 12
    frames = list(source.read())
    assert {f.group for f in frames} == {"", "night"}
    assert [f.name for f in frames] == [f.name for f in source.read()], "can be read again"
    night = next(f for f in frames if f.group == "night")
    assert slices_of(night) == ("night", "dark")


def test_label_masks_beside_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    """Grey and palette PNG in a folder of their own, where other folders are in colour."""
    colour = synthetic_frame(64, 48, seed=1)
    grey = colour[:, :, 0]
    for folder, image in (("val", colour), ("valannot", grey), ("night", colour)):
        (tmp_path / folder).mkdir()
        for at in range(3):
            assert cv2.imwrite(str(tmp_path / folder / f"{at}.png"), image)
    # A grey picture among coloured ones is a picture.
    assert cv2.imwrite(str(tmp_path / "night" / "9.png"), grey)
    source = open_frames(tmp_path, 100)
    assert source.count == 7
    assert {f.group for f in source.read()} == {"val", "night"}
    assert source.told() == (
        f"7 frames of {tmp_path} (night, val); left out as label masks: valannot"
    )
    # Alone they are what is asked for: a grey camera.
    alone = open_frames(tmp_path / "valannot", 100)
    assert (alone.count, alone.left_out) == (3, ())
    assert alone.told() == f"3 frames of {tmp_path / 'valannot'}"


def test_video(shared_data: Path) -> None:
    source = open_frames(shared_data / "video" / "solidWhiteRight.mp4", 5)
    assert source.count == 5
    frames = list(source.read())
    assert [f.name for f in frames] == ["000000", "000044", "000088", "000132", "000176"]
    assert frames[0].bgr.shape == (540, 960, 3)


def test_recorded_log(tmp_path: Path) -> None:
    """Pictures of a log that syncline recorded; the topic is the slice."""
    clock = ManualClock(1_000_000_000)
    images = [synthetic_frame(64, 48, seed=i) for i in range(6)]
    with Recorder(tmp_path / "log", clock=clock, device="car-1", segment_s=60.0) as recorder:
        for image in images:
            now = clock.raw_ns()
            data = cv2.imencode(".png", image)[1].tobytes()
            assert recorder.write(
                "/camera/front/image", image_message(now, "front", data, "png"), now
            )
            clock.advance(100_000_000)
    source = open_frames(tmp_path / "log", 3)
    frames = list(source.read())
    assert source.count == len(frames) == 3
    assert {f.group for f in frames} == {"/camera/front/image"}
    np.testing.assert_array_equal(frames[1].bgr, images[2])
    files = list((tmp_path / "log").rglob("*.mcap"))
    assert sum(open_frames(file, 100).count for file in files if b"png" in file.read_bytes()) == 6


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="neither a folder"):
        open_frames(tmp_path / "none", 5)
    with pytest.raises(MediaError, match="no pictures"):
        open_frames(tmp_path, 5)
    with pytest.raises(MediaError, match="no pictures"):
        split_frames(tmp_path, 5, 5)
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(MediaError, match="cannot be decoded"):
        list(open_frames(tmp_path, 5).read())


@given(st.integers(0, 3000), st.integers(0, 100), st.integers(0, 100), st.booleans())
def test_blocks_share_no_frame(count: int, calibrate: int, judge: int, odd: bool) -> None:
    first, second = blocks(count, calibrate, judge, odd=odd)
    assert not set(first) & set(second)
    assert len(first) <= calibrate
    assert len(second) <= judge
    for side in (first, second):
        assert side == sorted(set(side))
        assert all(0 <= i < count for i in side)


@given(st.integers(200, 3000))
def test_what_judges_is_apart_in_time_from_what_was_calibrated_on(count: int) -> None:
    """Neighbours of a drive show the same thing; only block borders may be near, with a gap."""
    first, second = blocks(count, 48, 48)
    assert len(first) == len(second) == 48
    near = min(abs(a - b) for a in first for b in second)
    assert near >= 2 * (count // 16 // 10)
    halves = [[i for i in side if i < count // 2] for side in (first, second)]
    assert all(halves), "both see the whole drive"


def test_a_source_is_split_by_slice(picture_folder: Path) -> None:
    calibration, judged = split_frames(picture_folder, 48, 48)
    taken = [[(f.name, f.group) for f in source.read()] for source in (calibration, judged)]
    assert not set(taken[0]) & set(taken[1])
    for side in taken:
        assert sorted(group for _, group in side) == [""] * 3 + ["night"] * 3


def test_too_few_frames_to_split_are_refused(tmp_path: Path) -> None:
    for i in range(9):
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), synthetic_frame(64, 48, seed=i))
    with pytest.raises(MediaError, match="holds 9 frames: 5 to calibrate on and 5 others"):
        split_frames(tmp_path, 48, 48)
    assert cv2.imwrite(str(tmp_path / "9.png"), synthetic_frame(64, 48, seed=9))
    assert [source.count for source in split_frames(tmp_path, 48, 48)] == [5, 5]


def test_a_picture_that_was_calibrated_on_does_not_judge(picture_folder: Path) -> None:
    """Whatever it is called: copies of a picture are the same picture."""
    seen: set[bytes] = set()
    taken = open_frames(picture_folder / "night", 4)
    list(noting(taken, seen).read())
    assert len(seen) == 4
    left = [f.name for f in without(open_frames(picture_folder, 12), seen).read()]
    assert len(left) == 8


def test_a_damaged_picture_is_left_out_and_told(tmp_path: Path) -> None:
    for i in range(3):
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), synthetic_frame(64, 48, seed=i))
    (tmp_path / "1.png").write_bytes(b"not a picture")
    source = open_frames(tmp_path, 9)
    assert [f.name for f in source.read()] == ["0.png", "2.png"]
    assert damaged_note([source, source]) == ["1.png cannot be decoded and played no part"]
