"""How threads stand against other programs: with the right to go first, and without."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from syncline.edge import niceness
from syncline.edge.job import Result
from syncline.edge.runner import Callbacks, ModelSlot, Runner

from . import tiny
from .harness import CLOCK, Told, bright, slow_slot

_SAYS = """
import os, sys, threading
from syncline.edge import niceness
if len(sys.argv) > 2:
    os.setresuid(65534, 65534, 65534)
got = [niceness.ask(int(sys.argv[1]))]
thread = threading.Thread(
    target=lambda: got.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
)
thread.start()
thread.join()
with niceness.Slack():
    got.append(os.getpriority(os.PRIO_PROCESS, 0))
got.append(os.getpriority(os.PRIO_PROCESS, 0))
print(got)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="niceness per thread is Linux's")


@pytest.fixture(scope="module")
def _may_go_first() -> None:
    probe = "import os; os.setpriority(os.PRIO_PROCESS, 0, -5)"
    if subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode != 0:
        pytest.skip("needs the right to a niceness below 0")


def _said(*words: str, before: tuple[str, ...] = ()) -> str:
    """Niceness asked for, of a thread started then, in slack, and after it."""
    command = [*before, sys.executable, "-c", _SAYS, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.usefixtures("_may_go_first")
def test_threads_inherit_what_was_asked_for_and_slack_steps_back() -> None:
    assert _said("-5") == "[-5, -5, 0, -5]"


@pytest.mark.usefixtures("_may_go_first")
def test_threads_that_libraries_started_before_are_asked_for_too() -> None:
    code = """
import os, threading
end = threading.Event()
early = threading.Thread(target=end.wait)
early.start()
from syncline.edge import niceness
got = niceness.ask_for_all(-5)
print(got, os.getpriority(os.PRIO_PROCESS, early.native_id))
end.set()
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "-5 -5"


def test_one_that_it_was_started_with_stays() -> None:
    assert _said("-5", before=("nice", "-n", "7")) == "[7, 7, 7, 7]"
    assert _said("3") == "[3, 3, 3, 3]"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give its rights up")
def test_without_the_right_nothing_changes() -> None:
    assert _said("-5", "nobody") == "[0, 0, 0, 0]"


@pytest.mark.usefixtures("_may_go_first")
def test_what_the_right_does_not_reach_is_not_left() -> None:
    """Started below 0 and unable to come back there: slack work stays where it is."""
    left = _SAYS.replace(
        "got = [",
        "os.setpriority(os.PRIO_PROCESS, 0, -5); os.setresuid(65534, 65534, 65534)\ngot = [",
    )
    command = [sys.executable, "-c", left, "-9"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert said == "[-5, -5, -5, -5]"


@pytest.mark.usefixtures("_may_go_first")
def test_edge_36_a_shadow_goes_before_nobody(tmp_path: Path) -> None:
    """edge-36: its worker steps back for it and is back when the next frame is run."""
    shadow_runs: list[int] = []
    frame_runs: list[int] = []
    told = Told()

    def on_result(result: Result) -> None:
        if not result.shadow:
            frame_runs.append(os.getpriority(os.PRIO_PROCESS, 0))
        told.callbacks().on_result(result)

    def work() -> None:
        niceness.ask(-5)
        main = ModelSlot(
            name="main", bundle=tiny.bundle(tmp_path / "m", tiny.scorer(), tiny.scores_manifest())
        )
        slow = slow_slot(tmp_path, rounds=20_000)
        shadow = dataclasses.replace(slow, name="shadow", shadow_of="main")
        runner = Runner([main, shadow], clock=CLOCK, callbacks=Callbacks(on_result=on_result))
        runner.start()
        (worker,) = (t for t in threading.enumerate() if t.name == "edge-worker-0")
        assert worker.native_id is not None
        for index in range(3):
            runner.submit(bright(index, 255))
            told.wait(lambda: len(frame_runs) == index + 1)  # noqa: B023 - waits in this turn
            until_s = (
                time.monotonic() + 10.0
            )  # the shadow takes the frame and would run for seconds
            while (now := os.getpriority(os.PRIO_PROCESS, worker.native_id)) < 0:
                if time.monotonic() > until_s:
                    break
            shadow_runs.append(now)
        runner.stop(drain=False)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert frame_runs == [-5] * 3
    assert shadow_runs == [0] * 3
