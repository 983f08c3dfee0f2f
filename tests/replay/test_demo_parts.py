"""Parts of the demo: the renderer's process, the collector's start, plot and report."""

from __future__ import annotations

import os
import pickle
import signal
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from syncline.cli import main
from syncline.demo.cloud_side import first_line
from syncline.demo.plot import claimed_error_us
from syncline.demo.report import _splits
from syncline.demo.scenery import DriveSpec, RenderProcess
from syncline.errors import SynclineError
from syncline.sensors.synthetic.camera import DriveFrame
from syncline.timebase import NS_PER_S, OsClock

SPEC = DriveSpec(5, 1.0, "demo-5", 1_790_000_000 * NS_PER_S)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_process_renders_what_the_drive_is() -> None:
    """Same events, same order, same pixels as in this process: the digest rests on it."""
    renderer = RenderProcess(SPEC)
    try:
        there = list(renderer.events())
    finally:
        renderer.close()
    here = list(SPEC.drive().events())
    assert len(there) == len(here) > 100
    pictures = 0
    for a, b in zip(there, here, strict=True):
        assert type(a) is type(b)
        assert a.arrival_raw_ns == b.arrival_raw_ns
        if isinstance(a, DriveFrame) and isinstance(b, DriveFrame):
            np.testing.assert_array_equal(a.image, b.image)
            assert a.truth.boxes == b.truth.boxes
            assert a.truth.mid_raw_ns == b.truth.mid_raw_ns
            pictures += 1
        else:
            assert a == b
    assert pictures >= 15
    assert gone(renderer.pid)


def test_a_renderer_is_ended_early_without_a_rest() -> None:
    renderer = RenderProcess(SPEC)
    assert next(renderer.events()) is not None
    renderer.close()
    assert gone(renderer.pid)


def test_a_killed_renderer_is_an_error_and_not_a_short_drive() -> None:
    renderer = RenderProcess(DriveSpec(5, 60.0, "demo-5", SPEC.utc0_ns))
    try:
        events = renderer.events()
        next(events)
        os.kill(renderer.pid, signal.SIGKILL)
        with pytest.raises(SynclineError, match="ended early"):
            for _ in events:
                pass
    finally:
        renderer.close()


def test_a_failing_renderer_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    renderer = RenderProcess(DriveSpec(5, 0.0, "demo-5", SPEC.utc0_ns))
    try:
        with pytest.raises(SynclineError, match=r"duration_s=0\.0"):
            list(renderer.events())
    finally:
        renderer.close()


def test_events_are_small_beside_their_pictures() -> None:
    frame = next(e for e in SPEC.drive().events() if isinstance(e, DriveFrame))
    assert len(pickle.dumps(frame, protocol=5)) < frame.image.nbytes + 20_000


def test_waiting_for_a_line_is_bounded() -> None:
    """A collector that starts and says nothing must not hold the demo for ever."""
    read, write = os.pipe()
    begin_ns = OsClock().raw_ns()
    with os.fdopen(read, "rb", buffering=0) as pipe:
        assert first_line(pipe, 0.2) == b""
        assert OsClock().raw_ns() - begin_ns >= 0.2 * NS_PER_S
        os.write(write, b"listening on x\nkey")
        assert first_line(pipe, 5.0) == b"listening on x"
        os.write(write, b"half")
        os.close(write)
        assert first_line(pipe, 5.0) == b"half"


def test_the_band_of_the_plot_is_the_claim_that_is_scored() -> None:
    """Truth in [mid + low - 2 sigma, mid + high + 2 sigma]: the error is claimed the other way."""
    timing = namedtuple("timing", "sigma_ns bias_ns")
    frame = namedtuple("frame", "timing")
    frames = [frame(timing(10_000.0, (-150_000, 0))), frame(timing(5_000.0, (-20_000, 30_000)))]
    low, high = claimed_error_us(frames)  # type: ignore[arg-type]
    np.testing.assert_allclose(low, [-20.0, -40.0])
    np.testing.assert_allclose(high, [170.0, 30.0])


def test_splits_are_plain_words() -> None:
    assert _splits({"train": 394, "val": 0, "test": 0}) == "train 394  val 0  test 0"


@pytest.mark.parametrize("flags", [["--seconds", "0"], ["--seconds", "1e9"], ["--seed", "-1"]])
def test_an_impossible_demo_is_a_wrong_flag(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["demo", "--out", str(out), *flags]) == 2
    assert flags[0] in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("command", [["replay"], ["log", "info"], ["log", "view"]])
def test_a_path_where_nothing_lies_is_3_everywhere(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(tmp_path / "nothere")]) == 3
    assert "does not exist" in capsys.readouterr().err
