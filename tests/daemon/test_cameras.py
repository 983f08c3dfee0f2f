"""Cameras of the daemon: closed by the thread that reads them, opened again when absent."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from syncline.edge import capture as capture_module
from syncline.edge.cameras import Timer
from syncline.edge.capture import Capture
from syncline.edge.config import CameraSection
from syncline.edge.daemon import EdgeDaemon
from syncline.edge.job import Drop, DropReason
from syncline.edge.live_media import LiveMedia
from syncline.edge.recorded_time import recorded_timer
from syncline.errors import ClockError, MediaError, SensorDataError, UsageError
from syncline.sensors.adapter import Health, HealthState, SensorAdapter
from syncline.sensors.frame import Anchor, FrameTime, RawFrame
from syncline.sensors.mode import SensorMode, Shutter
from syncline.timebase import ManualClock, OsClock
from tests.daemon.fakes import BrokenRecording, FakeRecording, raw_frame


def until(test: Callable[[], object], patience_s: float = 20.0) -> None:
    end = time.monotonic() + patience_s
    while not test():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def live(recording: SensorAdapter[RawFrame], *, loop: bool = True) -> LiveMedia:
    return LiveMedia(lambda: recording, OsClock(), loop=loop, period_ns=1_000_000)


class Refuses:
    """A timer that times nothing: what counts here is that frames come."""

    def stamp(self, frame: RawFrame) -> FrameTime:
        raise SensorDataError("not timed")


def has_frames(media: LiveMedia) -> bool:
    return media.health().frames > 0


def a_capture(make: Callable[[], Any], name: str = "c") -> Capture:
    return Capture(name, make, lambda *_: None, lambda _: None)


# -- closing -----------------------------------------------------------------------------------


def test_a_recording_is_closed_by_the_thread_that_decodes_it() -> None:
    inner = FakeRecording()
    media = live(inner)
    media.open()
    thread = threading.Thread(target=lambda: [None for _ in media.frames()])
    thread.start()
    until(lambda: media.health().frames > 3)
    media.close()
    thread.join(5.0)
    assert not thread.is_alive()
    assert inner.closed_by
    assert set(inner.closed_by) == inner.read_by == {thread.ident}
    assert not inner.closed_while_decoding


def test_a_recording_that_nobody_reads_is_closed_at_once() -> None:
    inner = FakeRecording()
    media = live(inner)
    media.open()
    media.close()
    media.close()
    assert inner.closed_by == [threading.get_ident()]
    assert list(media.frames()) == []


def test_frames_left_in_the_middle_close_the_recording() -> None:
    inner = FakeRecording()
    adapter, timer = live(inner), Refuses()
    capture = a_capture(lambda: (adapter, timer))
    capture.open()
    capture.start()
    until(lambda: capture.rejected > 3)
    capture.close()
    assert not capture.is_running
    assert set(inner.closed_by) == inner.read_by


def test_a_recording_loops_with_one_period_between_the_rounds() -> None:
    clock = ManualClock(raw_ns=5_000_000_000)
    media = LiveMedia(lambda: FakeRecording(3, 40_000_000), clock, loop=True, period_ns=40_000_000)
    found = []
    frames = media.frames()
    for frame in frames:
        assert frame.driver is not None
        found.append((frame.sequence, frame.driver.t_ns))
        if len(found) == 7:
            media.close()
    assert found == [(at, 5_000_000_000 + 40_000_000 * (at + 1)) for at in range(7)]


def test_a_machine_that_is_too_slow_gets_every_frame_with_a_true_stamp() -> None:
    """Reading that stops for a second moves the pace; stamps stay within a driver's few frames."""
    period_ns = 40_000_000
    clock = ManualClock(raw_ns=5_000_000_000)
    media = LiveMedia(lambda: FakeRecording(40, period_ns), clock, loop=False, period_ns=period_ns)
    ages_ns, numbers = [], []
    for frame in media.frames():
        assert frame.driver is not None
        ages_ns.append(frame.arrival.t_ns - frame.driver.t_ns)
        numbers.append(frame.sequence)
        clock.advance(1_000_000_000 if len(numbers) % 10 == 5 else 1_000_000)
    assert numbers == list(range(40))
    assert max(ages_ns) <= 4 * period_ns
    assert "too slow" in media.health().detail


