"""Mapping segments as messages and as metadata text."""

from __future__ import annotations

from syncline.errors import LogError
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import MappingSegment, TimeState

_INTS = ("id", "revision", "raw0_ns", "utc0_ns", "hard_bound_ns")
_FLOATS = (
    "rate",
    "var_offset_ns2",
    "cov_offset_rate",
    "var_rate",
    "wander_ns2_per_s",
    "drift_limit_ppb",
)


def mapping_to_message(segment: MappingSegment) -> pb.MappingSegment:
    """The record on /time/mapping."""
    return pb.MappingSegment(
        id=segment.id,
        revision=segment.revision,
        boot_id=segment.boot_id,
        raw0_ns=segment.raw0_ns,
        utc0_ns=segment.utc0_ns,
        rate=segment.rate,
        var_offset_ns2=segment.cov[0],
        cov_offset_rate=segment.cov[1],
        var_rate=segment.cov[2],
        wander_ns2_per_s=segment.wander_ns2_per_s,
        hard_bound_ns=segment.hard_bound_ns,
        drift_limit_ppb=segment.drift_limit_ppb,
        state=pb.TimeState.Name(int(segment.state)),
        sources=segment.sources,
    )


def mapping_from_message(message: pb.MappingSegment) -> MappingSegment:
    """The segment of a record.

    Raises:
        LogError: The state is unknown.
    """
    return MappingSegment(
        id=message.id,
        revision=message.revision,
        boot_id=message.boot_id,
        raw0_ns=message.raw0_ns,
        utc0_ns=message.utc0_ns,
        rate=message.rate,
        cov=(message.var_offset_ns2, message.cov_offset_rate, message.var_rate),
        wander_ns2_per_s=message.wander_ns2_per_s,
        hard_bound_ns=message.hard_bound_ns,
        drift_limit_ppb=message.drift_limit_ppb,
        state=_state(int(message.state)),
        sources=tuple(message.sources),
    )


def mapping_to_text(message: pb.MappingSegment) -> dict[str, str]:
    """Metadata of one segment; floats in full precision."""
    found = {name: str(getattr(message, name)) for name in _INTS}
    found.update({name: repr(float(getattr(message, name))) for name in _FLOATS})
    found["boot_id"] = message.boot_id
    found["state"] = str(int(message.state))
    found["sources"] = ",".join(message.sources)
    return found


def mapping_from_text(values: dict[str, str]) -> MappingSegment:
    """The segment of a metadata record.

    Raises:
        LogError: A key is missing or no number.
    """
    try:
        ints = {name: int(values[name]) for name in _INTS}
        floats = {name: float(values[name]) for name in _FLOATS}
        return MappingSegment(
            **ints,
            boot_id=values["boot_id"],
            rate=floats["rate"],
            cov=(floats["var_offset_ns2"], floats["cov_offset_rate"], floats["var_rate"]),
            wander_ns2_per_s=floats["wander_ns2_per_s"],
            drift_limit_ppb=floats["drift_limit_ppb"],
            state=_state(int(values["state"])),
            sources=tuple(s for s in values["sources"].split(",") if s),
        )
    except (KeyError, ValueError) as error:
        raise LogError(f"metadata syncline.mapping: {error!r} is missing or no number") from None


def _state(number: int) -> TimeState:
    try:
        return TimeState(number)
    except ValueError:
        raise LogError(f"mapping segment: state {number} is unknown") from None
