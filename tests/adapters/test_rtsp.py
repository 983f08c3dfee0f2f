"""A live RTSP camera over real sockets: times, sender reports, losses, silence, bad addresses."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from syncline.edge.cameras import make_camera
from syncline.edge.capture import Capture
from syncline.edge.config import CameraSection, load_edge_config
from syncline.edge.recordings import open_recording
from syncline.errors import ConfigError, DeviceError, UsageError
from syncline.sensors.adapter import HealthState
from syncline.sensors.adapters import stream
from syncline.sensors.adapters.sender_clock import SenderClock
from syncline.sensors.adapters.stream import StreamCamera, StreamOptions
from syncline.sensors.frame import FrameEvent, FrameTime, Quality, RawFrame
from syncline.timebase import Clock, OsClock
from tests.adapters.rtsp_server import Behaviour, RtspServer, encode, number_of

FPS = 100
STEP_NS = 10**9 // FPS
QUICK = 1_000_000_000
CLIP = encode(50, FPS)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "RETRY_NS", 100_000_000)


@pytest.fixture
def server() -> Iterator[RtspServer]:
    with RtspServer(Behaviour(fps=FPS), clip=CLIP) as found:
        yield found


def camera_of(server: RtspServer, **options: object) -> StreamCamera:
    given = StreamOptions(**{"timeout_ns": QUICK, **options})  # type: ignore[arg-type]
    return StreamCamera(server.url, "front", given)


def take(camera: StreamCamera, count: int, at: dict[int, Callable[[], None]]) -> list[RawFrame]:
    """`count` frames, doing what `at` says after that many."""
    found = []
    for frame in camera.frames():
        found.append(frame)
        at.get(len(found), lambda: None)()
        if len(found) == count:
            camera.close()
    assert camera.health().state is HealthState.CLOSED
    return found


def truth_of(server: RtspServer, frame: RawFrame) -> int:
    """When a picture was sampled, by the number that stands in it."""
    assert isinstance(frame.payload, np.ndarray)
    sampled = server.sampled_ns[-1][number_of(frame.payload) :: len(CLIP)]
    return max(t for t in sampled if t <= frame.arrival.t_ns)


def utc_of(server: RtspServer) -> Callable[[int], tuple[int, int]]:
    return lambda raw_ns: (raw_ns + server.behaviour.utc_ahead_ns, 1000)


def test_frames_come_with_their_times_and_say_what_those_are(server: RtspServer) -> None:
    """Stream time is exact over the wrap of RTP's counter; the arrival says how late it may be."""
    camera = camera_of(server, latency_ns=300_000_000)
    frames = take(camera, 45, {})
    ticks = np.array([frame.device_ticks for frame in frames])
    assert np.abs(np.diff(ticks) - STEP_NS).max() <= 11_112  # one tick of 90 kHz
    assert all(frame.payload.shape == (64, 96, 3) for frame in frames)  # type: ignore[attr-defined]
    assert all(f.arrival.bias_ns == (-300_000_000, 0) for f in frames)
    health = camera.health()
    assert (health.stamp_clock, health.stamp_event) == (Clock.DEVICE, FrameEvent.EOF)
    assert health.detail.endswith("300 ms late: nobody vouches for its clock")


def test_sender_reports_give_the_sampling_where_the_clock_is_vouched_for(
    server: RtspServer,
) -> None:
    """The lag of the way, which no arrival can show, is gone: the sampling instant to 20 us."""
    server.behaviour.lag_s = 0.12
    sender = SenderClock(2_000_000, FrameEvent.MID, utc_of(server))
    frames = take(camera_of(server, sender=sender), 40, {})
    for frame in frames:
        assert frame.driver is not None
        assert (frame.driver.clock, frame.driver.event) == (Clock.MONOTONIC_RAW, FrameEvent.MID)
        assert abs(truth_of(server, frame) - frame.driver.t_ns) < 20_000  # a tick, a us of FFmpeg
        assert frame.arrival.t_ns - frame.driver.t_ns > 120_000_000


