"""The spool: order, quota, damage, restart (link-17 is in the benches)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncline.errors import MessageError, StorageError
from syncline.spool import START, Position, Spool, SpoolRecord
from syncline.timebase import ManualClock
from syncline.topics import LinkClass

E, R, T, B = LinkClass
SECOND = 1_000_000_000


def clock_at(seconds: float = 1.0, boot: str = "boot-a") -> ManualClock:
    return ManualClock(int(seconds * SECOND), boot)


def drain(spool: Spool, link_class: LinkClass, after: Position = START) -> list[SpoolRecord]:
    out: list[SpoolRecord] = []
    while True:
        rows, after = spool.read(link_class, after)
        if not rows:
            return out
        out += [record for record, _ in rows]


def last_place(spool: Spool, link_class: LinkClass, n: int) -> Position:
    """The place behind the first `n` unacknowledged records."""
    after, left = START, n
    while left:
        rows, after = spool.read(link_class, after, max_records=left)
        left -= len(rows)
    return after


def test_records_come_back_in_order_with_their_boot_and_number(tmp_path: Path) -> None:
    spool = Spool(tmp_path, clock=clock_at())
    seqs = [spool.put(R, "/camera/a/timing", i, b"%d" % i) for i in range(1000)]
    other = [spool.put(R, "/camera/b/timing", i, b"b") for i in range(10)]
    assert drain(spool, R) == [], "nothing is read before it is written"
    spool.sync()
    found = drain(spool, R)
    mine = [r for r in found if r.stream == "/camera/a/timing"]
    assert [r.seq for r in mine] == seqs == list(range(seqs[0], seqs[0] + 1000))
    assert [r.payload for r in mine] == [b"%d" % i for i in range(1000)]
    assert [r.raw_ns for r in mine] == list(range(1000))
    assert {r.boot_id for r in found} == {"boot-a"}
    assert [r.seq for r in found if r.stream == "/camera/b/timing"] == other
    spool.close()


def test_numbers_go_on_after_a_restart_and_begin_anew_in_a_new_boot(tmp_path: Path) -> None:
    spool = Spool(tmp_path, clock=clock_at(1))
    first = [spool.put(E, "/time/events", i, b"x") for i in range(5)]
    spool.close()
    spool = Spool(tmp_path, clock=clock_at(2))
    assert spool.put(E, "/time/events", 5, b"x") == first[-1] + 1
    spool.close()
    spool = Spool(tmp_path, clock=clock_at(3, "boot-b"))
    spool.put(E, "/time/events", 0, b"y")
    spool.sync()
    found = drain(spool, E)
    assert [r.boot_id for r in found] == ["boot-a"] * 6 + ["boot-b"]
    spool.close()


def test_a_wiped_spool_never_repeats_a_number_of_the_same_boot(tmp_path: Path) -> None:
    used: set[int] = set()
    for run in range(4):
        spool = Spool(tmp_path / str(run), clock=clock_at(1 + run))
        seqs = {spool.put(T, "/health", 0, b"x") for _ in range(1000)}
        assert not used & seqs
        used |= seqs
        spool.close()


def test_acknowledged_records_are_gone_also_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path, clock=clock_at(), segment_bytes=4096)
    for i in range(500):
        spool.put(T, "/health", i, b"x" * 100)
    spool.sync()
    spool.acked(T, last_place(spool, T, 300))
    assert spool.stats().backlog == 200
    files = len(list((tmp_path / "c2").glob("*.seg")))
    assert files * 4096 < 250 * 140, "acknowledged segments are unlinked"
    spool.close()
    spool = Spool(tmp_path, clock=clock_at(2), segment_bytes=4096)
    assert [r.raw_ns for r in drain(spool, T)] == list(range(300, 500))
    assert spool.stats().backlog == 200
    spool.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, clock=clock_at())
    with pytest.raises(StorageError, match="in use"):
        Spool(tmp_path, clock=clock_at())
    spool.close()
    Spool(tmp_path, clock=clock_at()).close()


def test_a_record_that_no_frame_can_hold_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path, clock=clock_at())
    with pytest.raises(MessageError, match="250001"):
        spool.put(B, "/log", 0, b"x" * 250_001)
    spool.put(B, "/log", 0, b"x" * 250_000)
    spool.sync()
    assert len(drain(spool, B)) == 1
    spool.close()


# -- link-21 -------------------------------------------------------------------------------------


def test_link_21_lowest_class_gives_way_first_and_the_count_is_exact(tmp_path: Path) -> None:
    """link-21: full at quota, lowest class first, exact counters, events never before bulk."""
    spool = Spool(tmp_path, quota_bytes=400_000, clock=clock_at(), segment_bytes=16_384)
    streams = {E: "/time/events", R: "/camera/a/timing", T: "/health", B: "/log"}
    rng = random.Random(21)
    for i in range(4000):
        link_class = rng.choice([E, R, T, B, B])
        spool.put(link_class, streams[link_class], i, b"x" * rng.randrange(50, 400))
        stats = spool.stats()
        assert stats.total_bytes <= 400_000
        dropped = {c: s.dropped + s.refused for c, s in stats.classes.items()}
        for high, low in ((E, R), (R, T), (T, B)):
            if dropped[high]:
                assert stats.classes[low].backlog == 0 or dropped[low], (high, low)
        if dropped[E]:
            assert all(stats.classes[c].backlog == 0 for c in (R, T, B))
    spool.sync()
    for link_class in LinkClass:
        row = spool.stats().classes[link_class]
        kept = len(drain(spool, link_class))
        assert row.put == kept + row.dropped + row.refused
        assert row.backlog == kept
    disk = sum(f.stat().st_size for f in tmp_path.rglob("*.seg"))
    assert disk <= 400_000 * 1.05
    spool.close()


def test_link_21_events_only_spool_drops_its_own_oldest(tmp_path: Path) -> None:
    """link-21: with nothing below, the oldest of the class itself go, and newer ones stay."""
    spool = Spool(tmp_path, quota_bytes=100_000, clock=clock_at(), segment_bytes=8192)
    for i in range(2000):
        spool.put(E, "/time/events", i, b"x" * 100)
    spool.sync()
    row = spool.stats().classes[E]
    found = drain(spool, E)
    assert row.dropped + row.refused + len(found) == 2000
    assert [r.raw_ns for r in found] == list(range(2000 - len(found), 2000))
    spool.close()


def test_a_class_cap_holds(tmp_path: Path) -> None:
    spool = Spool(tmp_path, class_bytes={T: 50_000}, clock=clock_at(), segment_bytes=8192)
    for i in range(2000):
        spool.put(T, "/health", i, b"x" * 100)
        spool.put(E, "/time/events", i, b"x" * 100)
        assert spool.stats().classes[T].bytes <= 50_000
    assert spool.stats().classes[E].dropped == 0
    spool.close()


# -- link-19 -------------------------------------------------------------------------------------


def _filled(folder: Path, n: int = 300) -> list[bytes]:
    spool = Spool(folder, clock=clock_at(), segment_bytes=8192)
    payloads = [random.Random(i).randbytes(20 + i % 80) for i in range(n)]
    for i, payload in enumerate(payloads):
        spool.put(R, "/camera/a/timing", i, payload)
    spool.close()
    return payloads


@settings(max_examples=60)
@given(data=st.data())
def test_link_19_a_bit_flip_never_gives_wrong_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """link-19: a flip anywhere loses at most one segment, counted, and numbers stay unique."""
    folder = tmp_path_factory.mktemp("flip")
    payloads = _filled(folder)
    files = sorted((folder / "c1").glob("*.seg"))
    victim = data.draw(st.sampled_from(files))
    raw = bytearray(victim.read_bytes())
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    victim.write_bytes(raw)
    spool = Spool(folder, clock=clock_at(5), segment_bytes=8192)
    found = drain(spool, R)
    again = spool.put(R, "/camera/a/timing", 0, b"new")
    assert again not in {r.seq for r in found}
    assert again >= 1_000_000 + len(payloads)
    assert all(r.payload == payloads[r.raw_ns] for r in found), "wrong bytes"
    got = [r.raw_ns for r in found]
    assert got == sorted(set(got))
    stats = spool.stats().classes[R]
    lost = set(range(len(payloads))) - set(got)
    if lost:
        assert stats.damaged_bytes > 0
        assert len(lost) <= 8192 // 40
        assert max(lost) - min(lost) == len(lost) - 1
        known = stats.damaged
        assert known in (0, len(lost)), "a count that is known is exact"
    spool.close()


@pytest.mark.parametrize("how", ["truncate", "overwrite"])
def test_link_19_a_damaged_tail_leaves_the_readable_prefix(tmp_path: Path, how: str) -> None:
    """link-19: truncation or 512 overwritten bytes in the last half leave a readable prefix."""
    rng = random.Random(19)
    for trial in range(30):
        folder = tmp_path / str(trial)
        payloads = _filled(folder, 60)
        victim = max((folder / "c1").glob("*.seg"))
        size = victim.stat().st_size
        at = rng.randrange(size // 2, size)
        with victim.open("r+b") as file:
            if how == "truncate":
                file.truncate(at)
            else:
                file.seek(at)
                file.write(rng.randbytes(512))
        spool = Spool(folder, clock=clock_at(5))
        found = drain(spool, R)
        assert [r.payload for r in found] == payloads[: len(found)]
        assert len(found) > 0
        spool.put(R, "/camera/a/timing", 99, b"goes on")
        spool.sync()
        assert drain(spool, R)[-1].payload == b"goes on"
        spool.close()


# -- link-18, link-22 ----------------------------------------------------------------------------

_VICTIMS = """
import os, sys
from itertools import pairwise
from pathlib import Path
from syncline.spool import Spool
from syncline.topics import LinkClass
def put_for_ever(folder, i):
    spool = Spool(folder, segment_bytes=32768)
    out = open(folder.parent / "synced", "a", buffering=1)
    while True:
        for _ in range(17):
            spool.put(LinkClass.RESULTS, "/camera/a/timing", i, b"%d" % i + b"x" * (i % 300))
            i += 1
        spool.sync()
        out.write(f"{i}\\n")
