"""Recording and reading back: content, metadata, sequences, drops, jumps, segments."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from mcap.reader import make_reader

from syncline.errors import MessageError, StorageError, UsageError
from syncline.log.annotations import BoxColumns, annotations_message
from syncline.log.disk import Disk
from syncline.log.folder import RING, list_segments
from syncline.log.lanes import Item, LaneQueue, open_lane
from syncline.log.mapping import mapping_to_message
from syncline.log.picture import image_message
from syncline.log.reader import LogFile, LogReader
from syncline.log.recorder import Recorder
from syncline.log.ring import read_pin
from syncline.log.schemas import (
    location_message,
    log_message,
    payload_of,
)
from syncline.log.wire import Limits
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import ManualClock, MappingSegment, OsClock, TimeState

from .helpers import SECOND_NS, START_NS, imu, read_all, record_drive


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    samples, pictures = record_drive(tmp_path)
    with LogReader(tmp_path) as reader:
        records = list(reader)
        values = [reader.decode(r).accel_x_mps2 for r in records if r.topic == "/imu/a"]
        frames = [reader.decode(r) for r in records if r.topic == "/camera/front/image"]
    assert values == [float(i) for i in range(samples)]
    assert [f.data[0] for f in frames] == [10 * i % 256 for i in range(pictures)]
    assert [f.timestamp.seconds for f in frames[:2]] == [5, 5]
    times = [r.raw_ns for r in records]
    assert times == sorted(times)
    assert {r.boot_id for r in records} == {"manual"}
    assert all(r.publish_ns == r.raw_ns for r in records)


def test_sequences_count_from_one_in_each_file(tmp_path: Path) -> None:
    record_drive(tmp_path)
    for segment in list_segments(tmp_path / RING):
        for path in segment.files:
            numbers = [r.sequence for r in read_all(path)]
            assert numbers == list(range(1, len(numbers) + 1))


def test_official_library_reads_our_files(tmp_path: Path) -> None:
    """Issue: a recorded file is read by the `mcap` library, CRCs checked."""
    samples, pictures = record_drive(tmp_path)
    counts: dict[str, int] = {}
    for path in sorted(tmp_path.glob("ring/*/*.mcap")):
        with path.open("rb") as file:
            reader = make_reader(file, validate_crcs=True)
            assert reader.get_header().profile == "syncline"
            for _, channel, message in reader.iter_messages():
                counts[channel.topic] = counts.get(channel.topic, 0) + 1
                assert message.log_time == message.publish_time
    assert counts == {"/imu/a": samples, "/camera/front/image": pictures}


def test_metadata_names_boot_device_and_mapping(tmp_path: Path) -> None:
    clock = ManualClock(START_NS)
    mapping = MappingSegment(
        7, 2, "manual", START_NS, 10**18, 1e-6, (4.0, 0.5, 0.25), 3.0, 900, 50.0,
        TimeState.SYNCED, ("gnss", "ntp"),
    )  # fmt: skip
    with Recorder(tmp_path, clock=clock, device="car-1", segment_s=1) as recorder:
        recorder.write("/time/mapping", mapping_to_message(mapping), clock.raw_ns())
        recorder.flush()
        clock.advance(2 * SECOND_NS)
        recorder.write("/imu/a", imu(clock.raw_ns()), clock.raw_ns())
    first, second = list_segments(tmp_path / RING)
    index = LogFile.open(second.path / "tel.mcap", Limits()).index
    assert index.profile == "syncline"
    assert index.meta("foxglove") == {"deviceName": "car-1"}
    own = index.meta("syncline")
    assert own["boot_id"] == "manual"
    assert own["segment"] == second.name
    assert own["version"] == "1"
    for path in (first.path, second.path / "tel.mcap", tmp_path):
        with LogReader(path) as reader:
            timebase = reader.timebase()
            assert timebase.segment(7) == mapping
            assert timebase.utc(START_NS).utc_ns == 10**18


def test_clock_jump_is_recorded_and_rotates(tmp_path: Path) -> None:
    """link-8: the wall clock jumps by an hour both ways; order is kept, the segment rotates."""
    clock = ManualClock(START_NS)
    with Recorder(tmp_path, clock=clock, device="d", segment_s=60) as recorder:
        for jump_ns in (3600 * SECOND_NS, -3600 * SECOND_NS):
            for _ in range(20):
                recorder.write("/imu/a", imu(clock.raw_ns()), clock.raw_ns())
                clock.advance(10_000_000)
            event = pb.ClockEvent(
                boot_id="manual", raw_ns=clock.raw_ns(), kind=pb.CLOCK_EVENT_STEP, size_ns=jump_ns
            )
            recorder.write("/time/events", event, clock.raw_ns())
            recorder.flush()
        recorder.write("/imu/a", imu(clock.raw_ns()), clock.raw_ns())
    assert len(list_segments(tmp_path / RING)) == 3
    with LogReader(tmp_path) as reader:
        records = list(reader)
        sizes = [reader.decode(r).size_ns for r in records if r.topic == "/time/events"]
    assert sizes == [3600 * SECOND_NS, -3600 * SECOND_NS]
    assert [r.raw_ns for r in records] == sorted(r.raw_ns for r in records)
    assert len(records) == 43


def test_wrong_topic_message_and_time_are_refused(tmp_path: Path) -> None:
    with Recorder(tmp_path, clock=ManualClock(1), device="d") as recorder:
        with pytest.raises(MessageError, match="'/nowhere' is not in the table"):
            recorder.write("/nowhere", imu(1), 1)
        with pytest.raises(MessageError, match=r"carries syncline.ImuSample, not syncline.Drop"):
            recorder.write("/imu/a", pb.Drop(), 1)
        recorder.write("/imu/a", imu(1), 1)
        with pytest.raises(MessageError, match=r"carries syncline.ImuSample, not syncline.Drop"):
            recorder.write("/imu/a", pb.Drop(), 1)
        with pytest.raises(MessageError, match="raw_ns -1 is outside"):
            recorder.write("/imu/a", imu(1), -1)
    with pytest.raises(UsageError, match="closed"):
        recorder.write("/imu/a", imu(1), 1)
    with pytest.raises(UsageError, match="segment_s=0"):
        Recorder(tmp_path, clock=ManualClock(1), device="d", segment_s=0)


class _StuckDisk(Disk):
    """Writes wait until they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self.go.wait()
        return super().write_at(fd, data, offset)


