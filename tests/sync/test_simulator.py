"""The simulator: deterministic, fast, and true to its own words; the scenario library."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from syncline.errors import ConfigError, StorageError, UsageError
from syncline.sync.sim.oscillator import Oscillator, OscillatorSpec, Ramp
from syncline.sync.sim.path import Path as NetPath
from syncline.sync.sim.path import PathSpec
from syncline.sync.sim.run import run_scenario
from syncline.sync.sim.scenario import GnssSpec, Lie, Scenario, ServerSpec, load, parse
from syncline.sync.sim.world import UTC0_NS, play

LIBRARY = sorted(Path(__file__).resolve().parents[2].joinpath("scenarios").glob("*.toml"))


def test_same_seed_same_world_other_seed_other_world():
    """sync-47"""
    spec = Scenario(duration_s=1200.0, gnss=GnssSpec())
    assert play(spec, 5).measurements == play(spec, 5).measurements
    assert play(spec, 5).measurements != play(spec, 6).measurements


def test_hundred_thousand_seconds_in_a_few():
    began = time.process_time()
    world = play(Scenario(duration_s=100_000.0, poll="tuned"), 1)
    assert len(world.measurements) > 6000
    assert time.process_time() - began < 10.0


@pytest.mark.parametrize("file", LIBRARY, ids=lambda p: p.stem)
def test_every_scenario_of_the_library_loads_and_plays(file):
    spec = load(file)
    assert spec.text
    short = parse_short(spec)
    world = play(short, 1)
    times = [m.known_raw_ns for m in world.measurements]
    assert times == sorted(times)
    assert world.measurements


def parse_short(spec: Scenario) -> Scenario:
    import dataclasses

    return dataclasses.replace(spec, duration_s=400.0)


def test_exchanges_contain_the_truth_unless_a_source_lies():
    liar = ServerSpec(lies=(Lie(500.0, step_s=1.0),))
    world = play(Scenario(duration_s=1000.0, servers=(ServerSpec(), liar)), 2)
    grid = np.arange(0.0, 1002.0)
    raw = world.raw_many(grid)
    for m in world.measurements:
        true = np.interp(m.raw_ns, raw, grid)
        off = (m.utc_ns - UTC0_NS) * 1e-9 - true
        if m.source == "ntp2" and true > 501.0:
            assert off == pytest.approx(1.0, abs=1e-3)
        elif m.source == "ntp1":
            assert abs(off) <= 0.5e-9 * m.delay_ns + 2e-6


def test_oscillator_wander_has_the_allan_deviation_it_claims():
    """Random-walk FM: sigma_y(tau) = q sqrt(tau / 3) (Riley, NIST SP 1065, table 3)."""
    osc = Oscillator(
        OscillatorSpec(0.0, wander=1e-8, thermal=0.0), 200_000.0, np.random.default_rng(1)
    )
    tau = 256
    x = osc.gained[::tau]
    adev = np.sqrt(0.5 * np.mean(np.diff(x, 2) ** 2)) / tau
    assert adev == pytest.approx(1e-8 * np.sqrt(tau / 3), rel=0.15)


def test_ramp_and_record_change_the_rate():
    ramp = OscillatorSpec(0.0, wander=0.0, thermal=0.0, ramps=(Ramp(10.0, 20.0, 1.0),))
    osc = Oscillator(ramp, 100.0, np.random.default_rng(1))
    assert osc.rate[5] == 0.0
    assert osc.rate[50] == pytest.approx(1e-6)
    record = OscillatorSpec(0.0, wander=0.0, thermal=0.0, record=np.array([1e-9, 2e-9]))
    osc = Oscillator(record, 4.0, np.random.default_rng(1))
    assert list(osc.rate[:4]) == [1e-9, 2e-9, 1e-9, 2e-9]


def test_correlated_queues_keep_their_mean_and_are_correlated():
    rng = np.random.default_rng(1)
    path = NetPath(PathSpec(0.0, 0.0, 5.0, correlation_s=30.0), 1e5, rng)
    d = np.array([path.delay(t, up=True) for t in np.arange(0.0, 60_000.0, 3.0)])
    assert d.mean() == pytest.approx(5e-3, rel=0.1)
    assert np.corrcoef(d[:-1], d[1:])[0, 1] > 0.7


def test_real_oscillator_record_as_noise(shared_data):
    """allantools' OCXO record: the estimator follows it within its bounds"""
    values = np.loadtxt(shared_data / "time" / "ocxo_frequency.txt", comments="#")
    f = values if values.ndim == 1 else values[:, -1]
    f = f / np.mean(f) - 1.0 if abs(np.mean(f)) > 1.0 else f - np.mean(f)
    spec = Scenario(
        duration_s=7200.0,
        servers=(ServerSpec(PathSpec(0.5, 0.5, 0.1)),),
        oscillator=OscillatorSpec(None, wander=0.0, thermal=0.0, record=f),
    )
    r = run_scenario(spec, 1)
    m = r.counted()
    assert np.all(np.abs(r.error[m]) <= r.hard[m])
    assert np.sqrt(np.mean(r.error[m] ** 2)) < 60e-6


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("poll = 'often'", "poll"),
        ("speed = 3", "speed"),
        ("[oscillator]\nwonder = 1", "wonder"),
        ("[oscillator]\nrecord = 'none.txt'", "record"),
        ("x = [", "scenario"),
    ],
)
def test_wrong_keys_are_named(tmp_path, text, match):
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=match):
        load(file)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load(tmp_path / "none.toml")
    assert parse({"name": "n"}).name == "n"


def test_command_prints_a_screen_json_and_a_picture(tmp_path, capsys):
    from syncline.cli.time_simulate import simulate

    file = tmp_path / "short.toml"
    file.write_text("duration_s = 900\nwindow_s = 100\ntext = 'short'\n[gnss]\n")
    picture = tmp_path / "p.png"
    pytest.importorskip("matplotlib")
    assert simulate(str(file), plot=picture, smooth=True) == 0
    out = capsys.readouterr().out
    assert "hard bound" in out
    assert "re-timed" in out
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert simulate(str(file), json_=True) == 0
    assert json.loads(capsys.readouterr().out)["hard_coverage"] == 1.0
    with pytest.raises(UsageError, match="nowhere"):
        simulate("nowhere")
    with pytest.raises(StorageError, match=r"cannot write .*No such file"):
        simulate(str(file), plot=tmp_path / "no" / "p.png")
    page = tmp_path / "p.html"
    simulate(str(file), plot=page)
    assert page.read_text().startswith("<!doctype html>")
    assert page.read_text().count("</svg>") == 1
    with pytest.raises(UsageError, match="html"):
        simulate(str(file), plot=tmp_path / "p.odd")
    capsys.readouterr()


def test_library_is_found_from_anywhere(tmp_path, monkeypatch):
    from syncline.cli.time_simulate import find

    monkeypatch.chdir(tmp_path)
    assert find("a_lan").name == "a_lan.toml"
