"""Frame times and trigger matches of whole recordings, as arrays in and arrays out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from syncline.errors import SensorDataError
from syncline.sensors.clock import BlockMinKalman
from syncline.sensors.frame import Anchor
from syncline.sensors.smooth import smooth_clock
from syncline.sensors.trigger import TriggerMatcher, match_arrays

I64 = NDArray[np.int64]

LEAST_TOLERANCE_NS = 1_000_000
"""A declared least delay is never trusted closer than this."""


def mid_exposure(
    sequence: ArrayLike,
    device_ns: ArrayLike,
    exposure_ns: ArrayLike,
    arrival_ns: ArrayLike,
    *,
    anchor: Anchor | str,
    readout_ns: int,
    dma_ns: int,
    online: bool = True,
) -> tuple[I64, I64, I64, I64]:
    """Host time of the middle of exposure of the first row of each frame.

    The device's periodic event is the start of exposure (anchor "trigger": end of frame = event +
    exposure + readout, mid = event + exposure/2) or the start of readout (anchor "readout": end of
    frame = event + readout, mid = event - exposure/2). A frame arrives `dma_ns` or more after its
    end. Device time is mapped to host time by `BlockMinKalman` or, offline, `smooth_clock`.

    Sign of the bias interval: it is what has to be **added** to `mid_ns`. The true middle lies in
    `[mid_ns + bias_low_ns, mid_ns + bias_high_ns]` (but for `sigma_ns`), so `bias_low_ns <= 0 <=
    bias_high_ns`. What no one-way path can see is an error of the declared least delay: if the
    real one is longer, `mid_ns` is late and the truth lies on the low side; if it is shorter, on
    the high side. The interval admits max(dma_ns, 1 ms) either way, plus, on the high side, any
    onset of extra delay that was seen and held apart (it may have been the clock after all). Read
    the other way, as the range of the error `mid_ns - truth`, the interval is the mirror image
    `[-bias_high_ns, -bias_low_ns]`; while nothing is held both readings are the same interval.

    Args:
        sequence: Frame counter (N,), with gaps at drops. A repeat gets the time that its own device
            time says.
        device_ns: Device time of the periodic event (N,), nanoseconds.
        exposure_ns: Exposure (N,), nanoseconds.
        arrival_ns: Host arrival (N,), nanoseconds.
        anchor: "trigger" or "readout".
        readout_ns: First row to one past the last, nanoseconds.
        dma_ns: Least delay from end of frame to arrival, nanoseconds.
        online: True = causal, each frame from itself and earlier ones; False = from both sides.

    Returns:
        (mid_ns, sigma_ns, bias_low_ns, bias_high_ns), int64 arrays (N,).

    Raises:
        SensorDataError: Arrays differ in length, an exposure is negative, or the anchor is unknown.
    """
    side = _side(anchor)
    number, device, exposure, arrival = (
        np.asarray(a, dtype=np.int64) for a in (sequence, device_ns, exposure_ns, arrival_ns)
    )
    _check(number, device, exposure, arrival)
    if readout_ns < 0 or dma_ns < 0:
        raise SensorDataError(f"readout_ns={readout_ns} and dma_ns={dma_ns} must be at least 0")
    tolerance_ns = max(int(dma_ns), LEAST_TOLERANCE_NS)
    host = arrival - int(readout_ns) - int(dma_ns)
    if side > 0:
        host = host - exposure
    mapper = BlockMinKalman(tolerance_ns=tolerance_ns)
    if online or not len(device):
        live = mapper.map_batch(device, host)
        offset, sigma = live.offset_ns, live.sigma_ns
    else:
        smooth = smooth_clock(device, host, mapper=mapper)
        live, offset, sigma = smooth.live, smooth.offset_ns, smooth.sigma_ns
    mid = device + offset + side * (exposure // 2)
    slack = np.ceil(3.0 * sigma).astype(np.int64)
    whole = np.ceil(sigma).astype(np.int64)
    low = live.bias_low_ns - slack
    high = live.bias_high_ns + tolerance_ns + slack
    return mid, whole, low, high


def _side(anchor: Anchor | str) -> int:
    name = anchor.value if isinstance(anchor, Anchor) else str(anchor).lower()
    if name == Anchor.TRIGGER.value:
        return 1
    if name == Anchor.READOUT.value:
        return -1
    raise SensorDataError(
        f"anchor={anchor!r} must be 'trigger' or 'readout'",
        remedy="Find it out with syncline.sensors.anchor.identify_anchor",
    )


def _check(number: I64, device: I64, exposure: I64, arrival: I64) -> None:
    shapes = {a.shape for a in (number, device, exposure, arrival)}
    if len(shapes) != 1 or number.ndim != 1:
        raise SensorDataError(f"arrays must be one-dimensional and as long, shapes are {shapes}")
    if len(number) and int(exposure.min()) < 0:
        at = int(np.argmin(exposure))
        raise SensorDataError(f"exposure_ns[{at}]={int(exposure[at])} must be at least 0")


def match_triggers(
    trigger_ns: ArrayLike, frame_arrival_ns: ArrayLike, period_ns: float, base_delay_ns: int
) -> I64:
    """Which trigger edge each frame was exposed by.

    Args:
        trigger_ns: Edges (M,), increasing; bounces and gaps are expected.
        frame_arrival_ns: Arrivals (N,), increasing; gaps and stalls are expected.
        period_ns: Period of the trigger.
        base_delay_ns: Least time from edge to arrival.

    Returns:
        Index into `trigger_ns` for each frame, int64 (N,); -1 where its edge was not seen. No edge
        is given to two frames.

    Raises:
        SensorDataError: Period or delay is impossible.
    """
    matcher = TriggerMatcher(float(period_ns), int(base_delay_ns))
    return match_arrays(trigger_ns, frame_arrival_ns, matcher)[0]
