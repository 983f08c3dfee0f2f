"""What several log tests need."""

from __future__ import annotations

from pathlib import Path

from syncline.log.picture import image_message
from syncline.log.reader import LogReader
from syncline.log.recorder import Recorder
from syncline.log.records import Record
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import ManualClock

SECOND_NS = 1_000_000_000
START_NS = 5 * SECOND_NS


def imu(raw_ns: int, value: float = 0.0) -> pb.ImuSample:
    return pb.ImuSample(sensor="a", boot_id="manual", raw_ns=raw_ns, accel_x_mps2=value)


def record_drive(
    folder: Path, seconds: float = 3.0, *, segment_s: float = 1.0, clock: ManualClock | None = None
) -> tuple[int, int]:
    """A small drive on a manual clock: 100 Hz IMU, 10 Hz pictures. Returns the two counts."""
    clock = clock or ManualClock(START_NS)
    samples = pictures = 0
    with Recorder(folder, clock=clock, device="car-1", segment_s=segment_s) as recorder:
        for i in range(round(seconds * 100)):
            now = clock.raw_ns()
            assert recorder.write("/imu/a", imu(now, float(i)), now)
            samples += 1
            if i % 10 == 0:
                picture = image_message(now, "front", bytes([i % 256]) * 2000, "jpeg")
                assert recorder.write("/camera/front/image", picture, now)
                pictures += 1
            if i % 25 == 0:
                recorder.flush()
            clock.advance(10_000_000)
    return samples, pictures


def read_all(path: Path, **wanted: object) -> list[Record]:
    with LogReader(path, **wanted) as reader:  # type: ignore[arg-type]
        return list(reader)
