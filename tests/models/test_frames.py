"""Frames for calibration: evenly spread, disjoint from those of the gate, one at a time."""

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


@given(st.integers(2, 500), st.integers(1, 100))
def test_the_gate_sees_other_frames_than_calibration(count: int, limit: int) -> None:
    if count >= 2 * limit:
        assert not set(spread(count, limit)) & set(spread(count, limit, 0.5))


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
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(MediaError, match="cannot be decoded"):
        list(open_frames(tmp_path, 5).read())
