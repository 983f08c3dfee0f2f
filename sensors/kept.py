"""What a frame timer remembers of a frame, so that it can stamp it anew, and what it counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from syncline.sensors.clock import ClockState
from syncline.sensors.frame import FrameTime, Ns, RawFrame, Stamp


@dataclass(slots=True)
class Counters:
    """What a timer has seen so far."""

    frames: int = 0
    dropped: int = 0
    duplicates: int = 0
    stale: int = 0
    revised: int = 0


@dataclass(slots=True)
class Kept:
    """A stamped frame, with what is needed to stamp it anew.

    Attributes:
        frame: As it came.
        time: Its time as published last.
        device_ns: Device time of its periodic event.
        event_ns: Host time of the same.
        host_ns: The same by its stamp alone, late by the delay of its path.
        stamp: The stamp it was timed by: the driver's, or an arrival.
        waits: The mapper has not had it: its exposure was not known.
    """

    frame: RawFrame
    time: FrameTime
    device_ns: Ns
    event_ns: Ns
    host_ns: Ns
    stamp: Stamp
    waits: bool = False


def late_by(state: ClockState, arrival: Stamp) -> tuple[float, tuple[Ns, Ns]]:
    """Sigma and bias of a mapped event, with what the arrival itself may be wrong by.

    The mapping takes the least delay off that it has seen; a delay that every frame has stays in
    it unseen. Whoever stamped the arrival tells how much that can be, so both intervals add up.
    """
    bias_ns = arrival.bias_ns
    if bias_ns == (0, 0) and not arrival.sigma_ns:
        return state.sigma_ns, state.bias_ns
    low_ns, high_ns = state.bias_ns
    sigma_ns = math.hypot(state.sigma_ns, arrival.sigma_ns)
    return sigma_ns, (low_ns + bias_ns[0], high_ns + bias_ns[1])
