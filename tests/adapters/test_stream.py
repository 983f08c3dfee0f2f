"""Network streams over fake connections: losses, reconnects, secrets."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from syncline.errors import DeviceError, UsageError
from syncline.sensors.adapter import HealthState, SensorAdapter
from syncline.sensors.adapters.stream import StreamCamera, without_secret
from syncline.timebase import ManualClock

STEP_NS = 40_000_000


class FakeFrame:
    def __init__(self, pts: int | None) -> None:
        self.pts = pts

    def to_ndarray(self, format: str) -> np.ndarray:
        assert format == "bgr24"
        return np.zeros((4, 6, 3), np.uint8)


class FakeStream:
    """One session: frames at 25 Hz whose own clock begins anywhere, then an end or an error."""

    def __init__(
        self, clock: ManualClock, pts: list[int | None], error: Exception | None = None
    ) -> None:
        self.clock, self.pts, self.error, self.closed = clock, pts, error, False
        context = SimpleNamespace(width=6, height=4)
        video = SimpleNamespace(codec_context=context, time_base=Fraction(1, 90_000))
        self.streams = SimpleNamespace(video=[video])

    def decode(self, stream: object) -> Any:
        for pts in self.pts:
            self.clock.advance(STEP_NS)
            yield FakeFrame(pts)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed = True


def camera_of(clock: ManualClock, sessions: list[Any]) -> StreamCamera:
    def connect(url: str) -> Any:
        if not sessions:
            camera.close()
            raise OSError(111, "Connection refused")
        session = sessions.pop(0)
        if isinstance(session, Exception):
            raise session
        return session

    camera = StreamCamera("rtsp://u:secret@cam/live?k=1", clock=clock, connect=connect)
    return camera


def test_device_time_goes_on_over_a_reconnect() -> None:
    """sensors-37: the frame number after a loss counts the time that passed."""
    clock = ManualClock(10**9)
    first = FakeStream(clock, [900_000 + 3600 * k for k in range(5)], OSError(104, "reset"))
    second = FakeStream(clock, [None, *(7 + 3600 * k for k in range(5))])
    refused = OSError(111, "Connection refused")
    camera = camera_of(clock, [first, refused, refused, second])
    assert isinstance(camera, SensorAdapter)
    frames = list(camera.frames())
    assert len(frames) == 10
    for frame in frames:
        assert frame.driver is None
        assert frame.device_ticks is not None
        # Both clocks run alike here, so device time less arrival never moves.
        away = frame.device_ticks - (frame.arrival.t_ns - frames[0].arrival.t_ns)
        assert abs(away) < 100_000  # 90 kHz ticks
    health = camera.health()
    assert (health.reconnects, health.errors, health.state) == (1, 1, HealthState.CLOSED)
    assert first.closed
    assert second.closed


def test_retries_wait_longer_and_longer() -> None:
    clock = ManualClock(0)
    refused: list[Any] = [OSError(111, "Connection refused")] * 8
    list(camera_of(clock, refused).frames())
    assert clock.raw_ns() == int((0.5 + 1 + 2 + 4 + 8 * 5) * 1e9)


def test_secrets_and_foreign_schemes() -> None:
    clock = ManualClock(0)
    with pytest.raises(DeviceError, match="stream rtsp://cam/live: Connection refused") as caught:
        camera_of(clock, [OSError(111, "Connection refused")]).open()
    assert "secret" not in str(caught.value)
    assert without_secret("rtsp://a:b@h:554/x?token=1") == "rtsp://h:554/x"
    for url in ("file:///etc/passwd", "concat:a|b", "/dev/video0", "pipe:0"):
        with pytest.raises(UsageError, match="stream address"):
            StreamCamera(url)


def test_the_frame_timer_takes_a_stream() -> None:
    from syncline.sensors.frame import Anchor
    from syncline.sensors.mode import SensorMode
    from syncline.sensors.timer import FrameTimer

    clock = ManualClock(10**9)
    camera = camera_of(clock, [FakeStream(clock, [3600 * k for k in range(100)])])
    timer = FrameTimer(SensorMode.simple(6, 4, readout_ns=1000, period_ns=STEP_NS), Anchor.READOUT)
    times = [timer.stamp(frame) for frame in camera.frames()]
    assert [time.index for time in times] == list(range(100))
    steps = np.diff([time.mid_ns for time in times])
    assert np.abs(steps - STEP_NS).max() < 1_000_000
