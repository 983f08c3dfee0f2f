"""Victims that record until they are killed and print what they have queued; see test_kill.py.

For each line with a folder and the seconds of a segment, this script forks one: what it imports it
imports once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from syncline.log.picture import image_message
from syncline.log.recorder import Recorder
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import OsClock


def record(folder: Path, segment_s: float) -> None:
    """Print the process id, then the number of each sample that was queued."""
    _say(f"victim {os.getpid()}")
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
            _say(str(i))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Fork a victim for each line of standard input; say when it is gone."""
    for line in sys.stdin:
        folder, segment_s = line.rstrip("\n").split("\t")
        victim = os.fork()
        if not victim:
            record(Path(folder), float(segment_s))
        os.waitpid(victim, 0)
        _say("gone")


if __name__ == "__main__":
    main()
