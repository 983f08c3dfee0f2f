"""A video file as a camera: presentation times become device stamps, never `index / fps`.

A sidecar beside the video (`sidecar.py`) tells the times better than the container. A GoPro's
telemetry track gives every frame its exposure.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.video
import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.errors import MediaError
from syncline.sensors.adapters.gopro import bind_exposures, read_telemetry
from syncline.sensors.adapters.matroska import missing_bytes
from syncline.sensors.adapters.recorded import Recorded
from syncline.sensors.adapters.sidecar import read_sidecar, sidecar_path
from syncline.sensors.adapters.stamps import FrameStamps
from syncline.sensors.frame import Exposure, FrameEvent, Quality, RawFrame, Stamp
from syncline.timebase import NS_PER_S, Clock

Image = NDArray[np.uint8]
_NO_IMAGE: Image = np.empty((0, 0, 3), dtype=np.uint8)

MAX_PIXELS = 64_000_000
"""Largest picture that is decoded; a hostile header asks for more."""

COARSE_TICK_NS = 100_000
"""Container ticks longer than this lose more than a frame's timing is worth (Matroska: 1 ms)."""


class VideoFile(Recorded[RawFrame]):
    """Frames of a video file in presentation order.

    Memory: one decoded frame and the decoder's own reference frames; with stamps or telemetry also
    some 100 bytes per frame of the file.

    Args:
        path: File that FFmpeg can read.
        camera: Name given to the frames.
        start_ns: Time of the first picture on the recording's clock; above any exposure, because
            raw times are never negative.
        threads: Decoder threads.
        as_recorded: Decode JPEG and PNG packets by OpenCV, as pictures of our logs are: FFmpeg
            rounds colours otherwise, and a clip of a log shall replay to the same bits.
    """

    def __init__(
        self,
        path: Path,
        camera: str = "camera",
        *,
        start_ns: int = NS_PER_S,
        threads: int = 1,
        as_recorded: bool = False,
    ) -> None:
        super().__init__()
        self._path = path
        self._camera = camera
        self._start_ns = start_ns
        self._threads = threads
        self._as_recorded = as_recorded
        self._container: av.container.InputContainer | None = None
        self.tick_ns = 0.0
        self.period_ns = 0.0
        self.frame_count = 0
        self.size_px = (0, 0)
        self.quality = Quality.NO_EXPOSURE
        self._offsets_ns: NDArray[np.int64] | None = None
        self._exposures: tuple[Exposure | None, ...] = ()
        self._stamps_beside: FrameStamps | None = None
        self._notes: list[str] = []

    def _open(self) -> None:
        """Open the file and read the stream's geometry.

        Raises:
            MediaError: The file is absent, is no video, or its pictures are too large.
        """
        try:
            self._container = av.open(str(self._path), mode="r")
        except (OSError, av.error.FFmpegError) as error:
            raise MediaError(
                f"cannot read video {self._path}: {_reason(error)}",
                remedy="Check the path, or re-encode it with: ffmpeg -i IN -c:v libx264 OUT.mp4",
            ) from error
        if not self._container.streams.video:
            self._release()
            raise MediaError(f"{self._path} has no video stream", remedy="Give a video file")
        stream = self._container.streams.video[0]
        stream.thread_count = self._threads
        stream.thread_type = "FRAME" if self._threads > 1 else "SLICE"
        self._read_geometry(stream)
        self._read_extras()

    def _read_extras(self) -> None:
        """Stamps beside the file and exposures inside it; damaged telemetry costs no picture."""
        assert self._container is not None
        self._notes = []
        sidecar = sidecar_path(self._path)
        self._stamps_beside = None if sidecar is None else read_sidecar(sidecar)
        self._offsets_ns, self._exposures = None, ()
        if any(stream.type == "data" for stream in self._container.streams):
            self._read_exposures()
        if sidecar is not None and self._stamps_beside is not None:
            self._notes.append(f"times from {sidecar.name}")
            if self._offsets_ns is None:
                self._offsets_ns = presentation_offsets(self._path)
            self._stamps_beside.check_count(len(self._offsets_ns), self._path)

    def _read_exposures(self) -> None:
        try:
            telemetry = read_telemetry(self._path)
        except MediaError as error:
            self._errors += 1
            self._notes.append(f"no exposures: {error.message}")
            return
        if telemetry is None or "SHUT" not in telemetry.streams:
            return
        self._offsets_ns = presentation_offsets(self._path)
        bound = bind_exposures(telemetry, self._offsets_ns)
        self._exposures = bound.of_frame
        self.quality = Quality.NO_EXPOSURE if bound.missing else Quality.OK
        bound_count = len(bound.of_frame) - bound.missing
        self._notes.append(f"exposure of {bound_count} of {len(bound.of_frame)} frames")

    def _read_geometry(self, stream: av.video.VideoStream) -> None:
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise MediaError(
                f"{self._path}: pictures of {width}x{height}, limit {MAX_PIXELS} pixels",
                remedy="Scale the video down first",
            )
        self.size_px = (width, height)
        time_base = stream.time_base or Fraction(1, 90_000)
        self.tick_ns = float(time_base * NS_PER_S)
        rate = stream.average_rate or stream.guessed_rate
        self.period_ns = float(NS_PER_S / rate) if rate else 0.0
        self.frame_count = stream.frames

    def _read(self) -> Iterator[RawFrame]:
        """Frames in presentation order; a truncated tail ends the stream and is counted.

        Raises:
            MediaError: Not a single picture could be decoded.
        """
        assert self._container is not None
        stream = self._container.streams.video[0]
        time_base = stream.time_base or Fraction(1, 90_000)
        first_pts = stream.start_time or 0
        try:
            for pts, image in self._pictures(stream):
                if pts is None:
                    self._errors += 1
                    continue
                offset_ns = int((pts - first_pts) * time_base * NS_PER_S)
                raw = self._raw_frame(image, offset_ns)
                if raw is not None:
                    yield raw
        except (av.error.FFmpegError, ValueError) as error:
            self._errors += 1
            if self._frames == 0:
                raise MediaError(
                    f"{self._path}: no picture could be decoded ({_reason(error)})",
                    remedy="The file is damaged; recover it or record it again",
                ) from error
        if self._frames == 0:
            raise MediaError(f"{self._path} holds no pictures", remedy="Record it again")
        if not self.frame_count and (lost := missing_bytes(self._path)):
            self._errors += 1
            self._notes.append(f"its last {lost} bytes are missing")

    def _pictures(self, stream: av.video.VideoStream) -> Iterator[tuple[int | None, Image]]:
        """Presentation time and pixels of each picture."""
        assert self._container is not None
        if not self._as_recorded or stream.codec_context.name not in ("mjpeg", "png"):
            for frame in self._container.decode(stream):
                image = np.asarray(frame.to_ndarray(format="bgr24"), dtype=np.uint8)
                yield frame.pts, image
            return
        for packet in self._container.demux(stream):
            if packet.size:
                data = np.frombuffer(bytes(packet), dtype=np.uint8)
                picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
                # A damaged picture has no time to be had at: it is counted, none is moved.
                pts = None if picture is None else packet.pts
                yield pts, np.asarray(picture, dtype=np.uint8) if pts is not None else _NO_IMAGE

    def _raw_frame(self, image: Image, offset_ns: int) -> RawFrame | None:
        """None for a frame that the stamps file does not tell of."""
        index = self._frames if self._offsets_ns is None else self._index_of(offset_ns)
        # Half a tick of rounding is the only error we know of; its spread is uniform.
        sigma_ns = self.tick_ns / 12**0.5
        t_ns = self._start_ns + offset_ns
        stamp: Stamp | None = Stamp(t_ns, Clock.MONOTONIC_RAW, FrameEvent.EOF, sigma_ns)
        exposure = self._exposures[index] if index < len(self._exposures) else None
        if self._stamps_beside is not None:
            stamp = self._stamps_beside.of(index)
            exposure = self._stamps_beside.exposure_of(index) or exposure
        if stamp is None:
            self._errors += 1
            return None
        return RawFrame(
            camera=self._camera,
            sequence=index,
            device_ticks=None,
            driver=stamp,
            arrival=Stamp(stamp.t_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL),
            exposures=() if exposure is None else (exposure,),
            payload=image,
        )

    def _index_of(self, offset_ns: int) -> int:
        assert self._offsets_ns is not None
        return int(np.searchsorted(self._offsets_ns, offset_ns))

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        event = FrameEvent.EOF if self._stamps_beside is None else self._stamps_beside.event
        return Clock.MONOTONIC_RAW, event

    def _told(self) -> list[str]:
        coarse = " (coarse)" if self.tick_ns > COARSE_TICK_NS else ""
        return [f"container tick {self.tick_ns / 1e3:g} us{coarse}", *self._notes]

    def _release(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()


def presentation_offsets(path: Path) -> NDArray[np.int64]:
    """Times of all pictures of the first video stream, read without decoding.

    Returns:
        int64 (F,) ascending, nanoseconds since the stream's start.

    Raises:
        MediaError: The file cannot be read.
    """
    try:
        with av.open(str(path), mode="r") as container:
            stream = container.streams.video[0]
            time_base, first_pts = stream.time_base or Fraction(1, 90_000), stream.start_time or 0
            times = [
                int((packet.pts - first_pts) * time_base * NS_PER_S)
                for packet in container.demux(stream)
                if packet.pts is not None and packet.size
            ]
    except (OSError, av.error.FFmpegError) as error:
        raise MediaError(f"cannot read video {path}: {_reason(error)}") from error
    return np.sort(np.array(times, dtype=np.int64))


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
