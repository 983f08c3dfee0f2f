"""The clock of a network camera, as its RTCP sender reports tell it.

A sender report (RFC 3550, 6.4.1) pairs the camera's time of day with its RTP time, so every picture
gets the time of day of its sampling. What that is worth, nothing in the protocol says: a camera
that was never set counts from 1970. It is used as time only where somebody vouches for it.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass

from syncline.sensors.frame import FrameEvent, Ns, Stamp
from syncline.timebase import Clock

_REFERENCE = struct.Struct("=q")
_MICROSECOND_NS = 1000
_LATEST_US = 2**53
"""Year 2255: later ones are no time."""

Utc = Callable[[Ns], tuple[Ns, Ns] | None]
"""UTC of a raw time and its hard bound, both ns; None while it is not known."""


def no_utc(_raw_ns: Ns) -> None:
    """For a process that does not know UTC."""


class SenderFault(enum.Enum):
    """Why a sender's time was not used."""

    NONE = "none"
    SILENT = "no sender reports came"
    UNDECLARED = "nobody vouches for its clock"
    NO_UTC = "UTC is not known here"
    FUTURE = "its clock is ahead of ours"
    OLD = "its clock is behind ours by more than the latency"


@dataclass(frozen=True, slots=True)
class SenderClock:
    """What the sender's time of day is worth.

    Attributes:
        error_ns: It is UTC within this, for certain; 0 = nobody says so.
        event: What in the life of a frame its RTP time marks; no protocol tells.
        utc: Our own UTC.
    """

    error_ns: Ns = 0
    event: FrameEvent = FrameEvent.EOF
    utc: Utc = no_utc


NOBODY_VOUCHES = SenderClock()
"""A sender whose clock is known by its reports at most."""


def reference_utc_ns(side_data: bytes) -> Ns | None:
    """Time of day of a packet from FFmpeg's producer reference time; None for what is none.

    FFmpeg fills it from the last sender report and the packet's RTP time, microseconds since 1970.
    """
    if len(side_data) < _REFERENCE.size:
        return None
    (wall_us,) = _REFERENCE.unpack_from(side_data)
    return wall_us * _MICROSECOND_NS if 0 < wall_us < _LATEST_US else None


def sender_stamp(
    sampled_utc_ns: Ns | None, arrival_ns: Ns, latency_ns: Ns, sender: SenderClock
) -> tuple[Stamp | None, SenderFault]:
    """A picture's time by its sender.

    Args:
        sampled_utc_ns: Time of day of its sampling; None where no report came yet.
        arrival_ns: MONOTONIC_RAW of its arrival.
        latency_ns: Greatest age at its arrival.
        sender: See `SenderClock`.

    Returns:
        On MONOTONIC_RAW where the sender's clock can be used. On DEVICE where it is only known,
        not vouched for. None where it contradicts the arrival or there is none.
    """
    if sampled_utc_ns is None:
        return None, SenderFault.SILENT
    if not sender.error_ns:
        return Stamp(sampled_utc_ns, Clock.DEVICE, sender.event), SenderFault.UNDECLARED
    now = sender.utc(arrival_ns)
    if now is None:
        return Stamp(sampled_utc_ns, Clock.DEVICE, sender.event), SenderFault.NO_UTC
    utc_ns, bound_ns = now
    age_ns, unsure_ns = utc_ns - sampled_utc_ns, sender.error_ns + bound_ns
    if age_ns < -unsure_ns:
        return None, SenderFault.FUTURE
    if age_ns > latency_ns + unsure_ns:
        return None, SenderFault.OLD
    t_ns, bias_ns = arrival_ns - age_ns, (-unsure_ns, unsure_ns)
    sigma_ns = _MICROSECOND_NS / 12**0.5
    return Stamp(t_ns, Clock.MONOTONIC_RAW, sender.event, sigma_ns, bias_ns), SenderFault.NONE
