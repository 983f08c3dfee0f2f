"""Loads the model of a slot anew, in the background, when its provider fails or a run hangs."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.slot import SlotState
from syncline.edge.swap import yield_to_serving
from syncline.errors import ModelError
from syncline.timebase import RawClock

_log = logging.getLogger(__name__)

Tell = Callable[[SlotState, Bundle, str, str, tuple[str, str]], None]
"""Told the slot, its model, what happened, why, and the providers before and after."""


class Reloader:
    """One attempt to bring a slot back; `Recovery` says when there may be another.

    Nothing takes over that did not prove its golden output.

    Args:
        clock: Raw time.
        lock: The runner's; guards the states and counters.
        counters: Of `/health`.
        states: All slots.
        tell: Whom to tell, without the lock.
        wake: Begins an attempt for another slot, by name.
    """

    def __init__(
        self,
        clock: RawClock,
        lock: threading.Lock,
        counters: Counter[str],
        states: Collection[SlotState],
        tell: Tell,
        wake: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._lock = lock
        self._counters = counters
        self._states = states
        self._tell = tell
        self._wake = wake

    def attempt(self, state: SlotState, *, hung: bool) -> None:
        """Find out what is wrong and put it right; `state.recovery` has begun already."""
        begun_ns = self._clock.raw_ns()
        try:
            self._attempt(state, hung=hung)
        finally:
            with self._lock:
                state.recovery.end(begun_ns, self._clock.raw_ns())

    def _attempt(self, state: SlotState, *, hung: bool) -> None:
        engine = state.engine
        assert engine is not None, "workers start after the models are loaded"
        if hung:
            self._replace(state, engine, state.recovery.error)
        elif state.recovery.is_failing or engine.backend.is_released:
            self._examine(state, engine)
        elif state.recovery.lost:
            self._come_back(state, engine)

    def _examine(self, state: SlotState, engine: Engine) -> None:
        """Whether it is the provider that fails, or the frames: the golden frame tells."""
        name, provider = state.spec.name, engine.backend.provider
        error = _error_of(engine)
        if not error:
            self._count("provider-alive")
            _log.warning(
                "slot %s: runs fail in a row, but %s still runs the golden frame: not loaded anew",
                name,
                provider,
            )
            return
        if not engine.backend.is_released:
            self._count("provider-lost")
            _log.error("slot %s: %s fails every run: %s", name, provider, error)
            self._let_go(provider, state.recovery.error)
        why = state.recovery.error or error
        self._replace(state, engine, f"{provider} failed in service: {why}")

    def _let_go(self, provider: str, why: str) -> None:
        """End the sessions of all slots that died with the provider: no new one works beside them.

        Theirs recover as soon as their runs fail, or this slot's model is loaded.
        """
        for state in self._states:
            engine = state.engine
            is_on_it = engine is not None and engine.backend.provider == provider
            if engine is not None and is_on_it and _error_of(engine):
                engine.backend.release(why)

    def _replace(self, state: SlotState, engine: Engine, why: str) -> None:
        with self._lock:
            steps = state.recovery.passed_over(
                engine.backend.providers, self._clock.raw_ns(), strict=engine.backend.is_strict
            )
        fresh, refusals = self._load(state, engine, steps)
        if fresh is not None:
            self._install(state, engine, fresh, why)
            return
        new = [refusal for refusal in dict.fromkeys(refusals) if refusal not in why]
        reason = f"{why}; a new session fails too" + "".join(f": {refusal}" for refusal in new)
        with self._lock:
            self._counters["reload-failed"] += 1
            if state.engine is engine and engine.backend.is_released:
                state.recovery.dead = reason
        _log.error("slot %s: %s", state.spec.name, reason)
        provider = engine.backend.provider
        self._tell(state, engine.bundle, "reload-failed", reason, (provider, provider))

    def _come_back(self, state: SlotState, engine: Engine) -> None:
        """Try what was lost again, beside the provider that stands in."""
        yield_to_serving(state.spec.backend)
        with self._lock:
            recovery = state.recovery
            steps, home = recovery.to_come_back(), recovery.home
        fresh, refusals = self._load(state, engine, steps)
        now = engine.backend.provider
        better = home[: home.index(now)] if now in home else home
        if fresh is not None and fresh.backend.provider in better:
            self._install(state, engine, fresh, f"{fresh.backend.provider} works again")
            return
        self._count("provider-still-lost")
        _log.warning(
            "slot %s: %s does not work yet: %s", state.spec.name, home[0], "; ".join(refusals)
        )

    @staticmethod
    def _load(
        state: SlotState, engine: Engine, steps: Sequence[tuple[str, ...]]
    ) -> tuple[Engine | None, list[str]]:
        """The first engine that loads and proves itself, and what was wrong with those before."""
        refusals: list[str] = []
        for lost in steps:
            options = dataclasses.replace(state.spec.backend, lost=lost)
            try:
                return Engine.load(engine.bundle, options), refusals
            except ModelError as error:
                refusals.append(error.message)
        return None, refusals

    def _install(self, state: SlotState, engine: Engine, fresh: Engine, why: str) -> None:
        before, after = engine.backend.provider, fresh.backend.provider
        with self._lock:
            if state.engine is not engine:
                return  # another model took over meanwhile
            state.install(fresh)
            state.recovery.replaced(engine.backend.providers, after, self._clock.raw_ns())
            self._counters["reloaded"] += 1
            if fresh.backend.rebuilt:
                self._counters["cache-rebuilt"] += 1
        change = f"{before} again" if before == after else f"{after} in place of {before}"
        _log.warning("slot %s: loaded anew on %s: %s", state.spec.name, change, why)
        self._tell(state, fresh.bundle, "reloaded", f"{why}; now on {change}", (before, after))
        for other in self._states:
            if other.engine is not None and other.engine.backend.is_released:
                self._wake(other.spec.name)  # a shadow may wait long for a run that fails

    def _count(self, event: str) -> None:
        with self._lock:
            self._counters[event] += 1


def _error_of(engine: Engine) -> str:
    """Why the golden frame does not run; empty when it does.

    Text, because an exception holds the frames that it came through, and they hold the session.
    """
    try:
        engine.check_alive()
    except ModelError as error:
        return error.message
    return ""
