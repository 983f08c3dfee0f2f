"""Better mapping segments once a drive is over: revision n+1 of each, from one joint smoother.

A segment stays one line over its own span, so that a record is re-timed by its segment's id alone.
How far the smoothed time strays from that line is added to the bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from syncline.errors import ClockError
from syncline.sync.measurement import Measurement
from syncline.sync.settings import EstimatorSettings
from syncline.sync.smoother import Retimed
from syncline.timebase import NS_PER_S, MappingSegment, TimeState

MAX_POINTS = 64
"""Places at which the smoothed time is held against the line of a segment."""


def revise(
    segments: Sequence[MappingSegment],
    measurements: Sequence[Measurement],
    end_raw_ns: int,
    settings: EstimatorSettings | None = None,
) -> list[MappingSegment]:
    """Issue the next revision of every segment.

    Args:
        segments: Of one boot, as published, in order of `raw0_ns`.
        measurements: Of the same boot, in order of arrival.
        end_raw_ns: End of the last segment.
        settings: Of the estimator; None for the defaults.

    Returns:
        One per segment, continuous from each to the next; UTC strictly rises within each.

    Raises:
        ClockError: There are no segments, or no measurement could be used.
    """
    if not segments:
        raise ClockError("re-timing: no mapping segment", remedy="Give a recording with a clock")
    settings = settings or EstimatorSettings()
    smooth = Retimed(measurements, settings)
    ends = [s.raw0_ns for s in segments[1:]] + [max(end_raw_ns, segments[-1].raw0_ns + NS_PER_S)]
    return [
        _revised(segment, end, smooth, settings)
        for segment, end in zip(segments, ends, strict=True)
    ]


def _revised(
    segment: MappingSegment, end_raw_ns: int, smooth: Retimed, settings: EstimatorSettings
) -> MappingSegment:
    span_ns = max(end_raw_ns - segment.raw0_ns, 1)
    count = int(np.clip(span_ns // NS_PER_S + 2, 2, MAX_POINTS))
    raw_ns = segment.raw0_ns + np.linspace(0, span_ns, count).astype(np.int64)
    utc_ns, statistical_s, hard_s = smooth.at(raw_ns)
    gained_ns = (utc_ns - utc_ns[0]) - (raw_ns - raw_ns[0])
    rate = float(gained_ns[-1]) / float(raw_ns[-1] - raw_ns[0])
    stray_ns = float(np.abs(gained_ns - rate * (raw_ns - raw_ns[0])).max())
    sigma_ns = float(statistical_s.max()) * 1e9 / settings.coverage_z + stray_ns
    return replace(
        segment,
        revision=segment.revision + 1,
        utc0_ns=int(utc_ns[0]),
        rate=rate,
        cov=(sigma_ns**2, 0.0, 0.0),
        wander_ns2_per_s=0.0,
        hard_bound_ns=int(np.ceil(hard_s.max() * 1e9 + stray_ns)),
        state=TimeState.SYNCED,
    )
