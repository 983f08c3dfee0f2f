"""Makes tests/log/golden/*.mcap. Run once per format version; old files are never made again."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from syncline.log.annotations import BoxColumns, annotations_message
from syncline.log.folder import RING, list_segments
from syncline.log.mapping import mapping_to_message
from syncline.log.picture import image_message
from syncline.log.recorder import Recorder
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import ManualClock, MappingSegment, TimeState


def main(target: Path) -> None:
    clock = ManualClock(1_000_000_000, "11111111-2222-3333-4444-555555555555")
    with tempfile.TemporaryDirectory() as folder:
        with Recorder(Path(folder), clock=clock, device="golden") as recorder:
            mapping = MappingSegment(
                1, 0, clock.boot_id, 10**9, 1_700_000_000 * 10**9, 2e-6, (1e4, 0.0, 1.0),
                hard_bound_ns=5000, state=TimeState.SYNCED, sources=("gnss",),
            )  # fmt: skip
            recorder.write("/time/mapping", mapping_to_message(mapping), clock.raw_ns())
            for i in range(20):
                now = clock.raw_ns()
                recorder.write("/imu/a", pb.ImuSample(sensor="a", raw_ns=now, gyro_x_radps=i), now)
                if i % 5 == 0:
                    boxes = pb.Detections(
                        camera="f", mid_raw_ns=now, x0_px=[1], y0_px=[2], x1_px=[3], y1_px=[4],
                        score=[0.5], class_id=[i],
                    )  # fmt: skip
                    recorder.write("/camera/f/detections", boxes, now)
                    picture = image_message(now, "f", bytes([i]) * 64, "jpeg")
                    recorder.write("/camera/f/image", picture, now)
                    b = boxes
                    columns = BoxColumns(b.x0_px, b.y0_px, b.x1_px, b.y1_px, b.score, b.class_id)
                    recorder.write("/camera/f/annotations", annotations_message(now, columns), now)
                clock.advance(50_000_000)
                recorder.flush()
        (segment,) = list_segments(Path(folder) / RING)
        target.mkdir(parents=True, exist_ok=True)
        for path in segment.files:
            shutil.copyfile(path, target / path.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
