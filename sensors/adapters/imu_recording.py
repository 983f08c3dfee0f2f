"""Recordings of inertial sensors as adapters: CSV files, comma2k19 arrays, GoPro videos."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from syncline.errors import MediaError
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.gopro import Stream, read_telemetry
from syncline.sensors.adapters.imu import (
    EUROC,
    Columns,
    ImuLog,
    ImuReading,
    Row,
    Series,
    Vector,
    csv_rows,
    none_usable,
    read_comma_imu,
)
from syncline.sensors.adapters.recorded import Recorded
from syncline.sensors.frame import FrameEvent, Ns, Stamp
from syncline.timebase import NS_PER_S, Clock


class _ImuRecording(Recorded[Sample[ImuReading]]):
    """Stamps samples on the recording's own clock, as pictures of recordings are.

    Args:
        sensor: Name given to the samples.
        event: What the recorded times mark, where it is known.
    """

    def __init__(self, sensor: str, event: FrameEvent) -> None:
        super().__init__()
        self._sensor, self._event = sensor, event

    def _sample(self, t_ns: Ns, reading: ImuReading, sigma_ns: float = 0.0) -> Sample[ImuReading]:
        stamp = Stamp(t_ns, Clock.MONOTONIC_RAW, self._event, sigma_ns)
        arrival = Stamp(t_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, sigma_ns)
        return Sample(self._sensor, None, stamp, arrival, reading)

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.MONOTONIC_RAW, self._event


class ImuCsv(_ImuRecording):
    """Rows of a CSV file, EuRoC's or any whose columns are named.

    Rows that hold no finite numbers are left out and counted as errors, those whose time does not
    ascend as duplicates. Memory: `imu.CHUNK_ROWS` rows.

    Args:
        path: The file.
        columns: Which columns hold what, and their units.
        sensor: Name given to the samples.
        event: What the file's times mark, where it is known.
    """

    def __init__(
        self,
        path: Path,
        columns: Columns = EUROC,
        sensor: str = "imu",
        *,
        event: FrameEvent = FrameEvent.TRIGGER,
    ) -> None:
        super().__init__(sensor, event)
        self._path, self._columns = path, columns
        self._chunks: Generator[list[Row | None], None, None] | None = None
        self._first: list[Row | None] = []

    def _open(self) -> None:
        """Open the file and find its columns.

        Raises:
            LogError: It cannot be read or lacks a column.
        """
        self._chunks = csv_rows(self._path, self._columns)
        self._first = next(self._chunks)

    def _read(self) -> Iterator[Sample[ImuReading]]:
        """Rows in order of time.

        Raises:
            LogError: The file cannot be read on, or not one row can be used.
        """
        assert self._chunks is not None
        last_ns = -1
        for row in chain(self._first, chain.from_iterable(self._chunks)):
            if row is None:
                self._errors += 1
            elif row[0] <= last_ns:
                self._duplicates += 1
            else:
                last_ns = row[0]
                yield self._sample(last_ns, self._columns.reading(row[1]))
        if not self._frames:
            raise none_usable(self._path, self._errors + self._duplicates)

    def _release(self) -> None:
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            chunks.close()


class _ImuSeries(_ImuRecording):
    """Samples of arrays that are read at once; turn rates and accelerations of one time are one."""

    _log: ImuLog | None = None

    @abstractmethod
    def _load(self) -> ImuLog:
        """Read the arrays."""

    def _open(self) -> None:
        self._log = self._load()
        self._errors, self._duplicates = self._log.skipped, self._log.repeated

    def _read(self) -> Iterator[Sample[ImuReading]]:
        assert self._log is not None
        for t_ns, reading in merged(self._log):
            yield self._sample(t_ns, reading, self._sigma_ns())

    def _sigma_ns(self) -> float:
        """One standard deviation of the times."""
        return 0.0

    def _release(self) -> None:
        self._log = None


class CommaImu(_ImuSeries):
    """`processed_log/IMU` of a comma2k19 segment. Memory: 32 bytes a sample.

    Args:
        folder: The folder that holds `gyro` and `accelerometer`.
        sensor: Name given to the samples.
    """

    def __init__(self, folder: Path, sensor: str = "imu") -> None:
        super().__init__(sensor, FrameEvent.TRIGGER)
        self._folder = folder

    def _load(self) -> ImuLog:
        """Read the arrays.

        Raises:
            LogError: An array is absent, damaged, empty or of another shape.
        """
        log = read_comma_imu(self._folder)
        if not len(log.gyro.t_ns) + len(log.accel.t_ns):
            raise none_usable(self._folder, log.skipped + log.repeated)
        return log


class GoproImu(_ImuSeries):
    """Accelerometer and gyroscope of a GoPro video, on the clock of its pictures.

    The camera tells when a payload of some 200 samples begins, not when each was taken: sigma is
    that of a step's width. Axes are x, y, z of the camera where its ORIN tells them, else the
    columns as they stand. Memory: 32 bytes a sample and what `read_telemetry` holds.

    Args:
        path: The video.
        sensor: Name given to the samples.
        start_ns: Time of the first picture; the same as of `VideoFile`.
    """

    def __init__(self, path: Path, sensor: str = "imu", *, start_ns: Ns = NS_PER_S) -> None:
        super().__init__(sensor, FrameEvent.TRIGGER)
        self._path, self._start_ns = path, start_ns
        self._step_ns = 0

    def _load(self) -> ImuLog:
        """Read the telemetry.

        Raises:
            MediaError: The file cannot be read, or its telemetry holds no inertial samples.
        """
        telemetry = read_telemetry(self._path)
        streams = {} if telemetry is None else telemetry.streams
        found = [streams.get("GYRO"), streams.get("ACCL")]
        usable = [s for s in found if s is not None and len(s.t_ns) and s.values.shape[1] == 3]
        if not usable:
            raise MediaError(
                f"{self._path} holds no inertial telemetry",
                remedy="Give the file as the camera wrote it; editors throw its telemetry away",
            )
        self._step_ns = max(stream.step_ns for stream in usable)
        gyro, accel = (self._series(stream if stream in usable else None) for stream in found)
        left = sum(len(stream.t_ns) for stream in usable) - len(gyro.t_ns) - len(accel.t_ns)
        return ImuLog(gyro, accel, skipped=left)

    def _series(self, stream: Stream | None) -> Series:
        if stream is None:
            return Series(np.empty(0, np.int64), np.empty((0, 3)))
        values = camera_axes(stream)
        good = np.isfinite(values).all(axis=1)
        return Series(stream.t_ns[good] + self._start_ns, values[good])

    def _sigma_ns(self) -> float:
        return self._step_ns / 12**0.5


def camera_axes(stream: Stream) -> NDArray[np.float64]:
    """Samples as x, y, z: columns by ORIN, which names the axis of each, small letters negative."""
    letters = stream.axes
    if sorted(letters.lower()) != ["x", "y", "z"]:
        return stream.values
    places = [letters.lower().index(axis) for axis in "xyz"]
    signs = np.array([1.0 if letters[place].isupper() else -1.0 for place in places])
    return np.asarray(stream.values[:, places] * signs, dtype=np.float64)


def merged(log: ImuLog) -> Iterator[tuple[Ns, ImuReading]]:
    """Both series in order of time; what has one time is one sample."""
    gyro = _vectors(log.gyro)
    accel = _vectors(log.accel)
    turn, push = next(gyro, None), next(accel, None)
    while turn is not None or push is not None:
        t_ns = min(one[0] for one in (turn, push) if one is not None)
        now_turn = turn if turn is not None and turn[0] == t_ns else None
        now_push = push if push is not None and push[0] == t_ns else None
        yield t_ns, ImuReading(now_turn and now_turn[1], now_push and now_push[1])
        turn = next(gyro, None) if now_turn else turn
        push = next(accel, None) if now_push else push


def _vectors(series: Series) -> Iterator[tuple[Ns, Vector]]:
    for t_ns, (x, y, z) in zip(series.t_ns, series.values, strict=True):
        yield int(t_ns), (float(x), float(y), float(z))
