"""What `syncline time status` shows: a small file that the service replaces every second."""

from __future__ import annotations

from pathlib import Path

import msgspec

from syncline.errors import DeviceError, StorageError
from syncline.files import replace_whole

MAX_STATUS_BYTES = 1 << 20


class SourceRow(msgspec.Struct, frozen=True):
    """One source."""

    name: str
    kind: str
    verdict: str
    health: str
    offset_ns: int = 0
    sigma_ns: float = 0.0
    delay_ns: int = 0
    samples: int = 0
    rejected: int = 0
    last_raw_ns: int = 0
    reach: int = 0
    poll_log2: int = 0
    detail: str = ""


class StatusReport(msgspec.Struct, frozen=True):
    """The service at one moment."""

    boot_id: str
    raw_ns: int
    state: str
    scene: str
    reason: str
    segment_id: int
    utc_ns: int
    sigma_ns: float
    bound_ns: int
    rate_ppm: float
    rate_sigma_ppm: float
    system_error_ns: int
    discipline: str
    step_count: int
    floor_utc_ns: int
    leap: str
    sources: tuple[SourceRow, ...] = ()
    events: tuple[str, ...] = ()
    trouble: tuple[str, ...] = ()


def write_status(path: Path, report: StatusReport) -> None:
    """Replace the status file; readers see the old or the new one.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        replace_whole(path, msgspec.json.encode(report))
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}", remedy="Check [time] status"
        ) from error


def read_status(path: Path) -> StatusReport:
    """The last report.

    Raises:
        DeviceError: There is none, or it is not one of ours.
    """
    try:
        if path.stat().st_size > MAX_STATUS_BYTES:
            raise DeviceError(f"{path} is larger than {MAX_STATUS_BYTES} bytes")
        return msgspec.json.decode(path.read_bytes(), type=StatusReport)
    except OSError as error:
        raise DeviceError(
            f"no time service: {path}: {error.strerror}",
            remedy="Start one with syncline run or syncline time serve, or give --status",
        ) from error
    except msgspec.MsgspecError as error:
        raise DeviceError(f"{path} is not a status report: {error}") from error
