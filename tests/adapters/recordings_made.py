"""A small recording for every adapter that reads one, with what is in it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from syncline import topics
from syncline.edge.records import imu_message
from syncline.log.recorder import Recorder
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapters.can import CandumpLog, CanFrame
from syncline.sensors.adapters.gnss_epochs import GnssReading, TriggerMark
from syncline.sensors.adapters.gnss_log import GnssLog
from syncline.sensors.adapters.image_folder import ImageFolder
from syncline.sensors.adapters.imu import EUROC, ImuReading
from syncline.sensors.adapters.imu_recording import CommaImu, GoproImu, ImuCsv
from syncline.sensors.adapters.mf4_log import Mf4Log
from syncline.sensors.adapters.own_log import LogCamera, LogCan, LogGnss, LogImu
from syncline.sensors.adapters.ros_bag import RosBag
from syncline.sensors.adapters.ros_sensors import RosGnss, RosImu
from syncline.sensors.adapters.ubx import frame_bytes
from syncline.sensors.adapters.video import VideoFile
from syncline.timebase import NS_PER_S, ManualClock
from tests.adapters.test_containers import jittered
from tests.adapters.test_containers import write as write_video
from tests.replay.rig import BOOT_A, record_boot

T0_NS = 1_700_000_000 * NS_PER_S


@dataclass(frozen=True)
class Made:
    """A recording and what an adapter shall make of it.

    Attributes:
        path: Where it lies.
        count: Good samples in it.
        errors: Samples that are unusable.
        duplicates: Samples that are repeats.
        dropped: Samples that the recording itself lacks.
    """

    path: Path
    count: int
    errors: int = 0
    duplicates: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class Kind:
    """One adapter of recordings.

    Attributes:
        name: For test ids.
        adapter: Makes it for a path.
        make: Writes a recording into an empty folder.
        payload: What its samples hold.
    """

    name: str
    adapter: Callable[[Path], Any]
    make: Callable[[Path], Made]
    payload: type | tuple[type, ...]


def video(folder: Path) -> Made:
    write_video(folder / "drive.mp4", jittered(12), {})
    return Made(folder / "drive.mp4", 12)


def images(folder: Path) -> Made:
    for k in range(5):
        cv2.imwrite(str(folder / f"{T0_NS + k * 50_000_000}.png"), np.full((8, 8, 3), k, np.uint8))
    (folder / f"{T0_NS + 60_000_000}.png").write_bytes(b"no picture")
    return Made(folder, 5, errors=1)


def euroc(folder: Path) -> Made:
    head = ",".join([EUROC.time, *EUROC.gyro, *EUROC.accel])
    rows = [f"{T0_NS + k * 5_000_000},0.1,0.2,0.3,1,2,{k}" for k in range(40)]
    rows[10:10] = ["damaged", rows[9], f"{T0_NS},1,1,1,1,1,1"]
    (folder / "data.csv").write_text("\n".join([head, *rows]) + "\n")
    return Made(folder / "data.csv", 40, errors=1, duplicates=2)


def comma(folder: Path) -> Made:
    for name, first_s, count in (("gyro", 10.0, 20), ("accelerometer", 10.005, 10)):
        (folder / name).mkdir()
        for key, array in (
            ("t", first_s + 0.01 * np.arange(count)),
            ("value", np.ones((count, 3))),
        ):
            with (folder / name / key).open("wb") as file:
                np.save(file, array)
    return Made(folder, 30)


def nmea(folder: Path) -> Made:
    lines = [rmc(k) for k in range(6)]
    (folder / "drive.nmea").write_bytes(b"".join([*lines[:3], b"$GPRMC,bad*01\r\n", *lines[3:]]))
    return Made(folder / "drive.nmea", 6, errors=1)


def rmc(second: int) -> bytes:
    body = f"GPRMC,1200{second:02d}.00,A,4807.038,N,01131.000,E,022.4,084.4,010326,,,A".encode()
    check = 0
    for byte in body:
        check ^= byte
    return b"$" + body + b"*%02X\r\n" % check


def ubx(folder: Path) -> Made:
    """Marks of a trigger; two of them the receiver could not send."""
    leap = struct.pack("<IihbBI", 0, 0, 2300, 18, 7, 20)
    marks = [
        struct.pack("<BBHHH5I", 0, 0xC8, count, 2300, 2300, 1000 * count, 0, 0, 0, 25)
        for count in (5, 6, 9)
    ]
    parts = [frame_bytes(0x0120, leap), *(frame_bytes(0x0D03, mark) for mark in marks)]
    (folder / "drive.ubx").write_bytes(b"".join(parts))
    return Made(folder / "drive.ubx", 3, dropped=2)


def candump(folder: Path) -> Made:
    lines = [f"({1_700_000_000 + k}.25) can{k % 2} {k:03X}#0102" for k in range(7)]
    (folder / "bus.log").write_text("\n".join([*lines[:2], "damaged", *lines[2:]]) + "\n")
    return Made(folder / "bus.log", 7, errors=1)


def mf4(folder: Path) -> Made:
    pytest.importorskip("asammdf")
    from tests.adapters.test_can_logs import write_log

    write_log(folder / "bus.mf4", [(1, [0.5, 1.0, 2.0]), (2, [0.7, 1.4])])
    return Made(folder / "bus.mf4", 5)


def bag(folder: Path) -> Made:
    pytest.importorskip("rosbags")
    from tests.adapters.test_ros_bag import make_bag

    return Made(make_bag(folder / "bag", "MCAP", damage=3), 19, errors=1)


def bag_imu(folder: Path) -> Made:
    return Made(sensor_bag(folder / "bag"), 4, errors=1)


def bag_gnss(folder: Path) -> Made:
    return Made(sensor_bag(folder / "bag"), 5)


def sensor_bag(folder: Path) -> Path:
    """Five inertial messages, one that measures nothing, and five fixes, one without a place."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    typesys = pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    kinds = store.types
    vector, turn = kinds["geometry_msgs/msg/Vector3"], kinds["geometry_msgs/msg/Quaternion"]
    imu, fix = "sensor_msgs/msg/Imu", "sensor_msgs/msg/NavSatFix"
    with rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        body = writer.add_connection("/imu/data", imu, typestore=store)
        roof = writer.add_connection("/fix", fix, typestore=store)
        for k in range(5):
            t_ns = T0_NS + k * 10_000_000
            time = kinds["builtin_interfaces/msg/Time"](*divmod(t_ns, NS_PER_S))
            head: Any = kinds["std_msgs/msg/Header"](time, "base")
            none, given = np.zeros(9), np.zeros(9)
            none[0] = -1.0
            silent = none if k == 2 else given
            sample = kinds[imu](
                head, turn(0.0, 0.0, 0.0, 1.0), none, vector(0.1, 0.2, 0.3), silent,
                vector(1.0, 2.0, 9.8), silent,
            )  # fmt: skip
            writer.write(body, t_ns + 1_000_000, store.serialize_cdr(sample, imu))
            status = kinds["sensor_msgs/msg/NavSatStatus"](-1 if k == 0 else 0, 1)
            place = kinds[fix](head, status, 48.1, 11.5, 500.0, given, 0)
            writer.write(roof, t_ns + 2_000_000, store.serialize_cdr(place, fix))
    return folder


