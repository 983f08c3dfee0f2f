"""From ROS 2 bags and segments to one syncline file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from foxglove import Schema
from numpy.typing import NDArray

from syncline.errors import LogError
from syncline.log.exact import ExactWriter
from syncline.log.mapping import mapping_to_message, mapping_to_text
from syncline.log.picture import image_message
from syncline.log.records import Record, SchemaRecord
from syncline.log.rewrite import Merger, new_file
from syncline.log.rosbag import BagDecoder, BagReport, read_bag
from syncline.log.schemas import LogMessage, payload_of, schema_of
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import NS_PER_S, MappingSegment

BAG_BOOT = "rosbag"
_PLAIN = {"bgr8": None, "mono8": None, "mono16": None}
_TO_BGR = {
    "rgb8": cv2.COLOR_RGB2BGR,
    "bgra8": cv2.COLOR_BGRA2BGR,
    "rgba8": cv2.COLOR_RGBA2BGR,
    "bayer_rggb8": cv2.COLOR_BayerBG2BGR,
    "bayer_bggr8": cv2.COLOR_BayerRG2BGR,
    "bayer_gbrg8": cv2.COLOR_BayerGR2BGR,
    "bayer_grbg8": cv2.COLOR_BayerGB2BGR,
}


@dataclass
class ConvertReport:
    """What a conversion did.

    Attributes:
        out: Output.
        messages: Messages written.
        converted: Topic of the bag -> our topic, for messages that became ours.
        kept: Topics that are carried as they are (CDR with their ROS schema).
        undecoded: Messages of convertible topics that did not decode; carried as they are.
        damaged: One line per file of the input that could not be read to its end.
    """

    out: Path
    messages: int = 0
    converted: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    undecoded: int = 0
    damaged: list[str] = field(default_factory=list)


def convert_bag(path: Path, out: Path) -> ConvertReport:
    """Write a ROS 2 bag as a syncline log.

    Pictures, IMU samples and satellite fixes become our messages; all else is carried as it is.
    The bag's clock is ROS time: `log_time` stays the receive time, the boot is `rosbag`, and one
    mapping segment says that raw time is UTC with an unknown bound.

    Raises:
        UsageError: rosbags is not installed, or `out` exists.
        LogError: No message could be read.
        StorageError: `out` cannot be written.
    """
    report = ConvertReport(out)
    bag = BagReport(0, [])
    with new_file(out) as file:
        converter = _BagConverter(ExactWriter(file, "syncline"), report)
        for record in read_bag(path, bag):
            converter.record(record)
        report.damaged = bag.damaged
        if not bag.messages and bag.damaged:
            raise LogError(f"nothing of {path} can be read: {bag.damaged[0]}")
        report.messages = converter.finish()
    return report


class _BagConverter:
    def __init__(self, writer: ExactWriter, report: ConvertReport) -> None:
        self._writer, self._report = writer, report
        self._merger = Merger(writer)
        self._decoder = BagDecoder()
        self._sequences: dict[int, int] = {}
        self._first = True
        own = {"version": "1", "boot_id": BAG_BOOT, "device": BAG_BOOT, "clock": "ROS time"}
        writer.metadata("syncline", own)
        writer.metadata("foxglove", {"deviceName": BAG_BOOT})

    def record(self, record: Record) -> None:
        """Convert or carry one message."""
        if self._first:
            self._first = False
            segment = MappingSegment(1, 0, BAG_BOOT, record.raw_ns, record.raw_ns)
            message = mapping_to_message(segment)
            self._writer.metadata("syncline.mapping", mapping_to_text(message))
            self._write("/time/mapping", message, record)
        maker = _MAKERS.get(record.schema)
        if maker is not None:
            try:
                topic, made = maker(_slug(record.topic), self._decoder.decode(record))
            except LogError:
                self._report.undecoded += 1
            else:
                self._report.converted[record.topic] = topic
                self._write(topic, made, record)
                return
        if record.topic not in self._report.kept:
            self._report.kept.append(record.topic)
        self._merger.record(record)

    def _write(self, topic: str, message: LogMessage, record: Record) -> None:
        schema = _schema_record(schema_of(message))
        channel = self._merger.add(topic, "protobuf", schema, {})
        sequence = self._sequences[channel] = self._sequences.get(channel, 0) + 1
        payload = payload_of(message)
        self._writer.message(channel, sequence, record.raw_ns, record.publish_ns, payload)

    def finish(self) -> int:
        """Write the end; returns the number of messages."""
        return self._writer.finish()


def _schema_record(schema: Schema) -> SchemaRecord:
    return SchemaRecord(0, schema.name, schema.encoding, schema.data)


def _slug(topic: str) -> str:
    """A name for `{}` in our topics."""
    return re.sub(r"[^0-9A-Za-z]+", "_", topic).strip("_") or "unnamed"


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def _image(name: str, message: Any) -> tuple[str, LogMessage]:
    encoded = cv2.imencode(".png", picture_of(message), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    made = image_message(max(_stamp_ns(message), 0), name, encoded.tobytes(), "png")
    return f"/camera/{name}/image", made


def _compressed(name: str, message: Any) -> tuple[str, LogMessage]:
    kinds = [kind for kind in ("png", "webp") if kind in str(message.format).lower()]
    data = bytes(message.data)
    made = image_message(max(_stamp_ns(message), 0), name, data, (kinds or ["jpeg"])[0])
    return f"/camera/{name}/image", made


def picture_of(message: Any) -> NDArray[Any]:
    """Pixels of a sensor_msgs/Image as OpenCV wants them.

    Raises:
        LogError: Encoding unknown, or the data do not fit the size.
    """
    encoding, width, height = str(message.encoding), int(message.width), int(message.height)
    depth = np.uint16 if encoding.endswith("16") else np.uint8
    channels = {"mono": 1, "baye": 1, "rgba": 4, "bgra": 4}.get(encoding[:4], 3)
    if encoding not in _PLAIN and encoding not in _TO_BGR:
        raise LogError(f"picture encoding {encoding!r} is unknown")
    row = width * channels * np.dtype(depth).itemsize
    data = np.frombuffer(bytes(message.data), np.uint8)
    if not 0 < row <= int(message.step) or data.size < int(message.step) * height or height < 1:
        raise LogError(f"picture of {width}x{height} with step {message.step}: {data.size} bytes")
    lines = data[: int(message.step) * height].reshape(height, int(message.step))[:, :row]
    pixels: NDArray[Any] = np.ascontiguousarray(lines).view(depth)
    if bool(message.is_bigendian) and depth is np.uint16:
        pixels = pixels.byteswap()
    pixels = pixels.reshape(height, width, channels)
    code = _TO_BGR.get(encoding)
    return pixels if code is None else cv2.cvtColor(pixels, code)


def _imu(name: str, message: Any) -> tuple[str, LogMessage]:
    accel, gyro = message.linear_acceleration, message.angular_velocity
    return f"/imu/{name}", pb.ImuSample(
        sensor=name,
        boot_id=BAG_BOOT,
        raw_ns=_stamp_ns(message),
        accel_x_mps2=accel.x,
        accel_y_mps2=accel.y,
        accel_z_mps2=accel.z,
        gyro_x_radps=gyro.x,
        gyro_y_radps=gyro.y,
        gyro_z_radps=gyro.z,
    )


def _fix(name: str, message: Any) -> tuple[str, LogMessage]:
    return f"/gnss/{name}", pb.GnssFix(
        sensor=name,
        boot_id=BAG_BOOT,
        raw_ns=_stamp_ns(message),
        latitude_deg=message.latitude,
        longitude_deg=message.longitude,
        altitude_m=message.altitude,
        mode=3 if message.status.status >= 0 else 1,
    )


_MAKERS: dict[str, Callable[[str, Any], tuple[str, LogMessage]]] = {
    "sensor_msgs/msg/Image": _image,
    "sensor_msgs/msg/CompressedImage": _compressed,
    "sensor_msgs/msg/Imu": _imu,
    "sensor_msgs/msg/NavSatFix": _fix,
}
