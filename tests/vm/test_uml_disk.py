"""Power cuts and a full disk on a real ext4, in a machine whose plug can be pulled.

The page cache dies with the machine, so what was not synced is gone: a stronger cut than killing a
process. The disk's own volatile cache is not simulated.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.vm import uml
from tests.vm.conftest import Run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
S = 1_000_000_000
CUTS = 4
UNSYNCED_NS = 3 * S
"""The log is synced each 0.5 s; the rest is the slowness of a loaded machine."""


def make_disk(path: Path, megabytes: int) -> Path:
    tool = shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    if tool is None:
        pytest.skip("no mkfs.ext4 here: apt-get install e2fsprogs")
    with path.open("wb") as image:
        image.truncate(megabytes << 20)
    subprocess.run([tool, "-q", "-F", str(path)], check=True)
    return path


def cut_while_recording(folder: Path, disk: Path, seconds: float) -> list[tuple[int, int]]:
    """Record, pull the plug; what was durable before, as (number, time)."""
    folder.mkdir()
    notes = folder / "notes"
    with uml.Machine(folder, "tests.vm.inside.disk", ("record",), (disk,)) as machine:
        end = time.monotonic() + 60
        while time.monotonic() < end and not (notes.exists() and notes.stat().st_size):
            time.sleep(0.02)
        time.sleep(seconds)
        machine.cut()
    lines = notes.read_text(encoding="ascii").splitlines()
    rows = [tuple(map(int, line.split())) for line in lines]
    return [(row[0], row[1]) for row in rows if len(row) == 2]


@pytest.mark.parametrize("number", range(CUTS))
def test_deploy_16_a_power_cut_loses_nothing_that_was_acknowledged(
    in_uml: Run, tmp_path: Path, number: int
) -> None:
    """deploy-16, link-3: power cut at a random moment: every synced record of the spool is there,
    the log ends less than its sync before, both without a gap; what was only written is gone."""
    disk = make_disk(tmp_path / "disk.img", 64)
    noted = cut_while_recording(tmp_path / "a", disk, random.Random(number).uniform(0.3, 5.0))
    (tmp_path / "b").mkdir()
    with uml.Machine(tmp_path / "b", "tests.vm.inside.disk", ("check",), (disk,)) as machine:
        found = machine.answer(100.0).figures
    acknowledged = noted[-1][0] + 1
    assert found["spooled"] >= acknowledged
    assert found["spool_gapless"]
    assert found["log_gapless"]
    old = [n for n, t in noted if t < noted[-1][1] - UNSYNCED_NS]
    assert found["logged"] > max(old, default=-1)
    assert found["careless"] < acknowledged  # else the cut would show nothing


def test_link_6_link_20_a_full_disk_is_survived_and_counted(in_uml: Run, tmp_path: Path) -> None:
    """link-6, link-20: spool and log want more than a real ext4 holds: no exception, every record
    of the spool is there or counted, the log goes on in order, and both recover with the room."""
    disk = make_disk(tmp_path / "disk.img", 24)
    with uml.Machine(tmp_path, "tests.vm.inside.disk", ("full",), (disk,)) as machine:
        answer = machine.answer(100.0)
    found = answer.figures
    assert "No space left on device" in answer.output
    assert found["dropped"] > 0
    assert found["put"] == found["backlog"] + found["dropped"] + found["refused"]
    assert found["failing_after"] == ""
    samples = found["samples"]
    assert samples == sorted(set(samples))
    assert samples[-1] == found["put"]
