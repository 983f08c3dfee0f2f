"""Runs of the estimator over recorded traces, made once each."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.sync.traces import TraceEstimator, estimator, retime

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TraceRun:
    """One trace, chrony's errors on it and ours on the same measurements (seconds)."""

    events: dict[str, Any]
    t: Floats
    error: Floats
    hard: Floats
    stat: Floats
    chrony: Floats
    chrony_bound: Floats
    rows: list[dict[str, Any]]
    raw: Floats
    inner: TraceEstimator

    @property
    def window(self) -> NDArray[np.bool_]:
        a, b = self.events["win"]
        return np.asarray((self.t >= a) & (self.t <= b) & np.isfinite(self.error))

    def rms(self) -> float:
        return float(np.sqrt(np.mean(self.error[self.window] ** 2)))

    def chrony_rms(self) -> float:
        return float(np.sqrt(np.mean(self.chrony[self.window] ** 2)))

    def coverage(self, bound: Floats) -> float:
        m = self.window
        return float(np.mean(np.abs(self.error[m]) <= bound[m]))

    def retimed(self) -> tuple[Floats, Floats]:
        utc, bound = retime(self.rows, self.raw)
        return utc - self.t, bound


def _scorer(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("clock_score", folder / "score.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(folder: Path, scenario: str, seed: int, conf: str) -> TraceRun:
    score = _scorer(folder)
    place = folder / scenario / f"s{seed}"
    meta = json.loads((place / "meta.json").read_text())
    truth = score._csv(place / "truth.csv.gz")
    ex = score._csv(place / f"exch_{conf}.csv.gz")
    keys = ("src", "poll", "leap", "stratum", "rootdelay", "rootdisp")
    rows: list[dict[str, Any]] = [
        {k: ex[k][i] for k in keys}
        | {"src": int(ex["src"][i]), "t1": ex["t1_raw"][i], "t4": ex["t4_raw"][i]}
        | {"t2": ex["t2"][i], "t3": ex["t2"][i] + ex["dt32"][i]}
        for i in range(len(ex["src"]))
    ]
    if (place / "gnss.csv.gz").exists():
        g = score._csv(place / "gnss.csv.gz")
        rows += [
            {"src": "gnss", "t4": a, "utc": b} for a, b in zip(g["t_raw"], g["utc"], strict=True)
        ]
        rows.sort(key=lambda m: float(m["t4"]))
    est = estimator()
    stat: list[float] = []

    class Asked:
        def update(self, m: dict[str, Any]) -> None:
            est.update(m)

        def query(self, t: float) -> tuple[float, float | None]:
            bound = est.query_statistical(t)[1]
            stat.append(np.nan if bound is None else bound)
            return est.query(t)

    error, hard = score.run(Asked(), truth, rows)
    filled = np.full(len(error), np.nan)
    filled[len(error) - len(stat) :] = stat
    t = truth["t_true"]
    err, bound = truth[f"err_{conf}"], truth[f"bound_{conf}"]
    return TraceRun(meta["events"], t, error, hard, filled, err, bound, rows, truth["t_raw"], est)


@pytest.fixture(scope="session")
def trace(shared_data: Path) -> Callable[..., TraceRun]:
    """trace(scenario, seed, conf): a recorded trace through the estimator, cached."""

    @lru_cache(maxsize=8)
    def run(scenario: str, seed: int = 1, conf: str = "fast") -> TraceRun:
        return _run(shared_data / "clock", scenario, seed, conf)

    return run
