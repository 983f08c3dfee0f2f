"""link-16: truncated and damaged files never crash the reader or the recovery, nor fill memory."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncline.errors import LogError
from syncline.log.reader import LogReader
from syncline.log.recovery import recover
from tests.memory import peak_kb

from .helpers import read_all, record_drive

MEMORY_LIMIT_MB = 512


def mutants(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Truncations, bit flips, overwritten and inserted blocks, lengths set to extremes."""
    rng = random.Random(seed)
    for i in range(count):
        mutant = bytearray(data)
        kind = i % 5
        if kind == 0:
            del mutant[rng.randrange(len(mutant)) :]
        elif kind == 1:
            for _ in range(rng.choice((1, 1, 4, 32))):
                mutant[rng.randrange(len(mutant))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            at = rng.randrange(len(mutant))
            mutant[at : at + rng.choice((4, 64, 512))] = rng.randbytes(rng.choice((4, 64, 512)))
        elif kind == 3:
            at, size = rng.randrange(len(mutant)), rng.choice((2, 4, 8))
            value = rng.choice((0, 1, 2**31, 2**40, 2**63, 2**64 - 1)) % 2 ** (8 * size)
            mutant[at : at + size] = value.to_bytes(size, "little")
        else:
            start, length = rng.randrange(len(mutant)), rng.randrange(1, 400)
            at = rng.randrange(len(mutant))
            mutant[at:at] = mutant[start : start + length]
        yield bytes(mutant)


def try_mutant(folder: Path, data: bytes, whole: dict[tuple[str, int], bytes]) -> str:
    """Read and recover one mutant; returns what became of it."""
    path, out = folder / "m.mcap", folder / "out.mcap"
    path.write_bytes(data)
    out.unlink(missing_ok=True)
    outcome = "read"
    try:
        with LogReader(path) as reader:
            for record in reader:
                try:
                    reader.decode(record)
                except LogError:
                    outcome = "undecodable"
    except LogError as error:
        outcome = "refused" if "\n" not in str(error) else "refused in many lines"
    try:
        recover(path, out)
    except LogError:
        assert not out.exists()
        return outcome + ", lost"
    good = sum(whole.get((r.topic, r.sequence)) == bytes(r.data) for r in read_all(out))
    return outcome + (", saved" if good else ", lost")


def sources(folder: Path) -> list[Path]:
    """A telemetry file, a camera file, and a camera file whose writer was killed."""
    record_drive(folder / "drive", 0.6, segment_s=10)
    (segment,) = (folder / "drive" / "ring").iterdir()
    crashed = folder / "crashed.mcap"
    data = bytearray((segment / "cam.mcap").read_bytes())
    crashed.write_bytes(data[: len(data) * 2 // 3])
    return [segment / "tel.mcap", segment / "cam.mcap", crashed]


def fuzz(folder: Path, count: int, seed: int) -> dict[str, int]:
    folder.mkdir(exist_ok=True)
    outcomes: dict[str, int] = {}
    for number, source in enumerate(sources(folder)):
        whole = {(r.topic, r.sequence): bytes(r.data) for r in read_all(source)}
        for mutant in mutants(source.read_bytes(), count, seed + number):
            outcome = try_mutant(folder, mutant, whole)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def test_mutants(tmp_path: Path) -> None:
    """link-16, 300 mutants."""
    outcomes = fuzz(tmp_path, 100, seed=7)
    assert sum(outcomes.values()) == 300
    assert not any("many lines" in key for key in outcomes)
    assert outcomes.get("refused, saved", 0) + outcomes.get("read, saved", 0) > 150, outcomes
    assert sum(n for key, n in outcomes.items() if key.startswith("refused")) > 30, outcomes


def test_hostile_and_mutants_stay_within_memory(tmp_path: Path) -> None:
    """link-16: RSS <= 512 MB, in a process of its own with the address space to go beyond."""
    peak_mb = _peak_mb(tmp_path, 30)
    assert peak_mb <= MEMORY_LIMIT_MB


@pytest.mark.soak
def test_10000_mutants(tmp_path: Path) -> None:
    """link-16 in full."""
    peak_mb = _peak_mb(tmp_path, 3334)
    print("peak RSS", peak_mb, "MB")
    assert peak_mb <= MEMORY_LIMIT_MB


def _peak_mb(folder: Path, count: int) -> float:
    root = Path(__file__).parents[2]
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]);"
        "from tests.log.test_fuzz import fuzz, hostile;"
        "hostile(Path(sys.argv[1])); fuzz(Path(sys.argv[1]) / 'f', int(sys.argv[2]), 11);"
        "from tests.memory import peak_kb; print(peak_kb() / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(count), str(root)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def hostile(folder: Path) -> None:
    """Every hand-made hostile file of test_reader.py."""
    from .test_reader import HOSTILE

    for number, (data, _) in enumerate(HOSTILE.values()):
        path = folder / f"h{number}.mcap"
        path.write_bytes(data)
        with pytest.raises(LogError):
            read_all(path)


def test_limit_is_not_vacuous() -> None:
    """The figure that is compared is this platform's kilobytes."""
    assert peak_kb() > 10_000
