"""The telemetry track of a GoPro video: exposure and gain of every frame, IMU, GPS.

The camera writes one GPMF payload about every 1.001 s; sample i of n sits at the payload's start
+ i/n of its length. Exposures (SHUT) and gains (ISOE, ISOG) come once per frame.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.container
import av.error
import numpy as np
from numpy.typing import NDArray

from syncline.errors import MediaError
from syncline.sensors.adapters.gpmf import Block, parse_payload
from syncline.sensors.frame import Exposure
from syncline.timebase import NS_PER_S

MAX_PAYLOADS = 100_000
"""Payloads that are read, over a day of video."""

MAX_SAMPLES = 50_000_000
"""Samples of all streams that are kept, 8 bytes per column each."""

MAX_EXPOSURE_S = 60.0
"""Longer exposures in a video are a damaged track."""

BASE_ISO = 100.0
"""Sensitivity that counts as gain 1."""

GPS_COLUMNS = ("lat_deg", "lon_deg", "alt_m", "speed_2d_m_s", "speed_3d_m_s")


@dataclass(frozen=True, slots=True)
class Stream:
    """All samples of one sensor.

    Attributes:
        key: `SHUT`, `ISOE`, `ACCL`, `GYRO`, `GPS5`...
        name: What the camera calls it.
        t_ns: int64 (N,), nanoseconds since the first picture of the file.
        values: float64 (N, columns), in the camera's stated units.
        step_ns: Longest distance between samples; a time is uncertain by about half of it, because
            payload limits say where samples lie, not when they were taken.
        axes: Which axis each column holds, such as `XzY` (small: negative); empty where not told.
    """

    key: str
    name: str
    t_ns: NDArray[np.int64]
    values: NDArray[np.float64]
    step_ns: int
    axes: str = ""


@dataclass(frozen=True, slots=True)
class GpsEpoch:
    """UTC that the receiver stated in a payload.

    Attributes:
        offset_ns: Start of the payload, nanoseconds since the first picture.
        utc_ns: What GPSU says, nanoseconds since 1970; milliseconds are what it resolves.
    """

    offset_ns: int
    utc_ns: int


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The telemetry of one file.

    Attributes:
        streams: By key.
        epochs: UTC of payloads that had one.
        payloads: Payloads read.
    """

    streams: dict[str, Stream]
    epochs: tuple[GpsEpoch, ...]
    payloads: int


@dataclass(frozen=True, slots=True)
class BoundExposures:
    """Exposures bound to the frames of a file.

    Attributes:
        of_frame: One per frame in presentation order; None where the track has no usable one.
        by_count: True: as many samples as frames, bound one to one. False: bound by time.
        missing: Frames without an exposure.
        worst_ns: Greatest distance between a frame's time and that of its sample.
    """

    of_frame: tuple[Exposure | None, ...]
    by_count: bool
    missing: int
    worst_ns: int


def read_telemetry(path: Path) -> Telemetry | None:
    """Read the GPMF track of a video.

    Memory: all samples, at most `MAX_SAMPLES` values (a GoPro writes some 2000 values per second).

    Args:
        path: Video file.

    Returns:
        None when the file has no such track.

    Raises:
        MediaError: The file cannot be read, or the track is damaged.
    """
    blocks: dict[str, list[tuple[int, int, Block]]] = {}
    epochs: list[GpsEpoch] = []
    payloads = kept = 0
    for start_ns, length_ns, data in _payloads(path):
        payloads += 1
        if payloads > MAX_PAYLOADS:
            raise MediaError(f"{path}: more than {MAX_PAYLOADS} GPMF payloads")
        for block in parse_payload(data):
            kept += block.values.size
            if kept > MAX_SAMPLES:
                raise MediaError(f"{path}: more than {MAX_SAMPLES} GPMF values")
            blocks.setdefault(block.key, []).append((start_ns, length_ns, block))
            if block.utc_text:
                epochs.append(GpsEpoch(start_ns, parse_gpsu(block.utc_text)))
    if not payloads:
        return None
    streams = {key: _join(key, parts) for key, parts in blocks.items()}
    return Telemetry(streams, tuple(epochs), payloads)