def own(folder: Path) -> Made:
    """Pictures, and beside them what the vehicle's other sensors recorded."""
    record_boot(folder, BOOT_A, 6)
    clock = ManualClock(2 * NS_PER_S, BOOT_A)
    with Recorder(folder, clock=clock, device="car", lossless=True) as recorder:
        for k in range(6):
            t_ns = 2 * NS_PER_S + k * 1_000_000
            clock.sleep_until(t_ns)
            axes = (0.1, 0.2, 0.3)
            sample = imu_message("body", BOOT_A, t_ns, 50.0, axes, (1.0, 2.0, float(k)))
            frame = pb.CanFrame(bus="body", boot_id=BOOT_A, raw_ns=t_ns, can_id=7, data=b"\1")
            fix = pb.GnssFix(
                sensor="roof", boot_id=BOOT_A, raw_ns=t_ns, latitude_deg=48.1, mode=k % 4
            )
            for row, name, message in (
                (topics.IMU, "body", sample),
                (topics.CAN, "body", frame),
                (topics.GNSS, "roof", fix),
            ):
                assert recorder.write(row.of(name), message, t_ns)
    return Made(folder, 6)


def gopro(path: Path) -> Made:
    """The one of the shared data; its samples are counted by its own telemetry."""
    return Made(path, 2082)


KINDS = [
    Kind("video", VideoFile, video, np.ndarray),
    Kind("images", ImageFolder, images, np.ndarray),
    Kind("imu-csv", ImuCsv, euroc, ImuReading),
    Kind("imu-comma", CommaImu, comma, ImuReading),
    Kind("nmea", GnssLog, nmea, GnssReading),
    Kind("ubx", GnssLog, ubx, (GnssReading, TriggerMark)),
    Kind("candump", CandumpLog, candump, CanFrame),
    Kind("mf4", Mf4Log, mf4, CanFrame),
    Kind("ros-camera", RosBag, bag, np.ndarray),
    Kind("ros-imu", RosImu, bag_imu, ImuReading),
    Kind("ros-gnss", RosGnss, bag_gnss, GnssReading),
    Kind("log-camera", LogCamera, own, np.ndarray),
    Kind("log-imu", LogImu, own, ImuReading),
    Kind("log-can", LogCan, own, CanFrame),
    Kind("log-gnss", LogGnss, own, GnssReading),
]
GOPRO = Kind("gopro-imu", GoproImu, gopro, ImuReading)

__all__ = ["GOPRO", "KINDS", "Kind", "Made", "rmc"]
