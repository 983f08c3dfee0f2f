"""The estimator's and the jump detector's events as notices."""

from __future__ import annotations

from syncline.sync.confusion import name_of
from syncline.sync.events import Adjust, Event, SourceVerdict, Step, UnknownStep
from syncline.sync.notices import Notice, NoticeKind
from syncline.timebase import TimeState


def notice_of(event: Event, slept_ns: int, state: TimeState) -> Notice | None:
    """An event as a notice; None for the estimator's own state, which the service states itself.

    Args:
        event: What happened.
        slept_ns: What the estimator's raw time is ahead of RAW.
        state: State of the service.
    """
    raw_ns = event.raw_ns - slept_ns
    if isinstance(event, Adjust):
        text = f"rate {event.rate_change * 1e6:+.4f} ppm"
        return Notice(raw_ns, NoticeKind.ADJUST, "UTC", event.offset_ns, 0.0, text, state)
    if isinstance(event, Step):
        half = float(event.uncertainty_ns)
        name = event.clock.name
        return Notice(raw_ns, NoticeKind.STEP, name, event.size_ns, half, event.reason, state)
    if isinstance(event, UnknownStep):
        kind = NoticeKind.UNKNOWN_STEP
        return Notice(raw_ns, kind, event.clock.name, 0, 0.0, event.reason, state)
    if isinstance(event, SourceVerdict):
        named = name_of(event.offset_ns)
        text = f"{event.verdict.name.lower()}: {event.reason}" if event.reason else ""
        text = text or event.verdict.name.lower()
        text = f"{text}; {named}" if named else text
        kind = NoticeKind.SOURCE_VERDICT
        return Notice(raw_ns, kind, event.source, event.offset_ns, 0.0, text, state)
    return None
