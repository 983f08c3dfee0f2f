"""The system clock as an output; stored state; messages; leap lists; names of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import InputError, StorageError
from syncline.sync.confusion import name_of
from syncline.sync.discipline import Discipline, DisciplineLimits, Mode
from syncline.sync.floor import (
    Floor,
    iso,
    load_floor,
    save_floor,
    snap_epoch,
    utc_from_civil_ns,
)
from syncline.sync.leap import built_in, month_end_ns, read_list
from syncline.sync.notices import Notice, NoticeKind
from syncline.sync.publish import notice_message, segment_message, segment_of, source_message
from syncline.sync.status import SourceRow
from syncline.timebase import MappingSegment, TimeState

S = 1_000_000_000
MS = 1_000_000
SYNCED = TimeState.SYNCED


def test_observe_does_nothing() -> None:
    for error_ns in (0, S, -(10**18)):
        action = Discipline(Mode.OBSERVE).decide(0, error_ns, 1000, SYNCED)
        assert (action.step_ns, action.frequency_ppm) == (0, None)


@pytest.mark.parametrize("state", [s for s in TimeState if s is not SYNCED])
def test_nothing_is_done_while_we_are_not_sure(state: TimeState) -> None:
    action = Discipline(Mode.STEP).decide(0, 5 * S, 1000, state)
    assert action.step_ns == 0
    assert Discipline(Mode.STEP).decide(0, 5 * S, S, SYNCED).step_ns == 0


def test_steps_are_limited_in_size_and_number() -> None:
    limits = DisciplineLimits(max_step_ns=3600 * S, max_steps=2)
    discipline = Discipline(Mode.STEP, limits)
    assert discipline.decide(0, 2 * S, 1000, SYNCED).step_ns == -2 * S
    assert discipline.decide(1, -7200 * S, 1000, SYNCED).step_ns == 0
    assert discipline.decide(2, -3 * S, 1000, SYNCED).step_ns == 3 * S
    assert discipline.decide(3, 2 * S, 1000, SYNCED).step_ns == 0
    slewing = Discipline(Mode.SLEW).decide(0, 2 * S, 1000, SYNCED)
    assert slewing.step_ns == 0
    assert "not allowed" in slewing.reason


@pytest.mark.parametrize("ppm", [-180.0, -20.0, 0.0, 55.0, 180.0])
@pytest.mark.parametrize("start_ns", [100 * MS, -400 * MS, 10_000])
def test_slewing_converges_and_never_races(ppm: float, start_ns: int) -> None:
    """A clock off by `start_ns` that runs `ppm` fast ends within 50 us, slewing <= 500 ppm."""
    discipline, error, frequency = Discipline(Mode.SLEW), float(start_ns), 0.0
    for second in range(7200):
        action = discipline.decide(second * S, round(error), 1000, SYNCED)
        if action.frequency_ppm is not None:
            frequency = action.frequency_ppm
            assert abs(frequency) <= 500
        error += (ppm + frequency) * 1000
    assert abs(error) < 50_000


def test_the_saved_time_survives_and_bad_files_are_named(tmp_path: Path) -> None:
    """sync-24: checksum, size, a time beyond the ceiling: ignored, with a line that says so."""
    path = tmp_path / "floor.json"
    assert load_floor(path) == (Floor(), "")
    later = utc_from_civil_ns(2028, 1, 1, 0)
    save_floor(path, later)
    assert load_floor(path)[0].utc_ns == later
    good = path.read_text()
    for bad in (
        good.replace("1", "2", 1), "{}", "", "x" * 9000, '{"utc_ns":"a","check":1}',
    ):  # fmt: skip
        path.write_text(bad)
        floor, why = load_floor(path)
        assert floor == Floor()
        assert str(path) in why
    save_floor(path, utc_from_civil_ns(2090, 1, 1, 0))
    assert load_floor(path)[0] == Floor()
    with pytest.raises(StorageError, match="cannot save"):
        save_floor(tmp_path / "none" / "floor.json", later)


@given(days=st.integers(0, 60_000), in_day=st.integers(0, 86_400 * S - 1))
def test_dates_go_round(days: int, in_day: int) -> None:
    utc_ns = days * 86_400 * S + in_day
    text = iso(utc_ns)
    date = [int(x) for x in text[:10].split("-")]
    assert utc_from_civil_ns(date[0], date[1], date[2], in_day) == utc_ns


@given(
    days=st.integers(0, 7000),
    stale=st.integers(0, 3),
    known=st.booleans(),
    early=st.integers(0, 300),
)
def test_sync_25_any_number_of_stale_epochs(days: int, stale: int, known: bool, early: int) -> None:
    """sync-25: a true date within 19 years of the floor, stale by 0..3 epochs, is found."""
    floor = Floor()
    true_ns = floor.utc_ns + days * 86_400 * S + 12_345
    given_ns = true_ns - stale * 1024 * 7 * 86_400 * S
    reference = true_ns - early * 86_400 * S if known and days >= early else None
    assert snap_epoch(given_ns, floor, reference)[0] == true_ns


def test_leap_list_of_the_system_agrees_with_the_built_in_table(tmp_path: Path) -> None:
    path = tmp_path / "leap-seconds.list"
    rows = [
        f"{start // S + 2_208_988_800}\t{offset}\t# text"
        for start, offset in zip(built_in().starts_utc_ns, built_in().offsets_s, strict=True)
    ]
    path.write_text("#\tcomment\n#@\t3991766400\n" + "\n".join(rows) + "\n")
    table, expires = read_list(path)
    assert table == built_in()
    assert iso(expires)[:10] == "2026-06-30" or expires > 0
    assert table.tai_minus_utc_s(utc_from_civil_ns(2026, 11, 1, 0)) == 37
    for bad in ("", "hello world\n", "3692217600\n", "3692217600 37\n2272060800 10\n"):
        path.write_text(bad)
        with pytest.raises(InputError):
            read_list(path)
    system = Path("/usr/share/zoneinfo/leap-seconds.list")
    if system.exists():
        assert read_list(system)[0].offsets_s[:28] == built_in().offsets_s


def test_month_ends() -> None:
    assert iso(month_end_ns(utc_from_civil_ns(2026, 12, 5, 0)))[:10] == "2027-01-01"
    assert iso(month_end_ns(utc_from_civil_ns(2028, 2, 29, 0)))[:10] == "2028-03-01"


@pytest.mark.parametrize(
    ("offset_ns", "word"),
    [
        (37 * S, "TAI"), (-18 * S + 3 * MS, "GPS time"), (19 * S, "TAI and GPS"),
        (3600 * S, "local time"), (-19_800 * S, "5.5 h"), (1024 * 7 * 86_400 * S, "rollover"),
        ((1 << 32) * S, "era"), (S, "leap second"), (5 * S, ""), (300 * MS, ""), (0, ""),
    ],
)  # fmt: skip
def test_sync_41_mistakes_have_names(offset_ns: int, word: str) -> None:
    """sync-41: 37 s, 18 s, time zones, weeks and eras are told by their size."""
    assert word in name_of(offset_ns)
    assert bool(name_of(offset_ns)) == bool(word)
    assert name_of(offset_ns, S) == ""


def test_messages_carry_everything() -> None:
    segment = MappingSegment(
        7, 2, "boot", 10**12, 18 * 10**17, 1.5e-5, (1.0, 2.0, 3.0), 4.0, 5, 6.0,
        TimeState.HOLDOVER, ("ntp:a", "gnss0"),
    )  # fmt: skip
    message = segment_message(segment, "open-sky")
    assert segment_of(type(message).FromString(message.SerializeToString())) == segment
    assert message.policy == "open-sky"
    for kind in NoticeKind:
        notice = Notice(5, kind, "ntp:a", -7, 1.0, "text", TimeState.SUSPECT)
        event = notice_message(notice, "boot")
        assert (event.kind, event.size_ns, event.state) == (int(kind), -7, 3)
    row = SourceRow("ntp:a", "ntp", "selected", "ok", 1, 2.0, 3, 4, 5, 6, 7, 8, "text")
    status = source_message(row, 9)
    assert (status.name, status.offset_ns, status.delay_ns, status.raw_ns) == ("ntp:a", 1, 3, 9)
