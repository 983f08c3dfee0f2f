"""Sets of frames, one per camera, that saw the same moment; with the IMU and GNSS around it.

Grouping goes by mid-exposure time of the frame centre, never by arrival or frame number. Every
frame is in exactly one group; a group that a camera is missing from is delivered all the same, and
says so.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from syncline.errors import SensorDataError
from syncline.sensors.frame import FrameTime, Ns

KEPT_SAMPLES = 4096


@dataclass(frozen=True, slots=True)
class Sample:
    """A measurement of an IMU or GNSS receiver at a point in time, on the frames' clock."""

    t_ns: Ns
    value: object


@dataclass(frozen=True, slots=True)
class Group:
    """One moment, seen by several cameras.

    Attributes:
        t_ns: Middle between the earliest and the latest frame centre.
        frames: By camera; those that are missing are not in it.
        missing: Cameras without a frame, in the order they were named.
        spread_ns: Latest minus earliest frame centre.
        samples: By sensor: the samples within `window_ns` around `t_ns`, with one beyond either
            end where there is one, so that they can be interpolated.
        late: Frames of this moment arrived after it had been closed.
    """

    t_ns: Ns
    frames: dict[str, FrameTime]
    missing: tuple[str, ...]
    spread_ns: Ns
    samples: dict[str, tuple[Sample, ...]]
    late: bool = False

    @property
    def complete(self) -> bool:
        """True when no camera is missing."""
        return not self.missing


@dataclass(slots=True)
class _Open:
    frames: dict[str, FrameTime]
    first_ns: Ns
    last_ns: Ns
    late: bool = False


class FrameGrouper:
    """Groups frames as their times become known.

    A frame joins the open group whose frames all lie within `tolerance_ns` of it, the nearest one
    where several do. A group is delivered when it is complete and no older one is open, or when
    time has passed it by `timeout_ns`. Groups come out in order of time. Bounded memory: groups of
    the last `timeout_ns`, `KEPT_SAMPLES` samples per sensor.

    Args:
        cameras: Names; a group is complete with one frame of each.
        tolerance_ns: Longest time between the first and last frame centre of a group.
        timeout_ns: How long to wait for a missing camera, in frame time.
        window_ns: How much of IMU and GNSS around the middle goes with a group.

    Attributes:
        repeats: Frames refused because their camera and index were already grouped.
    """

    def __init__(
        self, cameras: Sequence[str], tolerance_ns: Ns, timeout_ns: Ns, window_ns: Ns = 0
    ) -> None:
        if not cameras or len(set(cameras)) != len(cameras):
            raise SensorDataError(f"frame grouper: cameras={list(cameras)} must be named once each")
        if tolerance_ns < 0 or timeout_ns < tolerance_ns or window_ns < 0:
            raise SensorDataError(
                f"frame grouper: tolerance_ns={tolerance_ns}, timeout_ns={timeout_ns}, "
                f"window_ns={window_ns} must be >= 0, and the timeout >= the tolerance"
            )
        self.cameras = tuple(cameras)
        self.tolerance_ns = tolerance_ns
        self.timeout_ns = timeout_ns
        self.window_ns = window_ns
        self.repeats = 0
        self._open: list[_Open] = []
        self._newest_ns: Ns | None = None
        self._closed_ns: Ns | None = None
        self._last_index: dict[str, int] = {}
        self._samples: dict[str, deque[Sample]] = {}

    def add_sample(self, sensor: str, sample: Sample) -> None:
        """Take an IMU or GNSS sample, in order of time per sensor."""
        kept = self._samples.setdefault(sensor, deque(maxlen=KEPT_SAMPLES))
        if kept and sample.t_ns < kept[-1].t_ns:
            raise SensorDataError(
                f"frame grouper: {sensor} sample at {sample.t_ns} ns comes after {kept[-1].t_ns} ns"
            )
        kept.append(sample)

    def add(self, ft: FrameTime) -> list[Group]:
        """Take a frame; returns the groups that are now decided, in order of time.

        Raises:
            SensorDataError: The frame's camera was not named.
        """
        if ft.camera not in self.cameras:
            raise SensorDataError(
                f"frame grouper: camera {ft.camera!r} is not one of {list(self.cameras)}"
            )
        if ft.index <= self._last_index.get(ft.camera, -(1 << 62)):
            self.repeats += 1
            return []
        self._last_index[ft.camera] = ft.index
        t_ns = ft.centre_ns()
        self._newest_ns = t_ns if self._newest_ns is None else max(self._newest_ns, t_ns)
        self._place(ft, t_ns)
        return self._deliver(self._newest_ns - self.timeout_ns)

    def flush(self) -> list[Group]:
        """Deliver what is open: no more frames will come."""
        return self._deliver(1 << 62)

    def _place(self, ft: FrameTime, t_ns: Ns) -> None:
        best: _Open | None = None
        best_off = 0
        for group in self._open:
            first, last = min(group.first_ns, t_ns), max(group.last_ns, t_ns)
            off = abs(2 * t_ns - group.first_ns - group.last_ns)
            fits = last - first <= self.tolerance_ns and ft.camera not in group.frames
            if fits and (best is None or off < best_off):
                best, best_off = group, off
        if best is None:
            late = self._closed_ns is not None and t_ns <= self._closed_ns
            fresh = _Open({ft.camera: ft}, t_ns, t_ns, late)
            at = bisect.bisect_right([g.first_ns for g in self._open], t_ns)
            self._open.insert(at, fresh)
            return
        best.frames[ft.camera] = ft
        best.first_ns, best.last_ns = min(best.first_ns, t_ns), max(best.last_ns, t_ns)

    def _deliver(self, before_ns: Ns) -> list[Group]:
        out: list[Group] = []
        while self._open:
            oldest = self._open[0]
            whole = len(oldest.frames) == len(self.cameras)
            if not whole and oldest.last_ns >= before_ns and not oldest.late:
                break
            out.append(self._close(self._open.pop(0)))
        return out

    def _close(self, group: _Open) -> Group:
        self._closed_ns = max(self._closed_ns or group.last_ns, group.last_ns)
        middle = (group.first_ns + group.last_ns) // 2
        missing = tuple(c for c in self.cameras if c not in group.frames)
        samples = {name: self._around(kept, middle) for name, kept in self._samples.items()}
        spread = group.last_ns - group.first_ns
        return Group(middle, group.frames, missing, spread, samples, group.late)

    def _around(self, kept: deque[Sample], middle_ns: Ns) -> tuple[Sample, ...]:
        times = [sample.t_ns for sample in kept]
        first = bisect.bisect_left(times, middle_ns - self.window_ns)
        last = bisect.bisect_right(times, middle_ns + self.window_ns)
        return tuple(list(kept)[max(first - 1, 0) : last + 1])
