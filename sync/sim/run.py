"""Run a scenario through the estimator and say how it did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from syncline.sync.estimator import TimeEstimator
from syncline.sync.events import Adjust, Event, SourceVerdict, StateChange, Step
from syncline.sync.oscillator import LearnedOscillator
from syncline.sync.settings import EstimatorSettings
from syncline.sync.sim.scenario import Scenario, load
from syncline.sync.sim.world import RAW0_NS, UTC0_NS, World, play
from syncline.sync.smoother import Retimed

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RunResult:
    """Error and bounds on a grid of true time.

    Attributes:
        scenario: What was run.
        seed: Its seed.
        t: True time, s (N,).
        error: Estimated minus true UTC, s (N,); NaN before the first measurement.
        hard: Hard bound, s (N,).
        statistical: Statistical bound, s (N,).
        smoothed: Error after re-timing, s (N,), or None.
        smoothed_hard: Hard bound after re-timing, s (N,), or None.
        events: Everything but adjustments, with the true time.
        measurements: How many.
        adjusts: Segments published.
    """

    scenario: Scenario
    seed: int
    t: Floats
    error: Floats
    hard: Floats
    statistical: Floats
    smoothed: Floats | None
    smoothed_hard: Floats | None
    events: tuple[tuple[float, Event], ...]
    measurements: int
    adjusts: int

    def counted(self) -> NDArray[np.bool_]:
        """Grid points that count: after the warm-up, with an estimate."""
        late = min(self.scenario.window_s, 0.25 * self.scenario.duration_s)
        return (self.t >= late) & np.isfinite(self.error)

    def summary(self) -> dict[str, float | int | str]:
        """Figures on one screen, seconds."""
        m = self.counted()
        e = np.abs(self.error[m])
        out: dict[str, float | int | str] = {
            "scenario": self.scenario.name,
            "seed": self.seed,
            "duration_s": self.scenario.duration_s,
            "measurements": self.measurements,
            "segments": self.adjusts + 1,
            "rms_s": float(np.sqrt(np.mean(e * e))),
            "median_s": float(np.median(e)),
            "p95_s": float(np.percentile(e, 95)),
            "max_s": float(e.max()),
            "end_s": float(e[-1]),
            "hard_median_s": float(np.median(self.hard[m])),
            "hard_coverage": float(np.mean(e <= self.hard[m])),
            "statistical_median_s": float(np.median(self.statistical[m])),
            "statistical_coverage": float(np.mean(e <= self.statistical[m])),
            "refusals": sum(isinstance(x, SourceVerdict) for _, x in self.events),
        }
        if self.smoothed is not None:
            s = np.abs(self.smoothed[m])
            out["smoothed_rms_s"] = float(np.sqrt(np.mean(s * s)))
            out["smoothed_max_s"] = float(s.max())
        return out


def run_scenario(
    scenario: Scenario | Path | str,
    seed: int = 1,
    *,
    grid_s: float = 10.0,
    smooth: bool = False,
    settings: EstimatorSettings | None = None,
    learned: LearnedOscillator | None = None,
) -> RunResult:
    """Play a scenario and follow it with the estimator.

    Args:
        scenario: A scenario, or its TOML file.
        seed: Of every random draw.
        grid_s: Spacing of the error series.
        smooth: Run the smoother afterwards too.
        settings: Estimator settings; None for the defaults.
        learned: Stored oscillator, if any.

    Raises:
        ConfigError: The scenario file cannot be used.
    """
    spec = scenario if isinstance(scenario, Scenario) else load(scenario)
    world = play(spec, seed)
    t = np.arange(0.0, spec.duration_s, grid_s)
    error, stat, hard, events, adjusts = _follow(world, t, settings, learned)
    smoothed = smoothed_hard = None
    if smooth:
        raw = world.raw_many(t)
        utc, _, smoothed_hard = Retimed(world.measurements, settings).at(raw)
        smoothed = (utc - UTC0_NS) * 1e-9 - t
    return RunResult(
        spec,
        seed,
        t,
        error,
        hard,
        stat,
        smoothed,
        smoothed_hard,
        tuple(events),
        len(world.measurements),
        adjusts,
    )


def _follow(
    world: World,
    t: Floats,
    settings: EstimatorSettings | None,
    learned: LearnedOscillator | None,
) -> tuple[Floats, Floats, Floats, list[tuple[float, Event]], int]:
    estimator = TimeEstimator("simulated", settings, learned)
    raw = world.raw_many(t)
    error, stat, hard = (np.full(len(t), np.nan) for _ in range(3))
    events: list[tuple[float, Event]] = []
    adjusts, i, ms = 0, 0, world.measurements
    for k, raw_ns in enumerate(raw.tolist()):
        new: list[Event] = []
        while i < len(ms) and ms[i].known_raw_ns <= raw_ns:
            new += estimator.update(ms[i])
            i += 1
        new += estimator.advance(raw_ns)
        adjusts += sum(isinstance(e, Adjust) for e in new)
        events += [
            (_true(e.raw_ns), e) for e in new if isinstance(e, SourceVerdict | StateChange | Step)
        ]
        out = estimator.estimate(raw_ns)
        if out is not None:
            error[k] = (out[0] - UTC0_NS - round(t[k] * 1e9)) * 1e-9
            stat[k], hard[k] = out[1], out[2]
    return error, stat, hard, events, adjusts


def _true(raw_ns: int) -> float:
    return (raw_ns - RAW0_NS) * 1e-9
