"""Numbers and cuts the segments that leave the service."""

from __future__ import annotations

import math
from dataclasses import replace

from syncline.sync.policy import Decision
from syncline.sync.timeline import Timeline, moved
from syncline.timebase import NO_BOUND_NS, MappingSegment, TimeState

_Key = tuple[int, int, int, TimeState, int, int, str]


class Publication:
    """The line of published segments: ids ascend, starts never go back, none spans a leap second.

    Args:
        boot_id: Boot whose raw time is mapped.
    """

    def __init__(self, boot_id: str) -> None:
        self.segment: MappingSegment | None = None
        self.which = 0
        self.scene = ""
        self._boot_id = boot_id
        self._key: _Key | None = None
        self._inner: MappingSegment | None = None
        self._offset_ns = 0

    def publish(
        self,
        raw_ns: int,
        inner: MappingSegment | None,
        timeline: Timeline,
        state: TimeState,
        decision: Decision,
        which: int,
    ) -> list[MappingSegment]:
        """New segments since the last call.

        Args:
            raw_ns: Now.
            inner: What the chosen estimator says, in its own time scales; None when it has no time.
            timeline: Translates.
            state: State to write.
            decision: Scene to write, and its factor on the bound.
            which: Which estimator, 0 fine or 1 coarse.
        """
        if inner is None:
            return self._expire(raw_ns)
        made: list[MappingSegment] = []
        if self._inner is not None:
            made += self._leap(raw_ns, inner, timeline)
        offset_ns = timeline.leap_offset_ns(inner, raw_ns)
        key = (
            which, inner.id, inner.revision, state, timeline.slept_ns, offset_ns,
            decision.scene.value,
        )  # fmt: skip
        if key == self._key:
            return made
        start_ns = raw_ns
        if self._key is None or key[1:3] != self._key[1:3]:
            start_ns = min(inner.raw0_ns - timeline.slept_ns, raw_ns)
        if self.segment is not None:
            start_ns = max(start_ns, self.segment.raw0_ns + 1)
        outer = timeline.outward(inner, start_ns, offset_ns)
        factor = decision.row.bound_inflation
        hard_ns = min(math.ceil(outer.hard_bound_ns * factor), NO_BOUND_NS)
        self._key, self._inner, self._offset_ns, self.which = key, inner, offset_ns, which
        self.scene = decision.scene.value
        made.append(self._number(replace(outer, state=state, hard_bound_ns=hard_ns, revision=0)))
        return made

    def _leap(self, raw_ns: int, inner: MappingSegment, timeline: Timeline) -> list[MappingSegment]:
        """The cut at a leap second that passed since the last segment."""
        last, old = self.segment, self._inner
        if last is None or old is None or last.state is TimeState.COLD:
            return []
        offset_ns = timeline.leap_offset_ns(inner, raw_ns)
        if offset_ns == self._offset_ns:
            return []
        from_tai = last.utc_ns(last.raw0_ns) + self._offset_ns
        until_tai = inner.utc_ns(timeline.inner_raw(raw_ns))
        if until_tai <= from_tai or from_tai - timeline.leaps.to_utc_ns(from_tai) == offset_ns:
            self._offset_ns = offset_ns
            return []
        cut_ns = max(timeline.leap_raw_ns(inner, from_tai, until_tai), last.raw0_ns + 1)
        cut = moved(last, cut_ns)
        shifted = replace(cut, utc0_ns=cut.utc0_ns + self._offset_ns - offset_ns)
        self._offset_ns = offset_ns
        return [self._number(shifted)]

    def _expire(self, raw_ns: int) -> list[MappingSegment]:
        """No time any more: one segment without a bound says so."""
        last = self.segment
        if last is None or last.state is TimeState.COLD:
            return []
        self._key = None
        cold = replace(
            moved(last, max(raw_ns, last.raw0_ns + 1)),
            hard_bound_ns=NO_BOUND_NS, state=TimeState.COLD, sources=(),
        )  # fmt: skip
        return [self._number(cold)]

    def _number(self, segment: MappingSegment) -> MappingSegment:
        number = 1 if self.segment is None else self.segment.id + 1
        self.segment = replace(segment, id=number, boot_id=self._boot_id)
        return self.segment
