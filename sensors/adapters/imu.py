"""Inertial data: one sample, and recordings as arrays (EuRoC, CSV with named columns, comma2k19).

Turn rates are rad/s, accelerations m/s^2, times int64 nanoseconds on the recording's own clock.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Generator
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from syncline.errors import LogError
from syncline.timebase import NS_PER_S

MAX_ROWS = 20_000_000
"""Rows that are read at most: a day at 200 Hz, 56 bytes each."""

MAX_FIELD_CHARS = 4096
CHUNK_ROWS = 4096
LATEST_NS = 2**62

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a CSV hold what.

    Attributes:
        time: Name of the time column.
        time_unit_ns: Nanoseconds of one unit of it: 1, 1000, 1_000_000 or 1_000_000_000.
        gyro: Names of the turn rates x, y, z.
        accel: Names of the accelerations x, y, z.
        gyro_scale: Factor to rad/s.
        accel_scale: Factor to m/s^2.
        delimiter: Between fields.
    """

    time: str
    time_unit_ns: int
    gyro: tuple[str, str, str]
    accel: tuple[str, str, str]
    gyro_scale: float = 1.0
    accel_scale: float = 1.0
    delimiter: str = ","

    def reading(self, values: list[float]) -> ImuReading:
        """One sample of six numbers of a row, in rad/s and m/s^2."""
        gx, gy, gz = (self.gyro_scale * value for value in values[:3])
        ax, ay, az = (self.accel_scale * value for value in values[3:])
        return ImuReading((gx, gy, gz), (ax, ay, az))


EUROC = Columns(
    "#timestamp [ns]",
    1,
    ("w_RS_S_x [rad s^-1]", "w_RS_S_y [rad s^-1]", "w_RS_S_z [rad s^-1]"),
    ("a_RS_S_x [m s^-2]", "a_RS_S_y [m s^-2]", "a_RS_S_z [m s^-2]"),
)


@dataclass(frozen=True, slots=True)
class Series:
    """Three axes over time.

    Attributes:
        t_ns: int64 (N,), ascending.
        values: float64 (N, 3).
    """

    t_ns: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ImuReading:
    """One sample of an inertial sensor; None for what it does not measure.

    Attributes:
        gyro: (x, y, z) rad/s.
        accel: (x, y, z) m/s^2.
    """

    gyro: Vector | None
    accel: Vector | None


@dataclass(frozen=True, slots=True)
class ImuLog:
    """A recording of one inertial sensor.

    Attributes:
        gyro: rad/s.
        accel: m/s^2.
        skipped: Rows thrown away: not numbers, not finite.
        repeated: Rows thrown away: their time does not ascend.
    """

    gyro: Series
    accel: Series
    skipped: int = 0
    repeated: int = 0


def read_imu_csv(path: Path, columns: Columns = EUROC) -> ImuLog:
    """Read a CSV; unusable rows are counted and left out.

    Memory: 56 bytes per row, at most `MAX_ROWS` rows.

    Raises:
        LogError: The file cannot be read, lacks a column, or holds no usable row.
    """
    t_parts: list[NDArray[np.int64]] = []
    v_parts: list[NDArray[np.float64]] = []
    skipped = repeated = rows = 0
    last_ns = -1
    for chunk in csv_rows(path, columns):
        rows += len(chunk)
        if rows > MAX_ROWS:
            raise LogError(f"{path}: more than {MAX_ROWS} rows", remedy="Cut the file into parts")
        usable = [row for row in chunk if row is not None]
        skipped += len(chunk) - len(usable)
        ascending = []
        for row in usable:
            if row[0] <= last_ns:
                repeated += 1
                continue
            last_ns = row[0]
            ascending.append(row)
        t_parts.append(np.array([row[0] for row in ascending], dtype=np.int64))
        v_parts.append(np.array([row[1] for row in ascending], dtype=np.float64).reshape(-1, 6))
    t_ns = np.concatenate(t_parts) if t_parts else np.empty(0, np.int64)
    if not len(t_ns):
        raise none_usable(path, rows)
    values = np.concatenate(v_parts)
    gyro, accel = values[:, :3] * columns.gyro_scale, values[:, 3:] * columns.accel_scale
    return ImuLog(Series(t_ns, gyro), Series(t_ns, accel), skipped, repeated)


