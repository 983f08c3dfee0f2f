"""Segments, notices and source rows as messages of `syncline.proto`, and segments back."""

from __future__ import annotations

from typing import Any

from syncline.errors import LogError, MessageError
from syncline.log.mapping import mapping_from_message, mapping_to_message
from syncline.messages import syncline_pb2 as pb
from syncline.sync.measurement import Flag, Measurement, SourceKind
from syncline.sync.notices import Notice
from syncline.sync.status import SourceRow
from syncline.timebase import MappingSegment

MAX_SOURCES = 64


def segment_message(segment: MappingSegment, policy: str) -> Any:
    """`syncline.MappingSegment`, for topic /time/mapping."""
    message = mapping_to_message(segment)
    message.policy = policy
    return message


def segment_of(message: Any) -> MappingSegment:
    """A segment out of its message.

    Raises:
        MessageError: A state that is not one, or too many sources.
    """
    if len(message.sources) > MAX_SOURCES:
        raise MessageError(f"mapping segment names {len(message.sources)} sources, limit 64")
    try:
        return mapping_from_message(message)
    except LogError as error:
        raise MessageError(f"mapping segment {message.id}: state {message.state}") from error


def notice_message(notice: Notice, boot_id: str) -> Any:
    """`syncline.ClockEvent`, for topic /time/events."""
    return pb.ClockEvent(
        boot_id=boot_id,
        raw_ns=notice.raw_ns,
        kind=f"CLOCK_EVENT_{notice.kind.name}",
        source=notice.source,
        size_ns=max(min(notice.size_ns, 2**63 - 1), -(2**63)),
        sigma_ns=notice.sigma_ns,
        detail=notice.detail,
        state=f"TIME_STATE_{notice.state.name}",
    )


def measurement_message(m: Measurement, boot_id: str) -> Any:
    """`syncline.TimeMeasurement`, for topic /time/measurements."""
    return pb.TimeMeasurement(
        boot_id=boot_id,
        source=m.source,
        kind=int(m.kind),
        raw_ns=m.raw_ns,
        utc_ns=m.utc_ns,
        delay_ns=m.delay_ns,
        uncertainty_ns=m.uncertainty_ns,
        root_bound_ns=m.root_bound_ns,
        arrival_raw_ns=m.arrival_raw_ns,
        flags=int(m.flags),
        inflation=m.inflation,
        stratum=m.stratum,
    )


def measurement_of(message: Any) -> Measurement:
    """A measurement out of its message.

    Raises:
        MessageError: A kind that is not one.
    """
    try:
        kind = SourceKind(message.kind)
    except ValueError as error:
        raise MessageError(
            f"time measurement of {message.source!r}: kind {message.kind}"
        ) from error
    return Measurement(
        source=message.source,
        kind=kind,
        raw_ns=message.raw_ns,
        utc_ns=message.utc_ns,
        delay_ns=message.delay_ns,
        uncertainty_ns=message.uncertainty_ns,
        root_bound_ns=message.root_bound_ns,
        arrival_raw_ns=message.arrival_raw_ns,
        flags=Flag(message.flags),
        inflation=message.inflation or 1.0,
        stratum=message.stratum,
    )


def source_message(row: SourceRow, raw_ns: int) -> Any:
    """`syncline.SourceStatus`, for topic /time/sources."""
    return pb.SourceStatus(
        raw_ns=raw_ns,
        name=row.name,
        kind=row.kind,
        verdict=row.verdict,
        offset_ns=row.offset_ns,
        sigma_ns=row.sigma_ns,
        delay_ns=row.delay_ns,
        samples=row.samples,
        rejected=row.rejected,
        last_raw_ns=row.last_raw_ns,
        detail=row.detail,
    )