def _payloads(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(start, length, bytes) of each payload, nanoseconds of the container."""
    try:
        with av.open(str(path), mode="r") as container:
            tracks = [stream for stream in container.streams if stream.type == "data"]
            for packet in container.demux(tracks) if tracks else ():
                if packet.pts is None or packet.size < 8 or packet.time_base is None:
                    continue
                data = bytes(packet)
                if data[:4] == b"DEVC":
                    unit_ns = packet.time_base * NS_PER_S
                    yield round(packet.pts * unit_ns), round((packet.duration or 0) * unit_ns), data
    except (OSError, av.error.FFmpegError) as error:
        raise MediaError(f"cannot read telemetry of {path}: {error}") from error


def _join(key: str, parts: list[tuple[int, int, Block]]) -> Stream:
    columns = parts[0][2].values.shape[1]
    times, values, step_ns = [], [], 0
    for start_ns, length_ns, block in parts:
        count = len(block.values)
        if block.values.shape[1] != columns:
            raise MediaError(f"GPMF {key}: {block.values.shape[1]} columns after {columns}")
        if count == 0:
            continue
        times.append(start_ns + np.arange(count, dtype=np.int64) * length_ns // count)
        values.append(block.values)
        step_ns = max(step_ns, length_ns // count)
    if not times:
        return Stream(key, parts[0][2].name, np.empty(0, np.int64), np.empty((0, columns)), 0)
    first = parts[0][2]
    return Stream(
        key, first.name, np.concatenate(times), np.concatenate(values), step_ns, first.axes
    )


def parse_gpsu(text: str) -> int:
    """`yymmddhhmmss.sss` as nanoseconds of UTC since 1970.

    Raises:
        MediaError: It is no such text.
    """
    try:
        moment = datetime.datetime.strptime(text[:12], "%y%m%d%H%M%S")  # noqa: DTZ007 set below
        fraction = text[12:].lstrip(".") or "0"
        nanoseconds = int(fraction.ljust(9, "0")[:9])
    except ValueError as error:
        raise MediaError(f"GPMF GPSU: {text!r} is not yymmddhhmmss.sss") from error
    return int(moment.replace(tzinfo=datetime.UTC).timestamp()) * NS_PER_S + nanoseconds


def bind_exposures(telemetry: Telemetry, frame_ns: NDArray[np.int64]) -> BoundExposures:
    """Give every frame its exposure and gain.

    As many samples as frames bind one to one. Otherwise a frame takes the sample that is nearest
    in time and no further than half a sample step: a missing sample moves no other frame.

    Args:
        telemetry: See `read_telemetry`.
        frame_ns: int64 (F,), frame times since the first picture, ascending.
    """
    count = len(frame_ns)
    shutter = telemetry.streams.get("SHUT")
    if shutter is None or not len(shutter.t_ns) or not count:
        return BoundExposures((None,) * count, False, count, 0)
    gains = telemetry.streams.get("ISOE") or telemetry.streams.get("ISOG")
    by_count = len(shutter.t_ns) == count
    nearest = np.arange(count) if by_count else _nearest(shutter.t_ns, frame_ns)
    away_ns = np.abs(shutter.t_ns[nearest] - frame_ns)
    allowed = np.ones(count, bool) if by_count else away_ns * 2 <= shutter.step_ns
    gain_at = None if gains is None else _nearest(gains.t_ns, shutter.t_ns)
    bound: list[Exposure | None] = []
    for at, good in zip(nearest, allowed, strict=True):
        gain = BASE_ISO
        if gains is not None and gain_at is not None and len(gains.values):
            gain = float(gains.values[gain_at[at], 0])
        bound.append(_exposure(float(shutter.values[at, 0]), gain) if good else None)
    missing = sum(exposure is None for exposure in bound)
    return BoundExposures(tuple(bound), by_count, missing, int(away_ns[allowed].max(initial=0)))


def _exposure(duration_s: float, iso: float) -> Exposure | None:
    if not (math.isfinite(duration_s) and 0.0 < duration_s <= MAX_EXPOSURE_S):
        return None
    gain = iso / BASE_ISO if math.isfinite(iso) and iso > 0.0 else 1.0
    return Exposure(round(duration_s * NS_PER_S), gain)


def _nearest(sorted_ns: NDArray[np.int64], wanted_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the value nearest to each wanted one."""
    if not len(sorted_ns):
        return np.zeros(len(wanted_ns), dtype=np.int64)
    right = np.clip(np.searchsorted(sorted_ns, wanted_ns), 1, max(len(sorted_ns) - 1, 1))
    right = np.minimum(right, len(sorted_ns) - 1)
    left = np.maximum(right - 1, 0)
    take_left = wanted_ns - sorted_ns[left] <= sorted_ns[right] - wanted_ns
    return np.where(take_left, left, right).astype(np.int64)
