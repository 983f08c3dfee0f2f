"""What the conductor's tests share: measurements made by hand, and honest servers."""

from __future__ import annotations

import random

from syncline.sync.conductor import Conductor
from syncline.sync.floor import Floor, utc_from_civil_ns
from syncline.sync.leap import LeapTable, built_in
from syncline.sync.measurement import Measurement, SourceKind, exchange
from syncline.sync.steps import CoreOptions, StepInput, StepOutput
from syncline.timebase import MappingSegment

S = 1_000_000_000
MS = 1_000_000
UTC0 = utc_from_civil_ns(2027, 3, 1, 0)
FLOOR = Floor()


def conductor(
    floor: Floor = FLOOR, leaps: LeapTable | None = None, expiry_bound_ns: int = 10 * S
) -> Conductor:
    return Conductor("boot-a", floor, leaps or built_in(), CoreOptions(expiry_bound_ns))


def ntp(
    raw_ns: int, utc_ns: int, name: str = "ntp:a", delay_ns: int = 10 * MS, root_ns: int = 500_000
) -> Measurement:
    """An exchange whose middle lies at (raw_ns, utc_ns)."""
    half = delay_ns // 2
    return exchange(
        name, raw_ns - half, utc_ns, utc_ns, raw_ns + half, root_bound_ns=root_ns, stratum=2
    )


def gnss(raw_ns: int, utc_ns: int, bound_ns: int = 750 * MS, name: str = "gnss0") -> Measurement:
    return Measurement(
        name, SourceKind.GNSS, raw_ns, utc_ns, uncertainty_ns=30 * MS, root_bound_ns=bound_ns,
        arrival_raw_ns=raw_ns,
    )  # fmt: skip


def feed(
    core: Conductor, start_s: int, seconds: int, every_s: int = 4, offset_ns: int = UTC0,
    names: tuple[str, ...] = ("ntp:a",), seed: int = 1,
) -> list[MappingSegment]:  # fmt: skip
    """Honest servers at UTC = offset + raw, with a little jitter."""
    rng = random.Random(seed)
    made: list[MappingSegment] = []
    for at in range(start_s, start_s + seconds, every_s):
        for k, name in enumerate(names):
            raw = at * S + k * 50 * MS
            extra = int(rng.expovariate(1 / 200_000))
            m = ntp(raw, offset_ns + raw + extra // 2, name, 10 * MS + extra)
            made += core.step(StepInput(m.known_raw_ns + 1000, (m,))).segments
    return made


def details(output: StepOutput) -> str:
    return " | ".join(f"{n.source} {n.detail}" for n in output.notices)