for line in sys.stdin:
    victim = os.fork()
    if not victim:
        put_for_ever(Path(sys.argv[1]), int(line))
    print(victim, flush=True)
    os.waitpid(victim, 0)
    print("gone", flush=True)
"""
"""A process that has imported everything and forks a victim for each number it is given."""
_KEPT_ROUNDS = 5
"""Rounds after which what was verified is acknowledged: else the work grows with their square."""


def _kill_one(process: subprocess.Popen[str], log: Path, start: int, wait_s: float) -> int:
    """Let a victim put records from `start` on and kill it; what it promised to have synced."""
    assert process.stdin is not None
    assert process.stdout is not None
    log.write_text("")
    process.stdin.write(f"{start}\n")
    process.stdin.flush()
    victim = int(process.stdout.readline())
    limit = time.monotonic() + 20
    while not log.stat().st_size and time.monotonic() < limit:
        time.sleep(0.005)
    time.sleep(wait_s)
    os.kill(victim, signal.SIGKILL)
    assert process.stdout.readline() == "gone\n"
    return int(log.read_text().rpartition("\n")[0].rsplit("\n")[-1])


def _kill_rounds(tmp_path: Path, rounds: int) -> int:
    """Kill the writer of one spool `rounds` times; returns the number of records."""
    folder, log = tmp_path / "spool", tmp_path / "synced"
    rng = random.Random(18)
    oldest, end, last_seq = 0, 0, -1
    with subprocess.Popen(
        [sys.executable, "-c", _VICTIMS, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        for done in range(1, rounds + 1):
            promised = _kill_one(process, log, end, rng.uniform(0, 0.05))
            spool = Spool(folder, segment_bytes=32768)
            found = drain(spool, R)
            numbers = [r.raw_ns for r in found]
            assert numbers == list(range(oldest, oldest + len(numbers))), "lost or reordered"
            end = oldest + len(numbers)
            assert end >= promised, "a synced record is lost"
            assert all(r.payload.rstrip(b"x") == b"%d" % r.raw_ns for r in found)
            seqs = [r.seq for r in found]
            assert all(a < b for a, b in pairwise([last_seq, *seqs]))
            if done % _KEPT_ROUNDS == 0:
                spool.acked(R, last_place(spool, R, len(found)))
                oldest, last_seq = end, seqs[-1]
            spool.close()
        assert process.stdin is not None
        process.stdin.close()
    return end


def test_link_18_kill_9_loses_no_synced_record(tmp_path: Path) -> None:
    """link-18: kill -9 at random points; 12 rounds here, 500 in the soak."""
    _kill_rounds(tmp_path, 12)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_link_18_kill_9_five_hundred_times(tmp_path: Path) -> None:
    """link-18 at full count."""
    print(f"{_kill_rounds(tmp_path, 500)} records")


_START = """
import sys, time
from itertools import pairwise
from pathlib import Path
from syncline.spool import Spool
from syncline.topics import LinkClass
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = peak()
began = time.perf_counter()
spool = Spool(Path(sys.argv[1]), quota_bytes=4 << 30)
took = time.perf_counter() - began
rows, _ = spool.read(LinkClass.BULK)
grown = peak() - before
print(took, grown, spool.stats().backlog, len(rows))
"""


def _start_of_backlog(tmp_path: Path, size: int) -> tuple[float, float]:
    """Seconds that opening takes, the least disturbed of three times, and the most memory."""
    spool = Spool(tmp_path / "s", quota_bytes=4 << 30)
    n = size // 100_000
    for i in range(n):
        spool.put(B, "/log", i, b"x" * 100_000)
    spool.close()
    opened = [_opened(tmp_path / "s", n) for _ in range(3)]
    return min(took_s for took_s, _ in opened), max(grown_mb for _, grown_mb in opened)


def _opened(folder: Path, n: int) -> tuple[float, float]:
    """Seconds that opening a spool of `n` records takes, and the memory in MB."""
    done = subprocess.run(
        [sys.executable, "-c", _START, str(folder)], check=True, capture_output=True, text=True
    )
    took, grown, backlog, rows = done.stdout.split()
    assert int(backlog) == n
    assert int(rows) > 0
    return float(took), float(grown) / 1024


def test_link_22_a_backlog_opens_at_once(tmp_path: Path) -> None:
    """link-22, scaled to 100 MB: open time and memory do not grow with the backlog."""
    took_s, grown_mb = _start_of_backlog(tmp_path, 100_000_000)
    assert took_s < 1.0
    assert grown_mb < 64


@pytest.mark.soak
def test_link_22_one_gigabyte(tmp_path: Path) -> None:
    """link-22 at full size."""
    took_s, grown_mb = _start_of_backlog(tmp_path, 1_000_000_000)
    print(f"open {took_s:.3f} s, {grown_mb:.1f} MB")
    assert took_s < 1.0
    assert grown_mb < 64


def test_the_spool_is_private(tmp_path: Path) -> None:
    spool = Spool(tmp_path, clock=clock_at())
    spool.put(E, "/time/events", 0, b"x")
    spool.close()
    for path in tmp_path.rglob("*.seg"):
        assert path.stat().st_mode & 0o077 == 0
