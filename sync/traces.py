"""Recorded traces in, time out: the estimator and the smoother behind float seconds.

Only this module speaks float seconds, for scoring and for files; inside, integer nanoseconds
relative to the first measurement are used, so nothing is lost to the grain of float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syncline.errors import MeasurementError
from syncline.sync.estimator import LearnedOscillator, TimeEstimator
from syncline.sync.measurement import Flag, Measurement, SourceKind, exchange
from syncline.sync.settings import EstimatorSettings
from syncline.sync.smoother import Retimed

Row = Mapping[str, Any]


def to_ns(seconds: float) -> int:
    """Seconds to nanoseconds, rounding."""
    return round(float(seconds) * 1e9)


def parse(m: Row) -> Measurement | None:
    """One trace row as a measurement; None when it is none (unsynchronised, contradictory).

    Args:
        m: `src, t1, t2, t3, t4, leap, stratum, rootdelay, rootdisp`, or `src='gnss', t4, utc`;
            seconds.
    """
    if "utc" in m:
        kind = SourceKind.GNSS if str(m["src"]) == "gnss" else SourceKind.LOGGER
        sigma = to_ns(m.get("sigma", 0.0))
        t, utc = to_ns(m["t4"]), to_ns(m["utc"])
        return Measurement(str(m["src"]), kind, t, utc, uncertainty_ns=sigma, arrival_raw_ns=t)
    flags = Flag.NONE
    if int(m.get("leap", 0)) == 3 or not 0 < int(m.get("stratum", 1)) < 16:
        flags = Flag.UNSYNCHRONISED
    root = 0.5 * float(m.get("rootdelay", 0.0)) + float(m.get("rootdisp", 0.0))
    stamps = (to_ns(m["t1"]), to_ns(m["t2"]), to_ns(m["t3"]), to_ns(m["t4"]))
    try:
        return exchange(
            str(m["src"]), *stamps, root_bound_ns=to_ns(root), flags=flags, uncertainty_ns=200
        )
    except MeasurementError:
        return None


class TraceEstimator:
    """Causal estimator over trace rows.

    Args:
        settings: None for the defaults.
        learned: Stored oscillator, if any.
    """

    def __init__(
        self,
        settings: EstimatorSettings | None = None,
        learned: LearnedOscillator | None = None,
    ) -> None:
        self.inner = TimeEstimator("trace", settings, learned)

    def update(self, m: Row) -> None:
        """Take one row, in order of `t4`."""
        measurement = parse(m)
        if measurement is not None:
            self.inner.update(measurement)

    def query(self, t_raw: float) -> tuple[float, float | None]:
        """UTC (s) at local raw time `t_raw` (s) and the hard bound on its error (s)."""
        return self._query(t_raw, 2)

    def query_statistical(self, t_raw: float) -> tuple[float, float | None]:
        """UTC (s) at `t_raw` (s) and the statistical 99.9 % bound (s)."""
        return self._query(t_raw, 1)

    def _query(self, t_raw: float, which: int) -> tuple[float, float | None]:
        raw_ns = to_ns(t_raw)
        self.inner.advance(raw_ns)
        out = self.inner.estimate(raw_ns)
        if out is None:
            return float(t_raw), None
        return out[0] * 1e-9, float(out[which])


def estimator(config: EstimatorSettings | None = None) -> TraceEstimator:
    """A causal estimator with one configuration for every scene."""
    return TraceEstimator(config)


def measurements(rows: Sequence[Row]) -> list[Measurement]:
    """All usable measurements of a trace, in order of arrival."""
    parsed = (parse(m) for m in rows)
    return sorted((m for m in parsed if m is not None), key=lambda m: m.known_raw_ns)


def as_seconds(ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Nanoseconds to float seconds."""
    return np.asarray(ns * 1e-9, dtype=np.float64)


def retime(
    measurements_or_rows: Sequence[Row] | Sequence[Measurement],
    t_raw: float | NDArray[np.float64] | Sequence[float],
    config: EstimatorSettings | None = None,
) -> tuple[Any, Any]:
    """Smoothed time over a whole list of measurements.

    Args:
        measurements_or_rows: Trace rows (see `parse`) or measurements, in order of arrival.
        t_raw: Local raw time, s; scalar or array (N,).
        config: None for the defaults.

    Returns:
        UTC (s) and the hard bound on its error (s), of the shape of `t_raw`.
    """
    known = [m for m in measurements_or_rows if isinstance(m, Measurement)]
    known += measurements([m for m in measurements_or_rows if isinstance(m, Mapping)])
    scalar = np.ndim(t_raw) == 0
    t = np.atleast_1d(np.asarray(t_raw, dtype=np.float64))
    utc_ns, _, hard = Retimed(known, config).at(np.rint(t * 1e9).astype(np.int64))
    utc = as_seconds(utc_ns)
    return (float(utc[0]), float(hard[0])) if scalar else (utc, hard)
