"""link-10: a day of recording on a fast clock: memory and files stay, the ring keeps its quota."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import psutil
import pytest

from syncline.log.disk import Disk
from syncline.log.folder import RING, list_segments
from syncline.log.mapping import mapping_to_message
from syncline.log.picture import image_message
from syncline.log.recorder import Recorder
from syncline.timebase import ManualClock, MappingSegment

from .helpers import SECOND_NS, START_NS, imu, read_all

QUOTA = 2_000_000


class NoSync(Disk):
    """Durability is tested elsewhere; here thousands of segments must pass quickly."""

    def sync(self, fd: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


def run(folder: Path, hours: float, warm_up: float) -> tuple[float, int, int]:
    """Record on a manual clock; returns RSS growth as a share, growth of open files, segments."""
    process = psutil.Process(os.getpid())
    clock = ManualClock(START_NS)
    segments = round(hours * 360)
    picture = os.urandom(5000)
    rss = files = 0
    with Recorder(
        folder, clock=clock, device="d", quota_bytes=QUOTA, reserve_bytes=0, disk=NoSync()
    ) as recorder:
        for number in range(segments):
            now = clock.raw_ns()
            for i in range(20):
                recorder.write("/imu/a", imu(now + i), now + i)
            recorder.write("/camera/f/image", image_message(now, "f", picture, "jpeg"), now)
            mapping = MappingSegment(number, 0, "manual", now, now)
            recorder.write("/time/mapping", mapping_to_message(mapping), now)
            recorder.flush()
            if number == round(segments * warm_up):
                gc.collect()
                rss, files = process.memory_info().rss, process.num_fds()
            clock.advance(10 * SECOND_NS)
        gc.collect()
        growth = process.memory_info().rss / rss - 1
        return growth, process.num_fds() - files, segments


def check(folder: Path, hours: float, warm_up: float) -> None:
    growth, files, segments = run(folder, hours, warm_up)
    print(f"link-10 {hours} h: RSS {growth:+.2%}, open files {files:+d}, {segments} segments")
    assert growth <= 0.05
    assert abs(files) <= 4
    ring = list_segments(folder / RING)
    assert ring[-1].number == segments
    assert sum(p.stat().st_size for s in ring for p in s.files) <= QUOTA * 1.05
    assert len(read_all(folder)) == 22 * len(ring)


def test_an_hour(tmp_path: Path) -> None:
    """link-10, 360 segments."""
    check(tmp_path, 1, 0.5)


@pytest.mark.soak
@pytest.mark.long
def test_a_day(tmp_path: Path) -> None:
    """link-10 in full: 8640 segments."""
    check(tmp_path, 24, 0.1)
