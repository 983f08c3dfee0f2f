"""Plays a scenario: true time on one side, the measurements a vehicle would take on the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.sync.measurement import Measurement, SourceKind, exchange
from syncline.sync.sim.oscillator import Oscillator
from syncline.sync.sim.path import Path
from syncline.sync.sim.scenario import Scenario, ServerSpec

RAW0_NS = 417_000 * 1_000_000_000
UTC0_NS = 1_767_225_600 * 1_000_000_000
"""2026-01-01T00:00:00Z."""

_POLLS = {"std": (64.0, 1024.0), "fast": (16.0, 64.0), "tuned": (16.0, 16.0)}
_BURST_REPLIES = 4


@dataclass(frozen=True, slots=True)
class World:
    """Result of playing a scenario.

    Attributes:
        measurements: In order of arrival.
        oscillator: Truth.
    """

    measurements: list[Measurement]
    oscillator: Oscillator

    def raw_ns(self, true_s: float) -> int:
        """Raw clock at true time."""
        return RAW0_NS + round(float(self.oscillator.raw(true_s)) * 1e9)

    def raw_many(self, true_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """Raw clock at many true times (N,)."""
        return RAW0_NS + np.rint(self.oscillator.raw(true_s) * 1e9).astype(np.int64)


def play(scenario: Scenario, seed: int) -> World:
    """All measurements of a scenario, the same for the same seed.

    Args:
        scenario: What happens.
        seed: Of every random draw.
    """
    streams = np.random.SeedSequence(seed).spawn(2 + len(scenario.servers))
    osc = Oscillator(
        scenario.oscillator, scenario.duration_s + 5.0, np.random.default_rng(streams[0])
    )
    out: list[Measurement] = []
    for k, server in enumerate(scenario.servers):
        rng = np.random.default_rng(streams[2 + k])
        out += _server(scenario, server, f"ntp{k + 1}", osc, rng, 0.2 * k)
    if scenario.gnss is not None:
        out += _gnss(scenario, osc, np.random.default_rng(streams[1]))
    out.sort(key=lambda m: m.known_raw_ns)
    return World(out, osc)


def _polls(scenario: Scenario, start: float) -> list[float]:
    """True times of the requests of one server: a burst, then ever slower within the limits."""
    low, high = _POLLS[scenario.poll]
    t, poll, out = 5.0 + start, low, []
    while t < scenario.duration_s:
        out.append(t)
        n = len(out)
        if n < _BURST_REPLIES:
            t += 2.0
            continue
        if n % 8 == 0:
            poll = min(poll * 2.0, high)
        t += poll
    return out


def _server(
    scenario: Scenario,
    spec: ServerSpec,
    name: str,
    osc: Oscillator,
    rng: np.random.Generator,
    start: float,
) -> list[Measurement]:
    path = Path(spec.path, scenario.duration_s, rng)
    bias = float(rng.normal(0.0, spec.asymmetry_ms * 1e-3)) if spec.asymmetry_ms else 0.0
    # static asymmetry moves delay from one way to the other; neither way gets below a tenth
    shift = float(np.clip(bias, -0.9 * spec.path.down_ms * 1e-3, 0.9 * spec.path.up_ms * 1e-3))
    out = []
    for n, t in enumerate(_polls(scenario, start)):
        if path.lost() or any(a <= t < b for a, b in scenario.outages):
            continue
        jitter = float(rng.uniform(0.0, 0.5))
        sent = t + jitter
        up = path.delay(sent, up=True) - shift
        down = path.delay(sent + up, up=False) + shift
        if n == 0:
            down += scenario.spike_first_s
        error = sum(lie.error(sent + up) for lie in spec.lies)
        error += scenario.bad_first_s if n == 0 else 0.0
        t1 = RAW0_NS + round(float(osc.raw(sent)) * 1e9)
        t4 = RAW0_NS + round(float(osc.raw(sent + up + down + 2e-5)) * 1e9)
        t2 = UTC0_NS + round((sent + up + error) * 1e9)
        t3 = UTC0_NS + round((sent + up + 2e-5 + error) * 1e9)
        out.append(exchange(name, t1, t2, t3, t4, root_bound_ns=round(spec.root_ms * 1e6)))
    return out


def _gnss(scenario: Scenario, osc: Oscillator, rng: np.random.Generator) -> list[Measurement]:
    spec = scenario.gnss
    assert spec is not None
    t = np.arange(6.0, scenario.duration_s, spec.interval_s)
    keep = rng.random(len(t)) < spec.availability
    for a, b in spec.outages:
        keep &= (t < a) | (t >= b)
    noise = rng.normal(0.0, spec.sigma_ns, len(t))
    raw = RAW0_NS + np.rint(osc.raw(t) * 1e9).astype(np.int64)
    out = []
    for i in np.flatnonzero(keep):
        true = float(t[i])
        error = sum(lie.error(true) for lie in spec.lies) * 1e9 + float(noise[i])
        utc = UTC0_NS + round(true * 1e9 + error)
        raw_ns = int(raw[i])
        sigma = round(spec.sigma_ns)
        out.append(
            Measurement(
                "gnss", SourceKind.GNSS, raw_ns, utc, uncertainty_ns=sigma, arrival_raw_ns=raw_ns
            )
        )
    return out
