"""link-14: ROS 2 bags, mcap and db3, whole and truncated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from syncline.errors import LogError, UsageError
from syncline.log.convert import convert_bag, picture_of
from syncline.log.reader import LogReader
from syncline.log.records import Record
from syncline.log.rosbag import BagDecoder, BagReport, is_bag, read_bag

from .helpers import read_all

rosbag2 = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")

COUNT = 200
T0_NS = 1_700_000_000_000_000_000


def picture(i: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(i).integers(0, 255, (12, 16, 3), dtype=np.uint8)


def make_bag(folder: Path, plugin: str) -> Path:
    """200 IMU samples, 20 pictures, 5 strings, written by rosbags."""
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    kinds = store.types
    header, stamp = kinds["std_msgs/msg/Header"], kinds["builtin_interfaces/msg/Time"]
    vector, quat = kinds["geometry_msgs/msg/Vector3"], kinds["geometry_msgs/msg/Quaternion"]
    zeros = np.zeros(9)
    storage = getattr(rosbag2.StoragePlugin, plugin)
    with rosbag2.Writer(folder, version=9, storage_plugin=storage) as writer:

        def topic(name: str, kind: str) -> tuple[Any, str]:
            return writer.add_connection(name, kind, typestore=store), kind

        imu = topic("/imu/data", "sensor_msgs/msg/Imu")
        cam = topic("/cam/image_raw", "sensor_msgs/msg/Image")
        text = topic("/chatter", "std_msgs/msg/String")

        def write(where: tuple[Any, str], time_ns: int, message: Any) -> None:
            writer.write(where[0], time_ns, store.serialize_cdr(message, where[1]))

        for i in range(COUNT):
            t = T0_NS + i * 5_000_000 + 123
            sec, nanosec = divmod(t - 77, 10**9)
            head = header(stamp(sec, nanosec), "base")
            accel = vector(float(i), 2.0, 3.0)
            write(imu, t, kinds[imu[1]](head, quat(0, 0, 0, 1), zeros, accel, zeros, accel, zeros))
            if i % 10 == 0:
                data = picture(i)[:, :, ::-1].reshape(-1)
                write(cam, t + 1, kinds[cam[1]](head, 12, 16, "rgb8", 0, 48, data))
            if i % 40 == 0:
                write(text, t + 2, kinds[text[1]](f"hello {i}"))
    return folder


@pytest.fixture(scope="module", params=["SQLITE3", "MCAP"])
def bag(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bag(tmp_path_factory.mktemp("bag") / "b", request.param)


def rosbags_messages(folder: Path) -> Iterator[tuple[str, int, bytes]]:
    with rosbag2.Reader(folder) as reader:
        for connection, stamp_ns, data in reader.messages():
            yield connection.topic, stamp_ns, bytes(data)


def test_equal_to_rosbags(bag: Path) -> None:
    assert is_bag(bag)
    report = BagReport(0, [])
    got = [(r.topic, r.raw_ns, bytes(r.data)) for r in read_bag(bag, report)]
    assert got == list(rosbags_messages(bag))
    assert report == BagReport(COUNT + 25, [])


def test_converts_with_exact_stamps(bag: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mcap"
    report = convert_bag(bag, out)
    assert report.converted == {
        "/imu/data": "/imu/imu_data",
        "/cam/image_raw": "/camera/cam_image_raw/image",
    }
    assert report.kept == ["/chatter"]
    assert (report.undecoded, report.damaged) == (0, [])
    with LogReader(out) as reader:
        records = list(reader)
        by_topic: dict[str, list[Record]] = {}
        for record in records:
            by_topic.setdefault(record.topic, []).append(record)
        samples = [(r, reader.decode(r)) for r in by_topic["/imu/imu_data"]]
        frames = [(r, reader.decode(r)) for r in by_topic["/camera/cam_image_raw/image"]]
        assert reader.timebase("rosbag").utc(T0_NS).utc_ns == T0_NS
    assert len(records) == COUNT + 25 + 1
    for i, (record, sample) in enumerate(samples):
        assert record.raw_ns == T0_NS + i * 5_000_000 + 123
        assert sample.raw_ns == record.raw_ns - 77
        assert (sample.accel_x_mps2, sample.gyro_z_radps) == (float(i), 3.0)
    for i, (record, frame) in enumerate(frames):
        assert record.raw_ns == T0_NS + 10 * i * 5_000_000 + 124
        assert frame.timestamp.seconds * 10**9 + frame.timestamp.nanos == record.raw_ns - 78
        decoded = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        assert np.array_equal(decoded, picture(10 * i))
    kept = by_topic["/chatter"][0]
    assert kept.channel.encoding == "cdr"
    assert BagDecoder().decode(kept).data == "hello 0"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_bag_is_salvaged(bag: Path, tmp_path: Path, share: float) -> None:
    """What is left comes out as it was; the damage is told."""
    whole = list(rosbags_messages(bag))
    (source,) = (p for p in bag.iterdir() if p.suffix in (".mcap", ".db3"))
    data = source.read_bytes()
    target = tmp_path / source.name
    target.write_bytes(data[: int(len(data) * share)])
    report = BagReport(0, [])
    got = [(r.topic, r.raw_ns, bytes(r.data)) for r in read_bag(target, report)]
    assert got == whole[: len(got)]
    if source.suffix == ".db3":
        assert len(report.damaged) == 1
        assert len(got) >= max((share - 0.3) * len(whole), 10), "the first third is no messages"
    out = tmp_path / "out.mcap"
    if got:
        assert convert_bag(target, out).messages == len(got) + 1


def test_recorded_by_ros(shared_data: Path, tmp_path: Path) -> None:
    """Bags that ROS 2 itself recorded: every message, decoded by the definitions in the file."""
    counts = {}
    for path in sorted((shared_data / "mcap" / "rosbag2").glob("*.mcap")):
        assert is_bag(path)
        decoder = BagDecoder()
        records = list(read_bag(path, BagReport(0, [])))
        for record in records:
            if record.schema.startswith(("std_msgs", "rcl_interfaces")):
                assert decoder.decode(record) is not None
        counts[path.name] = len(records)
        report = convert_bag(path, tmp_path / path.name)
        assert report.messages == len(records) + bool(records)
        back = [r for r in read_all(tmp_path / path.name) if r.topic != "/time/mapping"]
        assert [(r.topic, r.raw_ns, r.sequence, bytes(r.data)) for r in back] == [
            (r.topic, r.raw_ns, r.sequence, bytes(r.data)) for r in records
        ]
    assert counts == {"talker.mcap": 20, "topics_and_services.mcap": 13, "wbag_0.mcap": 1246}


def test_what_is_no_bag(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \.mcap or \.db3"):
        list(read_bag(tmp_path, BagReport(0, [])))
    (tmp_path / "a.db3").write_bytes(b"SQLite format 3\0" + bytes(90))
    with pytest.raises(LogError, match="nothing of"):
        convert_bag(tmp_path / "a.db3", tmp_path / "out.mcap")
    assert not (tmp_path / "out.mcap").exists()


@pytest.mark.parametrize(
    ("encoding", "channels", "depth"),
    [("mono8", 1, "u1"), ("mono16", 1, "u2"), ("bgr8", 3, "u1"), ("bayer_rggb8", 1, "u1")],
)
def test_picture_encodings(encoding: str, channels: int, depth: str) -> None:
    pixels = np.arange(6 * 8 * channels).astype(depth).reshape(6, 8, channels)
    row = 8 * channels * pixels.itemsize
    padded = np.zeros((6, row + 4), np.uint8)
    padded[:, :row] = pixels.view(np.uint8).reshape(6, row)
    message = SimpleNamespace(
        encoding=encoding, width=8, height=6, step=row + 4, is_bigendian=0, data=padded.reshape(-1)
    )
    got = picture_of(message)
    assert got.shape[:2] == (6, 8)
    if encoding != "bayer_rggb8":
        assert np.array_equal(got, pixels)
    message.data = padded.reshape(-1)[:-5]
    with pytest.raises(LogError, match="picture of 8x6"):
        picture_of(message)
    message.encoding = "yuv9"
    with pytest.raises(LogError, match="'yuv9' is unknown"):
        picture_of(message)
