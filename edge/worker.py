"""A worker thread, and the job in its hands."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

from syncline.edge.engine import Engine
from syncline.edge.job import Frame
from syncline.edge.preprocess import Preprocessor
from syncline.edge.queue import Lane
from syncline.edge.session import StopSwitch
from syncline.edge.slot import SlotState


@dataclass(eq=False)
class Job:
    """One frame in the hands of a worker.

    Attributes:
        number: Counts up.
        lane: Where it came from.
        state: Its slot.
        frame: The frame.
        engine: The model that serves it, as of when it was taken.
        worker: Who holds it.
        run_error: What the runtime said when its run failed.
    """

    number: int
    lane: Lane
    state: SlotState
    frame: Frame
    engine: Engine
    worker: Worker
    run_error: str = ""

    @property
    def stop(self) -> StopSwitch:
        """Ends its run."""
        return self.worker.stop


class JobSource(Protocol):
    """Where a worker gets its jobs."""

    def take(self, worker: Worker) -> Job | None:
        """The next job; waits for one. None = no more."""
        ...

    def execute(self, job: Job) -> None:
        """Run a job and tell how it ended."""
        ...


class Worker(threading.Thread):
    """Takes jobs until there are no more, or until it is given up.

    Attributes:
        stop: Ends the run of the job in its hands.
        abandoned: It was given up.
    """

    def __init__(self, jobs: JobSource, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._jobs = jobs
        self._preprocessors: dict[str, tuple[Engine, Preprocessor]] = {}
        self.stop = StopSwitch()
        self.abandoned = False

    def run(self) -> None:
        """Thread body."""
        while (job := self._jobs.take(self)) is not None:
            self._jobs.execute(job)

    def preprocessor(self, job: Job) -> Preprocessor:
        """This worker's preprocessor for the job's model."""
        known = self._preprocessors.get(job.lane.slot)
        if known is None or known[0] is not job.engine:
            known = (job.engine, job.engine.preprocessor())
            self._preprocessors[job.lane.slot] = known
        return known[1]