def test_pictures_over_udp_and_what_is_lost_on_the_way(server: RtspServer) -> None:
    """Lost packets cost their pictures, which are never shown half; no time moves."""
    with pytest.raises(DeviceError, match=r"Protocol not supported|Unsupported"):
        camera_of(server, transport="udp").open()
    server.behaviour.udp, server.behaviour.lose_every = True, 30
    sender = SenderClock(2_000_000, FrameEvent.MID, utc_of(server))
    camera = camera_of(server, transport="udp", sender=sender)
    frames = take(camera, 45, {})
    stamped = [f for f in frames if f.driver is not None]
    assert len(stamped) > 20  # the rest came before a report, or with a report lost
    for frame in stamped:
        assert frame.driver is not None
        assert abs(truth_of(server, frame) - frame.driver.t_ns) < 20_000
    steps = np.diff([f.device_ticks or 0 for f in frames])
    assert (np.abs(steps - np.rint(steps / STEP_NS) * STEP_NS) < 30_000).all()
    assert steps.max() > 1.5 * STEP_NS  # pictures are missing


@pytest.mark.parametrize("reports", [True, False])
def test_the_truth_lies_inside_what_arrivals_claim(server: RtspServer, reports: bool) -> None:
    server.behaviour.lag_s, server.behaviour.reports = 0.12, reports
    section = CameraSection(name="front", kind="rtsp", url=server.url, latency_ms=400.0)
    adapter, timer = make_camera(section, OsClock())
    assert isinstance(adapter, StreamCamera)
    for frame in take(adapter, 40, {}):
        found = timer.stamp(frame)
        (low, high), room_ns = found.bias_ns, 2.0 * found.sigma_ns
        late_ns = truth_of(server, frame) - found.eof_ns
        assert low - room_ns <= late_ns <= high + room_ns
        assert late_ns < -100_000_000, "the lag is there, and arrivals do not show it"
        assert Quality.AMBIGUOUS in found.quality  # the anchor is not declared
    word = "nobody vouches" if reports else "no sender reports came"
    assert word in adapter.health().detail


def test_a_killed_server_is_told_and_found_again() -> None:
    """sensors-37: gone while it is down, then the same device time as if nothing had been."""
    first = RtspServer(Behaviour(fps=FPS), clip=CLIP)
    camera = camera_of(first)
    seen: list[tuple[HealthState, str]] = []
    again: list[RtspServer] = []

    def kill() -> None:
        first.close()
        thread = threading.Thread(target=restart)
        thread.start()
        again_threads.append(thread)

    def restart() -> None:
        while camera.health().state is not HealthState.GONE:
            time.sleep(0.01)
        time.sleep(0.2)
        health = camera.health()
        seen.append((health.state, health.detail))
        again.append(RtspServer(Behaviour(fps=FPS), port=first.port, clip=CLIP))

    again_threads: list[threading.Thread] = []
    try:
        frames = take(camera, 40, {20: kill})
    finally:
        for thread in again_threads:
            thread.join()
        for server in again:
            server.close()
    assert seen[0][0] is HealthState.GONE
    assert "Connection refused" in seen[0][1]
    assert camera.health().reconnects == 1
    away = [(f.device_ticks or 0) - f.arrival.t_ns for f in frames]
    assert max(away) - min(away) < 60_000_000  # the delays of two connections differ
    ticks = [f.device_ticks or 0 for f in frames]
    assert ticks == sorted(ticks)
    assert max(np.diff(ticks)) > 200_000_000


