"""The pure step: coarse and fine sources, suspends, contradictions, scenes, a real drive."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from syncline.sync.conductor import Conductor
from syncline.sync.events import Step
from syncline.sync.floor import Floor, utc_from_civil_ns
from syncline.sync.jumps import Suspended
from syncline.sync.leap import built_in
from syncline.sync.measurement import Measurement, SourceKind, exchange
from syncline.sync.notices import NoticeKind
from syncline.sync.policy import Scene
from syncline.sync.sources.can_clock import CanClock, read_csv
from syncline.sync.sources.source import GnssSignals
from syncline.sync.steps import StepInput
from syncline.timebase import Clock, MappingSegment, Timebase, TimeState
from tests.sync_os.conductor_rig import MS, UTC0, S, conductor, details, feed, gnss, ntp

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