class Contradicts:
    """A timer that refuses one frame by its clock and numbers the others as the driver does."""

    def stamp(self, frame: RawFrame) -> FrameTime:
        if frame.sequence == 3:
            raise ClockError("suspected clock: driver stamp is -5.1 s off", remedy="Declare it")
        return timed(frame)


def timed(frame: RawFrame) -> FrameTime:
    mode = SensorMode.simple(4, 4, shutter=Shutter.GLOBAL)
    timing = recorded_timer(mode, Anchor.UNKNOWN, (1000.0, 1000.0)).stamp(frame)
    return dataclasses.replace(timing, index=frame.sequence or 0)


def test_frames_that_get_no_time_or_never_came_are_dropped_with_a_reason() -> None:
    """A refused stamp costs its frame, not the camera; a gap in the numbers is counted."""

    class Gap(FakeRecording):
        def frames(self) -> Iterator[RawFrame]:
            for at in (0, 1, 2, 3, 4, 7, 8):
                yield raw_frame(at, at * 40_000_000)

    drops: list[Drop] = []
    seen: list[int] = []
    camera, opened = Gap(), []

    def make() -> tuple[SensorAdapter[RawFrame], Timer]:
        opened.append(1)
        return camera, Contradicts()

    capture = Capture("c", make, lambda _, t: seen.append(t.index), lambda _: None, drops.append)
    capture.open()
    capture.start()
    until(lambda: not capture.is_running)
    assert seen == [0, 1, 2, 4, 7, 8]
    told = [(d.reason, d.index, d.count) for d in drops]
    assert told == [(DropReason.REFUSED, 3, 1), (DropReason.LOST, 5, 2)]
    assert capture.rejected == 1
    assert opened == [1]


def test_close_does_not_wait_for_a_slow_recording() -> None:
    media = LiveMedia(
        lambda: FakeRecording(9, 60_000_000_000), OsClock(), loop=False, period_ns=60_000_000_000
    )
    thread = threading.Thread(target=lambda: list(media.frames()))
    thread.start()
    until(lambda: media._reading)
    media.close()
    thread.join(2.0)
    assert not thread.is_alive()


def test_a_real_video_survives_closing_from_another_thread(shared_data: Path) -> None:
    from syncline.sensors.adapters.video import VideoFile

    path = shared_data / "video" / "car-detection.mp4"
    for _ in range(5):
        media = LiveMedia(lambda: VideoFile(path, "c"), OsClock(), loop=True, period_ns=1_000_000)
        media.open()
        thread = threading.Thread(target=list, args=(media.frames(),))
        thread.start()
        until(partial(has_frames, media))
        media.close()
        thread.join(5.0)
        assert not thread.is_alive()
        assert media._inner is None


# -- absent cameras ----------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "REOPEN_S", 0.01)


@pytest.mark.usefixtures("quick")
def test_an_absent_camera_is_opened_when_it_comes(caplog: pytest.LogCaptureFixture) -> None:
    inner = BrokenRecording()
    made: list[int] = []

    def make() -> tuple[SensorAdapter[RawFrame], Refuses]:
        made.append(1)
        if len(made) < 3:  # as a video file that is not there: it cannot even be probed
            raise MediaError("gone.mp4 is absent")
        return live(inner), Refuses()

    capture = a_capture(make)
    with pytest.raises(MediaError):
        capture.open()
    assert capture.health().state is HealthState.ABSENT
    assert capture.trouble == "absent: gone.mp4 is absent"
    capture.start()
    until(lambda: "cannot be read" in capture.trouble)
    inner.broken = False
    until(lambda: capture.rejected > 2)
    assert capture.trouble == "frames are refused: not timed"
    assert capture.was_open
    assert len(made) == 3, "a camera that was made once keeps its timer, so its indices go on"
    capture.close()
    assert not capture.is_running
    told = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(told) == 2, "one line per problem, not one per attempt"


