"""From a `[[camera]]` section to an open adapter and the timer of its frames."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from syncline.edge.config import CameraSection
from syncline.edge.declared_timer import DeclaredTimer
from syncline.edge.live_media import LiveMedia
from syncline.sensors.adapter import SensorAdapter
from syncline.sensors.adapters.image_folder import ImageFolder
from syncline.sensors.adapters.sender_clock import SenderClock, Utc, no_utc
from syncline.sensors.adapters.stream import StreamCamera, StreamOptions
from syncline.sensors.adapters.v4l2 import V4l2Camera
from syncline.sensors.adapters.v4l2_layer import Wanted
from syncline.sensors.adapters.video import VideoFile
from syncline.sensors.frame import FrameEvent, FrameTime, RawFrame
from syncline.timebase import NS_PER_S, RawClock


class Timer(Protocol):
    """Makes a frame time of a frame; frames come in order."""

    def stamp(self, frame: RawFrame) -> FrameTime:
        """Time one frame."""


def make_camera(
    section: CameraSection, clock: RawClock, utc: Utc = no_utc
) -> tuple[SensorAdapter[RawFrame], Timer]:
    """The adapter and the timer of a configured camera; the adapter is not open yet.

    Args:
        section: The camera.
        clock: Stamps and paces it.
        utc: Our own UTC, to which a network camera's clock is compared.

    Raises:
        MediaError: A file or folder cannot be read.
    """
    if section.kind == "video":
        return _video(section, clock)
    if section.kind == "images":
        return _images(section, clock)
    if section.kind == "v4l2":
        return _v4l2(section, clock)
    if section.is_stream:
        return _stream(section, clock, utc)
    from syncline.edge.synthetic_camera import synthetic_camera

    return synthetic_camera(section, clock)


def _video(section: CameraSection, clock: RawClock) -> tuple[SensorAdapter[RawFrame], Timer]:
    probe = VideoFile(Path(section.path), section.name)
    probe.open()
    probe.close()
    period_ns = round(probe.period_ns) or round(NS_PER_S / section.fps)
    live = LiveMedia(
        lambda: VideoFile(Path(section.path), section.name),
        clock,
        loop=section.loop,
        period_ns=period_ns,
    )
    return live, DeclaredTimer(section, probe.period_ns)


def _images(section: CameraSection, clock: RawClock) -> tuple[SensorAdapter[RawFrame], Timer]:
    live = LiveMedia(
        lambda: ImageFolder(Path(section.path), section.name, fps=section.fps),
        clock,
        loop=section.loop,
        period_ns=round(NS_PER_S / section.fps),
    )
    return live, DeclaredTimer(section, 0.0)


def _v4l2(section: CameraSection, clock: RawClock) -> tuple[SensorAdapter[RawFrame], Timer]:
    wanted = Wanted(section.path, section.width, section.height, section.fps)
    reducible = section.decode == "reduced"
    camera = V4l2Camera(wanted, section.name, clock=clock, reducible=reducible)
    return camera, DeclaredTimer(section, NS_PER_S / section.fps, lambda: camera.mode)


def _stream(
    section: CameraSection, clock: RawClock, utc: Utc
) -> tuple[SensorAdapter[RawFrame], Timer]:
    error_ns = round(section.sender_error_ms * 1e6)
    options = StreamOptions(
        section.transport,
        timeout_ns=round(section.timeout_s * NS_PER_S),
        latency_ns=round(section.latency_ms * 1e6),
        sender=SenderClock(error_ns, FrameEvent(section.sender_event), utc),
        reducible=section.decode == "reduced",
    )
    camera = StreamCamera(section.url, section.name, options, clock=clock)
    return camera, DeclaredTimer(section, 0.0)
