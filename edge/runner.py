"""The runner: frames in, results out, never late without saying so.

Every frame that is submitted to a slot ends in exactly one result or one drop with a reason:
captured = processed + dropped + pending, at any moment. `submit` never blocks but under the BLOCK
policy. Workers take frames by priority; each camera's results keep their order.

Threads: the callers of `submit`, the workers, one watchdog. Memory is bounded: queues by their
limits, tensors by workers x models. Callbacks run in those threads, never under the lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from syncline.edge.dispatch import Dispatcher
from syncline.edge.engine import Engine, Prepared, Ran
from syncline.edge.health import Health
from syncline.edge.job import DropReason, Frame, Latencies, Result
from syncline.edge.model.bundle import Bundle
from syncline.edge.prefetch import around
from syncline.edge.preprocess import Preprocessor
from syncline.edge.serving import Callbacks, Serving
from syncline.edge.slot import ModelSlot, SlotState
from syncline.edge.swap import SwapEvent, SwapPolicy
from syncline.errors import ModelError, SynclineError, UsageError
from syncline.timebase import RawClock

__all__ = ["Callbacks", "ModelSlot", "Runner"]

_PREFETCH_BUFFERS = 3


class Runner:
    """Runs models on frames.

    Args:
        models: The slots; the first is the main one.
        clock: Raw time; deadlines and ages are on it.
        callbacks: Whom to tell.
        workers: Worker threads. One serves a small device best; more help several models or
            cameras, since one lane is served by one worker at a time.
        swap_policy: What a new model must be to take over.

    Raises:
        UsageError: The slots contradict each other.
        ManifestError: A shadow cannot be compared with the model that it shadows.
    """

    def __init__(
        self,
        models: Sequence[ModelSlot],
        *,
        clock: RawClock,
        callbacks: Callbacks | None = None,
        workers: int = 1,
        swap_policy: SwapPolicy | None = None,
    ) -> None:
        if workers < 1:
            raise UsageError(f"workers={workers} must be at least 1")
        told = callbacks or Callbacks()
        self._clock = clock
        self._serving = Serving(models, clock, told, swap_policy or SwapPolicy())
        self._live = Dispatcher(self._serving, clock, told, workers)
        self._preprocessors: dict[str, tuple[Engine, Preprocessor]] = {}

    def load(self) -> None:
        """Load and prove every model; the runner is ready afterwards.

        Raises:
            ModelError: A model must not run.
        """
        self._serving.load()

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded and has reproduced its golden output."""
        return self._serving.is_ready

    def start(self) -> None:
        """Load what is not loaded, then start the threads.

        Raises:
            ModelError: A model must not run.
        """
        self.load()
        self._live.start()

    def stop(self, *, drain: bool = True, timeout_s: float = 5.0) -> None:
        """Take no more frames, finish those that wait (or drop them), end the threads.

        Args:
            drain: Finish waiting frames, for at most `timeout_s`.
            timeout_s: Patience for draining, then for each thread, then for models that are being
                loaded in the background, seconds.
        """
        self._live.stop(drain=drain, timeout_s=timeout_s)
        self._serving.join(timeout_s)

    def submit(self, frame: Frame) -> int:
        """Hand a frame to every primary slot that sees its camera; a JPEG is decoded first.

        Returns:
            Number of slots that hold it now; 0 when the runner is stopped (it is not captured).

        Raises:
            UsageError: More cameras than the runner can hold.
        """
        return self._live.submit(frame)

    def process(self, frame: Frame, slot: str | None = None) -> Result:
        """Run one frame here and now, in this thread: the replay's way, the same every time.

        Deadlines, rates and queues play no part. A frame that cannot be used gives a result that
        is not valid, and is counted as dropped. Not to be called from two threads at once.

        Args:
            frame: The frame.
            slot: Name of the slot; None = the first.

        Raises:
            UsageError: There is no such slot.
            ModelError: The model must not run (models are loaded at the first call).
        """
        state = self._serving.state(slot)
        engine = self._serving.engine(state)
        known = self._preprocessors.get(state.spec.name)
        if known is None or known[0] is not engine:
            known = (engine, engine.preprocessor())
            self._preprocessors[state.spec.name] = known
        given = self._prepare(engine, frame, known[1])
        return self._finish(state, engine, self._infer(state, engine, given))

    def process_all(
        self, frames: Iterable[Frame], slot: str | None = None, *, prefetch: bool = False
    ) -> Iterator[Result]:
        """`process` for many frames.

        Args:
            frames: In order.
            slot: Name of the slot; None = the first.
            prefetch: Get, decode and resize the next frame, and decode and check the last outputs,
                in a thread while this frame is inferred. The results are the same, two frames
                later; so is the model until the end.
        """
        if not prefetch:
            for frame in frames:
                yield self.process(frame, slot)
            return
        state = self._serving.state(slot)
        engine = self._serving.engine(state)
        pre = engine.preprocessor(_PREFETCH_BUFFERS)

        yield from around(
            frames,
            before=lambda frame: self._prepare(engine, frame, pre),
            work=lambda given: self._infer(state, engine, given),
            after=lambda outcome: self._finish(state, engine, outcome),
        )

    def swap(self, candidate: Bundle | Path, slot: str | None = None) -> SwapEvent:
        """Replace a slot's model between two frames; on any failure the old one keeps serving.

        Args:
            candidate: Bundle or its folder; verified again under the swap policy.
            slot: Name of the slot; None = the first.

        Raises:
            ModelError: Of the kind that names why the new model must not run; it is counted.
        """
        return self._serving.swap(candidate, slot)

    def swap_in_background(
        self, candidate: Bundle | Path, slot: str | None = None
    ) -> Future[SwapEvent]:
        """`swap` in a thread that gives way to the serving ones."""
        return self._serving.swap_in_background(candidate, slot)

    def rollback(self, slot: str | None = None) -> SwapEvent:
        """Go back to the bundle that served before.

        Raises:
            UsageError: There was none.
            ModelError: It must not run any more, such as when its files were changed.
        """
        return self._serving.rollback(slot)

    def health(self) -> Health:
        """A snapshot; `captured = processed + dropped + pending` holds in it for every slot."""
        return self._serving.health()

    def _prepare(self, engine: Engine, frame: Frame, pre: Preprocessor) -> Prepared | _Lost:
        """The prepared frame, or what is wrong with it."""
        try:
            return engine.prepare(frame, pre, self._clock)
        except SynclineError as error:
            return _Lost(frame, DropReason.BAD_FRAME, str(error))
        except MemoryError:
            what = f"frame {frame.index} of {frame.camera!r}: there is no memory to decode it"
            return _Lost(frame, DropReason.BAD_FRAME, what)

    def _infer(self, state: SlotState, engine: Engine, given: Prepared | _Lost) -> Ran | _Lost:
        with self._serving.lock:
            state.ledger.captured += 1
        if isinstance(given, _Lost):
            return given
        try:
            return engine.infer(given, self._clock)
        except ModelError as error:
            return _Lost(given.frame, DropReason.FAILED, str(error))
        except MemoryError:
            return _Lost(given.frame, DropReason.FAILED, "there is no memory for its run")

    def _finish(self, state: SlotState, engine: Engine, outcome: Ran | _Lost) -> Result:
        if isinstance(outcome, _Lost):
            return self._reject(state, engine, outcome)
        name, frame = state.spec.name, outcome.prepared.frame
        try:
            detector = state.detector(frame.camera)
            result = engine.finish(outcome, self._clock, name, detector=detector)
        except ModelError as error:
            return self._reject(state, engine, _Lost(frame, DropReason.FAILED, str(error)))
        except MemoryError:
            what = "there is no memory to decode its outputs"
            return self._reject(state, engine, _Lost(frame, DropReason.FAILED, what))
        with self._serving.lock:
            state.note(result)
        return result

    def _reject(self, state: SlotState, engine: Engine, lost: _Lost) -> Result:
        with self._serving.lock:
            state.drop(lost.frame, lost.reason)
        name, digest = state.spec.name, engine.digest
        return Result(lost.frame, name, digest, None, False, lost.detail, Latencies())


@dataclass(frozen=True, slots=True)
class _Lost:
    """A frame without a result, and why."""

    frame: Frame
    reason: DropReason
    detail: str