Row = tuple[int, list[float]]


def none_usable(path: Path, rows: int) -> LogError:
    """The error of a recording without a sample."""
    return LogError(
        f"{path}: none of {rows} rows can be used",
        remedy="Check the column names, units and delimiter",
    )


def csv_rows(path: Path, columns: Columns) -> Generator[list[Row | None], None, None]:
    """Rows in chunks, at least one; None for a row that holds no finite numbers.

    Raises:
        LogError: The file cannot be read or lacks a column.
    """
    csv.field_size_limit(MAX_FIELD_CHARS)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, delimiter=columns.delimiter)
            places = _places(path, next(reader, []), columns)
            chunk: list[Row | None] = []
            for fields in reader:
                if not fields:
                    continue
                chunk.append(_row(fields, places, columns.time_unit_ns))
                if len(chunk) == CHUNK_ROWS:
                    yield chunk
                    chunk = []
            yield chunk
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LogError(f"cannot read {path}: {error}", remedy="Give a CSV text file") from error


def _places(path: Path, header: list[str], columns: Columns) -> list[int]:
    names = [name.strip() for name in header]
    wanted = [columns.time, *columns.gyro, *columns.accel]
    absent = [name for name in wanted if name not in names]
    if absent:
        raise LogError(
            f"{path}: no column {absent[0]!r} among {', '.join(names)[:200]!r}",
            remedy="Name the file's columns in Columns",
        )
    return [names.index(name) for name in wanted]


def _row(fields: list[str], places: list[int], unit_ns: int) -> Row | None:
    try:
        t_ns = int(Decimal(fields[places[0]]) * unit_ns)
        values = [float(fields[place]) for place in places[1:]]
    except (ValueError, IndexError, OverflowError, DecimalException):
        return None
    if not 0 <= t_ns < LATEST_NS or not all(map(math.isfinite, values)):
        return None
    return t_ns, values


def read_comma_imu(folder: Path) -> ImuLog:
    """Read `processed_log/IMU` of a comma2k19 segment; seconds since boot become nanoseconds.

    Raises:
        LogError: An array is absent, damaged or of another shape.
    """
    gyro, bad_gyro, late_gyro = _comma_series(folder / "gyro")
    accel, bad_accel, late_accel = _comma_series(folder / "accelerometer")
    return ImuLog(gyro, accel, bad_gyro + bad_accel, late_gyro + late_accel)


def _comma_series(folder: Path) -> tuple[Series, int, int]:
    t_s, values = _load(folder / "t"), _load(folder / "value")
    if t_s.ndim != 1 or values.shape != (len(t_s), 3) or len(t_s) > MAX_ROWS:
        raise LogError(
            f"{folder}: t {t_s.shape} and value {values.shape} must be (N,) and (N, 3), "
            f"N <= {MAX_ROWS}"
        )
    good = np.isfinite(t_s) & np.isfinite(values).all(axis=1) & (t_s >= 0.0) & (t_s < 4e9)
    t_ns = np.rint(t_s[good] * NS_PER_S).astype(np.int64)
    highest = np.maximum.accumulate(np.concatenate([[-1], t_ns]))
    ascends = t_ns > highest[:-1]
    series = Series(t_ns[ascends], values[good][ascends])
    return series, int((~good).sum()), int((~ascends).sum())


def _load(path: Path) -> NDArray[np.float64]:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (OSError, ValueError, EOFError) as error:
        raise LogError(
            f"cannot read array {path}: {error}", remedy="Give the folder that holds both arrays"
        ) from error
