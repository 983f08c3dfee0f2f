"""The log commands: info, recover, cut, convert; the documentation's tables; the Rerun check."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from syncline import topics as table
from syncline.cli import main
from syncline.errors import DeviceError, UsageError
from syncline.log.annotations import BoxColumns, annotations_message
from syncline.log.folder import RING, list_segments
from syncline.log.info import read_info
from syncline.log.live import serve_live
from syncline.log.mapping import mapping_to_message
from syncline.log.picture import image_message
from syncline.log.reader import LogReader
from syncline.log.recorder import Recorder
from syncline.log.recovery import recover
from syncline.log.rewrite import cut
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import ManualClock, MappingSegment

from .helpers import SECOND_NS, START_NS, imu, read_all, record_drive

DOCS = Path(__file__).parents[2] / "docs"
RERUN = Path(sys.executable).with_name("rerun")
needs_rerun = pytest.mark.skipif(
    importlib.util.find_spec("rerun") is None, reason="rerun-sdk is not installed: extra `view`"
)


def test_topics_of_the_docs_are_those_of_the_table() -> None:
    text = (DOCS / "log-format.md").read_text()
    rows = re.findall(r"^\| `(/[^`]+)` \| `([^`]+)` \| (\w+) \| ([\w-]+) \|$", text, re.MULTILINE)
    want = [(t.name, t.schema, t.file.value, t.drop.value) for t in table.TOPICS]
    assert rows == want


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, pictures = record_drive(tmp_path)
    info = read_info(tmp_path)
    assert [(t.topic, t.messages) for t in info.topics] == [
        ("/camera/front/image", pictures),
        ("/imu/a", samples),
    ]
    assert info.topics[1].rate_hz == pytest.approx(100, rel=0.01)
    (boot,) = info.boots
    assert (boot.boot_id, boot.device, boot.start_raw_ns) == ("manual", "car-1", START_NS)
    assert boot.duration_s == pytest.approx(2.99)
    assert info.truncated == []
    assert main(["log", "info", str(tmp_path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["messages"] == samples + pictures
    assert main(["log", "info", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("/imu/a" in line and " 300 " in line for line in lines)


def test_info_tells_mapping_and_truncation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = ManualClock(START_NS)
    with Recorder(tmp_path, clock=clock, device="d") as recorder:
        mapping = MappingSegment(1, 0, "manual", START_NS, 10**18, hard_bound_ns=500)
        recorder.write("/time/mapping", mapping_to_message(mapping), START_NS)
        recorder.write("/imu/a", imu(START_NS), START_NS)
    (boot,) = read_info(tmp_path).boots
    assert (boot.mapping_segments, boot.start_utc_ns, boot.start_utc_bound_ns) == (1, 10**18, 500)
    (segment,) = list_segments(tmp_path / RING)
    tel = segment.path / "tel.mcap"
    tel.write_bytes(tel.read_bytes()[:-100])
    info = read_info(tmp_path)
    assert info.truncated == [str(tel)]
    assert info.messages == 2
    assert main(["log", "info", str(tmp_path)]) == 0
    assert "truncated" in capsys.readouterr().out


def test_recover_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_drive(tmp_path, 1.0, segment_s=10)
    (segment,) = list_segments(tmp_path / RING)
    cam = segment.path / "cam.mcap"
    whole = read_all(cam)
    cam.write_bytes(cam.read_bytes()[: cam.stat().st_size * 2 // 3])
    out = tmp_path / "saved.mcap"
    assert main(["log", "recover", str(cam), str(out), "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    saved = read_all(out)
    assert report["messages"] == len(saved) > 3
    assert [bytes(r.data) for r in saved] == [bytes(r.data) for r in whole[: len(saved)]]
    assert [r.sequence for r in saved] == [r.sequence for r in whole[: len(saved)]]
    assert main(["log", "recover", str(cam), str(out)]) == UsageError.exit_code
    assert "exists. Choose another output" in capsys.readouterr().err
    assert main(["log", "recover", str(tmp_path)]) == 0
    assert read_info(tmp_path).truncated == []
    assert main(["log", "recover", str(tmp_path)]) == 0
    assert "nothing to recover" in capsys.readouterr().out


def test_recover_goes_on_behind_damage(tmp_path: Path) -> None:
    """A finished file with a broken chunk in the middle keeps all others, and its attachment."""
    path = tmp_path / "a.mcap"
    record_drive(tmp_path / "drive", 1.0, segment_s=10)
    (segment,) = list_segments(tmp_path / "drive" / RING)
    data = bytearray((segment.path / "tel.mcap").read_bytes())
    with LogReader(segment.path / "tel.mcap") as reader:
        (log,) = reader.files()
        refs = log.index.chunks
        assert len(refs) >= 3
        middle = refs[1]
    data[middle.offset - 8 : middle.offset] = (2**40).to_bytes(8, "little")
    path.write_bytes(data)
    out = tmp_path / "out.mcap"
    report = recover(path, out)
    kept = len(read_all(out))
    assert report.chunks == len(refs) - 1
    assert 0.5 * 100 < kept < 100
    assert report.lost_bytes > 0


def test_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_drive(tmp_path / "drive", 3.0)
    out = tmp_path / "cut.mcap"
    command = ["log", "cut", str(tmp_path / "drive"), str(out), "--from", "0.5", "--to", "1.5"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["messages"] == 110
    want = read_all(
        tmp_path / "drive", from_raw_ns=START_NS + SECOND_NS // 2,
        to_raw_ns=START_NS + 3 * SECOND_NS // 2,
    )  # fmt: skip
    got = read_all(out)
    assert [(r[:4], bytes(r.data)) for r in got] == [(r[:4], bytes(r.data)) for r in want]
    assert got[0].boot_id == "manual"
    assert main(["log", "cut", str(tmp_path / "drive"), str(out), "--from", "2", "--to", "1"]) == 2
    only = tmp_path / "only.mcap"
    assert cut(tmp_path / "drive", only, topics=["/camera/front/image"]).messages == 30


def test_cut_refuses_two_boots(tmp_path: Path) -> None:
    for boot in ("one", "two"):
        record_drive(tmp_path / "drive", 0.2, clock=ManualClock(START_NS, boot))
    with pytest.raises(UsageError, match="holds 2 boots"):
        cut(tmp_path / "drive", tmp_path / "out.mcap")


def record_pictures(folder: Path) -> None:
    """Three pictures with boxes, on two topics."""
    import cv2
    import numpy as np

    clock = ManualClock(START_NS)
    with Recorder(folder, clock=clock, device="d") as recorder:
        for i in range(3):
            now = clock.raw_ns()
            data = cv2.imencode(".jpg", np.full((48, 64, 3), 60 * i, np.uint8))[1].tobytes()
            boxes = pb.Detections(
                camera="f", mid_raw_ns=now, x0_px=[5], y0_px=[6], x1_px=[25], y1_px=[36],
                score=[0.5], class_id=[2], valid=True,
            )  # fmt: skip
            recorder.write("/camera/f/image", image_message(now, "f", data, "jpeg"), now)
            recorder.write("/camera/f/detections", boxes, now)
            b = boxes
            columns = BoxColumns(b.x0_px, b.y0_px, b.x1_px, b.y1_px, b.score, b.class_id)
            recorder.write("/camera/f/annotations", annotations_message(now, columns), now)
            recorder.write("/imu/a", imu(now), now)
            clock.advance(100_000_000)


def run_rerun(home: Path, *args: str) -> str:
    """The rerun command with its analytics off."""
    env = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    subprocess.run([RERUN, "analytics", "disable"], env=env, check=True, capture_output=True)
    done = subprocess.run([RERUN, *args], env=env, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


@needs_rerun
def test_rerun_checks_our_files(tmp_path: Path) -> None:
    """link-5 and issue: `rerun mcap check` passes on what we record and on what we recover."""
    record_pictures(tmp_path / "drive")
    (segment,) = list_segments(tmp_path / "drive" / RING)
    cam = segment.path / "cam.mcap"
    recovered = tmp_path / "recovered.mcap"
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(cam.read_bytes()[:-300])
    recover(broken, recovered)
    whole = tmp_path / "whole.mcap"
    cut(tmp_path / "drive", whole)
    for path in (cam, segment.path / "tel.mcap", recovered, whole):
        text = run_rerun(tmp_path, "mcap", "check", str(path))
        assert "ok " in text
        assert "error" not in text.lower()


@needs_rerun
def test_rerun_shows_pictures_and_boxes(tmp_path: Path) -> None:
    """Issue: pictures, and boxes after our converter, are in the .rrd."""
    record_pictures(tmp_path / "drive")
    out = tmp_path / "out.rrd"
    assert main(["log", "convert", str(tmp_path / "drive"), str(out), "--to", "rerun"]) == 0
    text = run_rerun(tmp_path, "rrd", "print", "-vv", str(out))
    for part in ("Boxes2D", "EncodedImage", "/camera/f/image/detections", "Scalars"):
        assert part in text


def test_converting_for_rerun_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    record_drive(tmp_path / "drive", 0.1)
    command = ["log", "convert", str(tmp_path / "drive"), str(tmp_path / "a.rrd"), "--to", "rerun"]
    assert main(command) == UsageError.exit_code
    assert "pip install 'syncline[view]'" in capsys.readouterr().err


def test_live_view_answers_on_loopback(tmp_path: Path) -> None:
    """link-9: a viewer sees what is recorded; the port is on 127.0.0.1 alone."""
    with Recorder(tmp_path, clock=ManualClock(START_NS), device="d") as recorder:
        recorder.write("/imu/a", imu(1), 1)
        server = serve_live(recorder, name="car", port=0)
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as peer:
            peer.sendall(
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: foxglove.sdk.v1\r\n\r\n"
            )
            got = b""
            while b"/imu/a" not in got:
                got += peer.recv(1 << 16)
        assert b'"name":"car"' in got
        with pytest.raises(DeviceError, match=r"cannot listen on 127\.0\.0\.1"):
            serve_live(recorder, name="second", port=server.port)
        server.stop()
