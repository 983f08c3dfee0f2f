"""link-3: kill -9 at random points; what the process had queued is on the disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from syncline.log.folder import RING, list_segments
from syncline.log.reader import LogReader
from syncline.log.recovery import repair_folder

TARGET = Path(__file__).with_name("kill_target.py")
MAX_LOST = 20


class Victims:
    """The process that forks what is killed."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(TARGET)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._by = self._process.stdin, self._process.stdout
        return self

    def __exit__(self, *_: object) -> None:
        self._to.close()
        self._process.wait()
        self._by.close()

    def kill_one(self, folder: Path, seconds: float, segment_s: float) -> list[int]:
        """Let one record for so long from its first sample on; what it has queued."""
        self._to.write(f"{folder}\t{segment_s}\n")
        self._to.flush()
        victim = int(self._by.readline().removeprefix("victim "))
        first = self._by.readline()
        time.sleep(seconds)
        os.kill(victim, signal.SIGKILL)
        return [int(first), *(int(line) for line in iter(self._by.readline, "gone\n"))]


def kill_once(victims: Victims, folder: Path, seconds: float, segment_s: float) -> tuple[int, int]:
    """Record, kill, repair; returns (messages queued, messages lost)."""
    last = max(victims.kill_one(folder, seconds, segment_s))
    repair_folder(folder)
    with LogReader(folder) as reader:
        seen: dict[str, list[float]] = {"/imu/a": [], "/camera/front/image": []}
        for record in reader:
            message = reader.decode(record)
            value = message.accel_x_mps2 if record.topic == "/imu/a" else len(message.data)
            seen[record.topic].append(value)
    values = seen["/imu/a"]
    assert values == [float(i) for i in range(len(values))], "a message is missing in the middle"
    assert all(size == 256 * 80 for size in seen["/camera/front/image"])
    queued = last + 1 + (last // 25 + 1)
    return queued, queued - len(values) - len(seen["/camera/front/image"])


def check(folder: Path, rounds: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    lost = []
    with Victims() as victims:
        for i in range(rounds):
            one, segment_s = folder / str(i), rng.choice((0.3, 10.0))
            queued, missing = kill_once(victims, one, rng.uniform(0.05, 1.6), segment_s)
            assert queued > 0
            lost.append(missing)
            for segment in list_segments(one / RING):
                assert {p.name for p in segment.path.iterdir()} <= {"tel.mcap", "cam.mcap"}
                assert segment.files
    return lost


def test_kill_loses_at_most_20_messages(tmp_path: Path) -> None:
    """link-3, 8 points."""
    assert max(check(tmp_path, 8, seed=1)) <= MAX_LOST


@pytest.mark.soak
@pytest.mark.long
def test_kill_200_points(tmp_path: Path) -> None:
    """link-3 in full."""
    lost = check(tmp_path, 200, seed=2)
    over = [n for n in lost if n > MAX_LOST]
    print("lost per kill: max", max(lost), "mean", sum(lost) / len(lost), "above the limit", over)
    assert not over
