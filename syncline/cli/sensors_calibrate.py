"""`syncline sensors calibrate`: the time offset of a camera to the IMU or another camera."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from syncline.errors import InputError, SensorDataError, UsageError

if TYPE_CHECKING:
    from syncline.edge.recordings import LogRecording
    from syncline.sensors.calibrate import OffsetEstimate
    from syncline.sensors.fit import FitSeries
    from syncline.sensors.frame import FrameTime
    from syncline.sensors.mode import SensorMode
    from syncline.sensors.rotation import Followed

LINE_TIME_PPM = 100.0


def calibrate(
    log: Path,
    *,
    camera: str,
    matrix: str,
    imu: str = "",
    other: str = "",
    distortion: str = "",
    other_matrix: str = "",
    other_distortion: str = "",
    plot: Path | None = None,
    boot: str = "",
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Estimate t_imu - t_camera with its uncertainty; refuses a drive that turned too little.

    The camera's line time is checked against its measured period first. With --other, t_other -
    t_camera: by way of an IMU of the recording where one serves, else from the pictures alone,
    which on a drive is many times less sure.

    Args:
        log: Recording with pictures and IMU: a minute or more, with bends, crossings or a
            roundabout, or turned by hand. Only turning shows the offset: a straight road tells
            nothing, however long, and is refused with exit code 3.
        camera: Name of the camera.
        matrix: Focal lengths and principal point, pixels: fx,fy,cx,cy.
        imu: Name of the IMU; beside --other, the one to go by.
        other: Name of another camera, whose offset is wanted instead of the IMU's.
        distortion: OpenCV coefficients, comma-separated.
        other_matrix: Of the other camera; as the first one's where it is left out.
        other_distortion: Of the other camera; likewise.
        plot: Picture to write (.png, .svg, .pdf or .html): both sensors' turning, and how well each
            offset fits.
        boot: Beginning of a boot's id, where the recording holds several.
        json_: Print one JSON object.
    """
    from syncline.edge.recordings import LogRecording
    from syncline.figure import check_picture

    if not (imu or other):
        raise UsageError(
            "neither --imu nor --other says what to compare the camera with",
            remedy="Give --imu NAME, or --other CAMERA",
        )
    if plot is not None:
        check_picture(plot)
    lens = _Lens.of(matrix, distortion, "")
    other_lens = _Lens.of(other_matrix or matrix, other_distortion or distortion, "other-")
    recording = LogRecording(log, camera, boot)
    seen = _watch(recording, lens)
    line_time = _check_line_time(seen)
    names = {"camera": camera}
    if other:
        theirs = _watch(LogRecording(log, other, boot), other_lens)
        known = [imu] if imu else _imus(log)
        gyros = {name: _gyro(log, name, recording.recorded_boot) for name in known}
        found, way = _to_camera((seen, lens), (theirs, other_lens), gyros, insist=bool(imu))
        series = _camera_curves(found, seen, theirs)
        names |= {"other": other, "way": way}
    else:
        found, series = _to_imu(seen, lens, *_gyro(log, imu, recording.recorded_boot))
        names |= {"imu": imu}
    if plot is not None:
        from syncline.cli.offset_picture import draw_offset

        draw_offset(camera, other or imu, found, series, plot)
    if json_:
        body = {k: v for k, v in asdict(found).items() if not isinstance(v, np.ndarray)}
        print(json.dumps({**names, **body, "line_time": line_time}, default=float))
        return 0
    sure = f"{found.sigma_ns / 1e6:.4f} ms"
    print(f"t_{other or imu} = t_{camera} {found.offset_ns / 1e6:+.4f} ms +- {sure}")
    if other:
        print(f"found by way of {names['way']}")
    print(f"{len(seen.times_ns)} frames, {100 * found.explained:.1f} % of the turning explained")
    print(line_time)
    if plot is not None:
        print(f"drawn in {plot}")
    return 0


@dataclass(frozen=True)
class _Lens:
    K: NDArray[np.float64]
    distortion: tuple[float, ...]

    @classmethod
    def of(cls, matrix: str, distortion: str, prefix: str) -> _Lens:
        fx, fy, cx, cy = _numbers(matrix, f"--{prefix}matrix", 4)
        flag = f"--{prefix}distortion"
        if fx <= 0 or fy <= 0:
            raise UsageError(
                f"--{prefix}matrix {matrix!r}: focal lengths are above 0",
                remedy="Give fx,fy,cx,cy in pixels, such as 525,525,319.5,239.5",
            )
        bent = _numbers(distortion, flag, None) if distortion else ()
        return cls(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), bent)


@dataclass(frozen=True)
class _Watched:
    """How a camera turned: times of N frames, followed corners and rotations between them."""

    timings: list[FrameTime]
    followed: list[Followed]
    times_ns: NDArray[np.int64]
    rotations: NDArray[np.float64]
    events_ns: NDArray[np.int64]
    mode: SensorMode


def _watch(recording: LogRecording, lens: _Lens) -> _Watched:
    from syncline.sensors.rotation import follow_corners, pair_rotation

    timings: list[FrameTime] = []
    followed = list(follow_corners(_grey(recording, timings)))
    turned = np.array([pair_rotation(pair, lens.K, lens.distortion) for pair in followed])
    times = np.array([t.centre_ns() for t in timings], np.int64)
    events = np.array([_event_ns(t) for t in timings], np.int64)
    return _Watched(timings, followed, times, turned.reshape(-1, 3), events, timings[0].mode)


