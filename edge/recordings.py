"""What can be replayed: videos, image folders, ROS 2 bags, and our own logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline import topics
from syncline.edge.clip import ClipRecording
from syncline.edge.config import CameraSection
from syncline.edge.recorded_time import recorded_timer, timing_of_message
from syncline.edge.replay import Damage, Timed, recording_boot_id
from syncline.errors import LogError, MediaError, UsageError
from syncline.log.boots import choose_boot, messages_per_boot
from syncline.log.folder import PINNED, RING, log_groups
from syncline.log.index import FileIndex
from syncline.log.reader import LogReader
from syncline.log.rosbag import is_bag
from syncline.sensors.adapter import HealthState
from syncline.sensors.adapters.image_folder import SUFFIXES, ImageFolder
from syncline.sensors.adapters.log_pictures import PicturePairs
from syncline.sensors.adapters.network_url import SCHEMES
from syncline.sensors.adapters.ros_bag import RosBag
from syncline.sensors.adapters.sidecar import sidecar_path
from syncline.sensors.adapters.video import VideoFile
from syncline.sensors.frame import Exposure, FrameEvent, FrameTime, RawFrame, Stamp
from syncline.sensors.jpeg import JpegPicture, is_jpeg
from syncline.sensors.timer import FrameTimer
from syncline.timebase import Clock, MappingSegment

Image = NDArray[np.uint8]


class MediaRecording:
    """A video file, a folder of pictures or a ROS 2 bag.

    Args:
        path: See `syncline.sensors.adapters`.
        camera: The camera that made it, as far as it is known.
        threads: Decoder threads.
        only: Only this camera of a bag; empty for all.

    Raises:
        MediaError: It cannot be read.
        UsageError: `only` was given for a video or folder, which has but one camera.
    """

    def __init__(
        self, path: Path, camera: CameraSection, *, threads: int = 1, only: str = ""
    ) -> None:
        if only and not is_bag(path):
            raise UsageError(
                f"{path} has but one camera: --camera {only} chooses nothing",
                remedy="Leave --camera away; it is for recordings and bags",
            )
        self._path = path
        self._camera = camera
        self._only = only
        self._yielded, self._at_end = 0, False
        self._threads = threads
        self.frame_count = 0
        # Opened before it is hashed: whatever is no recording is told so without being read.
        self.adapter: VideoFile | ImageFolder | RosBag = self._open()
        self.boot_id = recording_boot_id(path)

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
        self._yielded, self._at_end = 0, False
        if self.adapter.health().state is not HealthState.OK:
            self.adapter.open()  # it was read before
        try:
            for raw in self.adapter.frames():
                if self._only not in ("", raw.camera):
                    continue
                if raw.camera not in timers:
                    timers[raw.camera] = self._timer(raw)
                self._yielded += 1
                yield Timed(raw, timers[raw.camera].stamp(raw))
            self._at_end = True
        finally:
            self.adapter.close()
        if self._only and not self._yielded:
            raise MediaError(
                f"{self._path} holds no pictures of camera {self._only!r}",
                remedy="See its topics with: syncline log info, or ros2 bag info",
            )

    def damage(self) -> Damage:
        """What the adapter could not decode; frames are missed only once the end was reached."""
        missing = max(self.frame_count - self._yielded, 0) if self._at_end else 0
        return Damage(self.adapter.health().errors, missing)

    def _timer(self, raw: RawFrame) -> FrameTimer:
        assert isinstance(raw.payload, np.ndarray)
        height, width = raw.payload.shape[:2]
        period_ns = self.adapter.period_ns if isinstance(self.adapter, VideoFile) else 0.0
        mode = self._camera.mode(width, height, period_ns)
        exposure_us = self._camera.exposure_us
        return recorded_timer(mode, self._camera.anchor_kind, exposure_us)


class LogRecording:
    """A log that syncline recorded: pictures with the timing and segments recorded beside them.

    One boot of it: an ordinary ring holds several after a reboot, and their raw times overlap.

    Args:
        path: Recording folder, or one file that holds both pictures and timing.
        camera: Only this camera; empty for all.
        boot: Beginning of the boot's id; empty where only one boot holds pictures.
        reducible: Whether models may be given less than the full size of a JPEG.

    Raises:
        UsageError: There are several boots and none was named, or none is called so.
        LogError: There are no pictures, or it is no log.
    """

    def __init__(
        self, path: Path, camera: str = "", boot: str = "", *, reducible: bool = False
    ) -> None:
        self._path = path
        self._reducible = reducible
        self._images = _image_topics(path, camera)
        counts = messages_per_boot(path, self._images)
        if not counts:
            raise _no_pictures(path, camera)
        self._boot = choose_boot(path, counts, boot)
        self.boot_id = self._boot or recording_boot_id(path)
        with LogReader(path) as reader:
            self._segments = list(reader.timebase(self._boot).segments)
            files = [f for f in reader.files() if f.boot_id == self._boot]
        self._errors = sum(_damages(f.index) for f in files)
        self._pairs = PicturePairs[FrameTime]()
        self.frame_count = counts[self._boot]

    @property
    def recorded_boot(self) -> str:
        """The boot as the log names it; empty for a file that is not ours."""
        return self._boot

    def segments(self) -> list[MappingSegment]:
        """The mapping segments of the recording."""
        return self._segments

    def frames(self) -> Iterator[Timed]:
        """Pictures in order of time, each with its recorded timing.

        Memory: see `PicturePairs`.

        Raises:
            LogError: There are pictures, and not one has its timing.
            MediaError: A picture is none, or does not decode.
        """
        timings = [name.removesuffix("/image") + "/timing" for name in self._images]
        self._pairs = pairs = PicturePairs[FrameTime]()
        with LogReader(self._path, topics=[*self._images, *timings]) as reader:
            for record in reader:
                if record.boot_id != self._boot:
                    continue
                camera = record.topic.split("/")[2]
                key = (camera, record.raw_ns)
                message = reader.decode(record)
                if record.topic.endswith("/timing"):
                    pair = pairs.timing(key, timing_of_message(message))
                else:
                    pair = pairs.picture(key, message.data)
                if pair is not None:
                    timing, data = pair
                    yield self._timed(timing, self._picture(data, topics.IMAGE.of(camera)))
        pairs.finish()
        if pairs.unmatched and not pairs.matched:
            raise LogError(
                f"{self._path} holds {pairs.unmatched} pictures and no frame time of them: "
                f"{', '.join(timings)} is missing",
                remedy="Cut it again with both: log cut --topic .../image --topic .../timing",
            )

    def _picture(self, data: bytes, name: str) -> Image | JpegPicture:
        """A JPEG stays one: the replay of a camera's JPEG is decoded as it was live."""
        if not is_jpeg(data):
            return decode_picture(data, name)
        try:
            return JpegPicture(data, reducible=self._reducible)
        except MediaError as error:
            raise MediaError(f"{name}: {error.message}", remedy=error.remedy) from error

    def damage(self) -> Damage:
        """Damaged parts of the files, and pictures whose timing was lost."""
        return Damage(self._errors, self._pairs.unmatched)

    @staticmethod
    def _timed(timing: FrameTime, picture: Image | JpegPicture) -> Timed:
        exposures: tuple[Exposure, ...] = timing.exposures
        arrival = Stamp(timing.eof_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL)
        raw = RawFrame(timing.camera, timing.sequence, None, None, arrival, exposures, picture)
        return Timed(raw, timing)


