"""The shadow model in a daemon: its results recorded, its disagreement scored, frames chosen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from syncline import topics
from syncline.edge.job import Result
from syncline.edge.pipeline import Pipeline
from syncline.edge.records import Output
from syncline.edge.select import Choice, Selector
from syncline.edge.shadow import Comparator
from syncline.errors import SynclineError
from syncline.messages import syncline_pb2 as pb

_log = logging.getLogger(__name__)

PRE_S, POST_S = 2.0, 2.0


class ShadowService:
    """Compares the shadow model with the serving one and keeps what they disagree on.

    Args:
        boot_id: Boot that raw times count in.
        pipeline: Makes the messages.
        emit: Takes them.
        pin: Keeps the recording around now: (seconds before, seconds after, reason).
        selector: Chooses frames.
    """

    def __init__(
        self,
        boot_id: str,
        pipeline: Pipeline,
        emit: Callable[[list[Output]], None],
        pin: Callable[[float, float, str], None],
        selector: Selector | None = None,
    ) -> None:
        self._boot_id = boot_id
        self._pipeline = pipeline
        self._emit = emit
        self._pin = pin
        self._comparator = Comparator()
        self._selector = selector or Selector()
        # The runner's workers call; the books are one.
        self._lock = threading.Lock()

    def on_shadow(self, primary: Result, shadow: Result) -> None:
        """Take the two results of one frame."""
        self._emit(self._pipeline.result(shadow))
        with self._lock:
            found = self._comparator.step(primary, shadow)
            score = None if found is None else found.score
            frame = primary.frame
            choice = self._selector.step(frame.camera, frame.index, frame.raw_ns, score)
        if not choice.is_upload:
            return
        reason = f"shadow {choice.value}" + ("" if score is None else f", disagreement {score:.3f}")
        self._keep(reason)
        event = pb.ModelEvent(
            boot_id=self._boot_id,
            raw_ns=frame.raw_ns,
            action="selected",
            sha256=shadow.model_digest,
            reason=f"{frame.camera} frame {frame.index}: {reason}",
        )
        self._emit([Output(topics.MODEL_EVENTS.name, event, frame.raw_ns)])

    def _keep(self, reason: str) -> None:
        try:
            self._pin(PRE_S, POST_S, reason)
        except SynclineError as error:
            _log.warning("a chosen frame is not pinned: %s", error)

    def add_to(self, message: pb.Health) -> None:
        """Add how many frames were chosen, and why not, to a health message."""
        with self._lock:
            for choice in Choice:
                message.counters[f"shadow.{choice.value}"] = self._selector.counts[choice]
