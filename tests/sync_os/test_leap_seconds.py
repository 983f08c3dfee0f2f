"""Leap seconds in the pure step: the cut, the label, smears, lone votes."""

from __future__ import annotations

import random

import pytest

from syncline.sync.floor import utc_from_civil_ns
from syncline.sync.leap import built_in
from syncline.sync.steps import StepInput
from syncline.timebase import Timebase, TimeState
from tests.sync_os.conductor_rig import MS, S, conductor, details, feed, ntp


@pytest.mark.parametrize("leap", [1, -1])
def test_sync_28_leap_second(leap: int) -> None:
    """sync-28: TAI inside; the mapping is cut at the leap second exactly, durations are true."""
    midnight = utc_from_civil_ns(2028, 7, 1, 0)
    before = midnight - 600 * S
    core, base = conductor(), Timebase("boot-a")
    said = ""

    def posix(raw_ns: int) -> int:
        """True POSIX UTC: one second back (or ahead) from the leap second on."""
        plain = before + raw_ns
        start = midnight if leap > 0 else midnight - S
        return plain - leap * S if plain >= start else plain

    for at in range(10, 1200, 4):
        m = ntp(at * S, posix(at * S))
        output = core.step(StepInput(m.known_raw_ns, (m,), leap_votes=(leap, leap, 0)))
        said += details(output)
        for segment in output.segments:
            base.add(segment)
    assert "leap second" in said
    for tenths in range(4000, 11_000):
        raw = tenths * S // 10
        told = base.utc(raw)
        edge = 600 * S - (0 if leap > 0 else S)
        if abs(raw - edge) > 50 * MS:
            assert abs(told.utc_ns - posix(raw)) <= told.bound_ns, tenths
    leaps = core.timeline.leaps
    start_tai = leaps.to_tai_ns(midnight - 2 * S)
    duration = leaps.to_tai_ns(midnight + 2 * S) - start_tai
    assert duration == (4 + leap) * S
    assert core.state is TimeState.SYNCED
    ids = [segment.id for segment in base.segments]
    assert ids == sorted(ids)


def test_sync_28_the_label_is_23_59_60() -> None:
    """sync-28: labels through an inserted and a deleted second, and the one of 2016."""
    leaps = built_in()
    tai = leaps.to_tai_ns(utc_from_civil_ns(2016, 12, 31, 86_399 * S))
    assert [leaps.label(tai + n * S // 2)[11:21] for n in range(6)] == [
        "23:59:59.0", "23:59:59.5", "23:59:60.0", "23:59:60.5", "00:00:00.0", "00:00:00.5",
    ]  # fmt: skip
    shorter = leaps.announced(utc_from_civil_ns(2028, 6, 10, 0), -1)
    tai = shorter.to_tai_ns(utc_from_civil_ns(2028, 6, 30, 86_398 * S))
    assert [shorter.label(tai + n * S)[11:19] for n in range(2)] == ["23:59:58", "00:00:00"]


def test_sync_28_a_smearing_server_is_found_within_an_hour() -> None:
    """sync-28: one of three servers smears 11.574 ppm from noon on; it is found in under 1 h."""
    midnight = utc_from_civil_ns(2028, 7, 1, 0)
    noon = midnight - 12 * 3600 * S
    core = conductor(leaps=built_in().announced(midnight - 86_400 * S, 1))
    rng = random.Random(5)
    found = None
    for at in range(96, 2 * 3600 + 3600, 96):
        utc = noon - 3600 * S + at * S
        for name in ("ntp:a", "ntp:b", "ntp:smear"):
            extra = int(rng.expovariate(1 / MS))
            lie = max(utc - noon, 0) // 86_400 if name == "ntp:smear" else 0
            m = ntp(at * S, utc - lie + extra // 2, name, 20 * MS + extra)
            output = core.step(StepInput(m.known_raw_ns, (m,)))
            if "smears" in details(output) and found is None:
                found = (at - 3600, name)
    assert found is not None
    assert found[1] == "ntp:smear"
    assert 0 < found[0] <= 3600
    assert core._smears.smearing == {"ntp:smear"}


def test_sync_28_a_lone_vote_does_not_make_a_leap_second() -> None:
    core = conductor()
    feed(core, 10, 60, offset_ns=utc_from_civil_ns(2028, 6, 20, 0))
    core.step(StepInput(80 * S, leap_votes=(1, 0, 0)))
    assert core.timeline.leaps.offsets_s[-1] == 37
    core.step(StepInput(81 * S, leap_votes=(1, 1, 0)))
    assert core.timeline.leaps.offsets_s[-1] == 38
