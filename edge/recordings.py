"""What can be replayed: videos, image folders, ROS 2 bags, and our own logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline import topics
from syncline.edge.config import CameraSection
from syncline.edge.recorded_time import recorded_timer, timing_of_message
from syncline.edge.replay import Timed, recording_boot_id
from syncline.errors import LogError, MediaError
from syncline.log.reader import LogReader
from syncline.log.rosbag import is_bag
from syncline.sensors.adapters.image_folder import SUFFIXES, ImageFolder
from syncline.sensors.adapters.ros_bag import RosBag
from syncline.sensors.adapters.video import VideoFile
from syncline.sensors.frame import Exposure, FrameEvent, FrameTime, RawFrame, Stamp
from syncline.sensors.timer import FrameTimer
from syncline.timebase import Clock, MappingSegment

Image = NDArray[np.uint8]


class MediaRecording:
    """A video file, a folder of pictures or a ROS 2 bag.

    Args:
        path: See `syncline.sensors.adapters`.
        camera: The camera that made it, as far as it is known.
        threads: Decoder threads.
    """

    def __init__(self, path: Path, camera: CameraSection, *, threads: int = 1) -> None:
        self._path = path
        self._camera = camera
        self._threads = threads
        self.boot_id = recording_boot_id(path)
        self.frame_count = 0
        self.adapter: VideoFile | ImageFolder | RosBag = self._open()

    def _open(self) -> VideoFile | ImageFolder | RosBag:
        if is_bag(self._path):
            bag = RosBag(self._path)
            bag.open()
            return bag
        if self._path.is_dir():
            folder = ImageFolder(self._path, self._camera.name, fps=self._camera.fps)
            folder.open()
            self.frame_count = len(folder.listing.pictures)
            return folder
        video = VideoFile(self._path, self._camera.name, threads=self._threads)
        video.open()
        self.frame_count = video.frame_count
        return video

    def segments(self) -> list[MappingSegment]:
        """None: such a recording does not know UTC."""
        return []

    def frames(self) -> Iterator[Timed]:
        """Frames in order, timed by the declared camera."""
        timers: dict[str, FrameTimer] = {}
        try:
            for raw in self.adapter.frames():
                if raw.camera not in timers:
                    timers[raw.camera] = self._timer(raw)
                yield Timed(raw, timers[raw.camera].stamp(raw))
        finally:
            self.adapter.close()

    def _timer(self, raw: RawFrame) -> FrameTimer:
        assert isinstance(raw.payload, np.ndarray)
        height, width = raw.payload.shape[:2]
        period_ns = self.adapter.period_ns if isinstance(self.adapter, VideoFile) else 0.0
        mode = self._camera.mode(width, height, period_ns)
        exposure_us = self._camera.exposure_us
        return recorded_timer(mode, self._camera.anchor_kind, exposure_us)


class LogRecording:
    """A log that syncline recorded: pictures with the timing and segments recorded beside them.

    Args:
        path: Recording folder, or one file that holds both pictures and timing.
        camera: Only this camera; empty for all.
    """

    def __init__(self, path: Path, camera: str = "") -> None:
        self._path = path
        self._camera = camera
        with LogReader(path) as reader:
            names = {channel.topic for channel in reader.channels}
            self.boot_id = reader.boot_ids[0] if reader.boot_ids else recording_boot_id(path)
            timebase = reader.timebase(self.boot_id)
            self._segments = list(timebase.segments)
        image = topics.IMAGE.of(camera) if camera else ""
        images = [n for n in names if n.startswith("/camera/") and n.endswith("/image")]
        self._images = [n for n in images if not image or n == image]
        if not self._images:
            raise LogError(
                f"{path} holds no pictures{f' of camera {camera!r}' if camera else ''}",
                remedy="Record with images = true, or give the folder that holds cam.mcap",
            )
        self.frame_count = 0

    def segments(self) -> list[MappingSegment]:
        """The mapping segments of the recording."""
        return self._segments

    def frames(self) -> Iterator[Timed]:
        """Pictures in order of time, each with its recorded timing."""
        timings = [name.removesuffix("/image") + "/timing" for name in self._images]
        waiting: dict[tuple[str, int], FrameTime] = {}
        pictures: dict[tuple[str, int], Image] = {}
        with LogReader(self._path, topics=[*self._images, *timings]) as reader:
            for record in reader:
                camera = record.topic.split("/")[2]
                key = (camera, record.raw_ns)
                message = reader.decode(record)
                if record.topic.endswith("/timing"):
                    waiting[key] = timing_of_message(message)
                else:
                    pictures[key] = decode_picture(message.data, record.topic)
                if key in waiting and key in pictures:
                    yield self._timed(waiting.pop(key), pictures.pop(key))
                _forget_oldest(waiting)
                _forget_oldest(pictures)

    @staticmethod
    def _timed(timing: FrameTime, picture: Image) -> Timed:
        exposures: tuple[Exposure, ...] = timing.exposures
        arrival = Stamp(timing.eof_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL)
        raw = RawFrame(timing.camera, timing.sequence, None, None, arrival, exposures, picture)
        return Timed(raw, timing)


_UNMATCHED_LIMIT = 256


def _forget_oldest(
    waiting: dict[tuple[str, int], FrameTime] | dict[tuple[str, int], Image],
) -> None:
    """Bound what waits for its other half: a picture whose timing was lost, or the reverse."""
    while len(waiting) > _UNMATCHED_LIMIT:
        waiting.pop(next(iter(waiting)))


def decode_picture(data: bytes, name: str) -> Image:
    """Decode an encoded picture.

    Raises:
        MediaError: It does not decode.
    """
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise MediaError(f"{name}: a picture of {len(data)} bytes does not decode")
    return np.asarray(image, dtype=np.uint8)


def open_recording(path: Path, camera: CameraSection) -> MediaRecording | LogRecording:
    """Open whatever lies at a path.

    Raises:
        MediaError: Nothing lies there, or it cannot be read.
        LogError: It looks like a log and is none.
    """
    if not path.exists():
        raise MediaError(f"{path} does not exist", remedy="Check the path")
    if is_bag(path):
        return MediaRecording(path, camera)
    if path.suffix == ".mcap" or (path.is_dir() and any(path.rglob("*.mcap"))):
        return LogRecording(path)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        raise MediaError(f"{path} is a single picture", remedy="Give its folder")
    return MediaRecording(path, camera)
