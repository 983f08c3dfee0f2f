"""Frame times beside a video: `clip.mp4.stamps`, and what any sidecar tells (`sidecar`).

One line per frame in presentation order, either `time_ns` or `frame,time_ns` with frames counted
from 0. A first line such as `# event=mid sigma_ns=2000` says what the times mark; without it they
are ends of readout with no stated error. Times are nanoseconds on one clock and ascend.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from syncline.errors import MediaError
from syncline.sensors.frame import Exposure, FrameEvent, Stamp
from syncline.timebase import Clock

MAX_BYTES = 512 << 20
"""Largest stamps file that is read: four days at 60 frames a second."""

_SETTING = re.compile(r"(\w+)=(\S+)")


@dataclass(frozen=True, slots=True)
class FrameStamps:
    """Times of the frames of a video.

    Attributes:
        frame: int64 (N,), frame numbers in presentation order, ascending.
        t_ns: int64 (N,), ascending.
        event: What the times mark.
        sigma_ns: Their stated standard deviation, of all or of each (N,).
        bias_ns: int64 (N, 2), low and high of each; None = none.
        exposures: Exposure of each; empty = not told.
        is_whole: It tells of every frame of its video, so that their counts are equal.
    """

    frame: NDArray[np.int64]
    t_ns: NDArray[np.int64]
    event: FrameEvent
    sigma_ns: float | NDArray[np.float64]
    bias_ns: NDArray[np.int64] | None = None
    exposures: tuple[Exposure | None, ...] = ()
    is_whole: bool = False

    def of(self, frame: int) -> Stamp | None:
        """Stamp of a frame; None when the file does not tell it."""
        at = self._at(frame)
        if at is None:
            return None
        sigma_ns = self.sigma_ns if isinstance(self.sigma_ns, float) else float(self.sigma_ns[at])
        bias_ns = (0, 0)
        if self.bias_ns is not None:
            bias_ns = int(self.bias_ns[at, 0]), int(self.bias_ns[at, 1])
        return Stamp(int(self.t_ns[at]), Clock.MONOTONIC_RAW, self.event, sigma_ns, bias_ns)

    def exposure_of(self, frame: int) -> Exposure | None:
        """Exposure of a frame; None when the file does not tell it."""
        at = self._at(frame)
        return self.exposures[at] if at is not None and self.exposures else None

    def _at(self, frame: int) -> int | None:
        at = int(np.searchsorted(self.frame, frame))
        return at if at < len(self.frame) and int(self.frame[at]) == frame else None

    def check_count(self, frames: int, video: Path) -> None:
        """Refuse a file that tells of another number of frames than its video has.

        Raises:
            MediaError: Their counts differ, and no frame numbers say which is missing.
        """
        if self.is_whole and len(self.frame) != frames:
            raise MediaError(
                f"{video} has {frames} pictures, its sidecar tells of {len(self.frame)}",
                remedy="Make both anew together, or add a column of frame numbers to a CSV",
            )


def stamps_path(video: Path) -> Path:
    """Where the stamps of a video lie."""
    return video.with_name(video.name + ".stamps")


def read_stamps(path: Path) -> FrameStamps:
    """Read a stamps file.

    Memory: 16 bytes per frame, and the file once.

    Raises:
        MediaError: The file is too large, or a line is no time or out of order.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise MediaError(f"{path}: {size} bytes, limit {MAX_BYTES}")
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"cannot read stamps {path}: {error}") from error
    event, sigma_ns = _head(path, lines[0] if lines else "")
    frames = np.empty(len(lines), np.int64)
    times = np.empty(len(lines), np.int64)
    count = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        first, comma, second = line.partition(",")
        try:
            frames[count] = int(first) if comma else count
            times[count] = int(second if comma else first)
        except (ValueError, OverflowError) as error:
            raise MediaError(
                f"{path}:{number}: {line[:40]!r} is no time",
                remedy="Write `time_ns` or `frame,time_ns`, integers",
            ) from error
        if count and (frames[count] <= frames[count - 1] or times[count] <= times[count - 1]):
            raise MediaError(
                f"{path}:{number}: {line[:40]!r} does not ascend",
                remedy="Frame numbers and times must grow from line to line",
            )
        count += 1
    if not count:
        raise MediaError(f"{path} holds no times", remedy="Remove it or write it again")
    if frames[0] < 0 or times[0] < 0:
        raise MediaError(f"{path}: frame {frames[0]} at {times[0]} ns is below 0")
    return FrameStamps(frames[:count].copy(), times[:count].copy(), event, sigma_ns)


def _head(path: Path, line: str) -> tuple[FrameEvent, float]:
    found = dict(_SETTING.findall(line)) if line.startswith("#") else {}
    try:
        event = FrameEvent(found.get("event", "eof"))
        sigma_ns = float(found.get("sigma_ns", "0"))
    except ValueError as error:
        names = ", ".join(event.value for event in FrameEvent)
        raise MediaError(
            f"{path}:1: {error}", remedy=f"event is one of {names}; sigma_ns a number"
        ) from error
    if not 0.0 <= sigma_ns < 1e18:
        raise MediaError(f"{path}:1: sigma_ns={sigma_ns} must be at least 0 and finite")
    return event, sigma_ns
