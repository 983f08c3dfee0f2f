"""MF4 logs that store their buses apart: one stream in order of time."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest

from syncline.errors import LogError
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters import mf4_log
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.mf4_log import Mf4Log

asammdf = pytest.importorskip("asammdf")

START = datetime.datetime(2026, 3, 1, 12, 0, 0, tzinfo=datetime.UTC)
START_NS = round(START.timestamp()) * 10**9
_FIELDS = [
    ("CAN_DataFrame.BusChannel", "u1"),
    ("CAN_DataFrame.ID", "<u4"),
    ("CAN_DataFrame.IDE", "u1"),
    ("CAN_DataFrame.DataLength", "u1"),
    ("CAN_DataFrame.DataBytes", "u1", (8,)),
]


def write_log(path: Path, buses: list[tuple[int, list[float]]]) -> None:
    """A log with one group per bus; a frame's data are its bus and number."""
    with asammdf.MDF(version="4.10") as log:
        log.header.start_time = START
        for bus, times_s in buses:
            table = np.zeros(len(times_s), dtype=_FIELDS)
            table["CAN_DataFrame.BusChannel"] = bus
            table["CAN_DataFrame.ID"] = 0x100 + bus
            table["CAN_DataFrame.DataLength"] = 2
            table["CAN_DataFrame.DataBytes"][:, 0] = bus
            table["CAN_DataFrame.DataBytes"][:, 1] = np.arange(len(times_s)) % 256
            times = np.array(times_s, dtype=np.float64)
            log.append(asammdf.Signal(table, timestamps=times, name="CAN_DataFrame"))
        log.save(path, overwrite=True)


def frames_of(path: Path) -> tuple[list[Sample[CanFrame]], Mf4Log]:
    log = Mf4Log(path)
    return list(log.frames()), log


@pytest.mark.parametrize("chunk", [1, 7, 8192])
def test_buses_that_a_file_stores_apart_come_in_order_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(mf4_log, "CHUNK_ROWS", chunk)
    rng = np.random.default_rng(3)
    buses = [
        (bus, np.sort(np.round(rng.uniform(0.0, 5.0, count), 6)).tolist())
        for bus, count in ((1, 90), (2, 40), (3, 1), (4, 130))
    ]
    path = tmp_path / "log.mf4"
    write_log(path, buses)
    frames, log = frames_of(path)
    assert len(frames) == 261
    times = [frame.arrival.t_ns for frame in frames]
    assert times == sorted(times)
    for bus, times_s in buses:
        own = [frame for frame in frames if frame.sensor == f"can{bus}"]
        assert [frame.payload.data[1] for frame in own] == list(range(len(own)))
        wanted = [START_NS + round(t * 1e9) for t in times_s]
        assert [frame.arrival.t_ns for frame in own] == wanted
    assert (log.health().errors, log.health().detail) == (0, "")


def test_frames_of_one_instant_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.mf4"
    write_log(path, [(2, [1.0, 1.0, 2.0]), (1, [1.0, 2.0])])
    frames, _ = frames_of(path)
    assert [(f.sensor, f.payload.data[1]) for f in frames] == [
        ("can2", 0), ("can2", 1), ("can1", 0), ("can2", 2), ("can1", 1),
    ]  # fmt: skip


def test_a_bus_that_steps_back_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.mf4"
    write_log(path, [(1, [1.0, 2.0, 1.5, 3.0]), (2, [1.2, 2.5])])
    frames, log = frames_of(path)
    assert len(frames) == 6
    assert log.health().detail == "1 frames before an earlier one"
    assert [f.arrival.t_ns for f in frames if f.sensor == "can2"] == [
        START_NS + 1_200_000_000, START_NS + 2_500_000_000,
    ]  # fmt: skip


def test_a_log_with_absurdly_many_groups_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mf4_log, "MAX_GROUPS", 2)
    path = tmp_path / "log.mf4"
    write_log(path, [(bus, [1.0]) for bus in (1, 2, 3)])
    with pytest.raises(LogError, match="3 groups, limit 2"):
        frames_of(path)