def test_stuck_disk_drops_by_policy_and_counts(tmp_path: Path) -> None:
    disk = _StuckDisk()
    clock = OsClock()
    recorder = Recorder(tmp_path, clock=clock, device="d", disk=disk)
    recorder.write("/imu/a", imu(0), 0)
    recorder.flush()
    disk.go.clear()
    recorder.write("/camera/c/image", image_message(1, "c", b"x" * 9000, "jpeg"), 1)
    time.sleep(0.1)
    kept = [recorder.write("/gnss/g", pb.GnssFix(raw_ns=i), i) for i in range(150)]
    assert sum(kept) == 100
    start = clock.raw_ns()
    blocked = [recorder.write("/model/events", pb.ModelEvent(raw_ns=i), i) for i in range(1003)]
    waited_s = (clock.raw_ns() - start) / 1e9
    assert blocked.count(False) == 3
    assert 0.2 <= waited_s < 2.0, "only the first full write waits"
    disk.go.set()
    recorder.close()
    assert recorder.stats().dropped == {"/gnss/g": 50, "/model/events": 3}
    with LogReader(tmp_path) as reader:
        records = list(reader)
        fixes = [reader.decode(r).raw_ns for r in records if r.topic == "/gnss/g"]
        drops = [reader.decode(r) for r in records if r.topic == "/drops"]
    assert fixes == list(range(50, 150)), "drop-oldest keeps the newest"
    assert {d.reason: d.count for d in drops} == {
        "/gnss/g: queue full, drop-oldest": 50,
        "/model/events: queue full, block": 3,
    }
    assert drops[0].camera == "g"


def test_queue_is_bounded_in_bytes() -> None:
    from foxglove import Context

    message = image_message(0, "c", b"x" * 1000, "jpeg")
    lane = open_lane("/camera/c/image", 0, message, Context())
    queue = LaneQueue(max_bytes=2500)
    payload = payload_of(message)
    assert [queue.put(Item(lane, payload, i)) for i in range(4)] == [True, True, False, False]
    assert queue.bytes == 2 * len(payload)
    assert [item.raw_ns for item in queue.take(9)] == [0, 1]
    assert queue.bytes == 0
    assert lane.dropped == 2


