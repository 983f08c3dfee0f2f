"""`syncline doctor FILE`: what recorded data are and what their stamps mean."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from syncline.cli import main
from syncline.cli.doctor_files import examine_file
from syncline.log.clip import export_clip
from tests.adapters.test_containers import jittered, write
from tests.replay.rig import BOOT_A, record_boot, segment


def told(path: Path) -> str:
    finding = examine_file(path)
    assert finding.state == "ok", finding.detail
    return finding.detail


def test_real_recordings_of_every_kind(shared_data: Path) -> None:
    gnss = told(shared_data / "gnss/gpsd/ublox-8.log")
    assert gnss.startswith("GNSS receiver, 72 epochs, 72 with a fix from 2017-01-10T00:09:41")
    assert "stamp: UTC of the epoch, by the receiver" in gnss
    bus = told(shared_data / "drive_logs/css_can/2F6913DB_00000001.MF4")
    assert "221 of can1, 5367 of can2; stamp: reception, the logger's own clock" in bus
    imu = told(shared_data / "euroc_micro/mav0/imu0/data.csv")
    assert imu == "inertial (EuRoC), 29120 samples at 200.0 Hz; stamp: as recorded"
    pictures = told(shared_data / "euroc_micro")
    assert "15 frames" in pictures
    assert "stamp: middle of exposure, the recording's own clock" in pictures


def test_files_of_our_own(tmp_path: Path) -> None:
    write(tmp_path / "plain.mp4", jittered(), {})
    assert "container tick" in told(tmp_path / "plain.mp4")
    record_boot(tmp_path / "rec", BOOT_A, 6, segments=(segment(1, BOOT_A, 10**9),))
    export_clip(tmp_path / "rec", tmp_path / "clip.mp4")
    for path in (tmp_path / "rec", tmp_path / "clip.mp4"):
        assert "times as recorded, anchor readout" in told(path)
        assert told(path).endswith("UTC by 1 mapping segments")
    dump = tmp_path / "bus.log"
    dump.write_text("(1436509052.249713) can0 123#DEADBEEF\n(1436509052.3) can1 124#00\nx\n")
    assert told(dump) == (
        "CAN log (candump), 0.1 s: 1 of can0, 1 of can1; stamp: reception, by the kernel, REALTIME "
        "of the recording machine; 1 damaged"
    )


def test_what_is_nothing_says_so_and_ends_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    paths = [str(tmp_path / name) for name in ("text", "empty", "absent")]
    assert main(["doctor", "--json", *paths]) == 1
    rows = msgspec.json.decode(capsys.readouterr().out)["findings"]
    assert [row["what"] for row in rows] == paths
    assert all(row["state"] == "fail" and row["remedy"] for row in rows)
    assert rows[0]["detail"].startswith("nothing that syncline reads")
    assert "No such file" in rows[2]["detail"]
