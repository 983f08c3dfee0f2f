"""Scenes: entered at once when worse, left after a while, each from its own signal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.sync.policy import ROWS, Decision, PolicyEngine, PolicyInput, Scene
from syncline.sync.sources.source import GnssSignals

S = 1_000_000_000


def sky(at_s: float, **what: object) -> GnssSignals:
    good = GnssSignals(
        round(at_s * S), fix_mode=3, satellites=12, cn0_dbhz=44.0, cn0_spread_dbhz=5.0,
        jamming=0.1, jamming_state=1, spoofing_state=1, latitude_deg=48.0, longitude_deg=11.0,
        speed_mps=10.0, time_accuracy_ns=30,
    )  # fmt: skip
    return replace(good, **what)  # type: ignore[arg-type]


def step(
    engine: PolicyEngine, at_s: float, seen: GnssSignals | None = None, **what: object
) -> Decision:
    now = PolicyInput(round(at_s * S), has_gnss=True, has_time=True, gnss=seen or sky(at_s))
    return engine.step(replace(now, **what))  # type: ignore[arg-type]


def settled() -> PolicyEngine:
    engine = PolicyEngine()
    for at in range(1, 20):
        step(engine, at)
    assert engine.scene is Scene.OPEN_SKY
    return engine


SIGNALS: dict[str, tuple[dict[str, object], Scene]] = {
    "jamming indicator": ({"jamming": 0.8}, Scene.INTERFERENCE),
    "critical jamming": ({"jamming_state": 3}, Scene.INTERFERENCE),
    "spoofing": ({"spoofing_state": 2}, Scene.INTERFERENCE),
    "all equally strong": ({"cn0_spread_dbhz": 0.3}, Scene.INTERFERENCE),
    "few satellites": ({"satellites": 4}, Scene.HALF_OCCLUSION),
    "weak signals": ({"cn0_dbhz": 24.0}, Scene.HALF_OCCLUSION),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_each_signal_leads_to_its_scene_within_one_step(name: str) -> None:
    what, scene = SIGNALS[name]
    engine = settled()
    decision = step(engine, 20, sky(20, **what))
    assert decision.scene is scene
    assert decision.changed
    assert decision.reason


def test_no_fix_for_three_seconds_is_full_occlusion_and_comes_back() -> None:
    engine = settled()
    for at in range(20, 24):
        decision = step(engine, at, sky(at, fix_mode=0, satellites=0))
    assert decision.scene is Scene.FULL_OCCLUSION
    assert decision.row.ntp_poll_log2 < ROWS[Scene.OPEN_SKY].ntp_poll_log2
    for at in range(24, 30):
        decision = step(engine, at)
    assert decision.scene is Scene.OPEN_SKY


def test_interference_is_left_only_after_half_a_minute_of_calm() -> None:
    engine = settled()
    step(engine, 20, sky(20, jamming=0.9))
    for at in range(21, 50):
        assert step(engine, at).scene is Scene.INTERFERENCE
    for at in range(50, 55):
        last = step(engine, at)
    assert last.scene is Scene.OPEN_SKY


def test_a_position_that_jumps_is_interference() -> None:
    engine = settled()
    assert step(engine, 20, sky(20, latitude_deg=48.01)).scene is Scene.INTERFERENCE
    driving = settled()
    for n in range(60):
        at = 20 + n
        seen = sky(at, latitude_deg=48.0 + n * 40 / 111_000, speed_mps=40.0)
        assert step(driving, at, seen).scene is Scene.OPEN_SKY, "144 km/h is no jump"


def test_wheels_that_contradict_gnss_speed() -> None:
    engine = settled()
    scenes = [step(engine, 20 + n, wheel_speed_mps=0.0).scene for n in range(6)]
    assert scenes[:3] == [Scene.OPEN_SKY] * 3
    assert scenes[-1] is Scene.INTERFERENCE
    agreeing = settled()
    for n in range(20):
        assert step(agreeing, 20 + n, wheel_speed_mps=11.0).scene is Scene.OPEN_SKY


def test_time_that_contradicts_our_clock_and_drag() -> None:
    engine = settled()
    calm = step(engine, 20, gnss_offset_ns=2_000_000, gnss_bound_ns=3_000_000)
    assert calm.scene is Scene.OPEN_SKY
    lied = step(engine, 21, gnss_offset_ns=5_000_000, gnss_bound_ns=3_000_000)
    assert lied.scene is Scene.INTERFERENCE
    assert step(settled(), 20, gnss_dragging=True).scene is Scene.INTERFERENCE


def test_a_solar_storm_is_slow_and_a_tunnel_is_not() -> None:
    """Signals fade by 8 dB over 20 min with as many satellites: space weather. The same loss within
    seconds: no storm."""
    engine = settled()
    for at in range(20, 1200):
        step(engine, at)
    scenes = set()
    for n in range(1800):
        at = 1200 + n
        fade = min(n / 1200, 1.0) * 8.0
        scenes.add(step(engine, at, sky(at, cn0_dbhz=44.0 - fade)).scene)
    assert Scene.SPACE_WEATHER in scenes
    sudden = settled()
    for at in range(20, 1200):
        step(sudden, at)
    for n in range(300):
        at = 1200 + n
        assert step(sudden, at, sky(at, cn0_dbhz=36.0)).scene is Scene.OPEN_SKY


def test_cold_start_and_no_receiver() -> None:
    engine = PolicyEngine()
    cold = engine.step(PolicyInput(S, has_gnss=False, has_time=False))
    assert cold.scene is Scene.COLD_START
    assert cold.row.step_limit_ns > 0
    network = engine.step(PolicyInput(2 * S, has_gnss=False, has_time=True))
    assert network.scene is Scene.NETWORK_ONLY
    assert network.row.step_limit_ns == 0


def test_rows_are_ordered_by_caution() -> None:
    assert list(ROWS)[-1] is Scene.INTERFERENCE
    assert not ROWS[Scene.INTERFERENCE].use_gnss
    for scene, row in ROWS.items():
        assert len(scene.value) <= 16
        assert row.bound_inflation >= 1
        assert row.gnss_inflation >= 1
        assert row.latency_budget_ns <= 2 * S


@given(
    fields=st.fixed_dictionaries({}, optional={
        "fix_mode": st.integers(0, 5), "satellites": st.integers(0, 99) | st.none(),
        "cn0_dbhz": st.floats(0, 99) | st.none(), "cn0_spread_dbhz": st.floats(0, 50) | st.none(),
        "jamming": st.floats(0, 1) | st.none(), "latitude_deg": st.floats(-90, 90) | st.none(),
        "longitude_deg": st.floats(-180, 180) | st.none(),
        "speed_mps": st.floats(0, 400) | st.none(),
        "time_accuracy_ns": st.integers(0, 2**32) | st.none(),
    })
)  # fmt: skip
def test_any_signals_give_a_scene(fields: dict[str, object]) -> None:
    engine = settled()
    for at in range(20, 24):
        assert step(engine, at, sky(at, **fields)).scene in Scene
