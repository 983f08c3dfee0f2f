"""What the pure step believes first: cold start, reboot, floors, a wrong first lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline.sync.conductor import Conductor
from syncline.sync.estimator import LearnedOscillator
from syncline.sync.floor import ROLLOVER_NS, iso, utc_from_civil_ns
from syncline.sync.leap import built_in
from syncline.sync.learned import load_oscillator, save_oscillator
from syncline.sync.steps import StepInput
from syncline.timebase import Timebase, TimeState
from tests.sync_os.conductor_rig import FLOOR, MS, UTC0, S, conductor, details, feed, gnss, ntp


def test_sync_22_cold_start_from_1970_takes_one_exchange() -> None:
    """sync-22: no clock at all; the first segment after one exchange, and records made before it
    are re-timed within its bound although the oscillator is 40 ppm off."""
    rate = 40e-6
    core, base = conductor(), Timebase("boot-a")
    assert core.step(StepInput(0)).segments == ()
    assert core.utc(0) is None
    early_raw = 2 * S
    raw = 40 * S
    m = ntp(raw, UTC0 + raw + round(raw * rate))
    for segment in core.step(StepInput(m.known_raw_ns, (m,))).segments:
        base.add(segment)
    assert core.state is TimeState.SYNCED
    told = base.utc(early_raw)
    truth = UTC0 + early_raw + round(early_raw * rate)
    assert abs(told.utc_ns - truth) <= told.bound_ns
    assert told.bound_ns < S


def test_sync_22_one_valid_fix_is_enough() -> None:
    """sync-22: a receiver alone gives a coarse segment at once."""
    core = conductor()
    (segment,) = core.step(StepInput(S, (gnss(S, UTC0 + S),), has_gnss=True)).segments
    assert abs(segment.utc_ns(S) - UTC0 - S) <= segment.bound_ns(S) < 1200 * MS


def test_sync_23_a_reboot_joins_nothing(tmp_path: Path) -> None:
    """sync-23: a new boot id has no time until it measures; only the oscillator is carried over."""
    core = conductor()
    feed(core, 10, 1200, every_s=10)
    learned = core.snapshot()
    assert learned is not None
    save_oscillator(tmp_path / "o.json", learned)
    again, why = load_oscillator(tmp_path / "o.json")
    assert why == ""
    second = Conductor("boot-b", FLOOR, built_in(), learned=again)
    assert second.utc(5 * S) is None
    m = ntp(5 * S, UTC0 + 4000 * S)
    (segment,) = second.step(StepInput(m.known_raw_ns, (m,))).segments
    assert segment.boot_id == "boot-b"
    with pytest.raises(Exception, match="boot"):
        Timebase("boot-a").add(segment)


@pytest.mark.parametrize(
    "text", ['{"rate":1,"rate_sigma":1e-7,"wander":0}', '{"rate":NaN}', "[]", "", "{" * 5000]
)
def test_a_bad_oscillator_file_is_named_and_ignored(tmp_path: Path, text: str) -> None:
    path = tmp_path / "o.json"
    path.write_text(text)
    learned, why = load_oscillator(path)
    assert learned is None
    assert str(path) in why


@pytest.mark.parametrize(
    "day", [(1970, 1, 1), (2000, 1, 1), (2026, 10, 31), (2046, 11, 2), (2100, 1, 1)]
)
def test_sync_24_times_that_cannot_be_are_refused(day: tuple[int, int, int]) -> None:
    """sync-24: before the build date or more than 20 years after it: no segment, a notice."""
    core = conductor()
    m = ntp(S, utc_from_civil_ns(*day, 0))
    output = core.step(StepInput(2 * S, (m,)))
    assert output.segments == ()
    assert "floor" in details(output)
    again = core.step(StepInput(3 * S, (m,)))
    assert "floor" not in details(again), "said once, not with every packet"


def test_sync_24_the_last_saved_time_is_a_floor_too() -> None:
    """sync-24: an hour before the saved time is refused; a saved time of 2080 is not believed."""
    floor = FLOOR.with_saved(UTC0)
    assert not floor.admits(UTC0 - 3600 * S)
    assert floor.admits(UTC0 + 1)
    assert FLOOR.with_saved(utc_from_civil_ns(2080, 1, 1, 0)).utc_ns == FLOOR.utc_ns


def test_sync_27_a_first_lock_45_min_wrong_loses_against_servers() -> None:
    """sync-27: the receiver came first and alone; two servers disagree and win, with a notice."""
    core = conductor()
    wrong = UTC0 + 2700 * S
    for at in range(1, 20):
        core.step(StepInput(at * S, (gnss(at * S, wrong + at * S),), has_gnss=True))
    assert core.state is TimeState.SYNCED
    seen = []
    for at in range(20, 40, 2):
        for name in ("ntp:a", "ntp:b"):
            m = ntp(at * S, UTC0 + at * S, name)
            output = core.step(
                StepInput(at * S + 6 * MS, (m, gnss(at * S, wrong + at * S)), has_gnss=True)
            )
            seen.append(details(output))
    known = core.utc(40 * S)
    assert known is not None
    assert abs(known.utc_ns - UTC0 - 40 * S) <= known.bound_ns < 100 * MS
    assert known.state is TimeState.SUSPECT or known.state is TimeState.INTERFERENCE
    assert any("2700.0" in text for text in seen)


def test_sync_27_servers_first_the_wrong_lock_changes_nothing() -> None:
    """sync-27: NTP first; a receiver 45 min off is refused and never moves the published time."""
    core = conductor()
    feed(core, 10, 120, names=("ntp:a", "ntp:b"))
    for at in range(130, 160):
        segments = core.step(
            StepInput(at * S, (gnss(at * S, UTC0 + at * S + 2700 * S),), has_gnss=True)
        ).segments
        for segment in segments:
            assert abs(segment.utc_ns(at * S) - UTC0 - at * S) < 100 * MS


def test_learned_oscillators_are_taken_over() -> None:
    core = Conductor("b", FLOOR, built_in(), learned=LearnedOscillator(4e-5, 1e-7, 1e-9))
    m = ntp(S, UTC0)
    (segment,) = core.step(StepInput(m.known_raw_ns, (m,))).segments
    assert segment.rate == pytest.approx(4e-5, rel=1e-3)


def test_rollover_constant_is_1024_weeks() -> None:
    assert iso(utc_from_civil_ns(2019, 4, 6, 86_382 * S) + ROLLOVER_NS)[:10] == "2038-11-20"
