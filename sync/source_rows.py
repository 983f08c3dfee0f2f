"""One row per source for the status: what its driver says and what the estimator thinks of it."""

from __future__ import annotations

from collections.abc import Sequence

from syncline.sync.conductor import Conductor
from syncline.sync.estimator import SourceStatus
from syncline.sync.events import Verdict
from syncline.sync.sources.source import Source
from syncline.sync.status import SourceRow


def source_rows(sources: Sequence[Source], conductor: Conductor) -> list[SourceRow]:
    """Rows of all drivers, and of the members and pulses that only the estimator knows by name."""
    seen = {status.source: status for status in conductor.sources()}
    rows = [_row(source, seen.pop(source.name, None), conductor) for source in sources]
    rows += [_member(status, conductor) for status in seen.values()]
    return rows


def _row(source: Source, status: SourceStatus | None, conductor: Conductor) -> SourceRow:
    health = source.health()
    refused = dict(health.refused)
    tally = conductor.tallies.get(source.name)
    if tally is not None:
        refused.update(tally.counts)
    parts = [health.message] if health.message else []
    if status is not None and status.reason:
        parts.append(status.reason)
    if refused:
        parts.append(", ".join(f"{count} x {reason}" for reason, count in refused.items()))
    return SourceRow(
        name=source.name,
        kind=source.kind.name.lower(),
        verdict=_verdict(status),
        health=health.health.value,
        offset_ns=0 if status is None else status.offset_ns,
        sigma_ns=_finite(status),
        delay_ns=0 if status is None else status.min_delay_ns,
        samples=0 if status is None else status.measurements,
        rejected=sum(refused.values()) + (0 if status is None else status.rejected),
        last_raw_ns=0 if status is None else status.last_raw_ns,
        reach=health.reach,
        poll_log2=health.poll_log2,
        detail="; ".join(parts),
    )


def _member(status: SourceStatus, conductor: Conductor) -> SourceRow:
    kind = conductor.kind_of(status.source)
    return SourceRow(
        name=status.source,
        kind="" if kind is None else kind.name.lower(),
        verdict=_verdict(status),
        health="ok",
        offset_ns=status.offset_ns,
        sigma_ns=_finite(status),
        delay_ns=status.min_delay_ns,
        samples=status.measurements,
        rejected=status.rejected,
        last_raw_ns=status.last_raw_ns,
        detail=status.reason,
    )


def _verdict(status: SourceStatus | None) -> str:
    return "-" if status is None else Verdict(status.verdict).name.lower()


def _finite(status: SourceStatus | None) -> float:
    """Sigma, with -1 where it is not known: JSON has no infinity."""
    if status is None or not abs(status.sigma_ns) < 1e18:
        return -1.0
    return float(status.sigma_ns)
