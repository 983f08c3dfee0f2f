"""Which event of a camera is periodic: the trigger (start of exposure) or the readout?

Arrival = end of frame + delay. If the readout is periodic, arrivals are; if the trigger is,
arrivals less the exposure are. Both are tried on the recording, and the one whose least delays lie
closer to a smooth clock wins. Without exposure changes the two cannot be told apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError
from syncline.sensors.blocks import block_starts, make_blocks
from syncline.sensors.frame import Anchor
from syncline.sensors.index import infer_indices

I64 = NDArray[np.int64]

LEAST_SPREAD_NS = 200_000.0
"""Exposure must vary by this (one standard deviation) to tell anything."""
LEAST_RATIO = 2.0
BLOCK_NS = 1_000_000_000
LEAST_BLOCKS = 10


def identify_anchor(
    arrival_ns: ArrayLike,
    exposure_ns: ArrayLike,
    period_ns: float,
    index: ArrayLike | None = None,
) -> tuple[Anchor, float]:
    """Find the anchor from a minute or two of frames.

    Args:
        arrival_ns: Arrivals (N,), in order.
        exposure_ns: Exposure of each frame (N,).
        period_ns: Frame period.
        index: Frame numbers (N,) where the camera gives them.

    Returns:
        (anchor, ratio of the worse residual to the better one); UNKNOWN when the exposure hardly
        varies, the recording is short, or the ratio is below 2.

    Raises:
        SensorDataError: The arrays differ in length.
    """
    arrival = np.asarray(arrival_ns, dtype=np.int64)
    exposure = np.asarray(exposure_ns, dtype=np.int64)
    if arrival.shape != exposure.shape or arrival.ndim != 1:
        raise SensorDataError(
            f"identify_anchor: {arrival.shape} arrivals and {exposure.shape} exposures differ"
        )
    if len(arrival) < LEAST_BLOCKS or float(np.std(exposure)) < LEAST_SPREAD_NS:
        return Anchor.UNKNOWN, 1.0
    numbers = None if index is None else np.asarray(index, dtype=np.int64)
    readout = _residual(arrival, period_ns, numbers)
    trigger = _residual(np.maximum.accumulate(arrival - exposure), period_ns, numbers)
    if not (np.isfinite(readout) and np.isfinite(trigger)):
        return Anchor.UNKNOWN, 1.0
    better, worse = min(readout, trigger), max(readout, trigger)
    ratio = worse / max(better, 1.0)
    if ratio < LEAST_RATIO:
        return Anchor.UNKNOWN, ratio
    return (Anchor.READOUT if readout < trigger else Anchor.TRIGGER), ratio


def _residual(time_ns: I64, period_ns: float, index: I64 | None) -> float:
    """Spread of 1 s minima about a parabola, robust: 1.48 times the median distance."""
    numbers = infer_indices(time_ns, period_ns)[0] if index is None else index
    grid = np.rint((numbers - numbers[0]) * period_ns).astype(np.int64)
    z_ns = time_ns - time_ns[0] - grid
    blocks = make_blocks(grid, z_ns, block_starts(grid, BLOCK_NS))
    if len(blocks) < LEAST_BLOCKS:
        return float("nan")
    t = np.array([b.x_ns for b in blocks], dtype=np.float64)
    t = (t - t.mean()) / max(float(np.ptp(t)), 1.0)
    y = np.array([b.z_ns for b in blocks], dtype=np.float64)
    keep = np.ones(len(y), dtype=bool)
    off = y
    for _ in range(4):
        off = y - np.polyval(np.polyfit(t[keep], y[keep], 2), t)
        spread = 1.48 * float(np.median(np.abs(off)))
        keep = np.abs(off) <= max(4.0 * spread, 1.0)
    return 1.48 * float(np.median(np.abs(off)))