def test_foxglove_messages_decode_by_the_schema_in_the_file(tmp_path: Path) -> None:
    raw_ns = 3 * SECOND_NS + 5
    boxes = BoxColumns([1, 2], [3, 4], [5, 6], [7, 8], [0.5, 0.25], [1, 9])
    with Recorder(tmp_path, clock=ManualClock(1), device="d") as recorder:
        notes = annotations_message(raw_ns, boxes, ["person", "car"])
        recorder.write("/camera/front/annotations", notes, raw_ns)
        recorder.write("/log", log_message(4, "edge", "hello", "warning"), 4)
    with LogReader(tmp_path) as reader:
        line, notes = [reader.decode(r) for r in reader]
    assert (line.message, line.name, line.level) == ("hello", "edge", 3)
    assert [t.text for t in notes.texts] == ["car 0.50", "9 0.25"]
    corners = [(p.x, p.y) for p in notes.points[1].points]
    assert corners == [(2, 4), (6, 4), (6, 8), (2, 8)]
    assert (notes.timestamp.seconds, notes.timestamp.nanos) == (3, 5)
    with pytest.raises(MessageError, match="'loud' is unknown"):
        log_message(0, "a", "b", "loud")
    assert location_message(5, "gnss", 51.0, 13.7, 110.0).encode()


def test_payloads_are_deterministic() -> None:
    a, b = pb.Health(), pb.Health()
    keys = [f"k{i}" for i in range(50)]
    for key in keys:
        a.counters[key] = 1
    for key in reversed(keys):
        b.counters[key] = 1
    assert payload_of(a) == payload_of(b)


def test_pins_link_and_share(tmp_path: Path) -> None:
    """link-7: pre 10 s, post 5 s; the span is covered, no byte copied, 50 pins share segments."""
    clock = ManualClock(100 * SECOND_NS)
    with Recorder(tmp_path, clock=clock, device="d", segment_s=2) as recorder:
        pins = []
        for i in range(600):
            recorder.write("/imu/a", imu(clock.raw_ns()), clock.raw_ns())
            if 300 <= i < 350:
                pins.append(recorder.pin(10, 5, f"brake {i}"))
            clock.advance(100_000_000)
            if i % 5 == 0:
                recorder.flush()
        files_before = {p.stat().st_ino for p in tmp_path.glob("ring/*/*.mcap")}
        last = recorder.ring.pins[-1]
    assert len(pins) == 50
    pinned = list_segments(tmp_path / "pinned")
    assert {p.stat().st_ino for s in pinned for p in s.files} <= files_before, "bytes were copied"
    assert len(pinned) == len({s.name for s in pinned})
    saved = read_pin(tmp_path / "pins" / "00000001.json")
    spans = {}
    for segment in pinned:
        times = [r.raw_ns for r in read_all(segment.path)]
        spans[segment.name] = (min(times), max(times))
    for pin in (saved, last):
        start = min(spans[name][0] for name in pin.segments)
        end = max(spans[name][1] for name in pin.segments)
        slack = 2 * SECOND_NS + 1_600_000_000
        assert pin.raw_ns - 10 * SECOND_NS - slack <= start <= pin.raw_ns - 10 * SECOND_NS
        assert pin.raw_ns + 5 * SECOND_NS - 100_000_000 <= end
        assert end <= pin.raw_ns + 5 * SECOND_NS + slack


def test_metadata_tells_what_was_dropped(tmp_path: Path) -> None:
    disk = _StuckDisk()
    recorder = Recorder(tmp_path, clock=OsClock(), device="d", disk=disk)
    recorder.write("/imu/a", imu(0), 0)
    recorder.flush()
    disk.go.clear()
    recorder.write("/camera/c/image", image_message(1, "c", b"x" * 9000, "jpeg"), 1)
    time.sleep(0.1)
    for i in range(110):
        recorder.write("/gnss/g", pb.GnssFix(raw_ns=i), i)
    disk.go.set()
    recorder.close()
    (segment,) = list_segments(tmp_path / RING)
    index = LogFile.open(segment.path / "tel.mcap", Limits()).index
    assert index.meta("syncline.end")["dropped./gnss/g"] == "10"


def test_lossless_recorder_waits(tmp_path: Path) -> None:
    """A replay at full speed records every picture, though the queue holds 30."""
    with Recorder(tmp_path, clock=ManualClock(1), device="replay", lossless=True) as recorder:
        for i in range(400):
            picture = image_message(i, "c", bytes(50_000), "jpeg")
            assert recorder.write("/camera/c/image", picture, i)
    assert [r.raw_ns for r in read_all(tmp_path)] == list(range(400))


def test_a_writer_that_ends_by_a_bug_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unseen, it would lose everything in silence: the queue takes messages, and drops them."""
    recorder = Recorder(tmp_path, clock=OsClock(), device="d")
    assert recorder.stats().error == ""

    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(recorder._session, "step", broken)
    recorder.write("/imu/a", imu(START_NS), START_NS)
    recorder._thread.join(10)
    assert "internal error in the log writer: ValueError: a bug" in recorder.stats().error
    with pytest.raises(StorageError, match="a bug"):
        recorder.close()
    Recorder(tmp_path, clock=OsClock(), device="d").close()
