"""Speed as a ratio: CPU time of one thread, variants interleaved in one process, best of N.

Wall-clock time of one variant after the other says more about the neighbours than about the
models. Thread CPU time with the variants taking turns holds on a loaded machine too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from syncline.cloud.models.graph import serialise
from syncline.cloud.models.runtime import Array, GraphSession, random_feeds
from syncline.timebase import NS_PER_S

MIN_RUNS = 5
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Timing:
    """CPU time of one run, one thread.

    Attributes:
        name: Of the variant.
        best_ms: Fastest run.
        median_ms: Median run.
        runs: How many were taken.
    """

    name: str
    best_ms: float
    median_ms: float
    runs: int


def measure(
    jobs: Mapping[str, Callable[[], object]],
    cpu_ns: Callable[[], int],
    *,
    runs: int = 15,
    budget_s: float = 60.0,
) -> dict[str, Timing]:
    """Time jobs in turns: each round runs every job once, the first round does not count.

    Args:
        jobs: By name; what they do must happen in the calling thread.
        cpu_ns: CPU time of this thread in nanoseconds, such as `time.thread_time_ns`.
        runs: Rounds wanted.
        budget_s: CPU seconds after which fewer rounds, at least `MIN_RUNS`, are enough.
    """
    spent: dict[str, list[int]] = {name: [] for name in jobs}
    start = cpu_ns()
    for round_number in range(runs + 1):
        for name, job in jobs.items():
            before = cpu_ns()
            job()
            if round_number:
                spent[name].append(cpu_ns() - before)
        if round_number >= MIN_RUNS and cpu_ns() - start > budget_s * NS_PER_S:
            break
    return {name: _timing(name, values) for name, values in spent.items()}


def _timing(name: str, values_ns: Sequence[int]) -> Timing:
    ordered = sorted(values_ns)
    middle = ordered[len(ordered) // 2]
    return Timing(name, ordered[0] / _NS_PER_MS, middle / _NS_PER_MS, len(ordered))


def compare_models(
    models: Mapping[str, onnx.ModelProto],
    cpu_ns: Callable[[], int],
    *,
    feeds: Mapping[str, Mapping[str, Array]] | None = None,
    runs: int = 15,
    budget_s: float = 60.0,
) -> dict[str, Timing]:
    """`measure` for graphs.

    Args:
        models: By name.
        cpu_ns: CPU time of this thread, nanoseconds.
        feeds: Inputs by the models' names; None = random input of each one's kind. Where boxes are
            suppressed in the graph the content matters, so real frames are better.
        runs: See `measure`.
        budget_s: See `measure`.
    """
    jobs: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        session = GraphSession(serialise(model))
        jobs[name] = _job(session, feeds[name] if feeds is not None else random_feeds(session))
    return measure(jobs, cpu_ns, runs=runs, budget_s=budget_s)


def _job(session: GraphSession, feed: Mapping[str, Array]) -> Callable[[], object]:
    return lambda: session.run(feed)
