"""Chosen pictures are cut out of closed segments: these, all of these, whatever happens between."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from syncline import topics
from syncline.edge.clips import ChosenClips
from syncline.edge.shadow_service import AROUND_NS
from syncline.log.picture import image_message
from syncline.log.reader import LogReader
from syncline.log.recorder import Recorder
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import NS_PER_S, ManualClock

STEP_NS = NS_PER_S // 5
START_NS = 100 * NS_PER_S


class Device:
    """Two cameras at 5 frames a second in segments of 2 s; frames are named by their number."""

    def __init__(self, folder: Path, boot: str = "aaaa") -> None:
        self.folder = folder
        self.clock = ManualClock(START_NS, boot)

    def record(self, frames: int, chosen: dict[int, str], *, delay: int = 2) -> None:
        """`delay` frames after a frame was taken its choice is recorded."""
        with Recorder(
            self.folder, clock=self.clock, device="d", segment_s=2.0, quota_bytes=1 << 30
        ) as log:
            for index in range(frames + delay):
                now = self.clock.raw_ns()
                if index < frames:
                    for camera in ("front", "rear"):
                        data = f"{camera} {index}".encode() * 20
                        log.write(
                            f"/camera/{camera}/image", image_message(now, camera, data, "jpeg"), now
                        )
                if (choice := chosen.get(index - delay)) is not None:
                    self._choose(log, now - delay * STEP_NS, choice)
                if index % 3 == 2:  # the writer looks at the clock: it must not run far ahead
                    log.flush()
                self.clock.advance(STEP_NS)

    @staticmethod
    def _choose(log: Recorder, mid_ns: int, choice: str) -> None:
        around_ns = AROUND_NS if choice == "score" else 0
        message = pb.Selection(
            camera="front",
            mid_raw_ns=mid_ns,
            choice=choice,
            before_ns=around_ns,
            after_ns=around_ns,
        )
        log.write(topics.SELECTED.of("front"), message, mid_ns)

    def segments(self) -> list[str]:
        return sorted(p.name for p in (self.folder / "ring").iterdir())

    def clips(self, limit: int = 1 << 30) -> ChosenClips:
        return ChosenClips(self.folder / "ring", self.folder / "chosen", ["front", "rear"], limit)


def pictures(paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        whole = path.read_bytes()
        with LogReader(path) as reader:
            assert reader.boot_ids == ("aaaa",)
            for record in reader:
                data = bytes(reader.decode(record).data)
                assert data in whole, "a dataset points at ranges of bytes"
                found.append(data[: len(data) // 20].decode())
    return found


def names(*ranges: tuple[int, int]) -> list[str]:
    return [f"front {i}" for a, b in ranges for i in range(a, b + 1)]


def test_the_lot_is_one_picture_and_a_score_two_seconds_around(tmp_path: Path) -> None:
    """The choice of 19 is recorded in a later segment, its pictures reach over two borders."""
    device = Device(tmp_path)
    device.record(46, {3: "random", 19: "score", 36: "random"})
    clips, closed = device.clips(), device.segments()
    assert len(closed) >= 4
    assert all(clips.take(name, closed, final=True) for name in closed)
    assert pictures(clips.files()) == names((3, 3), (9, 29), (36, 36))
    assert (clips.pictures, clips.lost) == (23, 0)


def test_a_segment_waits_for_those_that_may_still_choose_from_it(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.record(45, {9: "score"}, delay=3)
    clips, closed = device.clips(), device.segments()
    taken = [clips.take(closed[0], closed[:n], final=False) for n in range(1, len(closed) + 1)]
    assert taken[0] is False
    assert taken[-1] is True
    assert taken == sorted(taken)
    assert pictures(clips.files())[0] == "front 0"


def test_a_restart_goes_on_where_it_was_and_cuts_again_what_was_half_done(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.record(45, {8: "score", 13: "random"})
    closed = device.segments()
    before = device.clips()
    assert before.take(closed[0], closed, final=False)
    (first,) = before.files()
    whole = first.read_bytes()
    first.write_bytes(whole[:100])  # killed while it was written
    after = device.clips()
    assert all(after.take(name, closed, final=True) for name in closed)
    assert first.read_bytes() == whole
    assert pictures(after.files()) == names((0, 18))


def test_the_times_of_another_boot_choose_nothing(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.record(15, {8: "score"})
    first = device.segments()
    again = Device(tmp_path, boot="bbbb")
    again.record(15, {})
    clips, closed = device.clips(), device.segments()
    assert all(clips.take(name, closed, final=False) for name in first), "its boot is over"
    rest = [name for name in closed if name not in first]
    assert all(clips.take(name, closed, final=True) for name in rest)
    assert pictures(clips.files()) == names((0, 14))


def test_what_cannot_be_read_is_counted_and_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device(tmp_path)
    device.record(45, {3: "random", 38: "random"})
    clips, closed = device.clips(), device.segments()
    path = tmp_path / "ring" / closed[0] / "cam.mcap"
    path.write_bytes(path.read_bytes()[:200] + b"\0" * 500)
    shutil.rmtree(tmp_path / "ring" / closed[1])  # the ring gave it up just now
    assert all(clips.take(name, closed, final=True) for name in closed)
    assert "front 38" in pictures(clips.files())
    assert clips.lost == 1
    assert "are lost" in caplog.text


def test_a_segment_of_which_nothing_can_be_read_is_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device(tmp_path)
    device.record(45, {3: "random", 38: "random"})
    clips, closed = device.clips(), device.segments()
    for path in (tmp_path / "ring" / closed[0]).iterdir():
        path.write_bytes(b"\0" * 500)
    assert all(clips.take(name, closed, final=True) for name in closed)
    assert pictures(clips.files()) == ["front 38"]
    assert clips.lost == 1
    assert "are lost" in caplog.text


def test_the_limit_holds_and_the_oldest_go(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.record(45, {3: "random", 14: "random", 27: "random", 40: "random"})
    whole = device.clips()
    closed = device.segments()
    for name in closed:
        whole.take(name, closed, final=True)
    sizes = [path.stat().st_size for path in whole.files()]
    assert len(sizes) == 4
    shutil.rmtree(tmp_path / "chosen")
    small = device.clips(sum(sizes[2:]))
    for name in closed:
        small.take(name, closed, final=True)
    assert pictures(small.files()) == ["front 27", "front 40"]
    assert small.lost == 2
