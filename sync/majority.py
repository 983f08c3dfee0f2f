"""When the own clock yields to those it refuses. Pure functions of what was refused."""

from __future__ import annotations

from dataclasses import dataclass

from syncline.sync.events import Verdict
from syncline.sync.settings import EstimatorSettings
from syncline.sync.watch import Refused, Watch, agree


@dataclass(frozen=True, slots=True)
class Record:
    """What the own clock has to say for itself.

    Attributes:
        now: Seconds since the epoch.
        born: When it began, s.
        accepted: Measurements it accepted.
        last_accept: The newest of them, s.
        young: It has no record that could outvote a majority.
    """

    now: float
    born: float
    accepted: int
    last_accept: float
    young: bool


def overruled(
    watches: list[Watch], record: Record, settings: EstimatorSettings
) -> tuple[list[Refused], str]:
    """The refused measurements to begin again from, and why; none while the own clock stands.

    A young clock yields at once to a consistent majority, an established one to three agreeing
    sources or to time.
    """
    since = [[i for i in w.refused if i.t > w.last_accept_t] for w in watches]
    items = sorted((i for group in since for i in group), key=lambda i: i.t)
    if len(items) < 2:
        return [], ""
    if record.young:
        need = max(2, min(record.accepted, settings.young_count))
        if (
            _outnumbered(watches, since)
            and len(items) >= need
            and agree(items, 2.0 * settings.rate_sigma, 0.0)
        ):
            return items, f"{len(items)} replies against {record.accepted}"
        return [], ""
    if any(i.t <= record.last_accept for i in items) or not agree(items, 5e-5, 0.0):
        return [], ""
    voters = [g for g in since if len(g) >= 3]
    if len(voters) >= 3:
        return items, f"{len(voters)} sources agree against the own clock"
    if record.now - record.last_accept > settings.trust_ratio * (record.last_accept - record.born):
        return items, "refused for longer than the own clock's record can outweigh"
    return [], ""


def _outnumbered(watches: list[Watch], since: list[list[Refused]]) -> bool:
    """True unless more sources stand by the own clock than speak against it."""
    against = sum(1 for group in since if group)
    pairs = zip(watches, since, strict=True)
    for_it = sum(1 for w, group in pairs if not group and w.verdict == Verdict.SELECTED)
    return against >= for_it
