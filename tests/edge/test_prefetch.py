"""What runs around the model in a thread: order, errors in their place, nothing left over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncline.edge.prefetch import around
from syncline.edge.runner import ModelSlot, Runner

from . import tiny
from .harness import CLOCK, frame

_ITEMS = 12


class Steps:
    """Three steps that note what they did; one of them may fail at one item."""

    def __init__(self, failing: str = "", at: int = -1) -> None:
        self.failing, self.at = failing, at
        self.done: dict[str, list[int]] = {"before": [], "work": [], "after": []}
        self.threads: dict[str, set[str]] = {"before": set(), "work": set(), "after": set()}
        self.most_alive = 0

    def _do(self, step: str, item: int) -> int:
        if step == self.failing and item == self.at:
            raise ValueError(f"{step} {item}")
        self.done[step].append(item)
        self.threads[step].add(threading.current_thread().name)
        self.most_alive = max(self.most_alive, len(self.done["before"]) - len(self.done["after"]))
        return item

    def before(self, item: int) -> int:
        return self._do("before", item)

    def work(self, item: int) -> int:
        return self._do("work", item)

    def after(self, item: int) -> int:
        return self._do("after", item)

    def run(self, items: Iterator[int]) -> Iterator[int]:
        return around(items, self.before, self.work, self.after)


@given(st.integers(0, _ITEMS))
@settings(max_examples=20, deadline=None)
def test_results_are_those_of_a_plain_loop(count: int) -> None:
    steps = Steps()
    assert list(steps.run(iter(range(count)))) == list(range(count))
    assert all(done == list(range(count)) for done in steps.done.values())
    assert steps.most_alive <= 3


def test_work_stays_here_and_the_rest_goes_to_the_thread() -> None:
    steps = Steps()
    list(steps.run(iter(range(_ITEMS))))
    here = threading.current_thread().name
    assert steps.threads["work"] == {here}
    assert steps.threads["before"] == {"edge-prefetch"}
    assert steps.threads["after"] <= {"edge-prefetch", here}  # the last ones, when it has ended


@pytest.mark.parametrize("at", [0, 1, 5, _ITEMS - 1])
@pytest.mark.parametrize("failing", ["before", "work", "after"])
def test_an_error_comes_after_all_results_before_it(failing: str, at: int) -> None:
    steps, got = Steps(failing, at), []
    with pytest.raises(ValueError, match=f"{failing} {at}"):  # noqa: PT012 - what came before counts
        for result in steps.run(iter(range(_ITEMS))):
            got.append(result)
    assert got[:at] == list(range(at))
    assert "edge-prefetch" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("taken", [1, 4])
def test_leaving_early_finishes_what_was_worked_on(taken: int) -> None:
    steps = Steps()
    results = steps.run(iter(range(1000)))
    assert list(islice(results, taken)) == list(range(taken))
    results.close()  # type: ignore[attr-defined]
    assert steps.done["after"] == steps.done["work"]
    assert "edge-prefetch" not in [thread.name for thread in threading.enumerate()]


def test_a_replay_that_is_left_keeps_its_books(tmp_path_factory: pytest.TempPathFactory) -> None:
    slot = ModelSlot(name="main", bundle=tiny.bundle(tmp_path_factory.mktemp("b") / "m"))
    runner = Runner([slot], clock=CLOCK)
    results = runner.process_all((frame(i) for i in range(100)), prefetch=True)
    assert [r.frame.index for r in islice(results, 5)] == list(range(5))
    results.close()  # type: ignore[attr-defined]
    (health,) = runner.health().slots
    assert health.captured == health.processed >= 5
