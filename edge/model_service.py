"""Updates of one model over the link, and going back by itself from one that proves bad."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from syncline.edge.health import SlotHealth
from syncline.edge.model.bundle import Bundle
from syncline.edge.model_config import ModelSection
from syncline.edge.model_slots import trusted_keys
from syncline.edge.outputs import CONSTANT_FRAMES
from syncline.edge.runner import Runner
from syncline.edge.swap import SwapEvent
from syncline.edge.updater import Fetch, ModelStore, ModelUpdater, UpdateEvent
from syncline.errors import LinkError, SynclineError, UsageError
from syncline.timebase import NS_PER_S, RawClock

_log = logging.getLogger(__name__)

PROBATION_NS = 30 * NS_PER_S
"""A swapped model that fails within this time is taken back, and at least within so many frames
as it takes to tell that its output is stuck: of a camera at 0.2 fps those take 150 s."""
PROBATION_FRAMES = CONSTANT_FRAMES + 1
RETRY_S = 10.0


class ModelService:
    """Follows a channel in a thread of its own and keeps watch over what it swapped in.

    Args:
        section: The model's section of the configuration.
        store: Where bundles lie.
        runner: Serves the model.
        fetch: Fetches resources over the link.
        clock: Times the probation.
        report: Told of every act.

    Attributes:
        slot: Slot of the model.
        problem: Why updates do not work at present; empty when they do, or the link is merely down.
    """

    def __init__(
        self,
        section: ModelSection,
        store: ModelStore,
        runner: Runner,
        fetch: Fetch,
        clock: RawClock,
        report: Callable[[UpdateEvent], None],
    ) -> None:
        self.slot = section.name
        self._runner = runner
        self._clock = clock
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._swapped_ns: int | None = None
        self._state = threading.Lock()  # for the probation, which two threads write
        self.problem = ""
        bundle = self._health()
        self._updater = ModelUpdater(
            store,
            name=bundle.model_name,
            channel=section.channel,
            trusted_keys=trusted_keys(section),
            security_floor=section.security_floor,
            fetch=fetch,
            swap=self._swap,
            revert=self._revert,
            report=report,
            running_digest=bundle.model_digest,
        )
        self._thread = threading.Thread(target=self._run, name="model-updates", daemon=True)

    def _health(self) -> SlotHealth:
        return next(s for s in self._runner.health().slots if s.slot == self.slot)

    def _swap(self, bundle: Bundle) -> None:
        # In a thread that gives way: this one has the daemon's niceness, before other programs.
        self._runner.swap_in_background(bundle, self.slot).result()
        with self._state:
            self._swapped_ns = self._clock.raw_ns()

    def _revert(self) -> SwapEvent:
        """Go back, once: with nothing to go back to, asking again at each health helps nobody."""
        with self._state:
            self._swapped_ns = None
        return self._runner.rollback(self.slot)

    def _on_probation(self) -> bool:
        with self._state:
            return self._swapped_ns is not None

    def _end_probation(self, slot: SlotHealth) -> None:
        """Time and frames are both up: what goes wrong from now on is not the swap's doing."""
        with self._state:
            if self._swapped_ns is None or slot.model_digest != self._updater.running_digest:
                return
            passed_ns = self._clock.raw_ns() - self._swapped_ns
            if passed_ns > PROBATION_NS and slot.judged >= PROBATION_FRAMES:
                self._swapped_ns = None

    def start(self) -> None:
        """Ask where the channel stands, then wait for notices."""
        self._thread.start()
        self._wake.set()

    def notice(self, topic: str) -> None:
        """The collector says that a channel moved."""
        if topic == self._updater.topic:
            self._wake.set()

    def check(self) -> None:
        """Take a swapped model back when it proves bad; called with each health.

        Only for what the model is to blame for: one camera that breaks condemns no model. Never
        waits: while the next model is being swapped in it leaves the matter to the next call.
        """
        if not self._on_probation():
            return
        slot = self._health()
        if not slot.fault:
            self._end_probation(slot)
            return
        try:
            if self._updater.roll_back(slot.fault, slot.model_digest):
                self._wake.set()  # what the disk did not take is written by `update`
        except SynclineError as error:
            self.problem = f"cannot go back to the model before: {error}"
            _log.error("%s", self.problem)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._stop.is_set():
                return
            if not self._try_update():
                self._stop.wait(RETRY_S)
                self._wake.set()

    def _try_update(self) -> bool:
        """One update; False when it has to be tried again. The thread outlives whatever comes."""
        try:
            self._updater.update()
        except (LinkError, UsageError) as error:
            _log.info("model update waits: %s", error)
            return False
        except SynclineError as error:
            self.problem = f"model update failed: {error}"
            _log.error("%s", self.problem)
            return False
        except Exception as error:  # noqa: BLE001 - the last resort: without it updates end unseen
            self.problem = f"model update failed: {type(error).__name__}: {error}"
            _log.exception("model update failed")
            return False
        self.problem = ""
        return True

    def close(self) -> None:
        """End the thread; a fetch in flight resumes at the next start."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
