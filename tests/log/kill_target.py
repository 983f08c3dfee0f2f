"""Records until it is killed; prints what it has queued. Run as a script by test_kill.py."""

from __future__ import annotations

import sys
from pathlib import Path

from syncline.log.picture import image_message
from syncline.log.recorder import Recorder
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import OsClock


def main(folder: Path, segment_s: float) -> None:
    clock = OsClock()
    period_ns = 2_000_000
    picture = bytes(range(256)) * 80
    with Recorder(folder, clock=clock, device="victim", segment_s=segment_s) as recorder:
        start = clock.raw_ns()
        for i in range(10**9):
            clock.sleep_until(start + i * period_ns)
            now = clock.raw_ns()
            if i % 25 == 0:
                recorder.write("/camera/front/image", image_message(now, "f", picture, "jpeg"), now)
            sample = pb.ImuSample(sensor="a", raw_ns=now, accel_x_mps2=float(i))
            recorder.write("/imu/a", sample, now)
            sys.stdout.write(f"{i}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
