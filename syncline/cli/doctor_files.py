"""What `syncline doctor FILE` says of recorded sensor data: what it is, what its stamps mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from syncline.cli.doctor_checks import Finding
from syncline.cli.doctor_sensors import LOOK_FRAMES, meaning
from syncline.errors import LogError, MediaError, SynclineError

if TYPE_CHECKING:
    from syncline.sensors.adapter import Sample, SensorAdapter
    from syncline.sensors.adapters.can import CanFrame

AREA = "files"
HEAD_BYTES = 1 << 16
_SENTENCE = re.compile(rb"(?:^|[\r\n])\$[A-Z]{2}[A-Z]{3},")
_IMU_HEADER = re.compile(rb"^#timestamp \[ns\],w_RS_S_x")


def examine_file(path: Path) -> Finding:
    """One file or folder: its kind, what is in it, what its stamps mark."""
    try:
        return Finding(AREA, str(path), "ok", _reader_of(path)(path))
    except SynclineError as error:
        return Finding(AREA, str(path), "fail", error.message, error.remedy)


def _reader_of(path: Path) -> Callable[[Path], str]:
    """Chosen by what stands at the file's beginning, not by its name."""
    if path.is_dir():
        return _recording
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror}", remedy="Check the path") from error
    if head.startswith((b"MDF ", b"UnFinMF ")):
        return _mf4
    if _is_candump(head):
        return _candump
    if _IMU_HEADER.match(head):
        return _imu
    return _gnss if _is_gnss(head) else _recording


def _is_candump(head: bytes) -> bool:
    from syncline.sensors.adapters.can import parse_candump

    line = head.lstrip().partition(b"\n")[0][:512]
    return parse_candump(line.decode("ascii", "replace")) is not None


def _is_gnss(head: bytes) -> bool:
    from syncline.sensors.adapters.ubx import UbxReader

    return bool(_SENTENCE.search(head)) or bool(UbxReader().feed(head, 0))


def _gnss(path: Path) -> str:
    from syncline.sensors.adapters.gnss_epochs import GnssReading
    from syncline.sensors.adapters.gnss_log import GnssLog

    log = GnssLog(path)
    fixes, times = 0, []
    for frame in log.frames():
        if isinstance(frame.payload, GnssReading) and frame.payload.utc_ns is not None:
            fixes += frame.payload.fix_mode >= 2
            times.append(frame.payload.utc_ns)
    span = f" from {_utc(times[0])} to {_utc(times[-1])}" if times else ""
    return f"GNSS receiver, {len(times)} epochs, {fixes} with a fix{span}; {log.health().detail}"


def _utc(utc_ns: int) -> str:
    from syncline.sync.floor import iso

    return iso(utc_ns)


def _mf4(path: Path) -> str:
    from syncline.sensors.adapters.mf4_log import Mf4Log

    return _buses(Mf4Log(path), "CAN log (MF4)", "the logger's own clock")


def _candump(path: Path) -> str:
    from syncline.sensors.adapters.can import CandumpLog

    clock = "by the kernel, REALTIME of the recording machine"
    return _buses(CandumpLog(path), "CAN log (candump)", clock)


def _buses(log: SensorAdapter[Sample[CanFrame]], what: str, clock: str) -> str:
    buses: Counter[str] = Counter()
    first_ns = last_ns = None
    for sample in log.frames():
        buses[sample.sensor] += 1
        last_ns = sample.arrival.t_ns
        first_ns = last_ns if first_ns is None else first_ns
    seconds = ((last_ns or 0) - (first_ns or 0)) / 1e9
    told = ", ".join(f"{count} of {bus}" for bus, count in sorted(buses.items()))
    health = log.health()
    odd = [f"{health.errors} damaged"] if health.errors else []
    odd += [health.detail] if health.detail else []
    return "; ".join([f"{what}, {seconds:.1f} s: {told}", f"stamp: reception, {clock}", *odd])


def _imu(path: Path) -> str:
    from syncline.sensors.adapters.imu import read_imu_csv

    log = read_imu_csv(path)
    t_ns = log.gyro.t_ns
    rate = (len(t_ns) - 1) * 1e9 / max(int(t_ns[-1] - t_ns[0]), 1)
    left = log.skipped + log.repeated
    odd = f"; {left} rows left out" if left else ""
    return f"inertial (EuRoC), {len(t_ns)} samples at {rate:.1f} Hz; stamp: as recorded{odd}"


def _recording(path: Path) -> str:
    from syncline.edge.config import CameraSection
    from syncline.edge.recordings import MediaRecording, open_recording

    try:
        source = open_recording(path, CameraSection(name="camera", kind="video", path="-"))
    except MediaError as error:
        if not path.is_file() or "cannot read video" not in error.message:
            raise
        raise LogError(
            f"nothing that syncline reads: {error.message}",
            remedy="Give a video, a folder of pictures, a bag, a log, or a receiver's, bus's or "
            "inertial sensor's recording",
        ) from error
    frames = source.frames()
    found = list(islice(frames, LOOK_FRAMES))
    if not found:
        raise LogError(f"{path} holds no pictures", remedy="Record with images = true")
    last = found[-1]
    detail = f"pictures, {source.frame_count or 'some'} frames, camera {last.timing.camera}; "
    if isinstance(source, MediaRecording):
        told = source.adapter.health().detail
        own = "the recording's own clock"
        detail += meaning(last.frame, last.timing, own) + (f"; {told}" if told else "")
    else:
        low_ns, high_ns = last.timing.bias_ns
        detail += (
            f"times as recorded, anchor {last.timing.anchor.value}; middle of exposure: sigma "
            f"{last.timing.sigma_ns / 1e6:.3f} ms, bias {low_ns / 1e6:+g}..{high_ns / 1e6:+g} ms"
        )
    segments = len(source.segments())
    return detail + (f"; UTC by {segments} mapping segments" if segments else "; UTC not known")
