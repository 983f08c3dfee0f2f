"""`syncline sensors group`: two cameras and an IMU in one recording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from syncline.cli import main
from syncline.cli.sensors_group import reordered
from syncline.edge.records import mode_message
from syncline.log.recorder import Recorder
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.mode import SensorMode, Shutter
from syncline.timebase import ManualClock

MS = 1_000_000
MODE = mode_message(SensorMode.simple(64, 48, shutter=Shutter.GLOBAL))


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Front every 50 ms, rear 3 ms later but for frame 4; IMU every 10 ms, written late."""
    clock = ManualClock(0, "boot")
    folder = tmp_path / "drive"
    with Recorder(folder, clock=clock, device="d") as recorder:
        for k in range(10):
            t_ns = 1000 * MS + k * 50 * MS
            clock.sleep_until(t_ns)
            cameras = {"front": t_ns, "rear": t_ns + 3 * MS}
            for camera, mid_ns in cameras.items():
                if (camera, k) == ("rear", 4):
                    continue
                timing = pb.FrameTiming(
                    camera=camera, boot_id="boot", index=k, soe_raw_ns=mid_ns - MS,
                    mid_raw_ns=mid_ns, eof_raw_ns=mid_ns + MS, exposure_ns=2 * MS, mode=MODE,
                    trigger_id=-1, anchor=pb.ANCHOR_TRIGGER,
                )  # fmt: skip
                recorder.write(f"/camera/{camera}/timing", timing, mid_ns)
            for j in range(5):
                at_ns = t_ns + j * 10 * MS
                recorder.write("/imu/imu0", pb.ImuSample(sensor="imu0", raw_ns=at_ns), at_ns)
    return folder


def test_groups_are_complete_or_say_who_is_missing(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """sensors-42, as a command."""
    out = tmp_path / "groups.jsonl"
    command = ["sensors", "group", str(drive), "--tolerance-ms", "5", "--window-ms", "12"]
    assert main([*command, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "10 groups, 9 complete (90.0%)" in text
    assert "median 3.000 ms" in text
    assert "rear: missing in 1 groups" in text
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["missing"] for row in rows] == [["rear"] if k == 4 else [] for k in range(10)]
    times = [row["raw_ns"] for row in rows]
    assert times == sorted(times)
    # Within 12 ms of 1101.5 ms, and one beyond either end.
    assert rows[2]["samples_raw_ns"] == {
        "/imu/imu0": [t * MS for t in (1080, 1090, 1100, 1110, 1120)]
    }
    assert main([*command, "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err


def test_one_camera_alone_and_one_that_is_not_there(
    drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sensors", "group", str(drive), "--cameras", "rear", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["groups"], body["complete"], body["spread_p99_ms"]) == (9, 9, 0.0)
    assert main(["sensors", "group", str(drive), "--cameras", "left"]) == 2
    assert "It holds: front, rear" in capsys.readouterr().err
    assert main(["sensors", "group", str(drive), "--tolerance-ms", "nan"]) == 2


def test_entries_are_put_in_order_within_the_depth() -> None:
    entries = [(t, n, "", None) for n, t in enumerate((5, 3, 9, 7, 30, 28, 29))]
    assert [t for t, *_ in reordered(entries, 5)] == [3, 5, 7, 9, 28, 29, 30]
