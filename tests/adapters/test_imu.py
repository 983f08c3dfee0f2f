"""Recorded inertial data: real EuRoC and comma2k19 files, and rows that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from syncline.errors import LogError
from syncline.sensors.adapters.imu import Columns, read_comma_imu, read_imu_csv

PLAIN = Columns("t", 1_000_000_000, ("gx", "gy", "gz"), ("ax", "ay", "az"), 0.5, 2.0, ";")


def test_euroc(shared_data: Path) -> None:
    log = read_imu_csv(shared_data / "euroc_micro" / "mav0" / "imu0" / "data.csv")
    assert len(log.gyro.t_ns) == 29_120
    assert (log.skipped, log.repeated) == (0, 0)
    assert log.gyro.t_ns[0] == 1_403_715_273_262_142_976  # exact: no float on the way
    assert np.median(np.diff(log.gyro.t_ns)) == pytest.approx(5_000_000, rel=1e-3)
    assert np.linalg.norm(log.accel.values, axis=1).mean() == pytest.approx(9.8, abs=0.3)


def test_comma2k19(shared_data: Path) -> None:
    log = read_comma_imu(shared_data / "drive_logs" / "comma2k19" / "processed_log" / "IMU")
    rate_hz = 1e9 / np.median(np.diff(log.gyro.t_ns))
    assert rate_hz == pytest.approx(104, rel=0.03)
    assert np.linalg.norm(log.accel.values, axis=1).mean() == pytest.approx(9.8, abs=0.3)
    assert log.skipped == 0


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["az; t ;gx;gy;gz;ax;ay", *lines]) + "\n")
    return path


def test_columns_units_and_bad_rows(tmp_path: Path) -> None:
    """Rows that are no numbers, not finite or out of order are counted and left out."""
    log = read_imu_csv(
        write(
            tmp_path / "imu.csv",
            "3;1.000000001;1;1;1;1;2",
            "3;1.000000001;1;1;1;1;2",
            "3;0.5;1;1;1;1;2",
            "3;x;1;1;1;1;2",
            "3;2;nan;1;1;1;2",
            "3;2;1",
            "3;-4;1;1;1;1;2",
            "3;1e400;1;1;1;1;2",
            "3;NaN;1;1;1;1;2",
            "3;1700000000.123456789;2;4;6;1;2",
        ),
        PLAIN,
    )
    assert log.gyro.t_ns.tolist() == [1_000_000_001, 1_700_000_000_123_456_789]
    assert (log.skipped, log.repeated) == (6, 2)
    np.testing.assert_array_equal(log.gyro.values[1], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(log.accel.values[0], [2.0, 4.0, 6.0])


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="none of 1 rows"):
        read_imu_csv(write(tmp_path / "a.csv", "x;x;x;x;x;x;x"), PLAIN)
    with pytest.raises(LogError, match="no column '#timestamp"):
        read_imu_csv(write(tmp_path / "b.csv"))
    with pytest.raises(LogError, match="cannot read"):
        read_imu_csv(tmp_path / "absent.csv")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00" * 50)
    with pytest.raises(LogError, match="cannot read"):
        read_imu_csv(tmp_path / "c.csv")
    (tmp_path / "gyro").mkdir()
    (tmp_path / "gyro" / "t").write_bytes(b"\x93NUMPY garbage")
    with pytest.raises(LogError, match="cannot read array"):
        read_comma_imu(tmp_path)
