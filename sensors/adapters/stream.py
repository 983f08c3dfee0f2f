"""A network camera (RTSP and what else FFmpeg receives): reconnects, keeps one device time.

The presentation times of a stream are the camera's own clock. They become `device_ticks`
(nanoseconds), and the frame timer maps them to the raw clock by their least delay. The delay that
every frame has nothing here can see: it stays as the one-sided bias of the arrival, unless the
camera's sender reports tell the time and somebody vouches for its clock (`sender_clock`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from syncline.errors import DeviceError, MediaError
from syncline.sensors.adapters.network_url import check_url, without_secret
from syncline.sensors.adapters.reopening import RETRY_NS, Reopening
from syncline.sensors.adapters.sender_clock import (
    NOBODY_VOUCHES,
    SenderClock,
    SenderFault,
    reference_utc_ns,
    sender_stamp,
)
from syncline.sensors.frame import FrameEvent, Ns, RawFrame, Stamp
from syncline.sensors.jpeg import JpegPicture
from syncline.timebase import NS_PER_S, Clock, RawClock

MAX_PIXELS = 64_000_000
MAX_WAITING = 64
"""Packets that a decoder may hold back; arrivals of older ones are forgotten."""
MAX_BAD = 250
"""Packets in a row that do not decode before the stream is opened anew."""
NAP_NS = NS_PER_S // 4
MAX_RETRY_NS = 8 * NS_PER_S
JUMP_NS = 5 * NS_PER_S
"""Stream time that leaves the raw clock by more than this began anew."""

_REMEDIES: dict[type[Exception], str] = {
    av.error.HTTPUnauthorizedError: "Put user and password into the address: "
    "rtsp://USER:PASSWORD@HOST/PATH",
    av.error.HTTPForbiddenError: "Give this user the right to the stream, in the camera's settings",
    av.error.HTTPNotFoundError: "Correct the path of the address; the camera's manual has it",
}
_REMEDY = "Check the address, the transport (tcp, udp), and that the camera is on and in reach"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream is received.

    Attributes:
        transport: How RTSP sends pictures: `tcp` loses none on the way, `udp` does not wait.
        timeout_ns: Longest wait for an answer and for a picture.
        latency_ns: Greatest age of a picture when it arrives, from the end of its readout.
        sender: What the camera's own clock is worth.
        reducible: Whether models may be given less than the full size of a JPEG.
    """

    transport: Literal["tcp", "udp"] = "tcp"
    timeout_ns: Ns = 4 * NS_PER_S
    latency_ns: Ns = NS_PER_S
    sender: SenderClock = NOBODY_VOUCHES
    reducible: bool = False


