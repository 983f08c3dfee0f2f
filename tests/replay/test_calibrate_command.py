"""`syncline sensors calibrate` from a recording to the answer and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from syncline import topics
from syncline.cli import main
from syncline.edge.pipeline import Pipeline, PipelineOptions
from syncline.edge.recorded_time import recorded_timer
from syncline.edge.records import imu_message
from syncline.log.recorder import Recorder
from syncline.sensors.frame import Anchor
from syncline.sensors.mode import SensorMode, Shutter
from syncline.timebase import NS_PER_S, ManualClock

from .rig import BOOT_A, PERIOD_NS, raw_frame

pytest.importorskip("matplotlib")
WIDTH, HEIGHT = 192, 144
MATRIX = "150,150,96,72"
LATER_NS = 4_000_000
FRAMES = 60


def pictures() -> list[np.ndarray]:
    """A far texture seen by a camera that turns to and fro about two axes."""
    noise = np.random.default_rng(1).integers(0, 255, (480, 640), dtype=np.uint8)
    soft = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.0), dtype=np.float64)
    far = ((soft - soft.min()) * (255 / np.ptp(soft))).astype(np.uint8)
    inner = np.array([[150.0, 0, 96], [0, 150.0, 72], [0, 0, 1]])
    outer = np.array([[150.0, 0, 320], [0, 150.0, 240], [0, 0, 1]])
    out = []
    for t in np.arange(FRAMES) * PERIOD_NS / NS_PER_S:
        turn = np.array([0.12 * np.sin(5.0 * t), 0.15 * np.sin(7.3 * t + 1.0), 0.0])
        warp = outer @ cv2.Rodrigues(turn)[0] @ np.linalg.inv(inner)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        grey = cv2.warpPerspective(far, warp, (WIDTH, HEIGHT), flags=flags)
        out.append(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    return out


def rate(t_s: float) -> tuple[float, float, float]:
    """What a gyro on those cameras feels, to first order."""
    return 0.6 * float(np.cos(5.0 * t_s)), 1.095 * float(np.cos(7.3 * t_s + 1.0)), 0.0


def record_imu(recorder: Recorder) -> None:
    """A gyro that runs a little longer than the cameras on both sides, exact but for its place."""
    for at_ns in range(NS_PER_S // 2, 5 * NS_PER_S, NS_PER_S // 200):
        felt = rate((at_ns - NS_PER_S - PERIOD_NS) / NS_PER_S)
        sample = imu_message("imu0", BOOT_A, at_ns, 0.0, felt, (0.0, 0.0, 9.8))
        assert recorder.write(topics.IMU.of("imu0"), sample, at_ns)


def record(folder: Path, mode: SensorMode, *, imu: bool = False) -> None:
    """Two cameras that see the same; the right one's clock is 4 ms ahead."""
    clock = ManualClock(NS_PER_S, BOOT_A)
    pipeline = Pipeline(BOOT_A, PipelineOptions(images=True))
    cameras = {"left": 0, "right": LATER_NS}
    timers = {name: recorded_timer(mode, Anchor.READOUT, (2e3, 2e3)) for name in cameras}
    with Recorder(folder, clock=clock, device="car", lossless=True) as recorder:
        for index, picture in enumerate(pictures()):
            for name, late_ns in cameras.items():
                end_ns = NS_PER_S + (index + 1) * PERIOD_NS + late_ns
                frame = raw_frame(name, index, end_ns, picture)
                for output in pipeline.captured(frame, timers[name].stamp(frame)):
                    clock.sleep_until(output.raw_ns)
                    assert recorder.write(output.topic, output.message, output.raw_ns)
        if imu:
            record_imu(recorder)


def calibrate(folder: Path, *more: str) -> int:
    return main(["sensors", "calibrate", str(folder), "--camera=left", f"--matrix={MATRIX}", *more])


def test_two_cameras_of_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """sensors-39: camera-camera offset with its uncertainty, the line time checked, a picture."""
    mode = SensorMode.simple(
        WIDTH, HEIGHT, period_ns=float(PERIOD_NS), shutter=Shutter.GLOBAL, readout_ns=1e6
    )
    record(tmp_path / "drive", mode)
    picture = tmp_path / "offset.png"
    assert calibrate(tmp_path / "drive", "--other=right", f"--plot={picture}", "--json") == 0
    got = json.loads(capsys.readouterr().out)
    assert abs(got["offset_ns"] - LATER_NS) <= max(3 * got["sigma_ns"], 200_000)
    assert got["way"] == "the pictures alone"
    assert got["explained"] > 0.95
    assert "agrees with the measured period" in got["line_time"]
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert drawn.shape[1] > 1000
    assert calibrate(tmp_path / "drive") == 2
    assert "--imu NAME, or --other CAMERA" in capsys.readouterr().err


def test_two_cameras_by_way_of_an_imu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """sensors-39: where the recording holds a gyro that serves, it is taken, and said so."""
    mode = SensorMode.simple(
        WIDTH, HEIGHT, period_ns=float(PERIOD_NS), shutter=Shutter.GLOBAL, readout_ns=1e6
    )
    record(tmp_path / "drive", mode, imu=True)
    assert calibrate(tmp_path / "drive", "--other=right", "--json") == 0
    got = json.loads(capsys.readouterr().out)
    assert got["way"] == "imu0"
    assert abs(got["offset_ns"] - LATER_NS) <= max(3 * got["sigma_ns"], 200_000)


def test_a_line_time_that_contradicts_the_period(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """sensors-34: 1 % off is refused before anything is estimated."""
    mode = SensorMode.simple(WIDTH, HEIGHT, period_ns=1.01 * PERIOD_NS, readout_ns=14e6)
    record(tmp_path / "drive", mode)
    assert calibrate(tmp_path / "drive", "--other=right") == 3
    assert "line_time_ns" in capsys.readouterr().err
