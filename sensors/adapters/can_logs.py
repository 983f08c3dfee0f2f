"""CAN frames out of MF4 files (asammdf) and their signals (cantools): the `sensors` extra."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from syncline.errors import LogError
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.extras import need
from syncline.timebase import NS_PER_S, Clock

CHUNK_ROWS = 8192
"""Frames of all buses in memory at a time."""
MAX_GROUPS = 256

_FRAME = "CAN_DataFrame"


class Mf4Log:
    """Frames of an ASAM MDF 4 bus log.

    Times are the logger's own clock: its start time plus the frame's offset. A file may store its
    buses apart, each in a group of its own: they are merged into one stream in order of time, of
    equal times the group that stands first in the file.
    Memory: `CHUNK_ROWS` frames and what asammdf keeps of the file's index.

    Args:
        path: The log.

    Attributes:
        errors: Frames left out because they contradict themselves.
        backward: Frames that a bus holds before an earlier one; they come where they stand.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.errors = self.backward = 0

    def frames(self) -> Iterator[CanFrame]:
        """Frames of all buses in order of time.

        Raises:
            UsageError: asammdf is not installed.
            LogError: The file cannot be read or holds no CAN frames.
        """
        asammdf = need("asammdf", "reading MF4 files")
        mdf = self._open(asammdf)
        try:
            groups = sorted({group for group, _ in mdf.channels_db.get(_FRAME, ())})
            if not groups:
                raise LogError(f"{self._path} holds no {_FRAME}", remedy="Give a CAN bus log")
            if len(groups) > MAX_GROUPS:
                raise LogError(f"{self._path}: {len(groups)} groups, limit {MAX_GROUPS}")
            start_ns = round(mdf.header.start_time.timestamp() * 1e6) * 1000
            rows = max(CHUNK_ROWS // len(groups), 1)
            buses = [self._group(mdf, group, start_ns, rows) for group in groups]
            yield from heapq.merge(*buses, key=_time)
        finally:
            mdf.close()

    def _open(self, asammdf: ModuleType) -> Any:
        try:
            return asammdf.MDF(str(self._path))
        except Exception as error:  # asammdf raises whatever a damaged file provokes
            _silence_destructor(error)
            raise LogError(
                f"cannot read {self._path}: {error}", remedy="Give a finalised MF4 file"
            ) from error

    def _group(self, mdf: Any, group: int, start_ns: int, chunk: int) -> Iterator[CanFrame]:
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
            for frame in self._rows(signal, start_ns):
                self.backward += frame.t_ns < last_ns
                last_ns = max(last_ns, frame.t_ns)
                yield frame

    def _rows(self, signal: Any, start_ns: int) -> Iterator[CanFrame]:
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
                self.errors += 1
                continue
            body = bytes(data[k][:length])
            yield CanFrame(
                int(t_ns[k]), Clock.DEVICE, f"can{bus[k]}", int(ids[k]), bool(extended[k]), body
            )


def _time(frame: CanFrame) -> int:
    return frame.t_ns


def _silence_destructor(error: BaseException) -> None:
    """Close half-made asammdf objects for it: their destructors fail on missing attributes."""
    trace = error.__traceback__
    while trace is not None:
        made: Any = trace.tb_frame.f_locals.get("self")
        if hasattr(made, "_closed"):
            made._closed = True
            for name in ("_tempfile", "_file", "_mapped_file"):
                opened = getattr(made, name, None)
                if opened is not None:
                    opened.close()
        trace = trace.tb_next


def _column(table: Any, names: tuple[str, ...], name: str) -> Any:
    full = f"{_FRAME}.{name}"
    return table[full].astype(np.int64) if full in names else np.zeros(len(table), np.int64)


class CanDecoder:
    """Signals of frames, by a database (DBC, KCD, SYM, ARXML).

    Args:
        path: The database.

    Raises:
        UsageError: cantools is not installed.
        LogError: The database cannot be read.
    """

    def __init__(self, path: Path) -> None:
        cantools = need("cantools", "decoding CAN signals")
        try:
            database = cantools.database.load_file(str(path))
        except (cantools.database.Error, OSError, ValueError) as error:
            raise LogError(f"cannot read CAN database {path}: {error}") from error
        self._messages = {
            (message.frame_id, message.is_extended_frame): message for message in database.messages
        }
        # J1939: sender and priority are part of the identifier; the PGN tells the message.
        self._groups = {
            _pgn(message.frame_id): message
            for message in database.messages
            if message.protocol == "j1939"
        }
        self.unknown = 0
        self.errors = 0

    def has(self, message: str, signal: str) -> bool:
        """Whether the database holds that signal in that message."""
        return any(
            known.name == message and signal in {s.name for s in known.signals}
            for known in self._messages.values()
        )

    def decode(self, frame: CanFrame) -> tuple[str, dict[str, float | str]] | None:
        """(message name, signals in physical units); None when unknown or damaged, counted."""
        message = self._messages.get((frame.id, frame.extended))
        if message is None and frame.extended:
            message = self._groups.get(_pgn(frame.id))
        if message is None or frame.error or frame.remote:
            self.unknown += 1
            return None
        try:
            values = message.decode(frame.data, decode_choices=False)
        except Exception:  # noqa: BLE001 cantools and bitstruct raise errors of their own kinds
            self.errors += 1
            return None
        return str(message.name), values


def _pgn(identifier: int) -> int:
    """Parameter group number of a 29-bit identifier (SAE J1939-21, 5.2)."""
    group = identifier >> 8 & 0x3FFFF
    return group if group >> 8 & 0xFF >= 240 else group & 0x3FF00
