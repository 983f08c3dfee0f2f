"""Pictures that came damaged are told: frames that never were may not be missed in silence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

from syncline.edge.capture import Capture
from syncline.edge.live_media import LiveMedia
from syncline.edge.metrics import metrics_text
from syncline.edge.runner import Runner
from syncline.edge.status import Status
from syncline.errors import SensorDataError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapters.image_folder import ImageFolder
from syncline.sensors.frame import FrameTime, RawFrame
from syncline.timebase import OsClock

PERIOD_NS = 1_000_000


class Refuses:
    """A timer that times nothing: what counts here is that frames come."""

    def stamp(self, frame: RawFrame) -> FrameTime:
        raise SensorDataError("not timed")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five pictures, two of them torn."""
    for at in range(5):
        data = cv2.imencode(".png", np.full((8, 8, 3), 40 * at, np.uint8))[1].tobytes()
        (tmp_path / f"{at:06d}.png").write_bytes(data[:20] if at in (1, 3) else data)
    return tmp_path


def status_of(capture: Capture) -> pb.Health:
    whole = SimpleNamespace(to_message=lambda: pb.Health(state="ok"))
    runner = cast(Any, SimpleNamespace(health=lambda: whole))
    return Status(OsClock(), cast(Runner, runner), [capture], []).message()


def played(folder: Path, *, loop: bool, frames: int) -> Capture:
    """A camera that was read until so many frames had come."""

    def make() -> tuple[LiveMedia, Refuses]:
        def inner() -> ImageFolder:
            return ImageFolder(folder, "c", fps=1000.0)

        return LiveMedia(inner, OsClock(), loop=loop, period_ns=PERIOD_NS), Refuses()

    capture = Capture("c", make, lambda *_: None, lambda _: None)
    capture.open()
    capture.start()
    while capture.is_running and capture.rejected < frames:
        capture._thread.join(0.01)
    if not loop:
        capture._thread.join(10.0)
    return capture


def test_a_recording_that_ended_damaged_is_told(pictures: Path) -> None:
    message = status_of(played(pictures, loop=False, frames=3))
    assert message.counters["camera.c.errors"] == 2
    assert message.state == "degraded"
    assert "camera c: ended, damaged: 2 errors" in message.detail
    assert 'syncline_edge_events_total{event="camera.c.errors"} 2' in metrics_text(message)


def test_errors_of_a_loop_add_up_over_its_rounds(pictures: Path) -> None:
    capture = played(pictures, loop=True, frames=7)
    message = status_of(capture)
    capture.close()
    assert message.counters["camera.c.errors"] >= 4
    assert not message.cameras[0].detail.startswith("ended")


def test_a_sound_recording_ends_ok(pictures: Path) -> None:
    for at in (1, 3):
        (pictures / f"{at:06d}.png").unlink()
    capture = played(pictures, loop=False, frames=3)
    assert capture.rejected == 3
    capture.refusal = ""
    message = status_of(capture)
    assert (message.state, message.counters["camera.c.errors"]) == ("ok", 0)
