"""ROS 2 bags as recordings of cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from syncline.errors import MediaError
from syncline.sensors.adapter import HealthState, SensorAdapter
from syncline.sensors.adapters.bag_topics import sensor_name
from syncline.sensors.adapters.ros_bag import RosBag
from syncline.sensors.frame import FrameEvent

rosbag2 = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")
T0_NS = 1_700_000_000_000_000_123


def picture(k: int) -> np.ndarray:
    return np.full((12, 16, 3), (k * 9, 100, 200 - k), np.uint8)


def make_bag(folder: Path, plugin: str, damage: int = -1, zero: int = -1) -> Path:
    """Ten raw and ten compressed pictures; header times 20 ms before reception."""
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    kinds = store.types
    header, stamp = kinds["std_msgs/msg/Header"], kinds["builtin_interfaces/msg/Time"]
    with rosbag2.Writer(
        folder, version=9, storage_plugin=getattr(rosbag2.StoragePlugin, plugin)
    ) as writer:
        raw_kind, jpeg_kind = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
        raw = writer.add_connection("/Cam/image_raw", raw_kind, typestore=store)
        jpeg = writer.add_connection("/rear/image/compressed", jpeg_kind, typestore=store)
        for k in range(10):
            t_ns = T0_NS + k * 50_000_007
            sec, nanosec = (0, 0) if k == zero else divmod(t_ns, 10**9)
            head: Any = header(stamp(sec, nanosec), "camera")
            flat = picture(k).reshape(-1)
            message = kinds[raw_kind](head, 12, 16, "bgr8", 0, 48, flat)
            writer.write(raw, t_ns + 20_000_000, store.serialize_cdr(message, raw_kind))
            data = cv2.imencode(".png", picture(k))[1].reshape(-1)
            if k == damage:
                data = data[:20]
            message = kinds[jpeg_kind](head, "png", data)
            writer.write(jpeg, t_ns + 30_000_000, store.serialize_cdr(message, jpeg_kind))
    return folder


@pytest.mark.parametrize("plugin", ["SQLITE3", "MCAP"])
def test_pictures_and_header_times_are_exact(tmp_path: Path, plugin: str) -> None:
    bag = RosBag(make_bag(tmp_path / "bag", plugin), event=FrameEvent.SOE)
    assert isinstance(bag, SensorAdapter)
    bag.open()
    frames = list(bag.frames())
    assert len(frames) == 20
    for camera in ("cam_image_raw", "rear_image_compressed"):
        rows = [frame for frame in frames if frame.camera == camera]
        assert [row.sequence for row in rows] == list(range(10))
        for k, row in enumerate(rows):
            assert row.driver is not None
            assert row.driver.t_ns == T0_NS + k * 50_000_007
            assert (row.driver.event, row.driver.bias_ns) == (FrameEvent.SOE, (0, 0))
            assert row.arrival.t_ns > row.driver.t_ns
            np.testing.assert_array_equal(row.payload, picture(k))
    assert bag.health().state is HealthState.ENDED


def test_an_undeclared_stamp_says_how_little_it_is_worth(tmp_path: Path) -> None:
    folder = make_bag(tmp_path / "bag", "MCAP", zero=4)
    bag = RosBag(folder, topic="/Cam/image_raw")
    frames = list(bag.frames())
    assert len(frames) == 10
    for k, frame in enumerate(frames):
        assert frame.driver is not None
        low, high = frame.driver.bias_ns
        assert low < 0 < high
        expected = T0_NS + k * 50_000_007 + (20_000_000 if k == 4 else 0)
        assert frame.driver.t_ns == expected
    assert "1 headers without a time" in bag.health().detail


def test_damage_is_counted_and_moves_no_number(tmp_path: Path) -> None:
    bag = RosBag(make_bag(tmp_path / "bag", "MCAP", damage=3), topic="/rear/image/compressed")
    assert [frame.sequence for frame in bag.frames()] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert bag.health().errors == 1


def test_a_bag_without_pictures_says_so(tmp_path: Path) -> None:
    folder = make_bag(tmp_path / "bag", "SQLITE3")
    with pytest.raises(MediaError, match="no picture on /none"):
        list(RosBag(folder, topic="/none").frames())
    with pytest.raises(MediaError, match="does not exist"):
        RosBag(tmp_path / "absent").open()


def test_names() -> None:
    assert sensor_name("/Front Cam/image-raw", "camera") == "front_cam_image-raw"
    assert sensor_name("/", "camera") == "camera"


@pytest.mark.parametrize("plugin", ["SQLITE3", "MCAP"])
def test_a_bag_replays_as_a_recording(tmp_path: Path, plugin: str) -> None:
    from syncline.edge.config import CameraSection
    from syncline.edge.recordings import open_recording

    camera = CameraSection(name="front", kind="images", path="x", anchor="readout")
    timed = list(open_recording(make_bag(tmp_path / "bag", plugin), camera).frames())
    assert len(timed) == 20
    for item in timed:
        assert item.timing.mid_ns < item.frame.arrival.t_ns
