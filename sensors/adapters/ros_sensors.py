"""Inertial sensors and GNSS receivers of a ROS 2 bag."""

from __future__ import annotations

import math
from typing import Any

from syncline.log.records import Record
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.bag_topics import BagTopics, arrival_of, sensor_name
from syncline.sensors.adapters.gnss_epochs import GnssReading
from syncline.sensors.adapters.imu import ImuReading, Vector
from syncline.sensors.frame import FrameEvent

UNDECLARED_BIAS_NS = (-50_000_000, 50_000_000)
"""A driver may stamp the sample, its arrival or its publishing, and low-pass filters delay it."""


class RosImu(BagTopics[Sample[ImuReading]]):
    """`sensor_msgs/msg/Imu`: turn rates and accelerations; a first covariance of -1 means neither.

    See `BagTopics`; undeclared headers are taken as the sampling, within 50 ms either way.
    """

    _kinds = frozenset({"sensor_msgs/msg/Imu"})
    _what = "inertial sample"
    _undeclared = FrameEvent.TRIGGER, UNDECLARED_BIAS_NS

    def _sample(self, record: Record, sequence: int, message: Any) -> Sample[ImuReading] | None:
        gyro = _vector(message.angular_velocity, message.angular_velocity_covariance)
        accel = _vector(message.linear_acceleration, message.linear_acceleration_covariance)
        if gyro is None and accel is None:
            return None
        stamp = self._header(message, record.raw_ns)
        name = sensor_name(record.topic, "imu")
        return Sample(name, sequence, stamp, arrival_of(record), ImuReading(gyro, accel))


class RosGnss(BagTopics[Sample[GnssReading]]):
    """`sensor_msgs/msg/NavSatFix`: positions; the receiver's own UTC is not among them.

    See `BagTopics`; undeclared headers are taken as the epoch, up to a second late.
    """

    _kinds = frozenset({"sensor_msgs/msg/NavSatFix"})
    _what = "fix"
    _undeclared = FrameEvent.MID, (-1_000_000_000, 0)

    def _sample(self, record: Record, sequence: int, message: Any) -> Sample[GnssReading] | None:
        place = float(message.latitude), float(message.longitude), float(message.altitude)
        located = int(message.status.status) >= 0 and all(map(math.isfinite, place[:2]))
        reading = GnssReading(None, 0, 0)
        if located:
            high = place[2] if math.isfinite(place[2]) else None
            reading = GnssReading(None, 2 if high is None else 3, 0, place[0], place[1], high)
        stamp = self._header(message, record.raw_ns)
        return Sample(
            sensor_name(record.topic, "gnss"), sequence, stamp, arrival_of(record), reading
        )


def _vector(given: Any, covariance: Any) -> Vector | None:
    """Three finite numbers; None where the driver says that it does not measure them."""
    found = float(given.x), float(given.y), float(given.z)
    return None if covariance[0] == -1 or not all(map(math.isfinite, found)) else found
