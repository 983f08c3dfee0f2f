"""The live side of the runner: threads around the pure schedule.

Each captured frame of a slot ends in exactly one result or one drop. A job that is out of the
books (its worker was given up) can do nothing more: whatever it brings later is thrown away.

Whatever makes a queue shorter, ends a job or takes the last worker away tells `_space`: a camera
under BLOCK and a `stop` that drains wait there.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from syncline.edge.job import Drop, DropReason, Frame, Result
from syncline.edge.niceness import Slack
from syncline.edge.queue import MAX_LANES, Dropped, Lane, QueuePolicy, Schedule
from syncline.edge.serving import Callbacks, Serving
from syncline.edge.slot import ModelSlot
from syncline.edge.watchdog import Watchdog
from syncline.edge.worker import Job, Worker
from syncline.errors import DeadlineError, InferenceError, ModelError, SynclineError, UsageError
from syncline.sensors.jpeg import JpegPicture
from syncline.timebase import NS_PER_S, RawClock

MAX_ABANDONED = 8
"""Hung threads alive at once before the runner gives up and its state becomes `failed`."""

_SHADOW_GRACE_NS = NS_PER_S // 4
_log = logging.getLogger(__name__)


class Dispatcher:
    """Hands frames to workers.

    Args:
        serving: The models.
        clock: Raw time.
        callbacks: Whom to tell.
        workers: Number of worker threads.
    """

    def __init__(
        self, serving: Serving, clock: RawClock, callbacks: Callbacks, workers: int
    ) -> None:
        self.serving = serving
        self._clock = clock
        self._tell = callbacks
        self._count = workers
        self._lock = serving.lock
        self._work = threading.Condition(self._lock)
        self._space = threading.Condition(self._lock)
        self._schedule = Schedule()
        self._slack = Slack()
        self._has_shadows = any(state.spec.shadow_of for state in serving.slots.values())
        self._jobs: dict[int, Job] = {}
        self._workers: list[Worker] = []
        self._abandoned: list[Worker] = []
        self._watchdog: Watchdog | None = None
        self._numbers = 0
        self._idle = 0
        self._accepting = self._stopping = False

    def start(self) -> None:
        """Start the threads; the models must be loaded."""
        with self._lock:
            self._accepting, self._stopping = True, False
            self._workers = [Worker(self, f"edge-worker-{i}") for i in range(self._count)]
        self._watchdog = Watchdog(self._clock, self._on_stop, self._on_hang)
        self._watchdog.start()
        for worker in self._workers:
            worker.start()

    def stop(self, *, drain: bool, timeout_s: float) -> None:
        """Take no more frames, finish or drop those that wait, end the threads."""
        told: list[Drop] = []
        with self._lock:
            self._accepting = False
            self._space.notify_all()
            for lane in self._schedule.lanes.values():
                if lane.shadow:
                    self._note(lane, lane.queue.drain(), told)
            if drain:
                self._space.wait_for(self._is_drained, timeout_s)
            self._stopping = True
            for lane in self._schedule.lanes.values():
                self._note(lane, lane.queue.drain(), told)
            for job in self._jobs.values():
                job.stop.stop()
            self._work.notify_all()
            workers = list(self._workers)
        self._tell_drops(told)
        for worker in workers:
            if worker.ident is not None and worker is not threading.current_thread():
                worker.join(timeout_s)
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None

    # Frames come in.

    def submit(self, frame: Frame) -> int:
        """See `Runner.submit`."""
        self._decode_ahead(frame)
        held = 0
        told: list[Drop] = []
        due: list[str] = []
        with self._lock:
            for state in self.serving.slots.values():
                if state.spec.shadow_of or not state.spec.sees(frame.camera):
                    continue
                lane = self._lane(state.spec, frame.camera)
                if self._holds_back(lane):
                    if held:
                        self._wake(held)  # the slots before this one do not wait for it
                    self._space.wait_for(partial(self._may_go, lane))
                if not self._accepting:
                    break
                state.ledger.captured += 1
                if state.recovery.is_due(frame.raw_ns):
                    due.append(lane.slot)
                dropped = lane.offer(frame)
                self._note(lane, dropped, told)
                held += all(given is not frame for given, _ in dropped)
            if held:
                self._wake(held)
        self._tell_drops(told)
        for slot in due:
            self.serving.recover(slot)
        return held

    def _decode_ahead(self, frame: Frame) -> None:
        """A camera's thread decodes its JPEGs while the workers infer: two stages.

        Only what is expected to be run: decoding costs more than many a model.
        """
        if not isinstance(frame.bgr, JpegPicture):
            return
        with self._lock:
            now_ns = self._clock.raw_ns()
            engines = [
                state.engine
                for state in self.serving.slots.values()
                if state.engine is not None
                and not state.spec.shadow_of
                and state.spec.sees(frame.camera)
                and self._schedule.will_run(
                    self._lane(state.spec, frame.camera), frame, now_ns, self._count
                )
            ]
        for engine in engines:
            engine.decode_ahead(frame)

    def _holds_back(self, lane: Lane) -> bool:
        """Whether a camera must wait: only while somebody is there to make space."""
        blocks = lane.queue.policy is QueuePolicy.BLOCK and lane.queue.is_full
        return blocks and self._accepting and bool(self._workers)

    def _may_go(self, lane: Lane) -> bool:
        return not self._holds_back(lane)

    def _is_drained(self) -> bool:
        return not (self._schedule.pending and self._workers)

    def _lane(self, spec: ModelSlot, camera: str) -> Lane:
        key = (spec.name, camera)
        lane = self._schedule.lanes.get(key)
        if lane is None:
            if len(self._schedule.lanes) >= MAX_LANES:
                raise UsageError(
                    f"camera {camera!r}: the runner already holds {MAX_LANES} lanes",
                    remedy="Use fewer cameras or models",
                )
            lane = self._schedule.lanes[key] = spec.lane(camera)
        return lane

    def _wake(self, count: int) -> None:
        """Find somebody for new primary frames, and end shadow work.

        That is ended though another worker is idle: it would go on on cores, caches and memory
        that the primary models use now, and only slack is its.
        """
        self._work.notify(count)
        for job in self._jobs.values():
            if job.lane.shadow and not job.stop.stopped:
                job.stop.stop()
                self._slack.recall(job.worker.native_id)
                if self._watchdog is not None:
                    self._watchdog.arm(job.number, None, self._clock.raw_ns() + _SHADOW_GRACE_NS)

    # Workers.

    def take(self, worker: Worker) -> Job | None:
        """The next job for a worker; waits for one. None = no more."""
        while True:
            told: list[Drop] = []
            with self._lock:
                job = self._next(worker, told)
                if job is None and not told:
                    return None
            self._tell_drops(told)
            if job is not None:
                return job

    def _next(self, worker: Worker, told: list[Drop]) -> Job | None:
        """A job, or None: with drops to be told first, or without because it is over."""
        while not (worker.abandoned or self._stopping):
            now_ns = self._clock.raw_ns()
            lane, dropped = self._schedule.next(now_ns)
            for late_lane, drop in dropped:
                self._note(late_lane, [drop], told)
            if dropped:
                self._space.notify_all()  # all may have been late: then no job begins to say so
            if lane is not None:
                return self._begin(worker, lane, now_ns)
            if told:
                return None
            self._wait(now_ns)
        return None

    def _wait(self, now_ns: int) -> None:
        wake_ns = self._schedule.wake_ns(now_ns)
        self._idle += 1
        self._work.wait(None if wake_ns is None else max(wake_ns - now_ns, 0) / NS_PER_S)
        self._idle -= 1

    def _begin(self, worker: Worker, lane: Lane, now_ns: int) -> Job:
        state = self.serving.slots[lane.slot]
        assert state.engine is not None, "workers start after the models are loaded"
        frame = lane.queue.take()
        self._numbers += 1
        worker.stop.renew()  # under the lock, as all who stop a job: none has the job before
        job = Job(self._numbers, lane, state, frame, state.engine, worker)
        self._jobs[job.number] = job
        if self._watchdog is not None:
            hang_ns = state.spec.hang_at_ns(frame.raw_ns, now_ns)
            self._watchdog.arm(job.number, state.spec.stop_at_ns(frame.raw_ns), hang_ns)
        self._space.notify_all()
        return job

    def execute(self, job: Job) -> None:
        """Run a job and tell how it ended."""
        outcome = self._attempt(job)
        if self._watchdog is not None:
            self._watchdog.disarm(job.number)
        with self._lock:
            if self._jobs.pop(job.number, None) is None:
                return  # its worker was given up and the frame counted as lost
            told: list[Drop] = []
            if isinstance(outcome, Result):
                job.state.note(outcome)
                job.lane.learn_service(outcome.latencies.service_ns)
            else:
                self._note(job.lane, [(job.frame, outcome[0])], told, outcome[1])
            ails = self.serving.judge(job.state, job.engine, outcome, job.run_error)
        try:
            if ails:
                self.serving.recover(job.lane.slot)
            if isinstance(outcome, Result):
                self._tell_result(job, outcome)
            self._tell_drops(told)
        finally:
            self._release(job.lane)

    def _attempt(self, job: Job) -> Result | tuple[DropReason, str]:
        """The result, or why there is none."""
        try:
            with self._slack if job.lane.shadow else nullcontext():
                return self._run(job)
        except DeadlineError as error:
            return self._stop_reason(job.lane), str(error)
        except (ModelError, MemoryError) as error:
            job.run_error = error.message if isinstance(error, InferenceError) else ""
            return DropReason.FAILED, str(error)
        except SynclineError as error:
            return DropReason.BAD_FRAME, str(error)
        except Exception as error:  # noqa: BLE001 - one frame must not take the worker with it
            _log.exception(
                "slot %s: frame %d of %s", job.lane.slot, job.frame.index, job.lane.camera
            )
            return DropReason.FAILED, f"{type(error).__name__}: {error}"

    def _run(self, job: Job) -> Result | tuple[DropReason, str]:
        lane = job.lane
        prepared = job.engine.prepare(job.frame, job.worker.preprocessor(job), self._clock)
        if lane.queue.is_late(job.frame, self._clock.raw_ns()):
            return (DropReason.SHED if lane.shadow else DropReason.LATE), ""
        return job.engine.run(
            prepared,
            self._clock,
            lane.slot,
            stop=job.stop,
            detector=job.state.detector(lane.camera),
            shadow=lane.shadow,
            queued=True,
        )

    def _stop_reason(self, lane: Lane) -> DropReason:
        if lane.shadow:
            return DropReason.SHED
        return DropReason.STOPPED if self._stopping else DropReason.TIMEOUT

    def _release(self, lane: Lane) -> None:
        with self._lock:
            lane.busy = False
            if len(lane.queue) and self._idle:
                self._work.notify()
            self._space.notify_all()

    # Results and drops go out.

    def _tell_result(self, job: Job, result: Result) -> None:
        self._call(lambda: self._tell.on_result(result))
        primary = job.frame.primary
        if primary is not None:
            self._call(lambda: self._tell.on_shadow(primary, result))
        elif result.valid and self._has_shadows:
            self._offer_shadow(result)

    def _offer_shadow(self, result: Result) -> None:
        told: list[Drop] = []
        with self._lock:
            if self._stopping:
                return
            for state in self.serving.slots.values():
                if state.spec.shadow_of != result.slot:
                    continue
                lane = self._lane(state.spec, result.frame.camera)
                state.ledger.captured += 1
                judged = dataclasses.replace(result.frame, primary=result)
                self._note(lane, lane.offer(judged), told)
        self._tell_drops(told)

    def _note(self, lane: Lane, dropped: list[Dropped], told: list[Drop], detail: str = "") -> None:
        """Enter drops into the books; they are told after the lock is released."""
        state = self.serving.slots[lane.slot]
        now_ns = self._clock.raw_ns()
        for frame, reason in dropped:
            state.drop(frame, reason)
            told.append(Drop(lane.slot, frame.camera, frame.index, now_ns, reason, detail))

    def _tell_drops(self, drops: list[Drop]) -> None:
        for drop in drops:
            self._call(partial(self._tell.on_drop, drop))

    def _call(self, callback: Callable[[], None]) -> None:
        """A callback that fails must not take the worker with it."""
        try:
            callback()
        except Exception:  # noqa: BLE001 - whatever it is, it is not this worker's
            _log.exception("a callback of the runner failed")
            with self._lock:
                self.serving.counters["callback-failed"] += 1

    # The watchdog speaks.

    def _on_stop(self, number: int) -> None:
        with self._lock:
            job = self._jobs.get(number)
            if job is not None:
                job.stop.stop()

    def _on_hang(self, number: int) -> None:
        told: list[Drop] = []
        with self._lock:
            job = self._jobs.pop(number, None)
            if job is None:
                return
            job.worker.abandoned = True
            self._note(job.lane, [(job.frame, DropReason.HANG)], told, "its worker hangs")
            self.serving.counters["worker-restarts"] += 1
            job.lane.busy = False
            replacement = self._replace(job.worker)
            self._space.notify_all()
        _log.error(
            "slot %s: the worker with frame %d of %s hangs; the frame is lost, %s",
            job.lane.slot,
            job.frame.index,
            job.lane.camera,
            "a new worker starts" if replacement else "no more workers are started",
        )
        if replacement is not None:
            replacement.start()
            self.serving.recover(job.lane.slot, hung=True)
        self._tell_drops(told)

    def _replace(self, worker: Worker) -> Worker | None:
        self._workers.remove(worker)
        self._abandoned = [w for w in self._abandoned if w.is_alive()]
        self._abandoned.append(worker)
        if len(self._abandoned) > MAX_ABANDONED:
            self.serving.failure = f"{len(self._abandoned)} workers hang"
            return None
        replacement = Worker(self, worker.name)
        self._workers.append(replacement)
        return replacement
