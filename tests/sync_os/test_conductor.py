"""The pure step: cold start, floors, leap seconds, suspends, contradicting sources, scenes."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from syncline.sync.conductor import Conductor
from syncline.sync.estimator import LearnedOscillator
from syncline.sync.events import Step
from syncline.sync.floor import ROLLOVER_NS, Floor, iso, utc_from_civil_ns
from syncline.sync.jumps import Suspended
from syncline.sync.leap import LeapTable, built_in
from syncline.sync.learned import load_oscillator, save_oscillator
from syncline.sync.measurement import Measurement, SourceKind, exchange
from syncline.sync.notices import NoticeKind
from syncline.sync.policy import Scene
from syncline.sync.sources.can_clock import CanClock, read_csv
from syncline.sync.sources.source import GnssSignals
from syncline.sync.steps import CoreOptions, StepInput, StepOutput
from syncline.timebase import Clock, MappingSegment, Timebase, TimeState

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


# -- cold start, reboot, floor -------------------------------------------------------------------


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


# -- coarse and fine -------------------------------------------------------------------------------


def test_messages_without_a_pulse_never_make_the_service_sure_of_their_latency() -> None:
    """A thousand messages that are 300 ms late: the bound still covers, and a server takes over."""
    core = conductor()
    for at in range(1, 1000):
        m = gnss(at * S + 300 * MS, UTC0 + at * S)
        core.step(StepInput(at * S + 300 * MS, (m,), has_gnss=True))
    known = core.utc(1000 * S)
    assert known is not None
    assert 250 * MS < abs(known.utc_ns - UTC0 - 1000 * S) <= known.bound_ns
    feed(core, 1001, 30)
    known = core.utc(1031 * S)
    assert known is not None
    assert abs(known.utc_ns - UTC0 - 1031 * S) <= known.bound_ns < 50 * MS


def test_sync_41_tai_taken_for_utc_is_named_and_not_averaged() -> None:
    """sync-41: a PTP source 37 s ahead beside two servers: flagged by name, time unmoved."""
    core = conductor()
    feed(core, 10, 400, names=("ntp:a", "ntp:b"))
    said = []
    for at in range(410, 440):
        m = exchange(
            "ptp0", at * S, UTC0 + (at + 37) * S, UTC0 + (at + 37) * S, at * S + 2000,
            kind=SourceKind.PTP, uncertainty_ns=50, root_bound_ns=1000,
        )  # fmt: skip
        output = core.step(StepInput(at * S + 3000, (m,)))
        said.append(details(output))
        known = core.utc(at * S)
        assert known is not None
        assert abs(known.utc_ns - UTC0 - at * S) < 10 * MS
    assert any("TAI taken for UTC (37 s)" in text for text in said)
    feed(core, 440, 20, names=("ntp:a", "ntp:b"))
    known = core.utc(460 * S)
    assert known is not None
    assert abs(known.utc_ns - UTC0 - 460 * S) < 10 * MS


# -- leap seconds ----------------------------------------------------------------------------------


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


# -- jumps and suspends ----------------------------------------------------------------------------


def test_sync_20_sync_30_a_clock_step_moves_no_record() -> None:
    """sync-20, sync-30: REALTIME back by an hour is an event; mapping, polling and ids are the same
    as in a run without it, to the nanosecond."""
    outcomes = []
    for jump_at in (None, 70):
        core = conductor()
        segments = feed(core, 10, 60)
        jumps = (
            () if jump_at is None else (Step(70 * S, Clock.REALTIME, -3600 * S, 100, -1, "set"),)
        )
        output = core.step(StepInput(70 * S, jumps=jumps))
        segments += output.segments
        segments += feed(core, 72, 60)
        outcomes.append(segments)
        if jumps:
            (notice,) = [n for n in output.notices if n.kind is NoticeKind.STEP]
            assert (notice.size_ns, notice.source) == (-3600 * S, "REALTIME")
    assert outcomes[0] == outcomes[1]


def test_sync_31_suspend_of_600_s() -> None:
    """sync-31: RAW stood still for 600 s: the bound grows, UTC goes on, nobody calls it a step, and
    records from before the suspend keep their time."""
    core, base = conductor(), Timebase("boot-a")
    for segment in feed(core, 10, 600):
        base.add(segment)
    before = base.utc(500 * S)
    bound_before = core.utc(612 * S)
    output = core.step(StepInput(612 * S, jumps=(Suspended(612 * S, 600 * S, S),)))
    for segment in output.segments:
        base.add(segment)
    assert [n.kind for n in output.notices if n.kind in (NoticeKind.STEP, NoticeKind.SUSPEND)] == [
        NoticeKind.SUSPEND
    ]
    known = core.utc(613 * S)
    assert known is not None
    assert bound_before is not None
    truth = UTC0 + 1213 * S
    assert abs(known.utc_ns - truth) <= known.bound_ns
    assert S <= known.bound_ns < 2 * S
    assert base.utc(500 * S) == before
    said = []
    for at in range(614, 700, 4):
        true_offset = UTC0 + 600 * S + 300 * MS
        m = ntp(at * S, true_offset + at * S)
        said.append(core.step(StepInput(m.known_raw_ns, (m,))))
    known = core.utc(700 * S)
    assert known is not None
    assert known.state is TimeState.SYNCED
    assert abs(known.utc_ns - (UTC0 + 1300 * S + 300 * MS)) <= known.bound_ns < 50 * MS


# -- scenes ----------------------------------------------------------------------------------------


def sky(raw_ns: int, **what: object) -> GnssSignals:
    good = GnssSignals(
        raw_ns, fix_mode=3, satellites=12, cn0_dbhz=44.0, cn0_spread_dbhz=5.0, jamming=0.1,
        jamming_state=1, spoofing_state=1, latitude_deg=48.0, longitude_deg=11.0, speed_mps=0.0,
        time_accuracy_ns=30,
    )  # fmt: skip
    return replace(good, **what)  # type: ignore[arg-type]


def test_the_scene_is_written_into_segments_and_jammed_gnss_is_not_used() -> None:
    """Interference: GNSS stops feeding the estimator, the state says so, servers carry on."""
    core = conductor()
    feed(core, 10, 400, names=("ntp:a", "ntp:b"))
    scenes = set()
    for at in range(410, 500):
        jammed = at >= 440
        signals = sky(at * S, jamming=0.9 if jammed else 0.1)
        lie = 200 * MS if jammed else 0
        m = gnss(at * S, UTC0 + at * S + lie, bound_ns=20_000)
        output = core.step(StepInput(at * S, (m,), signals=signals, has_gnss=True))
        scenes.add(output.decision.scene)
        known = core.utc(at * S)
        assert known is not None
        assert abs(known.utc_ns - UTC0 - at * S) < 60 * MS
    assert Scene.INTERFERENCE in scenes
    assert core.state is TimeState.INTERFERENCE
    assert any("GNSS is not used" in reason for reason in core.tallies["gnss0"].counts)
    for at in range(500, 600, 2):
        output = core.step(StepInput(at * S, signals=sky(at * S), has_gnss=True))
    assert output.decision.scene is Scene.OPEN_SKY


def test_sync_47_the_same_inputs_give_the_same_segments() -> None:
    """sync-47: two runs of the whole conductor are bit-identical."""

    def run() -> list[MappingSegment]:
        core = conductor()
        made = feed(core, 10, 200, names=("ntp:a", "ntp:b"), seed=9)
        for at in range(210, 260):
            m = gnss(at * S, UTC0 + at * S)
            made += core.step(
                StepInput(at * S, (m,), signals=sky(at * S, satellites=at % 12), has_gnss=True)
            ).segments
        return made

    assert run() == run()


def test_expiry_says_cold_and_gives_no_bound() -> None:
    """sync-36 (service side): beyond the configured bound the page says COLD."""
    core = conductor(expiry_bound_ns=20 * MS)
    feed(core, 10, 400)
    segments: list[MappingSegment] = []
    for at in range(420, 200_000, 600):
        segments += core.step(StepInput(at * S)).segments
    assert core.state is TimeState.COLD
    assert segments[-1].bound_ns(segments[-1].raw0_ns) == 2**62
    assert core.utc(200_000 * S) is None


# -- a real logger drive ---------------------------------------------------------------------------


def test_the_can_logger_drive_gives_drift_and_offset(shared_data: Path) -> None:
    """canmod_gps_164: logger clock 4.45 s ahead, -79.7 ppm; no time before the 3D fix; the steps at
    the first fix change nothing; the bound covers an independent straight line."""
    import numpy as np

    floor = Floor(build_utc_ns=utc_from_civil_ns(2021, 1, 1, 0))
    source = CanClock("can0", floor)
    path = shared_data / "drive_logs" / "canmod_gps_164" / "derived_gnss_1hz.csv"
    measured = list(read_csv(path, source))
    assert measured[0].raw_ns > 132 * S
    core = Conductor("logger", floor, built_in())
    for m in measured:
        core.step(StepInput(m.known_raw_ns, (m,), has_gnss=True))
    raw = np.array([m.raw_ns for m in measured])
    off = np.array(
        [m.utc_ns - m.raw_ns - measured[0].utc_ns + measured[0].raw_ns for m in measured]
    )
    late = raw > 200 * S
    slope, level = np.polyfit((raw[late] - raw[0]) / 1e9, off[late], 1)
    segment = core.publication.segment
    assert segment is not None
    assert -90 < slope / 1e3 < -70
    assert abs(segment.rate * 1e6 - slope / 1e3) < 5.0
    end = int(raw[-1])
    line = measured[0].utc_ns - measured[0].raw_ns + end + level + slope * (end - raw[0]) / 1e9
    known = core.utc(end)
    assert known is not None
    assert abs(known.utc_ns - line) < 30 * MS
    assert abs(known.utc_ns - line) < known.bound_ns < 600 * MS
    logger_ahead = (1_627_274_470.52760 - 16.52760) + end / 1e9 - known.utc_ns / 1e9
    assert 4.40 < logger_ahead < 4.50


def test_learned_oscillators_are_taken_over() -> None:
    core = Conductor("b", FLOOR, built_in(), learned=LearnedOscillator(4e-5, 1e-7, 1e-9))
    m = ntp(S, UTC0)
    (segment,) = core.step(StepInput(m.known_raw_ns, (m,))).segments
    assert segment.rate == pytest.approx(4e-5, rel=1e-3)


def test_rollover_constant_is_1024_weeks() -> None:
    assert iso(utc_from_civil_ns(2019, 4, 6, 86_382 * S) + ROLLOVER_NS)[:10] == "2038-11-20"


def test_wild_measurements_never_raise_and_never_break_the_line_of_segments() -> None:
    """Ids ascend, starts never go back, every published time is admissible, whatever comes in."""
    rng = random.Random(11)
    core = conductor()
    last: MappingSegment | None = None
    raw = 10 * S
    for _ in range(1500):
        raw += rng.choice([1, 1000, MS, S, 16 * S, 600 * S])
        far = rng.randrange(-(10**15), 10**15)
        utc = UTC0 + raw + rng.choice([0, 0, 0, 37 * S, -S, 86_400 * S, far])
        kind = rng.choice(list(SourceKind))
        m = Measurement(
            f"s{rng.randrange(80)}", kind, raw - rng.randrange(10**9), utc,
            delay_ns=rng.choice([0, 1, 10**6, 10**10]) if kind is SourceKind.NTP else 0,
            uncertainty_ns=rng.choice([0, 1, 10**6, 10**12]),
            root_bound_ns=rng.choice([0, 10**3, 10**9, 10**13]), arrival_raw_ns=raw,
        )  # fmt: skip
        jumps = (Suspended(raw, rng.randrange(10**12), S),) if rng.random() < 0.01 else ()
        for segment in core.step(StepInput(raw, (m,), jumps, has_gnss=True)).segments:
            if last is not None:
                assert segment.id == last.id + 1
                assert segment.raw0_ns >= last.raw0_ns
            last = segment
    assert last is not None
    assert len(core.tallies) <= 64