def test_a_camera_that_falls_silent_is_opened_again_and_close_never_hangs(
    server: RtspServer,
) -> None:
    server.behaviour.mute_after = 15
    camera = camera_of(server, timeout_ns=QUICK // 4)
    capture = Capture("front", lambda: (camera, Nothing()), lambda *_: None, lambda _: None)
    capture.open()
    capture.start()
    end = time.monotonic() + 20.0
    while camera.health().reconnects < 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert capture.rejected > 0
    began = time.monotonic()
    capture.close()  # in the midst of a silence
    assert time.monotonic() - began < 2.0
    assert not capture.is_running


class Nothing:
    """A timer that refuses everything; what counts is that frames come."""

    def stamp(self, frame: RawFrame) -> FrameTime:
        from syncline.errors import ClockError

        raise ClockError("not timed")


def test_a_password_is_used_and_never_shown(server: RtspServer) -> None:
    server.behaviour.password = "me:secret-1"
    with pytest.raises(DeviceError, match="401 Unauthorized") as caught:
        camera_of(server).open()
    assert "rtsp://USER:PASSWORD@" in caught.value.remedy
    url = server.url.replace("//", "//me:secret-1@")
    camera = StreamCamera(url, options=StreamOptions(timeout_ns=QUICK))
    assert len(take(camera, 3, {})) == 3
    with pytest.raises(DeviceError) as caught:
        StreamCamera(url.replace("-1", "-2"), options=StreamOptions(timeout_ns=QUICK)).open()
    assert "secret" not in str(caught.value)


def test_what_cannot_be_opened_says_why_in_time(server: RtspServer) -> None:
    server.behaviour.silent = True
    for camera, word in (
        (camera_of(server, timeout_ns=QUICK // 4), "silent for 0.25 s"),
        (StreamCamera("rtsp://127.0.0.1:1/live"), "Connection refused"),
        (StreamCamera("rtsp://nowhere.invalid/live"), "stream rtsp://nowhere.invalid/live"),
    ):
        began = time.monotonic()
        with pytest.raises(DeviceError, match=word) as caught:
            camera.open()
        assert caught.value.remedy
        assert time.monotonic() - began < 5.0


def test_no_answer_of_a_server_crashes_the_camera(server: RtspServer) -> None:
    """Whatever stands on that port, opening ends in a typed error."""
    rng = random.Random(5)
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 999999999\r\n\r\n",
        b"RTSP/1.0 302 Found\r\nCSeq: 1\r\nLocation: file:///etc/passwd\r\n\r\n",
        b"RTSP/1.0 -1\r\n" + b"A: " + b"b" * 100_000 + b"\r\n\r\n",
        *(rng.randbytes(rng.randrange(1, 3000)) for _ in range(12)),
    ]
    for answer in answers:
        server.behaviour.garbage = answer
        with pytest.raises(DeviceError, match="stream rtsp://127"):
            camera_of(server, timeout_ns=QUICK // 4).open()


CONFIG = """
[device]
name = "car-1"
data = "x"
[[camera]]
name = "front"
"""


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('kind = "rtsp"', r"camera\[0\]\.url is empty, kind 'rtsp' needs it"),
        ('kind = "rtsp"\nurl = "http://cam/live"', "needs rtsp:// or rtsps://"),
        ('kind = "stream"\nurl = "file:///etc/passwd"', "stream address begins with 'file'"),
        ('kind = "rtsp"\nurl = "rtsp:///live"', "names no host"),
        ('kind = "video"\npath = "x.mp4"\nurl = "rtsp://cam/live"', "kind 'video' has none"),
        ('kind = "rtsp"\nurl = "rtsp://cam/l"\ntransport = "sctp"', r"transport"),
        ('kind = "rtsp"\nurl = "rtsp://cam/l"\ntimeout_s = 0.0', r"timeout_s"),
        ('kind = "rtsp"\nurl = "rtsp://cam/l"\nlatency_ms = -1.0', r"latency_ms"),
    ],
)
def test_a_wrong_stream_is_a_configuration_error(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(CONFIG + lines)
    with pytest.raises(ConfigError, match=message) as caught:
        load_edge_config(path)
    assert caught.value.remedy


def test_a_stream_is_configured_and_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(CONFIG + 'kind = "rtsp"\nurl = "rtsp://u:p@cam:8554/live"')
    section = load_edge_config(path).camera[0]
    assert section.is_live
    with pytest.raises(UsageError, match="is a live stream"):
        open_recording(Path(section.url), section)