def _event_ns(timing: FrameTime) -> int:
    """What is periodic, whatever the exposure does."""
    from syncline.sensors.frame import Anchor

    return timing.soe_ns if timing.anchor is Anchor.TRIGGER else timing.eof_ns


def _check_line_time(seen: _Watched) -> str:
    """Line time times frame length must be the measured period.

    Half a line is what a rounded frame length may take; three sigma what the measured period may.

    Raises:
        SensorDataError: They contradict each other.
    """
    from syncline.sensors.report import timing_report

    lines = seen.mode.frame_length_lines
    if lines == 0 or len(seen.events_ns) < 3:
        return "line time not checked: the camera's mode does not say how many lines a period has"
    report = timing_report(seen.events_ns)
    doubt = 3.0 * math.sqrt(12.0) * report.jitter_ns / report.count**1.5 / report.period_ns
    tolerance_ppm = LINE_TIME_PPM + 0.5e6 / lines + 1e6 * doubt
    seen.mode.check_period(report.period_ns, tolerance_ppm)
    return (
        f"line time {seen.mode.line_time_ns / 1e3:.3f} us x {lines} lines agrees with the measured "
        f"period of {report.period_ns / 1e6:.4f} ms within {tolerance_ppm:.0f} ppm"
    )


def _to_imu(
    seen: _Watched, lens: _Lens, imu_ns: NDArray[np.int64], gyro: NDArray[np.float64]
) -> tuple[OffsetEstimate, FitSeries]:
    from syncline.sensors.fit import gyro_series

    found = _by_gyro(seen, lens, imu_ns, gyro)
    return found, gyro_series(found, seen.times_ns, seen.rotations, imu_ns, gyro)


def _by_gyro(
    seen: _Watched, lens: _Lens, imu_ns: NDArray[np.int64], gyro: NDArray[np.float64]
) -> OffsetEstimate:
    from syncline.sensors.picture_offset import calibrate_pictures

    return calibrate_pictures(
        seen.timings,
        seen.followed,
        lens.K,
        imu_ns,
        gyro,
        distortion=lens.distortion,
        cam_rot=seen.rotations,
    )


def _to_camera(
    ours: tuple[_Watched, _Lens],
    theirs: tuple[_Watched, _Lens],
    gyros: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]],
    *,
    insist: bool,
) -> tuple[OffsetEstimate, str]:
    """(the offset, by what way): the surest of the IMUs that serve, else the pictures alone.

    Raises:
        SensorDataError: No way leads to an answer; with `insist`, that of the IMU does not.
    """
    from syncline.sensors.camera_offset import (
        CameraPictures,
        calibrate_camera_pictures,
        through_imu,
    )

    ways: list[tuple[OffsetEstimate, str]] = []
    for name, gyro in gyros.items():
        try:
            ways.append(
                (through_imu(*(_by_gyro(*camera, *gyro) for camera in (ours, theirs))), name)
            )
        except SensorDataError:
            if insist:
                raise
    if ways:
        return min(ways, key=lambda way: way[0].sigma_ns)
    cameras = [
        CameraPictures(seen.timings, seen.followed, lens.K, lens.distortion, seen.rotations)
        for seen, lens in (ours, theirs)
    ]
    return calibrate_camera_pictures(*cameras), "the pictures alone"


def _camera_curves(found: OffsetEstimate, seen: _Watched, other: _Watched) -> FitSeries:
    from syncline.sensors.fit import camera_series

    turned = np.nan_to_num(other.rotations)
    return camera_series(found, seen.times_ns, seen.rotations, other.times_ns, turned)


def _imus(log: Path) -> list[str]:
    """Names of the IMUs in a recording."""
    from syncline import topics
    from syncline.log.reader import LogReader

    before = topics.IMU.of("")
    with LogReader(log) as reader:
        found = {channel.topic for channel in reader.channels}
    return sorted(name.removeprefix(before) for name in found if name.startswith(before))


def _numbers(text: str, flag: str, count: int | None) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if (
        not values
        or not all(map(math.isfinite, values))
        or (count is not None and len(values) != count)
    ):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise UsageError(
            f"{flag} {text!r} is not {wanted} separated by commas",
            remedy="Give them without spaces, such as 525,525,319.5,239.5",
        )
    return values


def _grey(recording: LogRecording, timings: list[FrameTime]) -> Iterator[NDArray[np.uint8]]:
    """Grey pictures; the time of each goes into `timings`. One is held at a time."""
    from syncline.sensors.jpeg import pixels_of

    for timed in recording.frames():
        timings.append(timed.timing)
        grey = cv2.cvtColor(pixels_of(timed.frame.payload), cv2.COLOR_BGR2GRAY)
        yield np.asarray(grey, dtype=np.uint8)


def _gyro(log: Path, imu: str, boot: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    from syncline import topics
    from syncline.log.reader import LogReader

    times, rates = [], []
    with LogReader(log, topics=[topics.IMU.of(imu)]) as reader:
        for record in reader:
            if record.boot_id != boot:
                continue
            m = reader.decode(record)
            times.append(m.raw_ns)
            rates.append((m.gyro_x_radps, m.gyro_y_radps, m.gyro_z_radps))
    if not times:
        raise InputError(
            f"{log} holds nothing of IMU {imu!r}", remedy="See its topics with: syncline log info"
        )
    return np.array(times, np.int64), np.array(rates, np.float64)
