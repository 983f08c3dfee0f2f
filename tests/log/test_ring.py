"""The ring on disk: its quota, pins and reserve, its numbers, one recorder at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncline.cli import main
from syncline.errors import ConflictError, QuotaError, StorageError
from syncline.log.disk import Disk
from syncline.log.folder import PINNED, RING, TAIL, list_segments
from syncline.log.picture import image_message
from syncline.log.recorder import Recorder
from syncline.log.recovery import repair_folder
from syncline.timebase import ManualClock

from .helpers import SECOND_NS, START_NS, imu, read_all, record_drive


def test_quota_deletes_the_oldest_and_spares_pins(tmp_path: Path) -> None:
    clock = ManualClock(START_NS)
    with Recorder(tmp_path, clock=clock, device="d", segment_s=1, quota_bytes=100_000) as recorder:
        for i in range(200):
            picture = image_message(i, "f", os.urandom(1500), "jpeg")
            recorder.write("/camera/f/image", picture, clock.raw_ns())
            clock.advance(100_000_000)
            recorder.flush()
            if i == 15:
                recorder.pin(0.1, 0.1, "keep me")
        assert recorder.stats().ring_bytes <= 100_000
        pinned = [s.name for s in list_segments(tmp_path / PINNED)]
        ring = list_segments(tmp_path / RING)
        assert pinned
        assert ring[-1].number == 20
        assert [s.name for s in ring if s.number <= 8] == pinned
        assert len(read_all(tmp_path)) > 40


def test_pins_have_a_share_of_the_quota(tmp_path: Path) -> None:
    clock = ManualClock(START_NS)
    with Recorder(tmp_path, clock=clock, device="d", segment_s=1, quota_bytes=50_000) as recorder:
        for i in range(60):
            picture = image_message(i, "f", os.urandom(1500), "jpeg")
            recorder.write("/camera/f/image", picture, clock.raw_ns())
            clock.advance(100_000_000)
            recorder.flush()
        pin = recorder.pin(2.5, 0, "first")
        with pytest.raises(QuotaError, match="their share is 25000"):
            recorder.pin(1, 0, "second")
        recorder.ring.unpin(pin.id)
        assert list_segments(tmp_path / PINNED) == []
        recorder.pin(1, 0, "second")


def test_reserve_is_kept_free(tmp_path: Path) -> None:
    class Nearly(Disk):
        def free_bytes(self, path: Path) -> int:
            return 1000

    clock = ManualClock(START_NS)
    with Recorder(
        tmp_path, clock=clock, device="d", segment_s=1, disk=Nearly(), reserve_bytes=2000
    ) as recorder:
        for _ in range(50):
            recorder.write("/imu/a", imu(clock.raw_ns()), clock.raw_ns())
            clock.advance(100_000_000)
            recorder.flush()
    assert len(list_segments(tmp_path / RING)) <= 2


def test_repair_reaches_the_pinned_copy(tmp_path: Path) -> None:
    record_drive(tmp_path, 2.0, segment_s=10)
    (segment,) = list_segments(tmp_path / RING)
    pinned = tmp_path / PINNED / segment.name
    pinned.mkdir()
    whole = read_all(tmp_path)
    for path in segment.files:
        path.write_bytes(path.read_bytes()[:-400])
        (pinned / path.name).hardlink_to(path)
    (segment.path / TAIL).write_bytes(b"SYNTAIL1")
    clock = ManualClock(60 * SECOND_NS)
    with Recorder(tmp_path, clock=clock, device="d"):
        pass
    for path in segment.files:
        assert path.stat().st_ino == (pinned / path.name).stat().st_ino
    assert not (segment.path / TAIL).exists()
    assert [r.raw_ns for r in read_all(pinned)] == [r.raw_ns for r in whole]


def test_numbers_go_on_after_a_restart_and_pins_reach_back(tmp_path: Path) -> None:
    clock = ManualClock(START_NS)
    record_drive(tmp_path, 3.0, clock=clock)
    before = list_segments(tmp_path / RING)
    with Recorder(tmp_path, clock=clock, device="d", segment_s=1) as recorder:
        recorder.write("/imu/a", imu(clock.raw_ns()), clock.raw_ns())
        recorder.flush()
        pin = recorder.pin(1.5, 0, "just after the start")
    after = list_segments(tmp_path / RING)
    assert [s.name for s in after[:-1]] == [s.name for s in before]
    assert after[-1].number == before[-1].number + 1
    assert pin.segments == tuple(s.name for s in after[-len(pin.segments) :])
    assert 2 <= len(pin.segments) <= 4


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot record to"):
        Recorder(tmp_path / "file" / "log", clock=ManualClock(), device="d")


def test_one_recorder_per_folder(tmp_path: Path) -> None:
    """Two recorders, or a repair under a running one, would tear the open segment."""
    with Recorder(tmp_path, clock=ManualClock(), device="d"):
        with pytest.raises(ConflictError, match="is being recorded to"):
            Recorder(tmp_path, clock=ManualClock(), device="d")
        assert main(["log", "recover", str(tmp_path)]) == ConflictError.exit_code
    with Recorder(tmp_path, clock=ManualClock(), device="d"):
        pass


def test_killed_while_a_segment_was_opened(tmp_path: Path) -> None:
    """link-3: empty files of the moment of opening are no damage."""
    record_drive(tmp_path, 1.0, segment_s=10)
    whole = read_all(tmp_path)
    for number, names in enumerate((["tel.mcap"], ["tel.mcap", "cam.mcap"], []), 2):
        folder = tmp_path / RING / f"{number:08d}-manual"
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"")
    half = tmp_path / RING / "00000005-manual"
    half.mkdir()
    first = list_segments(tmp_path / RING)[0]
    (half / "tel.mcap").write_bytes((first.path / "tel.mcap").read_bytes()[:80])
    (half / "cam.mcap").write_bytes(b"")
    assert len(read_all(tmp_path)) == len(whole)
    repair_folder(tmp_path)
    assert [s.number for s in list_segments(tmp_path / RING)] == [1, 5]
    assert read_all(tmp_path)[-1].raw_ns == whole[-1].raw_ns
