"""What lies beside a video and tells its frames' times: stamps, a table, or recorded timing.

`clip.mp4.stamps` (`stamps.py`), `clip.mp4.csv`, or `clip.mp4.mcap`. Only the whole name of the clip
with one of these endings is taken: a `clip.mcap` beside it may be anything. Format:
docs/sensors.md.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from syncline import topics
from syncline.errors import LogError, MediaError, SensorDataError
from syncline.log.reader import LogReader
from syncline.log.records import Record
from syncline.sensors.adapters.stamps import FrameStamps, read_stamps
from syncline.sensors.frame import Exposure, FrameEvent

SUFFIXES = (".stamps", ".csv", ".mcap")
MAX_FRAMES = 5_000_000
"""Frames that a sidecar tells of at most: nearly two days at 30 a second, about 200 bytes each."""
MAX_CSV_BYTES = 1 << 30
COLUMNS = ("frame", "time_ns", "sigma_ns", "bias_low_ns", "bias_high_ns", "exposure_ns", "gain")


def sidecar_path(video: Path) -> Path | None:
    """The sidecar of a video; None where there is none.

    Raises:
        MediaError: There are several.
    """
    paths = [video.with_name(video.name + suffix) for suffix in SUFFIXES]
    found = [path for path in paths if path.is_file()]
    if len(found) > 1:
        raise MediaError(
            f"{video} has several sidecars: {', '.join(path.name for path in found)}",
            remedy="Keep the one that holds",
        )
    return found[0] if found else None


def read_sidecar(path: Path) -> FrameStamps:
    """Read a sidecar.

    Raises:
        MediaError: It is none, or contradicts itself.
        LogError: An MCAP sidecar cannot be read.
    """
    if path.suffix == ".csv":
        return _read_csv(path)
    return _read_mcap(path) if path.suffix == ".mcap" else read_stamps(path)


def _read_csv(path: Path) -> FrameStamps:
    event = FrameEvent.MID
    rows: list[tuple[int, int, float, int, int]] = []
    exposures: list[Exposure | None] = []
    numbered = False
    for number, fields in _csv_rows(path):
        if not number:
            event, numbered = FrameEvent(fields["event"]), fields["numbered"] == "yes"
            continue
        try:
            row = _row(fields, len(rows))
            exposures.append(_exposure(fields))
        except (ValueError, OverflowError, SensorDataError) as error:
            raise MediaError(f"{path}: row {number}: {error}", remedy="Write numbers") from error
        if rows and (row[0] <= rows[-1][0] or row[1] <= rows[-1][1]):
            raise MediaError(f"{path}: row {number} does not ascend in frame and time")
        rows.append(row)
        if len(rows) > MAX_FRAMES:
            raise MediaError(f"{path}: more than {MAX_FRAMES} frames")
    if not rows:
        raise MediaError(f"{path} holds no times", remedy="Remove it or write it again")
    table = np.array([(r[0], r[1], r[3], r[4]) for r in rows], dtype=np.int64)
    return FrameStamps(
        frame=table[:, 0],
        t_ns=table[:, 1],
        event=event,
        sigma_ns=np.array([row[2] for row in rows], dtype=np.float64),
        bias_ns=table[:, 2:],
        exposures=tuple(exposures) if any(exposures) else (),
        is_whole=not numbered,
    )


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """First the head as row 0, then the rows; cells by column name."""
    if path.stat().st_size > MAX_CSV_BYTES:
        raise MediaError(f"{path}: larger than {MAX_CSV_BYTES} bytes")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            first = file.readline(4096)
            told = dict(w.split("=", 1) for w in first[1:].split() if "=" in w)
            event = told.get("event", "mid") if first.startswith("#") else "mid"
            if event not in {e.value for e in FrameEvent}:
                events = ", ".join(e.value for e in FrameEvent)
                raise MediaError(f"{path}: event={event!r}", remedy=f"event is one of {events}")
            header = file.readline(4096) if first.startswith("#") else first
            names = [name.strip() for name in header.split(",")]
            wrong = [name for name in names if name not in COLUMNS]
            if wrong or "time_ns" not in names or len(set(names)) != len(names):
                raise MediaError(
                    f"{path}: columns {header.strip()[:100]!r}",
                    remedy=f"time_ns, and what is known of {', '.join(COLUMNS)}",
                )
            yield 0, {"event": event, "numbered": "yes" if "frame" in names else "no"}
            for number, cells in enumerate(csv.reader(file), start=1):
                if cells and len(cells) != len(names):
                    raise MediaError(f"{path}: row {number} has {len(cells)} of {len(names)} cells")
                if cells:
                    yield number, dict(zip(names, cells, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(f"cannot read sidecar {path}: {error}") from error


def _row(cells: dict[str, str], position: int) -> tuple[int, int, float, int, int]:
    frame, t_ns = int(cells.get("frame", position)), int(cells["time_ns"])
    low, high = int(cells.get("bias_low_ns", 0)), int(cells.get("bias_high_ns", 0))
    sigma_ns = float(cells.get("sigma_ns", 0.0))
    if min(frame, t_ns) < 0 or max(frame, t_ns) >= 2**62 or max(abs(low), abs(high)) >= 2**62:
        raise ValueError(f"frame {frame} at {t_ns} ns is out of range")
    if low > high:
        raise ValueError(f"bias_low_ns={low} is above bias_high_ns={high}")
    if not (math.isfinite(sigma_ns) and sigma_ns >= 0.0):
        raise ValueError(f"sigma_ns={sigma_ns} must be at least 0 and finite")
    return frame, t_ns, sigma_ns, low, high


def _exposure(cells: dict[str, str]) -> Exposure | None:
    """None for a cell that is empty, 0 or not there."""
    duration_ns = int(cells.get("exposure_ns") or 0)
    return Exposure(duration_ns, float(cells.get("gain") or 1.0)) if duration_ns else None


def timing_topic(path: Path) -> str:
    """The one topic of frame times of an MCAP sidecar.

    Raises:
        MediaError: There is none, or several.
        LogError: It cannot be read.
    """
    with LogReader(path) as reader:
        names = {channel.topic for channel in reader.channels}
        boots = len(set(reader.boot_ids))
    head, _, tail = topics.TIMING.name.partition("{}")
    found = sorted(name for name in names if name.startswith(head) and name.endswith(tail))
    if len(found) != 1 or boots != 1:
        raise MediaError(
            f"{path} holds {len(found)} cameras' frame times, of {boots} boots; one is needed",
            remedy="Make it with: syncline log convert REC CLIP.mp4 --to video --camera NAME",
        )
    return found[0]


def timing_records(path: Path) -> Iterator[Record]:
    """The frame times of an MCAP sidecar, one per picture, in order of time.

    Raises:
        MediaError: See `timing_topic`.
        LogError: It cannot be read.
    """
    with LogReader(path, topics=[timing_topic(path)]) as reader:
        yield from reader


def _read_mcap(path: Path) -> FrameStamps:
    times: list[tuple[int, int, int]] = []
    sigmas: list[float] = []
    exposures: list[Exposure | None] = []
    with LogReader(path) as reader:
        for record in timing_records(path):
            message = reader.decode(record)
            if len(times) == MAX_FRAMES:
                raise MediaError(f"{path}: more than {MAX_FRAMES} frames")
            try:
                exposures.append(
                    Exposure(message.exposure_ns, message.gain) if message.exposure_ns else None
                )
            except SensorDataError as error:
                raise LogError(f"{path}: frame {message.index}: {error.message}") from error
            times.append((message.mid_raw_ns, message.bias_low_ns, message.bias_high_ns))
            sigmas.append(message.sigma_ns if math.isfinite(message.sigma_ns) else 0.0)
    if not times:
        raise MediaError(f"{path} holds no times", remedy="Remove it or write it again")
    table = np.array(times, dtype=np.int64)
    if (np.diff(table[:, 0]) <= 0).any():
        raise MediaError(f"{path}: frame times do not ascend")
    return FrameStamps(
        frame=np.arange(len(table)),
        t_ns=table[:, 0],
        event=FrameEvent.MID,
        sigma_ns=np.array(sigmas, dtype=np.float64),
        bias_ns=table[:, 1:],
        exposures=tuple(exposures) if any(exposures) else (),
        is_whole=True,
    )
