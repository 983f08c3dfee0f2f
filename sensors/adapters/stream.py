"""A network camera (RTSP and what else FFmpeg receives): reconnects, keeps one device time.

The presentation times of a stream are the camera's own clock. They become `device_ticks`
(nanoseconds), and the frame timer maps them to the raw clock by their least delay: what the
network adds on average stays inside the timer's bias, because nothing here can see it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from syncline.errors import DeviceError, UsageError
from syncline.sensors.adapter import Health, HealthState
from syncline.sensors.frame import FrameEvent, RawFrame, Stamp
from syncline.timebase import NS_PER_S, Clock, OsClock, RawClock

SCHEMES = frozenset({"rtsp", "rtsps", "rtp", "udp", "tcp", "srt", "http", "https"})
"""What is opened; FFmpeg's `file:`, `concat:` and the like are not for a camera's address."""

MAX_PIXELS = 64_000_000
OPEN_S, READ_S = 5.0, 2.0
RETRY_NS = NS_PER_S // 2
MAX_RETRY_NS = 8 * NS_PER_S
_OPTIONS = {"rtsp_transport": "tcp", "fflags": "nobuffer"}


def open_url(url: str) -> Any:
    """A PyAV container of a stream, with limits on waiting."""
    options = _OPTIONS if url.startswith("rtsp") else {"fflags": "nobuffer"}
    return av.open(url, mode="r", options=options, timeout=(OPEN_S, READ_S))


def without_secret(url: str) -> str:
    """The address without user, password and query, for logs and messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class StreamCamera:
    """Frames of a network stream.

    Memory: the demuxer's and decoder's own buffers and one picture. After a loss the stream is
    opened again, first after half a second, at last every eight; the device time goes on by the
    time that passed on the raw clock.

    Args:
        url: Address; user and password in it are never shown.
        camera: Name given to the frames.
        clock: Stamps arrivals and paces retries.
        connect: Opens the stream (tests pass their own).

    Raises:
        UsageError: The address has a scheme that is not in `SCHEMES`.
    """

    def __init__(
        self,
        url: str,
        camera: str = "camera",
        *,
        clock: RawClock | None = None,
        connect: Callable[[str], Any] = open_url,
    ) -> None:
        if urlsplit(url).scheme not in SCHEMES:
            raise UsageError(
                f"stream address begins with {url.partition(':')[0]!r}",
                remedy=f"Give one of {', '.join(sorted(SCHEMES))}",
            )
        self._url, self._camera, self._connect = url, camera, connect
        self._clock = OsClock() if clock is None else clock
        self._container: Any = None
        self._closed = threading.Event()
        self._reading = False
        self._state, self._detail = HealthState.CLOSED, ""
        self._frames = self._errors = self._reconnects = 0
        self._retry_ns = RETRY_NS
        self._last_ns: int | None = None
        self._device_ns = 0
        self._shift_ns: int | None = None

    def open(self) -> None:
        """Connect.

        Raises:
            DeviceError: The stream cannot be reached, refuses us or has no usable video.
        """
        try:
            container = self._connect(self._url)
        except (OSError, av.error.FFmpegError, ValueError) as error:
            raise DeviceError(
                f"stream {without_secret(self._url)}: {_reason(error)}",
                remedy="Check the address, the network and the password",
            ) from error
        videos = container.streams.video
        size = videos[0].codec_context.width * videos[0].codec_context.height if videos else 0
        if not videos or size > MAX_PIXELS:
            container.close()
            raise DeviceError(f"stream {without_secret(self._url)} has no video we can take")
        self._container, self._state, self._shift_ns = container, HealthState.OK, None

    def frames(self) -> Iterator[RawFrame]:
        """Frames in order of arrival, until `close`."""
        self._reading = True
        try:
            while not self._closed.is_set():
                if self._container is not None or self._reopen():
                    yield from self._session()
        finally:
            self._reading = False
            self._state = HealthState.CLOSED
            self._release()

    def _reopen(self) -> bool:
        first = self._state is HealthState.CLOSED
        try:
            self.open()
        except DeviceError as error:
            self._state, self._detail = HealthState.GONE, error.message
            self._clock.sleep_until(self._clock.raw_ns() + self._retry_ns)
            self._retry_ns = min(2 * self._retry_ns, MAX_RETRY_NS)
            return False
        self._reconnects += not first
        return True

    def _session(self) -> Iterator[RawFrame]:
        """Frames until the stream ends or breaks, which for a camera is the same."""
        stream = self._container.streams.video[0]
        time_base = stream.time_base or Fraction(1, 90_000)
        reason = "the stream ended"
        try:
            for frame in self._container.decode(stream):
                if self._closed.is_set():
                    return
                if frame.pts is None:
                    self._errors += 1
                    continue
                self._retry_ns, self._detail = RETRY_NS, ""
                yield self._raw_frame(frame, int(frame.pts * time_base * NS_PER_S))
        except (OSError, av.error.FFmpegError, ValueError) as error:
            reason = _reason(error)
        self._state = HealthState.GONE
        self._detail = f"stream {without_secret(self._url)}: {reason}"
        self._release()

    def _raw_frame(self, frame: Any, pts_ns: int) -> RawFrame:
        arrival_ns = self._clock.raw_ns()
        if self._shift_ns is None:
            passed_ns = 0 if self._last_ns is None else max(arrival_ns - self._last_ns, 1)
            self._shift_ns = self._device_ns + passed_ns - pts_ns
        self._device_ns = pts_ns + self._shift_ns
        self._last_ns = arrival_ns
        self._frames += 1
        image: NDArray[np.uint8] = np.asarray(frame.to_ndarray(format="bgr24"), dtype=np.uint8)
        return RawFrame(
            camera=self._camera,
            sequence=None,
            device_ticks=self._device_ns,
            driver=None,
            arrival=Stamp(arrival_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL),
            payload=image,
        )

    def health(self) -> Health:
        """State and counters."""
        return Health(
            self._state,
            frames=self._frames,
            errors=self._errors,
            reconnects=self._reconnects,
            last_ns=self._last_ns,
            stamp_clock=Clock.DEVICE,
            stamp_event=FrameEvent.ARRIVAL,
            detail=self._detail,
        )

    def close(self) -> None:
        """End `frames`, at the latest after the limit on reading."""
        self._closed.set()
        if not self._reading:
            self._state = HealthState.CLOSED
            self._release()

    def _release(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or type(error).__name__
    return str(text).splitlines()[0]
