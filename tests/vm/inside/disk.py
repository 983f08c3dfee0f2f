"""Spool and recorder on a real ext4 disk: power that is cut, a disk that is full.

`record` runs until the host pulls the plug and notes, where the cut does not reach, what was
durable; `check` mounts the same disk after it; `full` fills a small one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from syncline.errors import StorageError
from syncline.log.folder import RING, list_segments
from syncline.log.reader import LogReader
from syncline.log.recorder import Recorder
from syncline.log.recovery import repair_folder
from syncline.messages import syncline_pb2 as pb
from syncline.spool import START, Spool
from syncline.timebase import NS_PER_S, ManualClock, OsClock
from syncline.topics import LinkClass
from tests.vm.guest import EXCHANGE, mount

DISK = Path("/run/disk")
PERIOD_NS = 5_000_000
PAYLOAD = bytes(range(256)) * 2


def mount_disk(device: str = "ubda") -> None:
    DISK.mkdir(exist_ok=True)
    mount(f"/dev/{device}", DISK, "ext4")


def record() -> dict[str, Any]:
    """Forever: a record for the spool and a sample for the log every 5 ms."""
    mount_disk()
    clock = OsClock()
    spool = Spool(DISK / "spool", clock=clock, quota_bytes=16 << 20)
    careless = os.open(DISK / "careless", os.O_WRONLY | os.O_CREAT)
    notes = os.open(EXCHANGE / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Recorder(DISK / "log", clock=clock, device="vm", segment_s=2.0, reserve_bytes=0) as log:
        start = clock.raw_ns()
        for number in range(10**9):
            clock.sleep_until(start + number * PERIOD_NS)
            now = clock.raw_ns()
            payload = number.to_bytes(8, "little") + PAYLOAD
            spool.put(LinkClass.RESULTS, "/detections/a", now, payload)
            os.write(careless, payload)
            log.write(
                "/imu/a", pb.ImuSample(sensor="a", raw_ns=now, accel_x_mps2=float(number)), now
            )
            if number % 20 == 19:
                spool.sync()
                # Not of the machine's disk: what was acknowledged here must be found after the cut.
                os.write(notes, b"%d %d\n" % (number, now - start))
    return {}


def spooled(folder: Path) -> list[int]:
    spool = Spool(folder, clock=ManualClock(9_000_000_000, "after"))
    found, after = [], START
    while True:
        rows, after = spool.read(LinkClass.RESULTS, after)
        if not rows:
            break
        found += [int.from_bytes(row.payload[:8], "little") for row, _ in rows]
        assert all(row.payload[8:] == PAYLOAD for row, _ in rows)
    spool.close()
    return found


def logged(folder: Path) -> tuple[list[int], int]:
    repair_folder(folder)
    with LogReader(folder) as reader:
        times = [round(reader.decode(record).accel_x_mps2) for record in reader]
    return times, len(list_segments(folder / RING))


def check() -> dict[str, Any]:
    """What the disk holds after the cut."""
    mount_disk()
    numbers = spooled(DISK / "spool")
    samples, segments = logged(DISK / "log")
    return {
        "spooled": len(numbers),
        "spool_gapless": numbers == list(range(len(numbers))),
        "logged": len(samples),
        "log_gapless": samples == list(range(len(samples))),
        "segments": segments,
        "careless": (DISK / "careless").stat().st_size // (len(PAYLOAD) + 8),
    }


def full() -> dict[str, Any]:
    """Both want twice what the disk holds; then half of it is given back."""
    mount_disk()
    clock = OsClock()
    ballast = DISK / "ballast"
    ballast.write_bytes(bytes(6 << 20))
    spool = Spool(DISK / "spool", clock=clock, quota_bytes=64 << 20)
    refused: list[str] = []
    accepted = 0
    put = 0
    with Recorder(DISK / "log", clock=clock, device="vm", segment_s=0.5, reserve_bytes=0) as log:

        def work(seconds: float) -> None:
            nonlocal put, accepted
            end = clock.raw_ns() + round(seconds * NS_PER_S)
            while clock.raw_ns() < end:
                now = clock.raw_ns()
                payload = put.to_bytes(8, "little") + PAYLOAD * 30
                spool.put(LinkClass.RESULTS, "/detections/a", now, payload)
                put += 1
                noise = os.urandom(1000).hex()
                sample = pb.ImuSample(sensor=noise, raw_ns=now, accel_x_mps2=float(put))
                accepted += log.write("/imu/a", sample, now)
                if put % 20 == 0:
                    try:
                        spool.sync()
                    except StorageError as error:
                        refused.append(error.message)
                time.sleep(0.002)

        work(9.0)
        free = os.statvfs(DISK)
        filled = free.f_bavail * free.f_frsize
        trouble = spool.stats().failing
        ballast.unlink()
        work(4.0)
        spool.sync()
        stats = spool.stats()
        log_stats = log.stats()
    losses = stats.classes[LinkClass.RESULTS]
    spool.close()
    repair_folder(DISK / "log")
    with LogReader(DISK / "log") as reader:
        records = [record for record in reader if record.topic == "/imu/a"]
        samples = [round(reader.decode(record).accel_x_mps2) for record in records]
    return {
        "put": put, "accepted": accepted, "free_when_full": filled, "trouble_when_full": trouble,
        "refused_syncs": len(refused), "message": refused[0] if refused else "",
        "failing_after": stats.failing, "dropped": losses.dropped, "refused": losses.refused,
        "backlog": losses.backlog, "samples": samples,
        "last_sample": samples[-1] if samples else 0, "log": str(log_stats),
    }  # fmt: skip


def main(arguments: list[str]) -> dict[str, Any]:
    return {"record": record, "check": check, "full": full}[arguments[0]]()
