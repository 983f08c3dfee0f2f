"""CAN frames out of MF4 files by asammdf, of the `sensors` extra."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from syncline.errors import LogError
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.extras import need
from syncline.sensors.adapters.recorded import Recorded
from syncline.sensors.frame import FrameEvent, Stamp
from syncline.timebase import NS_PER_S, Clock

CHUNK_ROWS = 8192
"""Frames of all buses in memory at a time."""
MAX_GROUPS = 256

_FRAME = "CAN_DataFrame"


class Mf4Log(Recorded[Sample[CanFrame]]):
    """Frames of an ASAM MDF 4 bus log in order of time; each names its bus.

    Times are the logger's own clock: its start time plus the frame's offset. A file may store its
    buses apart, each in a group of its own: they are merged into one stream in order of time, of
    equal times the group that stands first in the file.
    Memory: `CHUNK_ROWS` frames and what asammdf keeps of the file's index.

    Args:
        path: The log.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._mdf: Any = None
        self._backward = 0

    def _open(self) -> None:
        """Open the file and read its index.

        Raises:
            UsageError: asammdf is not installed.
            LogError: The file cannot be read or holds no CAN frames.
        """
        asammdf = need("asammdf", "reading MF4 files")
        self._mdf, self._backward = self._load(asammdf), 0
        groups = self._groups()
        if not groups:
            self._release()
            raise LogError(f"{self._path} holds no {_FRAME}", remedy="Give a CAN bus log")
        if len(groups) > MAX_GROUPS:
            self._release()
            raise LogError(
                f"{self._path}: {len(groups)} groups, limit {MAX_GROUPS}",
                remedy="Cut the log into parts",
            )

    def _groups(self) -> list[int]:
        return sorted({group for group, _ in self._mdf.channels_db.get(_FRAME, ())})

    def _read(self) -> Iterator[Sample[CanFrame]]:
        """Frames of all buses; those that contradict themselves are left out, as errors.

        Raises:
            LogError: Frames are damaged.
        """
        mdf, groups = self._mdf, self._groups()
        start_ns = round(mdf.header.start_time.timestamp() * 1e6) * 1000
        rows = max(CHUNK_ROWS // len(groups), 1)
        buses = [self._group(mdf, group, start_ns, rows) for group in groups]
        yield from heapq.merge(*buses, key=_time)

    def _load(self, asammdf: ModuleType) -> Any:
        try:
            return asammdf.MDF(str(self._path))
        except Exception as error:  # asammdf raises whatever a damaged file provokes
            _silence_destructor(error)
            raise LogError(
                f"cannot read {self._path}: {error}", remedy="Give a finalised MF4 file"
            ) from error

    def _group(self, mdf: Any, group: int, start_ns: int, chunk: int) -> Iterator[Sample[CanFrame]]:
        rows = int(mdf.groups[group].channel_group.cycles_nr)
        last_ns = -(2**62)
        for offset in range(0, rows, chunk):
            count = min(chunk, rows - offset)
            try:
                signal = mdf.get(
                    _FRAME, group=group, raw=True, record_offset=offset, record_count=count
                )
            except Exception as error:  # see _open
                raise LogError(f"{self._path}: frames {offset}.. are damaged: {error}") from error
            for sample in self._rows(signal, start_ns):
                t_ns = _time(sample)
                self._backward += t_ns < last_ns
                last_ns = max(last_ns, t_ns)
                yield sample

    def _rows(self, signal: Any, start_ns: int) -> Iterator[Sample[CanFrame]]:
        table = signal.samples
        names = table.dtype.names or ()
        bus = _column(table, names, "BusChannel")
        ids = _column(table, names, "ID") & 0x1FFF_FFFF
        extended = _column(table, names, "IDE")
        lengths = _column(table, names, "DataLength")
        data = table[f"{_FRAME}.DataBytes"]
        t_ns = start_ns + np.rint(signal.timestamps * NS_PER_S).astype(np.int64)
        for k in range(len(table)):
            length = int(lengths[k])
            if length > data.shape[1]:
                self._errors += 1
                continue
            body = bytes(data[k][:length])
            stamp = Stamp(int(t_ns[k]), Clock.DEVICE, FrameEvent.ARRIVAL)
            frame = CanFrame(int(ids[k]), bool(extended[k]), body)
            yield Sample(f"can{bus[k]}", None, None, stamp, frame)

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.DEVICE, FrameEvent.ARRIVAL

    def _told(self) -> list[str]:
        return [f"{self._backward} frames before an earlier one"] if self._backward else []

    def _release(self) -> None:
        mdf, self._mdf = self._mdf, None
        if mdf is not None:
            mdf.close()


def _time(sample: Sample[CanFrame]) -> int:
    return sample.arrival.t_ns


def _silence_destructor(error: BaseException) -> None:
    """Close half-made asammdf objects for it: their destructors fail on missing attributes."""
    trace = error.__traceback__
    while trace is not None:
        made: Any = trace.tb_frame.f_locals.get("self")
        if type(made).__module__.startswith("asammdf") and hasattr(made, "_closed"):
            made._closed = True
            for name in ("_tempfile", "_file", "_mapped_file"):
                opened = getattr(made, name, None)
                if opened is not None:
                    opened.close()
        trace = trace.tb_next


def _column(table: Any, names: tuple[str, ...], name: str) -> Any:
    full = f"{_FRAME}.{name}"
    return table[full].astype(np.int64) if full in names else np.zeros(len(table), np.int64)
