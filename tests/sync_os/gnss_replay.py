"""Replays receiver logs, which store no arrival times, with times derived from their own epochs."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from syncline.sync.conductor import Conductor
from syncline.sync.floor import Floor
from syncline.sync.leap import built_in
from syncline.sync.measurement import Measurement
from syncline.sync.sources.gnss_gate import GnssEpoch, GnssGate
from syncline.sync.sources.gnss_stream import GnssStream
from syncline.sync.steps import StepInput
from syncline.timebase import MappingSegment

S = 1_000_000_000
MAX_GAP_NS = 120 * S
MAX_BYTES = 250_000
_START = re.compile(rb"(?=\$|\xb5\x62)")


def pieces(path: Path) -> list[bytes]:
    """The log's bytes, cut where sentences and frames may begin; comment lines removed."""
    data = path.read_bytes()[:MAX_BYTES]
    data = b"\n".join(line for line in data.split(b"\n") if not line.startswith(b"#"))
    return [piece for piece in _START.split(data) if piece]


@dataclass
class Plan:
    """Arrival of each piece, and the offsets UTC - RAW that were claimed with a fix."""

    arrivals_ns: list[int] = field(default_factory=list)
    claims: list[tuple[int, int]] = field(default_factory=list)
    epochs: int = 0


def plan(parts: list[bytes], seed: int = 1) -> Plan:
    """First pass: read the epochs and lay them on a raw clock."""
    rng = random.Random(seed)
    seen: list[tuple[int, GnssEpoch]] = []
    stream = GnssStream("plan", Floor(0))
    take = stream.gate.take

    def note(epoch: GnssEpoch) -> Measurement | None:
        seen.append((at, epoch))
        return take(epoch)

    stream.gate.take = note  # type: ignore[method-assign]
    for at, part in enumerate(parts):
        stream.feed(part, at * S)
    made, raw_ns, last, at = Plan(epochs=len(seen)), 100 * S, None, 0
    for until, epoch in seen:
        step = S if last is None else epoch.utc_ns - last
        raw_ns += step if 0 < step <= MAX_GAP_NS else (0 if step == 0 else S)
        last = epoch.utc_ns
        made.arrivals_ns += [raw_ns + rng.randrange(50, 450) * 1_000_000] * (until + 1 - at)
        at = until + 1
        if epoch.fix_mode >= 2:
            claim = epoch.utc_ns - raw_ns
            if not made.claims or abs(claim - made.claims[-1][1]) > 10_000_000:
                made.claims.append((raw_ns, claim))
    made.arrivals_ns += [raw_ns + 2 * S] * (len(parts) - len(made.arrivals_ns))
    made.arrivals_ns = [max(made.arrivals_ns[: i + 1][-50:]) for i in range(len(parts))]
    return made


@dataclass
class Replay:
    """What came of a log."""

    segments: list[tuple[int, MappingSegment]]
    gate: GnssGate
    measured: int


def replay(parts: list[bytes], made: Plan, floor: Floor, *, trust_leap: bool = True) -> Replay:
    """Second pass: through gate, conductor and both estimators, as the daemon would."""
    conductor = Conductor("replay", floor, built_in())
    stream = GnssStream("gnss0", floor, trust_leap=trust_leap, reference=conductor.utc)
    found: list[tuple[int, MappingSegment]] = []
    measured = 0
    for part, raw_ns in zip(parts, made.arrivals_ns, strict=True):
        got = stream.feed(part, raw_ns)
        if not got:
            continue
        measured += len(got)
        now = StepInput(raw_ns, tuple(got), signals=stream.signals(), has_gnss=True)
        found += [(raw_ns, segment) for segment in conductor.step(now).segments]
    return Replay(found, stream.gate, measured)


def logs(folder: Path) -> Iterator[Path]:
    """Every receiver log of the data folder."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".log", ".nmea"):
            yield path
