"""The shadow models of a daemon: their disagreement scored and recorded, frames chosen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import replace

from syncline import topics
from syncline.edge.job import Result
from syncline.edge.records import Output, disagreement_message, selection_message
from syncline.edge.select import Choice, SelectOptions, Selector
from syncline.edge.shadow import Comparator
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import NS_PER_S

AROUND_NS = 2 * NS_PER_S
"""Pictures before and after a frame that is chosen for its disagreement; the lot draws frames, not
clips: with 1 % of 30 frames a second, two seconds around each would be all of them."""


class ShadowService:
    """Compares shadow models with the serving ones and chooses frames.

    What it says goes out as messages alone: `/camera/*/disagreement` for every frame that both
    models saw, `/camera/*/selected` for every chosen one, from which the pictures are cut later.
    Memory: the scores of 512 frames per shadowed model, a few sets of boxes per camera.

    Args:
        device: Name of the device; with the boot it seeds the lot.
        boot_id: Boot that raw times count in.
        slots: Model slots that have a shadow.
        emit: Takes the messages.
        options: How frames are chosen; the seed is set here.
    """

    def __init__(
        self,
        device: str,
        boot_id: str,
        slots: Collection[str],
        emit: Callable[[list[Output]], None],
        options: SelectOptions | None = None,
    ) -> None:
        self._boot_id = boot_id
        self._emit = emit
        self._comparator = Comparator()
        self._options = replace(options or SelectOptions(), seed=f"{device}\0{boot_id}")
        self._selectors = {slot: Selector(self._options) for slot in slots}
        self._not_compared = 0
        # The runner's workers call; the books are one.
        self._lock = threading.Lock()

    def on_result(self, result: Result) -> None:
        """Take every result: the lot is drawn of the valid ones of models that have a shadow."""
        selector = self._selectors.get(result.slot)
        if selector is None or not result.valid:
            return
        with self._lock:
            self._comparator.note(result)
            drawn = selector.lot(result.frame.camera, result.frame.at_ns)
        if drawn:
            self._select(result, Choice.RANDOM, 0.0)

    def on_shadow(self, primary: Result, shadow: Result) -> None:
        """Take the two results of one frame, the serving model's known by `on_result` already."""
        frame = primary.frame
        with self._lock:
            found = self._comparator.step(primary, shadow)
            if found is None:
                self._not_compared += 1
                return
            choice = self._selectors[primary.slot].step(frame.camera, frame.at_ns, found.worth)
        message = disagreement_message(primary, shadow, found, choice.value, self._boot_id)
        self._emit([Output(topics.DISAGREEMENT.of(frame.camera), message, frame.at_ns)])
        if choice is Choice.SCORE:
            self._select(primary, choice, found.worth)

    def _select(self, primary: Result, choice: Choice, worth: float) -> None:
        by_lot = choice is Choice.RANDOM
        message = selection_message(
            primary,
            self._boot_id,
            choice.value,
            share=self._options.random_share if by_lot else 0.0,
            worth=worth,
            around_ns=0 if by_lot else AROUND_NS,
        )
        topic = topics.SELECTED.of(primary.frame.camera)
        self._emit([Output(topic, message, primary.frame.at_ns)])

    def add_to(self, message: pb.Health) -> None:
        """Add how many frames were chosen, and why not, to a health message."""
        if not self._selectors:
            return
        with self._lock:
            selectors = list(self._selectors.values())
            message.counters["shadow.frames"] = sum(s.frames for s in selectors)
            message.counters["shadow.not-compared"] = self._not_compared
            for choice in Choice:
                total = sum(s.counts[choice] for s in selectors)
                message.counters[f"shadow.{choice.value}"] = total
