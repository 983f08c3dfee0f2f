"""`syncline sensors calibrate`: the time offset between a camera and the IMU, from a drive."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from syncline.errors import InputError, UsageError

if TYPE_CHECKING:
    from syncline.edge.recordings import LogRecording


def calibrate(
    log: Path,
    *,
    camera: str,
    imu: str,
    matrix: str,
    distortion: str = "",
    boot: str = "",
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Estimate t_imu - t_camera with its uncertainty; refuses a drive that turned too little.

    Args:
        log: Recording with pictures and IMU: a minute or more, with bends, crossings or a
            roundabout, or turned by hand. Only turning shows the offset: a straight road tells
            nothing, however long, and is refused with exit code 3.
        camera: Name of the camera.
        imu: Name of the IMU.
        matrix: Focal lengths and principal point, pixels: fx,fy,cx,cy.
        distortion: OpenCV coefficients, comma-separated.
        boot: Beginning of a boot's id, where the recording holds several.
        json_: Print one JSON object.
    """
    from syncline.edge.recordings import LogRecording
    from syncline.sensors.calibrate import calibrate_offset
    from syncline.sensors.rotation import image_rotations

    fx, fy, cx, cy = _numbers(matrix, "--matrix", 4)
    bent = _numbers(distortion, "--distortion", None) if distortion else ()
    recording = LogRecording(log, camera, boot)
    times_ns, pictures = _frames(recording)
    imu_ns, gyro = _gyro(log, imu, recording.recorded_boot)
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    turned = image_rotations((_grey(p) for p in pictures), K, bent)
    found = calibrate_offset(times_ns, turned, imu_ns, gyro)
    if json_:
        body = {k: v for k, v in asdict(found).items() if not isinstance(v, np.ndarray)}
        print(json.dumps({"camera": camera, "imu": imu, **body}, default=float))
        return 0
    print(f"t_imu = t_{camera} {found.offset_ns / 1e6:+.4f} ms +- {found.sigma_ns / 1e6:.4f} ms")
    print(f"{len(times_ns)} frames, {100 * found.explained:.1f} % of the turning explained")
    return 0


def _numbers(text: str, flag: str, count: int | None) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or (count is not None and len(values) != count):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise UsageError(f"{flag} {text!r} is not {wanted} separated by commas")
    return values


def _frames(recording: LogRecording) -> tuple[NDArray[np.int64], list[bytes]]:
    """Centre times of the frames and their encoded pictures (a drive's JPEGs are held)."""
    times, pictures = [], []
    for timed in recording.frames():
        times.append(timed.timing.centre_ns())
        assert isinstance(timed.frame.payload, np.ndarray)
        done, data = cv2.imencode(".png", cv2.cvtColor(timed.frame.payload, cv2.COLOR_BGR2GRAY))
        assert done
        pictures.append(data.tobytes())
    return np.array(times, np.int64), pictures


def _grey(data: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return np.asarray(image, dtype=np.uint8)


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
