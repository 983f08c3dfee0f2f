"""Frame times beside a video: `clip.mp4.stamps`, written by whoever took the pictures.

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
from syncline.sensors.frame import FrameEvent

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
        sigma_ns: Their stated standard deviation.
    """

    frame: NDArray[np.int64]
    t_ns: NDArray[np.int64]
    event: FrameEvent
    sigma_ns: float

    def of(self, frame: int) -> int | None:
        """Time of a frame; None when the file does not tell it."""
        at = int(np.searchsorted(self.frame, frame))
        found = at < len(self.frame) and int(self.frame[at]) == frame
        return int(self.t_ns[at]) if found else None


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
