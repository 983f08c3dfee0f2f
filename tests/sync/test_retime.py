"""The smoother: holes close from both sides, order is kept, bounds hold."""

from __future__ import annotations

import numpy as np
import pytest

from syncline.errors import ClockError
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sim.path import PathSpec
from syncline.sync.sim.run import run_scenario
from syncline.sync.sim.scenario import GnssSpec, Lie, Scenario, ServerSpec
from syncline.sync.sim.world import UTC0_NS, play
from syncline.sync.smoother import Retimed
from syncline.sync.traces import retime

CELL = ServerSpec(PathSpec(20.0, 20.0, 5.0, busy_queue_ms=20.0, bursts_per_h=6.0, loss=0.02))


def test_hole_is_closed_and_bounded():
    """sync-11, sync-12"""
    spec = Scenario(duration_s=9000.0, servers=(CELL,), outages=((3000.0, 6600.0),))
    r = run_scenario(spec, 3, smooth=True)
    assert r.smoothed is not None
    assert r.smoothed_hard is not None
    m = r.counted()
    hole = (r.t >= 3000) & (r.t <= 6600)
    assert np.abs(r.smoothed[hole]).max() <= 1e-3
    assert np.median(np.abs(r.smoothed[m])) <= np.median(np.abs(r.error[m]))
    assert np.all(np.abs(r.smoothed[m]) <= r.smoothed_hard[m])
    assert np.all(np.diff(r.smoothed + r.t) > 0)


def test_tunnel_with_gnss():
    """sync-11"""
    spec = Scenario(duration_s=3600.0, gnss=GnssSpec(outages=((1200.0, 1800.0),)))
    r = run_scenario(spec, 3, smooth=True)
    assert r.smoothed is not None
    end = int(np.searchsorted(r.t, 1790.0))
    assert abs(r.smoothed[end]) <= 2e-6
    assert np.abs(r.smoothed[(r.t >= 1200) & (r.t < 1800)]).max() <= 1e-5


def test_drag_does_not_reach_the_smoother():
    spec = Scenario(
        duration_s=3600.0,
        gnss=GnssSpec(lies=(Lie(1800.0, rate_ppm=1.0),)),
        servers=(CELL, CELL),
        honest=False,
    )
    r = run_scenario(spec, 4, smooth=True)
    assert r.smoothed is not None
    assert np.abs(r.smoothed[r.t >= 60]).max() <= 1e-3  # the lie reached 1.8 ms


def test_scalar_array_and_times_outside_the_drive():
    world = play(Scenario(duration_s=1200.0), 1)
    raw = np.array([world.raw_ns(t) * 1e-9 for t in (0.0, 600.0, 1195.0)])
    utc, bound = retime(world.measurements, raw)
    one, its = retime(world.measurements, float(raw[1]))
    assert one == utc[1]
    assert its == bound[1]
    assert np.all(np.abs(utc - UTC0_NS * 1e-9 - [0.0, 600.0, 1195.0]) <= bound + 1e-6)


def test_long_drives_are_smoothed_in_chunks():
    spec = Scenario(duration_s=30_000.0)
    world = play(spec, 2)
    retimed = Retimed(world.measurements)
    assert len(retimed._parts[0][1]) == 2
    t = np.arange(100.0, 29_900.0, 7.0)
    utc, stat, hard = retimed.at(world.raw_many(t))
    error = np.abs((utc - UTC0_NS) * 1e-9 - t)
    assert error.max() < 30e-6
    assert np.all(error <= hard)
    assert np.mean(error <= stat) > 0.995


def test_messages_without_a_pulse_do_not_move_what_finer_sources_say():
    world = play(Scenario(duration_s=1800.0), 3)
    raw = world.raw_many(np.arange(100.0, 1800.0, 50.0))
    coarse = [
        Measurement(
            "nmea",
            SourceKind.GNSS,
            world.raw_ns(t),
            UTC0_NS + round((t + 0.4) * 1e9),
            uncertainty_ns=1_000_000,
            root_bound_ns=500_000_000,
        )
        for t in np.arange(20.0, 1780.0, 5.0).tolist()
    ]
    both = sorted([*world.measurements, *coarse], key=lambda m: m.known_raw_ns)
    assert np.array_equal(Retimed(both).at(raw)[0], Retimed(world.measurements).at(raw)[0])
    utc, _, hard = Retimed(coarse).at(raw)
    error = np.abs((utc - UTC0_NS) * 1e-9 - np.arange(100.0, 1800.0, 50.0))
    assert error.max() == pytest.approx(0.4, abs=0.01)  # alone they are all there is
    assert np.all(error <= hard)


def test_a_server_that_admits_an_error_widens_the_smoothed_bound():
    """sync-7: root distance counts in re-timed bounds too"""
    clean = play(Scenario(duration_s=1200.0), 3)
    rooted = play(Scenario(duration_s=1200.0, servers=(ServerSpec(root_ms=5.0),)), 3)
    raw = clean.raw_many(np.arange(100.0, 1100.0, 50.0))
    wider = Retimed(rooted.measurements).at(raw)[2] - Retimed(clean.measurements).at(raw)[2]
    assert wider == pytest.approx(5e-3, abs=1e-4)


def test_nothing_to_smooth_is_said():
    with pytest.raises(ClockError, match="no usable"):
        Retimed([])