@pytest.mark.usefixtures("quick")
def test_a_camera_that_fails_in_the_middle_goes_on() -> None:
    class Fails(FakeRecording):
        rounds = 0

        def frames(self) -> Iterator[RawFrame]:
            self.rounds += 1
            yield raw_frame(0, 0)
            if self.rounds < 4:
                raise MediaError("torn")

    inner = Fails()
    adapter, timer = live(inner, loop=False), Refuses()
    capture = a_capture(lambda: (adapter, timer))
    capture.open()
    capture.start()
    until(lambda: not capture.is_running)
    assert capture.rejected == 4
    assert capture.has_ended
    assert capture.health().state is HealthState.ENDED
    capture.close()


def test_a_camera_that_went_silent_is_in_trouble() -> None:
    class Silent(FakeRecording):
        def health(self) -> Health:
            return Health(HealthState.GONE, detail="/dev/video0: no such device")

    capture = a_capture(lambda: (Silent(), Refuses()))
    capture.open()
    assert capture.trouble == "gone: /dev/video0: no such device"


def started(*captures: Capture) -> None:
    with ExitStack() as stack:
        daemon: Any = SimpleNamespace(_captures=list(captures))
        EdgeDaemon._start_cameras(daemon, stack)
        assert all(c.is_running for c in captures)


def test_one_camera_is_enough_to_start() -> None:
    good = a_capture(lambda: (live(FakeRecording()), Refuses()), "good")
    bad = a_capture(lambda: (live(BrokenRecording()), Refuses()), "bad")
    started(bad, good)
    assert "gone.mp4" in bad.trouble
    assert good.was_open  # it may have delivered by now, and been refused


def test_no_camera_at_all_is_an_error() -> None:
    captures = [a_capture(lambda: (live(BrokenRecording()), Refuses())) for _ in range(2)]
    with pytest.raises(MediaError, match=r"gone\.mp4"):
        started(*captures)
    assert not any(c.is_running for c in captures)


def test_a_camera_that_is_configured_wrongly_is_an_error_even_beside_others() -> None:
    def wrong() -> tuple[SensorAdapter[RawFrame], Refuses]:
        raise UsageError("size=(8, 8)")

    good = a_capture(lambda: (live(FakeRecording()), Refuses()), "good")
    with pytest.raises(UsageError):
        started(good, a_capture(wrong))
    assert not good.is_running


def is_over(*parts: tuple[str, Capture]) -> bool:
    sections = [CameraSection(name="c", kind=kind, path="x") for kind, _ in parts]  # type: ignore[arg-type]
    daemon: Any = SimpleNamespace(
        _captures=[capture for _, capture in parts], _config=SimpleNamespace(camera=sections)
    )
    return EdgeDaemon._is_over(daemon)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("kind", "waited_for"), [("v4l2", True), ("video", False)])
def test_an_absent_device_is_waited_for_and_an_absent_recording_is_not(
    kind: str, waited_for: bool
) -> None:
    """A recording plays to its end beside an absent camera, which is told and stalls nothing."""
    clip = a_capture(lambda: (live(FakeRecording(5), loop=False), Refuses()), "clip")
    absent = a_capture(lambda: (live(BrokenRecording()), Refuses()), "absent")
    with ExitStack() as stack:
        daemon: Any = SimpleNamespace(_captures=[absent, clip])
        EdgeDaemon._start_cameras(daemon, stack)
        until(lambda: clip.has_ended)
        assert clip.rejected == 5
        assert absent.is_running
        assert absent.health().state is HealthState.ABSENT
        assert absent.trouble.startswith("absent: gone.mp4")
        assert is_over(("video", clip), (kind, absent)) is not waited_for
    assert is_over(("video", clip), (kind, absent))