DEFAULTS = StreamOptions()


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A picture of Motion JPEG that stays as it came; read like a decoded one."""

    pts: int | None
    is_corrupt: bool
    picture: JpegPicture

    @property
    def width(self) -> int:
        return self.picture.width_px

    @property
    def height(self) -> int:
        return self.picture.height_px


def open_url(url: str, options: StreamOptions) -> Any:
    """A PyAV container of a stream, with limits on waiting."""
    wait_s = options.timeout_ns / NS_PER_S
    given = {
        "fflags": "nobuffer",
        "fpsprobesize": "0",  # a rate is not waited for: nobody here believes it
        "protocol_whitelist": "rtp,srtp,udp,tcp,tls,srt,http,https",
    }
    if url.startswith("rtsp"):
        given |= {"rtsp_transport": options.transport}
    container = av.open(url, mode="r", options=given, timeout=(wait_s, wait_s))
    for video in container.streams.video:
        video.thread_type, video.thread_count = "SLICE", 1  # frame threads hold pictures back
    return container


def _pixels(picture: Any) -> NDArray[np.uint8]:
    return np.asarray(picture.to_ndarray(format="bgr24"), dtype=np.uint8)


class StreamCamera(Reopening[RawFrame]):
    """Frames of a network stream; Motion JPEG stays JPEG (`JpegPicture`).

    Memory: the demuxer's and decoder's own buffers, `MAX_WAITING` arrivals and one picture. After
    a loss the stream is opened again, first after half a second, at last every eight; the device
    time goes on by the time that passed on the raw clock.

    Args:
        url: Address; user and password in it are never shown.
        camera: Name given to the frames.
        options: See `StreamOptions`.
        clock: Stamps arrivals and paces retries.
        connect: Opens the stream (tests pass their own).

    Raises:
        UsageError: See `check_url`.
    """

    def __init__(
        self,
        url: str,
        camera: str = "camera",
        options: StreamOptions = DEFAULTS,
        *,
        clock: RawClock | None = None,
        connect: Callable[[str, StreamOptions], Any] = open_url,
    ) -> None:
        check_url(url)
        self._url, self._camera, self._connect = url, camera, connect
        self._options = options
        super().__init__(clock)
        self._container: Any = None
        self._is_jpeg = False
        self._jumps = 0
        self._faults: Counter[SenderFault] = Counter()
        self._fault = SenderFault.SILENT
        self._retry_ns = RETRY_NS
        self._device_ns = 0
        self._shift_ns: Ns | None = None
        self._waiting: dict[int, tuple[Ns, Ns | None]] = {}

    def _open(self) -> None:
        """Connect.

        Raises:
            DeviceError: The stream cannot be reached, refuses us or has no usable video.
        """
        begin_ns = self._clock.raw_ns()
        try:
            container = self._connect(self._url, self._options)
        except (OSError, av.error.FFmpegError, ValueError) as error:
            waited_ns = self._clock.raw_ns() - begin_ns
            raise DeviceError(
                f"stream {without_secret(self._url)}: {self._reason(error, waited_ns)}",
                remedy=_remedy(error),
            ) from error
        videos = container.streams.video
        size = videos[0].codec_context.width * videos[0].codec_context.height if videos else 0
        if not 0 < size <= MAX_PIXELS:
            container.close()
            raise DeviceError(
                f"stream {without_secret(self._url)} has no video of 1 to {MAX_PIXELS} pixels",
                remedy="Give the address of the camera's video, not of its sound or its page",
            )
        self._container, self._shift_ns = container, None
        self._is_jpeg = videos[0].codec_context.name == "mjpeg"

    @property
    def _is_open(self) -> bool:
        return self._container is not None

    def _came_back(self) -> None:
        """A stream that answers may yet bring nothing: its first picture ends the complaint."""

    def _rest(self) -> None:
        """Wait before the next try, each time longer; `close` ends it."""
        until_ns = self._clock.raw_ns() + self._retry_ns
        while not self._closed.is_set() and (now_ns := self._clock.raw_ns()) < until_ns:
            self._clock.sleep_until(min(now_ns + NAP_NS, until_ns))
        self._retry_ns = min(2 * self._retry_ns, MAX_RETRY_NS)

    def _some(self) -> Iterator[RawFrame]:
        """Frames until the stream ends or breaks, which for a camera is the same."""
        stream = self._container.streams.video[0]
        reason, bad = "the stream ended", 0
        self._waiting.clear()
        heard_ns = self._clock.raw_ns()
        try:
            for packet in self._container.demux(stream):
                if self._closed.is_set():
                    return
                heard_ns = self._clock.raw_ns()
                self._note_arrival(packet, heard_ns)
                pictures = self._decode(packet)
                bad = 0 if pictures else bad + 1
                if bad > MAX_BAD:
                    reason = f"{bad} packets in a row do not decode"
                    break
                for picture in pictures:
                    frame = self._frame(picture, stream.time_base or Fraction(1, 90_000))
                    if frame is not None:
                        self._retry_ns, self._detail = RETRY_NS, ""
                        yield frame
        except (OSError, av.error.FFmpegError, ValueError) as error:
            reason = self._reason(error, self._clock.raw_ns() - heard_ns)
        self._lose(f"stream {without_secret(self._url)}: {reason}")
        self._rest()

    def _note_arrival(self, packet: Any, arrival_ns: Ns) -> None:
        """A picture arrives when its packet does; decoding it comes later and takes time."""
        if packet.pts is None:
            return
        told = bytes(packet.get_sidedata("prft")) if packet.has_sidedata("prft") else b""
        self._waiting[packet.pts] = arrival_ns, reference_utc_ns(told)
        while len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def _decode(self, packet: Any) -> list[Any]:
        try:
            if self._is_jpeg and packet.size:
                picture = JpegPicture(bytes(packet), reducible=self._options.reducible)
                return [_Encoded(packet.pts, packet.is_corrupt, picture)]
            return list(packet.decode())
        except (av.error.InvalidDataError, MediaError):
            self._errors += 1
            return []

    def _frame(self, picture: Any, time_base: Fraction) -> RawFrame | None:
        """None for a picture without a time, damaged on its way, or too large."""
        known = None if picture.pts is None else self._waiting.pop(picture.pts, None)
        too_large = picture.width * picture.height > MAX_PIXELS
        if known is None or picture.is_corrupt or too_large:
            self._errors += 1
            return None
        arrival_ns, sampled_utc_ns = known
        latency_ns = self._options.latency_ns
        driver, fault = sender_stamp(sampled_utc_ns, arrival_ns, latency_ns, self._options.sender)
        self._faults[fault] += 1
        self._fault = fault
        image = picture.picture if isinstance(picture, _Encoded) else _pixels(picture)
        return RawFrame(
            camera=self._camera,
            sequence=None,
            device_ticks=self._device_time(int(picture.pts * time_base * NS_PER_S), arrival_ns),
            driver=driver,
            arrival=Stamp(
                arrival_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, 0.0, (-latency_ns, 0)
            ),
            payload=image,
        )

    def _device_time(self, pts_ns: Ns, arrival_ns: Ns) -> Ns:
        """Stream time on one scale that goes on over reconnects and restarts of the stream."""
        passed_ns = 0 if self._last_ns is None else max(arrival_ns - self._last_ns, 1)
        if self._shift_ns is not None:
            away_ns = pts_ns + self._shift_ns - self._device_ns - passed_ns
            if abs(away_ns) > JUMP_NS:
                self._jumps += 1
                self._shift_ns = None
        if self._shift_ns is None:
            self._shift_ns = self._device_ns + passed_ns - pts_ns
        self._device_ns = pts_ns + self._shift_ns
        return self._device_ns

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        used = self._fault is SenderFault.NONE and self._frames > 0
        known = self._fault in (SenderFault.UNDECLARED, SenderFault.NO_UTC)
        clock = Clock.DEVICE if known else Clock.UNKNOWN
        event = self._options.sender.event if used or known else FrameEvent.ARRIVAL
        return Clock.MONOTONIC_RAW if used else clock, event

    def _told(self) -> list[str]:
        jumps = [f"stream time began anew {self._jumps} times"] if self._jumps else []
        return [self._meaning(), *jumps]

    def _meaning(self) -> str:
        """What the times of the latest frames are made of."""
        if not self._frames:
            return ""
        late = f"up to {self._options.latency_ns / 1e6:g} ms late"
        if self._fault is not SenderFault.NONE:
            return f"times by arrival, {late}: {self._fault.value}"
        unused = self._frames - self._faults[SenderFault.NONE]
        rest = f"; {unused} frames by arrival, {late}" if unused else ""
        return f"times by sender reports{rest}"

    def _release(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _reason(self, error: BaseException, waited_ns: Ns) -> str:
        """FFmpeg calls an answer that did not come invalid data; the time it took tells."""
        timeout_ns = self._options.timeout_ns
        if waited_ns > 0.95 * timeout_ns:
            return f"silent for {timeout_ns / NS_PER_S:g} s"
        text = getattr(error, "strerror", None) or type(error).__name__
        return str(text).splitlines()[0]


def _remedy(error: BaseException) -> str:
    return next((text for kind, text in _REMEDIES.items() if isinstance(error, kind)), _REMEDY)