def _image_topics(path: Path, camera: str) -> list[str]:
    with LogReader(path) as reader:
        names = {channel.topic for channel in reader.channels}
    images = sorted(n for n in names if n.startswith("/camera/") and n.endswith("/image"))
    if camera:
        images = [name for name in images if name == topics.IMAGE.of(camera)]
    if not images:
        raise _no_pictures(path, camera)
    return images


def _no_pictures(path: Path, camera: str) -> LogError:
    return LogError(
        f"{path} holds no pictures{f' of camera {camera!r}' if camera else ''}",
        remedy="Record with images = true, or give the folder that holds cam.mcap",
    )


def _damages(index: FileIndex) -> int:
    """Places that cannot be read; an end that is merely not written yet is none."""
    return index.damaged_chunks + index.damaged_records + (index.lost_bytes > 0)


def decode_picture(data: bytes, name: str) -> Image:
    """Decode an encoded picture.

    Raises:
        MediaError: It does not decode.
    """
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise MediaError(f"{name}: a picture of {len(data)} bytes does not decode")
    return np.asarray(image, dtype=np.uint8)


def _is_log(path: Path) -> bool:
    """Whether it is a log by its name, or a folder of them; no tree is walked for it."""
    if not path.is_dir():
        return path.suffix == ".mcap"
    if (path / RING).is_dir() or (path / PINNED).is_dir():
        return True
    try:
        return bool(log_groups(path))
    except UsageError:
        return False


def open_recording(
    path: Path, camera: CameraSection, *, only: str = "", boot: str = ""
) -> MediaRecording | LogRecording | ClipRecording:
    """Open whatever lies at a path.

    Args:
        path: Video, folder of pictures, bag or log.
        camera: The camera that made a video or folder; of a log, its `decode` alone counts.
        only: Only this camera of a log or bag; empty for all.
        boot: Beginning of the id of the boot that is meant in a log.

    Raises:
        MediaError: Nothing lies there, or it cannot be read.
        LogError: It looks like a log and is none.
        UsageError: Camera or boot cannot be chosen so.
    """
    if path.parts and path.parts[0].rstrip(":") in SCHEMES and path.parts[0].endswith(":"):
        raise UsageError(
            f"{path.parts[0]}//... is a live stream, not a recording",
            remedy='Record it with: syncline run, and [[camera]] kind = "rtsp" or "stream"',
        )
    if not path.exists():
        raise MediaError(f"{path} does not exist", remedy="Check the path")
    if not is_bag(path) and _is_log(path):
        return LogRecording(path, only, boot, reducible=camera.decode == "reduced")
    if boot:
        raise UsageError(
            f"{path} is no recording of ours: --boot {boot} chooses nothing",
            remedy="Leave --boot away",
        )
    if path.is_file() and (sidecar := sidecar_path(path)) and sidecar.suffix == ".mcap":
        return ClipRecording(path, sidecar, camera=only)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        raise MediaError(f"{path} is a single picture", remedy="Give its folder")
    return MediaRecording(path, camera, only=only)
