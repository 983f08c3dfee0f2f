"""The models that serve: loading, proof, replacement, rollback, and the books of each slot."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from syncline.edge.engine import Engine
from syncline.edge.health import Health, rss_bytes, temperature_c
from syncline.edge.job import Drop, Result
from syncline.edge.model.bundle import Bundle
from syncline.edge.reload import Reloader
from syncline.edge.shadow import check_comparable
from syncline.edge.slot import ModelSlot, SlotState
from syncline.edge.swap import (
    SwapEvent,
    SwapPolicy,
    load_successor,
    open_candidate,
    yield_to_serving,
)
from syncline.errors import IntegrityError, ModelError, UsageError
from syncline.timebase import RawClock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Whom the runner tells. They are called in its threads and must return soon.

    Attributes:
        on_result: Every result, in order per camera and slot.
        on_drop: Every frame that was not processed.
        on_event: What happens to models.
        on_shadow: (primary result, shadow result) of the same frame.
    """

    on_result: Callable[[Result], None] = lambda _: None
    on_drop: Callable[[Drop], None] = lambda _: None
    on_event: Callable[[SwapEvent], None] = lambda _: None
    on_shadow: Callable[[Result, Result], None] = lambda _, __: None


class Serving:
    """The slots of a runner and the engines in them.

    Args:
        models: The slots; the first is the main one.
        clock: Raw time.
        callbacks: Whom to tell.
        policy: What a new model must be to take over, where its slot has no policy of its own.
    """

    def __init__(
        self,
        models: Sequence[ModelSlot],
        clock: RawClock,
        callbacks: Callbacks,
        policy: SwapPolicy,
    ) -> None:
        _check_slots(models)
        self.slots = {spec.name: SlotState(spec) for spec in models}
        self.lock = threading.Lock()
        self.counters: Counter[str] = Counter()
        self.failure = ""
        self._clock = clock
        self._tell = callbacks
        self._policy = policy
        self._swapping = threading.Lock()
        self._reloader = Reloader(
            clock, self.lock, self.counters, self.slots.values(), self._tell_reload, self.recover
        )
        self._loading: list[threading.Thread] = []

    def load(self) -> None:
        """Load and prove every model that is not loaded yet.

        Raises:
            ModelError: A model must not run.
        """
        for state in self.slots.values():
            if state.engine is None:
                engine = self._first(state)
                state.install(engine)
                if engine.backend.rebuilt:
                    with self.lock:
                        self.counters["cache-rebuilt"] += 1
                self._event(state, "loaded")

    def _first(self, state: SlotState) -> Engine:
        """The first bundle of a slot that loads and reproduces its golden output."""
        spec = state.spec
        candidates = [spec.bundle, *spec.fallbacks]
        for bundle in candidates[:-1]:
            try:
                return Engine.load(bundle, spec.backend)
            except ModelError as error:
                with self.lock:
                    self.counters["unloadable"] += 1
                _log.error("slot %s: a model is passed over: %s", spec.name, error)
                self._tell.on_event(self._event_of(state, bundle, "unloadable", str(error)))
        return Engine.load(candidates[-1], spec.backend)

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded and proven."""
        return all(state.engine is not None for state in self.slots.values())

    def state(self, slot: str | None) -> SlotState:
        """A slot by name; None = the first.

        Raises:
            UsageError: There is no such slot.
        """
        if slot is None:
            return next(iter(self.slots.values()))
        try:
            return self.slots[slot]
        except KeyError:
            raise UsageError(
                f"there is no model slot {slot!r}", remedy=f"Use one of {', '.join(self.slots)}"
            ) from None

    def engine(self, state: SlotState) -> Engine:
        """The engine that serves a slot; loads the models at the first call."""
        if state.engine is None:
            self.load()
        assert state.engine is not None, "load() fills every slot or raises"
        return state.engine

    def swap(self, candidate: Bundle | Path, slot: str | None) -> SwapEvent:
        """See `Runner.swap`."""
        state = self.state(slot)
        with self._swapping:
            return self._replace(state, candidate, self._policy_of(state), "swapped")

    def _policy_of(self, state: SlotState) -> SwapPolicy:
        return state.spec.swap_policy or self._policy

    def swap_in_background(self, candidate: Bundle | Path, slot: str | None) -> Future[SwapEvent]:
        """See `Runner.swap_in_background`."""
        state = self.state(slot)
        done: Future[SwapEvent] = Future()

        def work() -> None:
            yield_to_serving(state.spec.backend)
            try:
                done.set_result(self.swap(candidate, state.spec.name))
            except BaseException as error:  # noqa: BLE001 - handed to whoever asks the future
                done.set_exception(error)

        self._begin(work, "edge-swap")
        return done

    def _begin(self, work: Callable[[], None], name: str) -> None:
        """A thread that loads a model; `join` waits for it."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        with self.lock:
            self._loading = [known for known in self._loading if known.is_alive()]
            self._loading.append(thread)
        thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for models that are being loaded: a process must not end inside the runtime."""
        until_s = time.monotonic() + timeout_s
        with self.lock:
            loading = list(self._loading)
        for thread in loading:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(until_s - time.monotonic(), 0.0))

    def rollback(self, slot: str | None) -> SwapEvent:
        """See `Runner.rollback`."""
        state = self.state(slot)
        with self._swapping:
            if state.previous is None:
                raise UsageError(f"slot {state.spec.name!r} has served no other model")
            # It served here before: an unsigned bundle may come back too, but only unchanged.
            policy = SwapPolicy(
                trusted_keys=None,
                min_security_version=self._policy_of(state).min_security_version,
                allow_other_labels=True,
                allow_other_input=True,
            )
            if open_candidate(state.previous, policy).digest != state.previous.digest:
                raise IntegrityError(
                    f"the bundle in {state.previous.folder} is not the one that served before",
                    remedy="Fetch or configure a bundle anew",
                )
            return self._replace(state, state.previous, policy, "rolled-back")

    def judge(self, state: SlotState, engine: Engine, outcome: object, run_error: str) -> bool:
        """What a run says of the provider; returns whether to `recover`. Under the lock.

        Args:
            state: Its slot.
            engine: That ran.
            outcome: A `Result` when it came to its end.
            run_error: What the runtime said when it failed.
        """
        recovery = state.recovery
        if engine is not state.engine:
            return False  # of a model that serves no more
        if isinstance(outcome, Result):
            return not recovery.is_quiet and recovery.worked(self._clock.raw_ns())
        if not run_error:
            return False
        has_next = len(engine.backend.providers) > 1 and not engine.backend.is_strict
        return recovery.failed(self._clock.raw_ns(), run_error, has_next=has_next)

    def recover(self, slot: str, *, hung: bool = False) -> None:
        """Find out in the background whether the slot's provider lives, and load its model anew.

        Meanwhile the slot serves on. Loading may hang too, so that no worker waits for it; while
        it does, no second one is begun.

        Args:
            slot: Name of the slot.
            hung: A run did not come back: its session may be broken whatever it answers.
        """
        state = self.slots[slot]
        with self.lock:
            if state.recovery.busy:
                return
            state.recovery.begin("a run did not come back" if hung else "")
        self._begin(partial(self._reloader.attempt, state, hung=hung), "edge-reload")

    def health(self) -> Health:
        """See `Runner.health`."""
        with self.lock:
            slots = [state.health() for state in self.slots.values()]
            counters = dict(self.counters)
        return Health(
            boot_id=self._clock.boot_id,
            raw_ns=self._clock.raw_ns(),
            slots=slots,
            counters=counters,
            rss_bytes=rss_bytes(),
            temperature_c=temperature_c(),
            failure=self.failure,
        )

    def _replace(
        self, state: SlotState, candidate: Bundle | Path, policy: SwapPolicy, action: str
    ) -> SwapEvent:
        serving = self.engine(state).bundle.manifest
        try:
            engine = load_successor(candidate, serving, policy, state.options)
        except ModelError as error:
            with self.lock:
                self.counters["swap-refused"] += 1
                self.counters[f"swap-refused.{type(error).__name__}"] += 1
            self._refusal(state, candidate, error)
            raise
        with self.lock:
            state.install(engine)
            state.recovery.served(engine.backend.ep_requested, engine.backend.provider)
            self.counters[action] += 1
            if engine.backend.rebuilt:
                self.counters["cache-rebuilt"] += 1
        return self._event(state, action)

    def _refusal(self, state: SlotState, candidate: Bundle | Path, error: ModelError) -> None:
        _log.error("slot %s: new model refused, the old one stays: %s", state.spec.name, error)
        self._tell.on_event(self._event_of(state, candidate, "refused", str(error)))

    def _tell_reload(
        self, state: SlotState, bundle: Bundle, action: str, reason: str, providers: tuple[str, str]
    ) -> None:
        event = self._event_of(state, bundle, action, reason)
        before, after = providers
        self._tell.on_event(dataclasses.replace(event, provider_before=before, provider=after))

    def _event(self, state: SlotState, action: str) -> SwapEvent:
        event = self._event_of(state, self.engine(state).bundle, action)
        self._tell.on_event(event)
        return event

    def _event_of(
        self, state: SlotState, model: Bundle | Path, action: str, reason: str = ""
    ) -> SwapEvent:
        raw_ns, slot = self._clock.raw_ns(), state.spec.name
        if isinstance(model, Path):
            return SwapEvent(raw_ns, slot, action, str(model), "", "", reason)
        manifest = model.manifest
        return SwapEvent(
            raw_ns, slot, action, manifest.name, manifest.version, model.digest, reason
        )


def _check_slots(models: Sequence[ModelSlot]) -> None:
    names = [spec.name for spec in models]
    primary = {spec.name for spec in models if not spec.shadow_of}
    if not primary:
        raise UsageError("the runner has no primary model", remedy="Give at least one slot")
    if len(set(names)) != len(names):
        raise UsageError(f"two model slots share a name: {', '.join(names)}")
    for spec in models:
        if spec.shadow_of and spec.shadow_of not in primary:
            raise UsageError(
                f"slot {spec.name!r} shadows {spec.shadow_of!r}, which is no primary slot"
            )
    manifests = {spec.name: spec.bundle.manifest for spec in models}
    for spec in models:
        if spec.shadow_of:
            check_comparable(manifests[spec.shadow_of], spec.bundle.manifest)
