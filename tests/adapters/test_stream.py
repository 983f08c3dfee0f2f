"""Network streams over fake connections: losses, reconnects, secrets."""

from __future__ import annotations

import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import av.error
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.edge.pipeline import encode_jpeg
from syncline.errors import DeviceError, UsageError
from syncline.sensors.adapter import HealthState, SensorAdapter
from syncline.sensors.adapters.network_url import without_secret
from syncline.sensors.adapters.sender_clock import (
    SenderClock,
    SenderFault,
    reference_utc_ns,
    sender_stamp,
)
from syncline.sensors.adapters.stream import StreamCamera, StreamOptions
from syncline.sensors.frame import FrameEvent
from syncline.sensors.jpeg import JpegPicture
from syncline.timebase import Clock, ManualClock

STEP_NS = 40_000_000


class FakeFrame:
    width, height, is_corrupt = 6, 4, False

    def __init__(self, pts: int | None) -> None:
        self.pts = pts

    def to_ndarray(self, format: str) -> np.ndarray:
        assert format == "bgr24"
        return np.zeros((4, 6, 3), np.uint8)


class FakePacket:
    def __init__(self, pts: int | None) -> None:
        self.pts = pts

    def has_sidedata(self, name: str) -> bool:
        return False

    def decode(self) -> list[FakeFrame]:
        return [FakeFrame(self.pts)]


class FakeStream:
    """One session: frames at 25 Hz whose own clock begins anywhere, then an end or an error."""

    def __init__(
        self, clock: ManualClock, pts: list[int | None], error: Exception | None = None
    ) -> None:
        self.clock, self.pts, self.error, self.closed = clock, pts, error, False
        context = SimpleNamespace(width=6, height=4, name="h264")
        video = SimpleNamespace(codec_context=context, time_base=Fraction(1, 90_000))
        self.streams = SimpleNamespace(video=[video])

    def demux(self, stream: object) -> Any:
        for pts in self.pts:
            self.clock.advance(STEP_NS)
            yield FakePacket(pts)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed = True


def camera_of(clock: ManualClock, sessions: list[Any]) -> StreamCamera:
    def connect(url: str, options: StreamOptions) -> Any:
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
    assert clock.raw_ns() == int((0.5 + 1 + 2 + 4 + 8 * 4) * 1e9)  # `close` ends the last wait


def test_secrets_and_foreign_schemes() -> None:
    clock = ManualClock(0)
    with pytest.raises(DeviceError, match="stream rtsp://cam/live: Connection refused") as caught:
        camera_of(clock, [OSError(111, "Connection refused")]).open()
    assert "secret" not in str(caught.value)
    assert without_secret("rtsp://a:b@h:554/x?token=1") == "rtsp://h:554/x"
    for url in (
        "file:///etc/passwd",
        "concat:a|b",
        "/dev/video0",
        "pipe:0",
        "rtsp:///live",
        "rtsp://cam:port/live",
        "rtsp://[cam/live",
    ):
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


def test_a_stream_that_begins_anew_keeps_device_time() -> None:
    """A camera that restarts its stream time in one session makes no frame of another day."""
    clock = ManualClock(10**9)
    ticks = [3600 * k for k in range(10)]
    camera = camera_of(clock, [FakeStream(clock, [*ticks, *(2**40 + t for t in ticks), *ticks])])
    frames = list(camera.frames())
    away = [(frame.device_ticks or 0) - frame.arrival.t_ns for frame in frames]
    assert max(away) - min(away) < 1_000_000
    assert "stream time began anew 2 times" in camera.health().detail


def test_packets_that_never_decode_end_the_session() -> None:
    clock = ManualClock(0)

    class Empty(FakePacket):
        def decode(self) -> list[FakeFrame]:
            raise av.error.InvalidDataError(1, "damaged")

    session = FakeStream(clock, [])
    session.demux = lambda _: (Empty(k) for k in range(10_000))  # type: ignore[method-assign,assignment]
    camera = camera_of(clock, [session])
    assert list(camera.frames()) == []
    assert session.closed
    assert camera.health().errors == 251


NOW_NS, UTC_NS = 10**12, 1_800_000_000 * 10**9
VOUCHED = SenderClock(5_000_000, FrameEvent.MID, lambda raw_ns: (raw_ns - NOW_NS + UTC_NS, 1000))


@pytest.mark.parametrize(
    ("sampled_utc_ns", "sender", "fault"),
    [
        (None, VOUCHED, SenderFault.SILENT),
        (UTC_NS, SenderClock(), SenderFault.UNDECLARED),
        (UTC_NS, SenderClock(5_000_000), SenderFault.NO_UTC),
        (UTC_NS + 5_002_000, VOUCHED, SenderFault.FUTURE),
        (UTC_NS + 37 * 10**9, VOUCHED, SenderFault.FUTURE),
        (UTC_NS - 205_002_000, VOUCHED, SenderFault.OLD),
        (10**15, VOUCHED, SenderFault.OLD),
        (UTC_NS - 80_000_000, VOUCHED, SenderFault.NONE),
        (UTC_NS + 4_000_000, VOUCHED, SenderFault.NONE),
    ],
)
def test_what_a_sender_report_is_worth(
    sampled_utc_ns: int | None, sender: SenderClock, fault: SenderFault
) -> None:
    stamp, found = sender_stamp(sampled_utc_ns, NOW_NS, 200_000_000, sender)
    assert found is fault
    if fault is SenderFault.NONE:
        assert stamp is not None
        assert sampled_utc_ns is not None
        assert stamp.t_ns == NOW_NS + sampled_utc_ns - UTC_NS
        assert (stamp.clock, stamp.event) == (Clock.MONOTONIC_RAW, FrameEvent.MID)
        assert stamp.bias_ns == (-5_001_000, 5_001_000)
    elif fault in (SenderFault.UNDECLARED, SenderFault.NO_UTC):
        assert stamp is not None
        assert stamp.clock is Clock.DEVICE
    else:
        assert stamp is None


@given(st.binary(max_size=40))
def test_side_data_is_a_time_or_none(data: bytes) -> None:
    found = reference_utc_ns(data)
    assert found is None or 0 < found < 2**63


def test_motion_jpeg_over_http_stays_as_it_came() -> None:
    """The pictures of a network camera's multipart stream, byte for byte; a cut one is an error."""
    sent = [encode_jpeg(np.full((48, 64, 3), 20 * k, np.uint8), 90) for k in range(8)]
    sent[3] = sent[3][:-30]

    class Multipart(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
            self.end_headers()
            for data in sent * 2:
                head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Multipart) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/video.mjpg"
        camera = StreamCamera(url, options=StreamOptions(reducible=True))
        came = []
        for frame in camera.frames():
            came.append(frame.payload)
            if len(came) == 7:
                camera.close()
        server.shutdown()
    assert len(came) == 7
    for picture in came:  # which one comes first is up to the probing of the stream
        assert isinstance(picture, JpegPicture)
        assert picture.reducible
        assert picture.data in sent[:3] + sent[4:]
    assert camera.health().errors >= 1
