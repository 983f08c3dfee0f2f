"""Sensors of a syncline recording, as they were recorded: cameras, inertial, CAN, GNSS.

One boot of it: raw times of two boots are never joined. `syncline replay` reads the pictures with
the whole of their recorded timing; here they are a camera whose driver stamps the middle of
exposure.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic

import cv2
import numpy as np

from syncline import topics
from syncline.errors import LogError, SensorDataError
from syncline.log.boots import choose_boot, messages_per_boot
from syncline.log.reader import LogReader
from syncline.log.records import Record
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.base import S
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.gnss_epochs import GnssReading
from syncline.sensors.adapters.imu import ImuReading
from syncline.sensors.adapters.log_pictures import PicturePairs
from syncline.sensors.adapters.recorded import Recorded
from syncline.sensors.frame import Exposure, FrameEvent, Ns, RawFrame, Stamp
from syncline.timebase import Clock


class _LogTopic(Recorded[S], Generic[S]):
    """All sensors of one row of the topic table, or the one that is named.

    Memory: what `LogReader` holds.

    Args:
        path: Recording folder, or one file of it.
        sensor: Only this sensor; empty for all.
        boot: Beginning of the boot's id; empty where only one boot holds such a topic.
    """

    _row: topics.Topic
    _event = FrameEvent.ARRIVAL

    def __init__(self, path: Path, sensor: str = "", *, boot: str = "") -> None:
        super().__init__()
        self._path, self._sensor, self._wanted_boot = path, sensor, boot
        self._reader: LogReader | None = None
        self._boot = ""

    def _open(self) -> None:
        """Find the topics and the boot.

        Raises:
            LogError: Nothing there that can be read, or no such topic.
            UsageError: Nothing is there, or several boots hold the topic and none was named.
        """
        with LogReader(self._path) as reader:
            names = {channel.topic for channel in reader.channels}
        wanted = self._row.of(self._sensor) if self._sensor else ""
        found = sorted(name for name in names if self._holds(name) and wanted in ("", name))
        counts = messages_per_boot(self._path, found) if found else {}
        if not counts:
            raise LogError(
                f"{self._path} holds nothing on {self._row.of(self._sensor or '*')}",
                remedy="See what it holds with: syncline log info",
            )
        self._boot = choose_boot(self._path, counts, self._wanted_boot, "messages")
        self._reader = LogReader(self._path, topics=self._topics(found))

    def _holds(self, name: str) -> bool:
        head, _, tail = self._row.name.partition("{}")
        return name.startswith(head) and name.endswith(tail)

    def _topics(self, found: list[str]) -> list[str]:
        return found

    def _read(self) -> Iterator[S]:
        """Samples in order of time; a damaged one is left out and counted.

        Raises:
            LogError: Not one could be read.
        """
        assert self._reader is not None
        for record in self._reader:
            if record.boot_id != self._boot:
                continue
            try:
                sample = self._sample(record, self._reader.decode(record))
            except (LogError, SensorDataError):
                self._errors += 1
                continue
            if sample is not None:
                yield sample
        self._finish()
        if not self._frames:
            raise LogError(
                f"{self._path}: of {self._row.of('*')} nothing can be used ({self._errors} lost)",
                remedy="See what it holds with: syncline log info",
            )

    @abstractmethod
    def _sample(self, record: Record, message: Any) -> S | None:
        """One message as a sample; None when it makes none, or not yet.

        Raises:
            LogError: It cannot be used.
            SensorDataError: Its stamp or exposure is impossible.
        """

    def _finish(self) -> None:
        """The end was reached."""

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.MONOTONIC_RAW, self._event

    def _release(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


class LogCamera(_LogTopic[RawFrame]):
    """Recorded pictures (BGR); the stamp is the recorded middle of exposure with its uncertainty.

    A picture whose timing was lost, or that does not decode, is left out and counted. Memory: also
    what `PicturePairs` holds.
    """

    _row = topics.IMAGE
    _event = FrameEvent.MID

    def _open(self) -> None:
        super()._open()
        self._pairs = PicturePairs[pb.FrameTiming]()

    def _topics(self, found: list[str]) -> list[str]:
        return [*found, *(topics.TIMING.of(name.split("/")[2]) for name in found)]

    def _sample(self, record: Record, message: Any) -> RawFrame | None:
        key = record.topic.split("/")[2], record.raw_ns
        if record.topic.endswith("/timing"):
            pair = self._pairs.timing(key, message)
        else:
            pair = self._pairs.picture(key, message.data)
        if pair is None:
            return None
        timing, data = pair
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if picture is None:
            raise LogError(f"{record.topic}: a picture of {len(data)} bytes does not decode")
        told = Exposure(timing.exposure_ns, timing.gain) if timing.exposure_ns else None
        bias_ns = timing.bias_low_ns, timing.bias_high_ns
        mid = Stamp(timing.mid_raw_ns, Clock.MONOTONIC_RAW, self._event, timing.sigma_ns, bias_ns)
        return RawFrame(
            camera=key[0],
            sequence=timing.index,
            device_ticks=None,
            driver=mid,
            arrival=Stamp(timing.eof_raw_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL),
            exposures=() if told is None else (told,),
            payload=np.asarray(picture, dtype=np.uint8),
        )

    def _finish(self) -> None:
        self._pairs.finish()
        self._errors += self._pairs.unmatched


class LogImu(_LogTopic[Sample[ImuReading]]):
    """Recorded inertial samples."""

    _row = topics.IMU
    _event = FrameEvent.TRIGGER

    def _sample(self, record: Record, message: pb.ImuSample) -> Sample[ImuReading]:
        gyro = message.gyro_x_radps, message.gyro_y_radps, message.gyro_z_radps
        accel = message.accel_x_mps2, message.accel_y_mps2, message.accel_z_mps2
        reading = ImuReading(
            gyro if all(map(math.isfinite, gyro)) else None,
            accel if all(map(math.isfinite, accel)) else None,
        )
        stamp = _raw(message.raw_ns, self._event, message.sigma_ns)
        arrival = _raw(message.raw_ns, FrameEvent.ARRIVAL, message.sigma_ns)
        return Sample(message.sensor, None, stamp, arrival, reading)


class LogCan(_LogTopic[Sample[CanFrame]]):
    """Recorded frames of a bus, or of all."""

    _row = topics.CAN

    def _sample(self, record: Record, message: pb.CanFrame) -> Sample[CanFrame]:
        frame = CanFrame(message.can_id, message.extended, message.data)
        return Sample(message.bus, None, None, _raw(message.raw_ns, self._event), frame)


class LogGnss(_LogTopic[Sample[GnssReading]]):
    """Recorded fixes, timed by their arrival; UTC is in the recording's mapping segments."""

    _row = topics.GNSS

    def _sample(self, record: Record, message: pb.GnssFix) -> Sample[GnssReading]:
        located = message.mode >= 2
        reading = GnssReading(
            message.utc_ns or None,
            message.mode if located else 0,
            round(message.time_sigma_ns) if math.isfinite(message.time_sigma_ns) else 0,
            latitude_deg=message.latitude_deg if located else None,
            longitude_deg=message.longitude_deg if located else None,
            speed_mps=message.speed_mps if located else None,
            satellites=message.satellites,
        )
        return Sample(message.sensor, None, None, _raw(message.raw_ns, self._event), reading)


def _raw(t_ns: Ns, event: FrameEvent, sigma_ns: float = 0.0) -> Stamp:
    return Stamp(t_ns, Clock.MONOTONIC_RAW, event, sigma_ns)
